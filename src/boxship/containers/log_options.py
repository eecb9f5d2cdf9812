"""How a container's output is kept: drivers and their options."""

from __future__ import annotations

from boxship.containers.config import HostConfig
from boxship.containers.model import Container
from boxship.errors import Invalid, Unsupported
from boxship.runtime.protocol import Log

LOG_DRIVERS = frozenset({"json-file", "local", "none"})
_OPTIONS = frozenset({"max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag", "compress", "mode"})
_DEFAULT_SIZE = 20 << 20
_DEFAULT_FILES = 5


def check(host: HostConfig) -> None:
    """Raises `Invalid` for an option that does not exist, `Unsupported` for one that is not done here."""
    for option, value in (host.log_config.config or {}).items():
        if option not in _OPTIONS or host.log_config.type == "none":
            raise Invalid(f"unknown log opt '{option}' for {host.log_config.type} log driver")
        if option in ("compress", "labels-regex", "env-regex", "tag") and value not in ("", "false"):
            raise Unsupported(f"--log-opt {option} is not supported")
        if option == "mode" and value != "blocking":
            raise Unsupported(f"--log-opt mode={value} is not supported")
        if option == "max-file" and (not value.isdecimal() or int(value) < 1):
            raise Invalid(f"invalid value for max-file: {value!r}: expected a number of at least 1")
    parse_size((host.log_config.config or {}).get("max-size", "0"))


def log_of(container: Container, path: str) -> Log:
    """What the keeper is told about a container's log at `path` (empty: none)."""
    options = container.host.log_config.config or {}
    labels, config = container.config.labels or {}, dict(e.partition("=")[::2] for e in container.config.env or [])
    attributes = {key: labels[key] for key in options.get("labels", "").split(",") if key in labels}
    attributes |= {key: config[key] for key in options.get("env", "").split(",") if key in config}
    size = parse_size(options.get("max-size", str(_DEFAULT_SIZE)))
    files = int(options.get("max-file", "1" if "max-size" in options else str(_DEFAULT_FILES)))
    return Log(path, size, files, attributes or None)


def parse_size(text: str) -> int:
    """Bytes from `10m`, `1g`, `-1`; raises `Invalid`."""
    lowered = text.strip().lower().removesuffix("b")
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(lowered[-1:], 1)
    digits = lowered[:-1] if factor > 1 else lowered
    try:
        return max(0, int(float(digits) * factor))
    except ValueError:
        raise Invalid(f"invalid size: '{text}'") from None
