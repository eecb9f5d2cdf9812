"""The daemon's settings: flags as dockerd has them, and the same keys in daemon.json."""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from boxship.errors import Invalid, Unsupported

DEFAULT_DATA_ROOT = Path("/var/lib/boxship")
DEFAULT_EXEC_ROOT = Path("/run/boxship")
DEFAULT_CONFIG_FILE = Path("/etc/boxship/daemon.json")
DEFAULT_HOST = "unix:///run/boxship/boxship.sock"
RUNTIMES = ("boxship", "runc", "io.containerd.runc.v2")
"""Names of the one runtime there is: clients ask for it as they know it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One field a setting; a key of daemon.json is the field's name with hyphens."""

    hosts: list[str] = field(default_factory=lambda: [DEFAULT_HOST])
    data_root: Path = DEFAULT_DATA_ROOT
    exec_root: Path = DEFAULT_EXEC_ROOT
    pidfile: Path | None = None
    log_level: str = "info"
    debug: bool = False
    group: str = "docker"
    labels: list[str] = field(default_factory=list)
    bip: str = ""
    default_address_pools: list[tuple[str, int]] = field(default_factory=list)
    registry_mirrors: list[str] = field(default_factory=list)
    insecure_registries: list[str] = field(default_factory=list)
    registry_listen: str = ""
    storage_driver: str = ""
    live_restore: bool = False
    default_runtime: str = "boxship"
    log_driver: str = "json-file"
    no_new_privileges: bool = False
    cgroup_parent: str = ""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    shutdown_timeout: int = 15
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""

    @property
    def instance(self) -> str:
        """What tells this daemon's bridges and rules from another's; empty for the default data root."""
        import hashlib

        if self.data_root == DEFAULT_DATA_ROOT:
            return ""
        return hashlib.sha256(str(self.data_root).encode()).hexdigest()[:6]


_RELOADABLE = ("debug", "labels", "live_restore", "insecure_registries", "registry_mirrors", "shutdown_timeout")
_LEVELS = ("debug", "info", "warn", "error", "fatal")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Invalid(message, hint="see boxship daemon --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="boxship daemon", description="The engine: serves the Docker Engine API.", allow_abbrev=False,
                     argument_default=argparse.SUPPRESS)  # fmt: skip
    add = parser.add_argument
    add("-H", "--host", dest="hosts", action="append", metavar="ADDRESS",
        help=f"where to listen: unix://PATH, tcp://HOST:PORT (with TLS only), fd:// (default {DEFAULT_HOST})")  # fmt: skip
    add("--config-file", type=Path, metavar="FILE", help=f"settings in JSON (default {DEFAULT_CONFIG_FILE})")
    add("--data-root", type=Path, metavar="DIR", help=f"images, containers, volumes (default {DEFAULT_DATA_ROOT})")
    add("--exec-root", type=Path, metavar="DIR", help=f"state of the running engine (default {DEFAULT_EXEC_ROOT})")
    add("-p", "--pidfile", type=Path, metavar="FILE", help="where to write the daemon's process id")
    add("-l", "--log-level", metavar="LEVEL", help=f"one of {', '.join(_LEVELS)} (default info)")
    add("-D", "--debug", action="store_true", help="the same as --log-level debug")
    add("-G", "--group", help="the group that may use the unix sockets (default docker, where it exists)")
    add("--label", dest="labels", action="append", metavar="KEY=VALUE", help="a label of the daemon, shown by info")
    add("--bip", metavar="CIDR", help="address and size of the default bridge, such as 172.17.0.1/16")
    add("--default-address-pool", dest="default_address_pools", action="append", metavar="base=CIDR,size=N",
        help="where networks without a subnet take theirs from")  # fmt: skip
    add("--registry-mirror", dest="registry_mirrors", action="append", metavar="URL", help="a mirror of Docker Hub")
    add("--insecure-registry", dest="insecure_registries", action="append", metavar="HOST|CIDR",
        help="a registry that may be spoken to without TLS or with a certificate nobody vouches for")  # fmt: skip
    add("--registry-listen", metavar="HOST:PORT", help="also serve a registry from this engine's store")
    add("-s", "--storage-driver", metavar="DRIVER", help="erofs or overlay2 (default: the best that works)")
    add("--live-restore", action="store_true", help="leave the containers running when the daemon is stopped")
    add("--default-runtime", metavar="NAME", help="the runtime of containers that name none (boxship)")
    add("--add-runtime", metavar="NAME=PATH", help=argparse.SUPPRESS)
    add("--log-driver", metavar="DRIVER", help="json-file, local or none (default json-file)")
    add("--no-new-privileges", action="store_true", help="set no-new-privileges for every container")
    add("--cgroup-parent", metavar="PATH", help="the control group below which containers get theirs (default /boxship)")
    add("--max-concurrent-downloads", type=int, metavar="N", help="layers of a pull at once (default 3)")
    add("--max-concurrent-uploads", type=int, metavar="N", help="layers of a push at once (default 5)")
    add("--shutdown-timeout", type=int, metavar="SECONDS", help="how long containers may take to stop with the daemon (15)")
    add("--tlsverify", action="store_true", help="for tcp://: ask clients for a certificate and verify it")
    add("--tlscacert", metavar="FILE", help="the authority that vouches for clients")
    add("--tlscert", metavar="FILE", help="the daemon's certificate")
    add("--tlskey", metavar="FILE", help="the daemon's key")
    return parser


def parse(arguments: Sequence[str]) -> tuple[Settings, Path]:
    """The settings from flags and file, and the file's path; raises `Invalid`, `Unsupported`."""
    given = vars(_parser().parse_args(arguments))
    file: Path | None = given.pop("config_file", None)
    path = file or DEFAULT_CONFIG_FILE
    document = read_file(path, required=file is not None)
    both = sorted(set(given) & set(document))
    if both:
        names = ", ".join(f"{name.replace('_', '-')}: (from flag: {given[name]}, from file: {document[name]})" for name in both)
        raise Invalid(
            f"unable to configure the daemon with file {path}: the following directives are specified both as a flag"
            f" and in the configuration file: {names}"
        )
    return _checked({**document, **given}), path


def reload(settings: Settings, arguments: Sequence[str]) -> Settings:
    """The settings after a SIGHUP: flags and file are read again, and what may change while the daemon runs is taken over."""
    import dataclasses

    fresh, _ = parse(arguments)
    return dataclasses.replace(settings, **{name: getattr(fresh, name) for name in _RELOADABLE})


def read_file(path: Path, *, required: bool) -> dict[str, Any]:
    """daemon.json by field name; raises `Invalid` with every key that is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise Invalid(f"unable to configure the daemon with file {path}: open {path}: no such file") from None
        return {}
    except OSError as error:
        raise Invalid(f"unable to configure the daemon with file {path}: {(error.strerror or '').lower()}") from error
    try:
        document = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise Invalid(f"unable to configure the daemon with file {path}: {error}") from error
    if not isinstance(document, dict):
        raise Invalid(f"unable to configure the daemon with file {path}: expected a JSON object")
    known = {each.name.replace("_", "-"): each for each in fields(Settings)}
    known["add-runtime"] = known["runtimes"] = known["default-runtime"]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise Invalid(
            f"unable to configure the daemon with file {path}: the following directives don't match any configuration"
            f" option: {', '.join(unknown)}"
        )
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if key == "runtimes":
            name = "add_runtime"
        expected = str(known[key].type)
        _check_type(path, key, value, expected)
        found[name] = Path(value) if "Path" in expected and name != "add_runtime" else value
    return found


def _check_type(path: Path, key: str, value: object, expected: str) -> None:
    kinds: dict[str, tuple[type, str]] = {
        "bool": (bool, "true or false"), "int": (int, "a number"), "str": (str, "a text"), "Path": (str, "a path"),
        "list": (list, "a list"),
    }  # fmt: skip
    kind, words = next(pair for prefix, pair in kinds.items() if expected.startswith(prefix))
    if key == "runtimes":
        kind, words = dict, "an object"
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Invalid(f"unable to configure the daemon with file {path}: {key}: expected {words}, not {json.dumps(value)}")


def _checked(values: dict[str, Any]) -> Settings:
    if values.pop("add_runtime", None):
        raise Unsupported("--add-runtime is not supported", hint="containers run on Boxship's own runtime")
    if values.get("default_runtime", "boxship") not in RUNTIMES:
        raise Unsupported(f"--default-runtime {values['default_runtime']} is not supported", hint="the runtime is boxship")
    values["default_address_pools"] = [_pool(entry) for entry in values.get("default_address_pools", [])]
    for name in ("data_root", "exec_root"):
        if name in values:
            values[name] = Path(values[name]).absolute()
    if parent := values.get("cgroup_parent"):
        if ".." in parent.split("/") or not parent.strip("/"):
            raise Invalid(f"invalid --cgroup-parent: {parent}", hint="a path of a control group, such as /containers")
        values["cgroup_parent"] = "/" + parent.strip("/")
    settings = Settings(**values)
    if settings.log_level not in _LEVELS:
        raise Invalid(f"invalid log level {settings.log_level!r}", hint=f"one of {', '.join(_LEVELS)}")
    if settings.log_driver not in ("json-file", "local", "none"):
        raise Unsupported(f"--log-driver {settings.log_driver} is not supported", hint="one of json-file, local, none")
    for label in settings.labels:
        if "=" not in label:
            raise Invalid(f"bad format for label {label!r}", hint="use KEY=VALUE")
    if settings.bip:
        _check_bip(settings.bip)
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "shutdown_timeout"):
        if getattr(settings, name) < 1:
            raise Invalid(f"invalid {name.replace('_', '-')}: {getattr(settings, name)}", hint="at least 1")
    for host in settings.hosts:
        check_host(host, settings)
    return settings


def _check_bip(text: str) -> None:
    hint = "an IPv4 address of the bridge and the size of its network, such as 172.17.0.1/16"
    try:
        bridge = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise Invalid(f"invalid --bip: {error}", hint=hint) from error
    network = bridge.network
    if not 8 <= network.prefixlen <= 30 or bridge.ip in (network.network_address, network.broadcast_address):
        raise Invalid(f"invalid --bip: {text} leaves no address to the bridge and its containers", hint=hint)


def check_host(host: str, settings: Settings) -> None:
    """Raises `Invalid` for an address that cannot be listened on; TCP is served with verified clients only."""
    scheme, found, rest = host.partition("://")
    if not found or scheme not in ("unix", "tcp", "fd"):
        raise Invalid(f"invalid bind address {host!r}", hint="use unix://PATH, tcp://HOST:PORT or fd://")
    if scheme == "unix" and not rest.startswith("/"):
        raise Invalid(f"invalid bind address {host!r}", hint="a unix socket needs an absolute path")
    if scheme == "tcp":
        name, _, port = rest.rpartition(":")
        if not name or not port.isdecimal():
            raise Invalid(f"invalid bind address {host!r}", hint="use tcp://HOST:PORT")
        missing = [n for n in ("tlsverify", "tlscacert", "tlscert", "tlskey") if not getattr(settings, n)]
        if missing:
            raise Invalid(
                f"{host} needs --{', --'.join(missing)}: whoever reaches the engine is root on this host, so that TCP"
                " is served to clients with a verified certificate only"
            )


def _pool(entry: object) -> tuple[str, int]:
    if isinstance(entry, dict):
        base, size = entry.get("base"), entry.get("size")
    else:
        parts = dict(part.partition("=")[::2] for part in str(entry).split(","))
        base, size = parts.get("base"), parts.get("size")
    try:
        return str(ipaddress.ip_network(str(base))), int(str(size))
    except ValueError as error:
        raise Invalid(f"invalid default address pool {entry!r}: {error}", hint="use base=10.10.0.0/16,size=24") from error
