"""The local driver's options (`type`, `device`, `o`): which there are, and the mount that they ask for."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from boxship.errors import BoxshipError, Invalid, NotFound, Unsupported, from_os_error
from boxship.syscalls import mount as m

_REQUIRED: Final = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
_AT_FDCWD: Final = -100
_ATIME: Final = 0x70

# mount(2) takes these as flags; everything else in `o` is the filesystem's own business
_FLAGS: Final = {
    "ro": m.MS_RDONLY,
    "nosuid": m.MS_NOSUID,
    "nodev": m.MS_NODEV,
    "noexec": m.MS_NOEXEC,
    "sync": m.MS_SYNCHRONOUS,
    "dirsync": m.MS_DIRSYNC,
    "noatime": m.MS_NOATIME,
    "nodiratime": m.MS_NODIRATIME,
    "relatime": m.MS_RELATIME,
    "strictatime": m.MS_STRICTATIME,
    "bind": m.MS_BIND,
    "rbind": m.MS_BIND | m.MS_REC,
}
_CLEARED: Final = {
    "rw": m.MS_RDONLY,
    "suid": m.MS_NOSUID,
    "dev": m.MS_NODEV,
    "exec": m.MS_NOEXEC,
    "async": m.MS_SYNCHRONOUS,
    "atime": m.MS_NOATIME,
    "diratime": m.MS_NODIRATIME,
    "norelatime": m.MS_RELATIME,
    "nostrictatime": m.MS_STRICTATIME,
    "defaults": 0,
}
_PROPAGATION: Final = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
}
_NO_PROPAGATION: Final = frozenset({"shared", "rshared", "unbindable", "runbindable"})
# what a bind can have of its own, without changing the filesystem for everybody: mount_setattr(2)
_OF_A_BIND: Final = {
    m.MS_RDONLY: m.MOUNT_ATTR_RDONLY,
    m.MS_NOSUID: m.MOUNT_ATTR_NOSUID,
    m.MS_NODEV: m.MOUNT_ATTR_NODEV,
    m.MS_NOEXEC: m.MOUNT_ATTR_NOEXEC,
    m.MS_NOATIME: m.MOUNT_ATTR_NOATIME,
    m.MS_STRICTATIME: m.MOUNT_ATTR_STRICTATIME,
    m.MS_RELATIME: 0,
}


def check(options: Mapping[str, str]) -> None:
    """Raise `Invalid` or `Unsupported` for options that cannot become a mount, in Docker's words where it has them."""
    for option in options:
        if option not in (*_REQUIRED, "size"):
            raise Invalid(f'invalid option: "{option}"')
    if "size" in options:
        raise Invalid("quota size requested but no quota support", hint="a tmpfs takes its size in o=size=…")
    for option in options:
        for required in _REQUIRED[option]:
            if not options.get(required):
                raise Invalid(f'missing required option: "{required}"')
    flags, _, data = _parse(options.get("o", ""))
    if flags & m.MS_BIND:
        words = [word for word in options["o"].split(",") if _FLAGS.get(word, 0) & ~(m.MS_BIND | m.MS_REC | sum(_OF_A_BIND))]
        if data or words:
            raise Invalid(f'option "{(data + words)[0]}" does not apply to a bind')
        if not Path(options["device"]).is_absolute():
            raise Invalid(f'the device of a bind must be an absolute path, not "{options["device"]}"')


def attach(options: Mapping[str, str], path: Path) -> None:
    """Mount what the options say at `path`, unless something is mounted there.

    May take as long as a server takes to answer. Raises what the kernel says, with what was to be mounted, and
    `Invalid` for an address that cannot be resolved.
    """
    if is_mounted(path):
        return
    kind, device = options["type"], options["device"]
    flags, propagation, data = _parse(options.get("o", ""))
    if kind.startswith("nfs") or kind == "cifs":
        data = [f"addr={_resolve(word[5:])}" if word.startswith("addr=") else word for word in data]
    target = str(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        m.mount(device, target, kind, flags, ",".join(data) or None)
        try:
            if flags & m.MS_BIND:
                _narrow(target, flags)
            if propagation:
                m.mount("", target, None, propagation)
        except OSError:
            detach(path)
            raise
    except OSError as error:
        raise _failure(error, f"{device}:{path}", flags, data) from error


def _narrow(target: str, flags: int) -> None:
    """Give a new bind the flags that mount(2) does not take with it."""
    attributes = sum(attribute for flag, attribute in _OF_A_BIND.items() if flags & flag)
    times = flags & (m.MS_NOATIME | m.MS_STRICTATIME | m.MS_RELATIME)
    if attributes or times:
        m.set_attributes(_AT_FDCWD, target, add=attributes, clear=_ATIME if times else 0, recursive=bool(flags & m.MS_REC))


def detach(path: Path) -> None:
    """Take the mount at `path` away, at once for whoever opens it next; nothing happens where there is none."""
    while is_mounted(path):
        m.unmount(str(path), m.MNT_DETACH)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at `path`: a look at the path itself could wait for a server for ever."""
    place = re.sub(r"[\\ \t\n]", lambda found: f"\\{ord(found[0]):03o}", str(path.parent.resolve() / path.name))
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").split("\n")
    return any(line.split(" ", 5)[4] == place for line in lines if line)


def _parse(text: str) -> tuple[int, int, list[str]]:
    """The flags, the propagation and the data of mount(2) in an `o`; raises `Unsupported`."""
    flags, propagation, data = 0, 0, []
    for word in filter(None, text.split(",")):
        if word in _NO_PROPAGATION:
            raise Unsupported(f"volume option o={word} is not supported: the engine's mounts stay in it")
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        else:
            data.append(word)
    return flags, propagation, data


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)[0][4][0])
    except OSError as error:
        raise Invalid(
            f"error resolving passed in network volume address: lookup {host}: {(error.strerror or '').lower()}"
        ) from None


def _failure(error: OSError, what: str, flags: int, data: list[str]) -> BoxshipError:
    shown = re.sub(r"(?<=password=)[^,]*", "********", ",".join(data))
    details = (f", flags: {flags:#x}" if flags else "") + (f", data: {shown}" if shown else "")
    message = f"failed to mount local volume: mount {what}{details}"
    if error.errno == errno.ENODEV:
        return Invalid(f"{message}: no such device", hint="this kernel does not know the type")
    failure = from_os_error(OSError(error.errno, error.strerror), message)
    # not 404: for a client that creates a container it would be the image that is missing
    return Invalid(failure.message) if isinstance(failure, NotFound) else failure
