"""`-v`, `--mount`, `--tmpfs`: what a container sees of the host."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from typing import Any

from boxship.cli.values import csv_fields, parse_size
from boxship.errors import Invalid

Document = dict[str, Any]

_TRUTH = {"": True, "1": True, "true": True, "0": False, "false": False}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


def volumes(values: Sequence[str]) -> tuple[list[str], Document]:
    """`-v`: binds as the engine takes them, and the paths of anonymous volumes. Raises `Invalid`."""
    binds: list[str] = []
    anonymous: Document = {}
    for text in values:
        source, separator, rest = text.partition(":")
        if not separator:
            if not text.startswith("/"):
                raise Invalid(f"invalid volume specification: '{text}': the path in the container must be absolute")
            anonymous[text] = {}
        else:
            if source in (".", "..") or source.startswith(("./", "../")):
                source = os.path.abspath(source)
            binds.append(f"{source}:{rest}")
    return binds, anonymous


def tmpfs(values: Sequence[str]) -> dict[str, str]:
    """`--tmpfs PATH[:options]`."""
    return dict(text.partition(":")[::2] for text in values)


def mount(text: str) -> Document:
    """`--mount type=…,source=…,target=…`; raises `Invalid` in Docker's words."""
    found: Document = {"Type": "volume"}
    for name, value, given in csv_fields(text):
        key = _ALIASES.get(name, name)
        if not given and key not in ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src"):
            raise Invalid(f"invalid field '{name}' must be a key=value pair")
        _set(found, key, value, f"{name}={value}")
    if not found.get("Target"):
        raise Invalid(f'invalid argument "{text}" for --mount: target is required')
    if found["Type"] == "bind" and found.get("Source", "").startswith("."):
        found["Source"] = os.path.abspath(found["Source"])
    for kind, options in (
        ("bind", "BindOptions"),
        ("volume", "VolumeOptions"),
        ("tmpfs", "TmpfsOptions"),
        ("image", "ImageOptions"),
    ):
        if options in found and found["Type"] != kind:
            raise Invalid(f"cannot mix '{kind}-*' options with mount type '{found['Type']}'")
    return found


def _set(found: Document, key: str, value: str, whole: str) -> None:
    if key in ("type", "source", "target"):
        found[key.capitalize()] = value.lower() if key == "type" else value
    elif key == "readonly":
        found["ReadOnly"] = _truth(value, whole)
    elif key == "consistency":
        found["Consistency"] = value
    elif key.startswith("bind-"):
        _set_bind(found.setdefault("BindOptions", {}), key, value, whole)
    elif key.startswith("volume-"):
        _set_volume(found.setdefault("VolumeOptions", {}), key, value, whole)
    elif key == "tmpfs-size":
        found.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
    elif key == "tmpfs-mode":
        if not re.fullmatch("[0-7]{1,5}", value):
            raise Invalid(f"invalid value for {key}: {value}")
        found.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
    elif key == "image-subpath":
        found.setdefault("ImageOptions", {})["Subpath"] = value
    else:
        raise Invalid(f"unknown option '{key}' in '{whole}'")


def _set_bind(options: Document, key: str, value: str, whole: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _truth(value, whole)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _truth(value, whole)
    elif key == "bind-recursive":
        chosen = {"enabled": {}, "disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
                  "readonly": {"ReadOnlyForceRecursive": True}}.get(value)  # fmt: skip
        if chosen is None:
            raise Invalid(f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")')
        options.update(chosen)
    else:
        raise Invalid(f"unknown option '{key}' in '{whole}'")


def _set_volume(options: Document, key: str, value: str, whole: str) -> None:
    name, _, text = value.partition("=")
    if key == "volume-nocopy":
        options["NoCopy"] = _truth(value, whole)
    elif key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-label":
        options.setdefault("Labels", {})[name] = text
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = text
    else:
        raise Invalid(f"unknown option '{key}' in '{whole}'")


def _truth(value: str, whole: str) -> bool:
    found = _TRUTH.get(value.lower())
    if found is None:
        raise Invalid(f"invalid value for '{whole}': expected true or false")
    return found


def device(text: str) -> Document:
    """`--device /dev/x[:/dev/y[:rwm]]`; raises `Invalid`."""
    parts = text.split(":")
    permissions = parts.pop() if len(parts) > 1 and re.fullmatch("[rwm]{1,3}", parts[-1]) else "rwm"
    if not 1 <= len(parts) <= 2 or not parts[0]:
        raise Invalid(f"invalid device specification: {text}")
    return {"PathOnHost": parts[0], "PathInContainer": posixpath.normpath(parts[-1]), "CgroupPermissions": permissions}
