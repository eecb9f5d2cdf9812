"""What a process may do: limits, user, capabilities, seccomp (runtime-spec, config.md, "Process")."""

from __future__ import annotations

import os
import resource
from typing import Any, Final

from boxship.runtime import capabilities, users
from boxship.runtime.failure import StartFailure, describe
from boxship.syscalls import process as p

Spec = dict[str, Any]

_LIMITS: Final[dict[str, int]] = {
    f"RLIMIT_{name}": getattr(resource, f"RLIMIT_{name}")
    for name in (
        "AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO",
        "RTTIME", "SIGPENDING", "STACK",
    )
    if hasattr(resource, f"RLIMIT_{name}")
} | {"RLIMIT_LOCKS": 10}  # fmt: skip


def set_limits(limits: list[Spec]) -> None:
    for limit in limits:
        name, soft, hard = limit["type"], limit["soft"], limit["hard"]
        try:
            resource.setrlimit(_LIMITS[name], (_clamp(soft), _clamp(hard)))
        except KeyError:
            raise StartFailure("limit", f"invalid rlimit type {name}") from None
        except (OSError, ValueError) as error:
            raise StartFailure("limit", f"error setting rlimit {name} to {soft}:{hard}: {error}") from error


def _clamp(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value


def resolve_user(user: Spec) -> users.Identity:
    """The user of the specification, read from the container's own files; call it inside the new root."""
    name = user.get("username") or f"{user.get('uid', 0)}:{user.get('gid', 0)}"
    return users.resolve(name, user.get("additionalGids") or [], _lines("/etc/passwd"), _lines("/etc/group"))


def _lines(path: str) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, errors="surrogateescape") as file:
            return file.read(1 << 22).splitlines()
    except OSError:
        return []


class Confinement:
    """The capabilities, the privileges flag and the filter of one process, applied in the order the kernel needs."""

    def __init__(self, process: Spec, seccomp: bytes | None) -> None:
        sets = process.get("capabilities") or {}
        self._bounding = capabilities.mask(sets.get("bounding") or ())
        self._effective = capabilities.mask(sets.get("effective") or ())
        self._permitted = capabilities.mask(sets.get("permitted") or ())
        self._inheritable = capabilities.mask(sets.get("inheritable") or ())
        self._ambient = capabilities.mask(sets.get("ambient") or ())
        self._no_new_privileges = bool(process.get("noNewPrivileges"))
        self._seccomp = seccomp
        self._last = capabilities.last()

    def apply(self, identity: users.Identity) -> None:
        """Become `identity` with no more than this; raises `StartFailure`."""
        try:
            # without no_new_privs a filter can be laid only while there is CAP_SYS_ADMIN
            if self._seccomp and not self._no_new_privileges:
                p.install_seccomp(self._seccomp)
            for number in range(self._last + 1):
                if not self._bounding >> number & 1:
                    p.prctl(p.PR_CAPBSET_DROP, number)
            p.prctl(p.PR_SET_KEEPCAPS, 1)
            os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
            p.prctl(p.PR_SET_KEEPCAPS, 0)
            root = identity.uid == 0
            ambient = self._ambient
            effective = self._effective if root else ambient
            permitted = self._permitted if root else ambient
            p.set_capabilities(effective & permitted, permitted, self._inheritable | ambient)
            for number in range(64):
                if ambient >> number & 1:
                    p.prctl(p.PR_CAP_AMBIENT, p.PR_CAP_AMBIENT_RAISE, number)
            if self._no_new_privileges:
                p.prctl(p.PR_SET_NO_NEW_PRIVS, 1)
                if self._seccomp:
                    p.install_seccomp(self._seccomp)
        except OSError as error:
            raise StartFailure("user", f"setting up the process's privileges: {describe(error)}", error.errno or 0) from error
