"""Seccomp profiles compiled to BPF by libseccomp, once for each profile and set of capabilities.

A profile has Docker's form: rules with conditions on capabilities, architecture and kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from boxship.errors import Invalid, Unsupported

Profile = dict[str, Any]

_DEFAULT: Final = Path(__file__).parent / "seccomp-default.json"
_CACHE_VERSION: Final = "2"

_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS: Final = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_MACHINES: Final = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64", ("x86_64", "x86", "x32")),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64", ("aarch64", "arm")),
}
_EPERM: Final = 1
_NO_NEW_PRIVILEGES_ATTRIBUTE: Final = 3


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


class Seccomp:
    """Compiles profiles; programs are kept in memory and below `cache`."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._programs: dict[str, bytes] = {}
        self._library: ctypes.CDLL | None = None
        self._default: bytes | None = None

    def default(self, capabilities: Iterable[str]) -> bytes:
        """The default profile's program for a process with these capabilities."""
        if self._default is None:
            self._default = _DEFAULT.read_bytes()
        return self.program(self._default, capabilities)

    def program(self, profile: bytes, capabilities: Iterable[str]) -> bytes:
        """The program of a profile (JSON); raises `Invalid` for a malformed one."""
        held = sorted(capabilities)
        text = "\n".join([_CACHE_VERSION, os.uname().release, *held]).encode()
        key = hashlib.sha256(text + b"\0" + profile).hexdigest()
        program = self._programs.get(key)
        if program is None:
            path = self._cache / f"{key}.bpf"
            program = _cached(path)
            if program is None:
                program = self._compile(_parse(profile), frozenset(held))
                self._cache.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{os.getpid()}")
                temporary.write_bytes(hashlib.sha256(program).digest() + program)
                temporary.rename(path)
            self._programs[key] = program
        return program

    def _load(self) -> ctypes.CDLL:
        if self._library is None:
            try:
                library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
            except OSError:
                raise Unsupported(
                    "seccomp profiles need libseccomp", hint="install libseccomp2, or run with seccomp=unconfined"
                ) from None
            library.seccomp_init.restype = ctypes.c_void_p
            for name in (
                "seccomp_rule_add_array",
                "seccomp_release",
                "seccomp_export_bpf",
                "seccomp_arch_add",
                "seccomp_attr_set",
            ):
                getattr(library, name).argtypes = None
            self._library = library
        return self._library

    def _compile(self, profile: Profile, capabilities: frozenset[str]) -> bytes:
        library = self._load()
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        handle = library.seccomp_init(ctypes.c_uint32(default))
        if not handle:
            raise Invalid("the seccomp profile's default action is not supported")
        context = ctypes.c_void_p(handle)
        try:
            # the program is installed by the runtime itself, which decides about no_new_privs
            library.seccomp_attr_set(context, _NO_NEW_PRIVILEGES_ATTRIBUTE, ctypes.c_uint32(0))
            for architecture in _architectures(profile)[1:]:
                token = library.seccomp_arch_resolve_name(architecture.encode())
                library.seccomp_arch_add(context, ctypes.c_uint32(token))
            for rule in profile.get("syscalls") or []:
                if _applies(rule, capabilities):
                    self._add(library, context, rule, default)
            descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            try:
                if library.seccomp_export_bpf(context, descriptor) < 0:
                    raise Invalid("the seccomp profile cannot be compiled")
                return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            finally:
                os.close(descriptor)
        finally:
            library.seccomp_release(context)

    def _add(self, library: ctypes.CDLL, context: ctypes.c_void_p, rule: Profile, default: int) -> None:
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:
            return
        comparisons = [
            _Comparison(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args") or []
        ]
        # libseccomp takes one comparison of an argument a rule: several of one become several rules
        indexes = [comparison.argument for comparison in comparisons]
        groups = [[c] for c in comparisons] if len(set(indexes)) < len(indexes) else [comparisons]
        for name in rule.get("names") or [rule["name"]]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue  # a call that this libseccomp does not know cannot be let through
            for group in groups:
                array = (_Comparison * len(group))(*group)
                library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(group), array)


def _cached(path: Path) -> bytes | None:
    """A program compiled before; None where there is none, or a crash has cut it off: no container may go unfiltered."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data[32:] if len(data) > 32 and hashlib.sha256(data[32:]).digest() == data[:32] else None


def _parse(text: bytes) -> Profile:
    try:
        profile: Profile = json.loads(text)
        _action(profile["defaultAction"], None)
        for rule in profile.get("syscalls") or []:
            _action(rule["action"], None)
            for argument in rule.get("args") or []:
                if argument["op"] not in _OPERATORS or not 0 <= argument["index"] <= 5:
                    raise KeyError(argument["op"])
                if not all(isinstance(value, int) for value in (argument["value"], argument.get("valueTwo", 0))):
                    raise TypeError("the values of a comparison are numbers")
            names = rule.get("names") or [rule["name"]]
            if not all(isinstance(name, str) for name in names):
                raise TypeError("names are strings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from error
    return profile


def _action(name: str, errno: int | None) -> int:
    value = _ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return value | ((errno if errno is not None else _EPERM) & 0xFFFF)
    return value


def _architectures(profile: Profile) -> tuple[str, ...]:
    _, native, family = _MACHINES.get(os.uname().machine, ("", "", (os.uname().machine,)))
    for entry in profile.get("archMap") or []:
        if entry["architecture"] == native:
            names = [native, *(entry.get("subArchitectures") or [])]
            return tuple(name.removeprefix("SCMP_ARCH_").lower() for name in names)
    if profile.get("architectures"):
        listed = [name.removeprefix("SCMP_ARCH_").lower() for name in profile["architectures"]]
        return (family[0], *(name for name in listed if name in family[1:]))
    return family


def _applies(rule: Profile, capabilities: frozenset[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    machine = _MACHINES.get(os.uname().machine, (os.uname().machine,))[0]
    kernel = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if machine in (excludes.get("arches") or []):
        return False
    if not set(includes.get("caps") or []) <= capabilities:
        return False
    if capabilities.intersection(excludes.get("caps") or []):
        return False

    def at_least(text: str) -> bool:
        return kernel >= tuple(int(part) for part in text.split(".")[:2])

    if includes.get("minKernel") and not at_least(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and at_least(excludes["minKernel"]))
