"""`-p` and `--expose`: which ports of a container are reached from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boxship.errors import Invalid

_PROTOCOLS = ("tcp", "udp", "sctp")


def ports(published: Sequence[str], exposed: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """Exposed ports, and where each is bound on the host; raises `Invalid` in Docker's words."""
    opened: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in exposed:
        port, _, protocol = text.partition("/")
        if ":" in port:
            raise Invalid(f"invalid port format for --expose: {text}")
        for number in _range(port, f"invalid range format for --expose: {text}"):
            opened[f"{number}/{_protocol(protocol)}"] = {}
    for text in published:
        rest, _, protocol = _standard(text).partition("/")
        address, host, inside = _split(rest)
        if not inside:
            raise Invalid(f"no port specified: {text}<empty>")
        targets = _range(inside, f"invalid containerPort: {inside}")
        for target, own in zip(targets, _on_host(host, len(targets), text), strict=True):
            key = f"{target}/{_protocol(protocol)}"
            opened[key] = {}
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": own})
    return opened, bindings


def _standard(text: str) -> str:
    """The long form, `published=8080,target=80,protocol=udp`, in the short one."""
    if "=" not in text:
        return text
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = set(fields) - {"published", "target", "protocol", "mode"}
    if unknown or "target" not in fields:
        raise Invalid(f"invalid publish opts format ({text})")
    host = fields.get("published", "")
    return (
        f"{host}:{fields['target']}/{fields.get('protocol', 'tcp')}"
        if host
        else f"{fields['target']}/{fields.get('protocol', 'tcp')}"
    )


def _protocol(text: str) -> str:
    name = text.lower() or "tcp"
    if name not in _PROTOCOLS:
        raise Invalid(f"invalid proto: {text}")
    return name


def _on_host(host: str, count: int, text: str) -> list[str]:
    if not host:
        return [""] * count
    offered = _range(host, f"invalid hostPort: {host}")
    if len(offered) == count:
        return [str(number) for number in offered]
    if count == 1:
        return [host]  # any of them that is free
    raise Invalid(f"invalid ranges specified for container and host Ports: {text}")


def _split(text: str) -> tuple[str, str, str]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        host, _, inside = rest.removeprefix(":").rpartition(":")
        return address, host, inside
    parts = text.split(":")
    return ":".join(parts[:-2]), parts[-2] if len(parts) > 1 else "", parts[-1]


def _range(text: str, message: str) -> list[int]:
    first, separator, last = text.partition("-")
    if not first.isdecimal() or (separator and not last.isdecimal()) or not 0 <= int(first) <= int(last or first) <= 65535:
        raise Invalid(message)
    return list(range(int(first), int(last or first) + 1))
