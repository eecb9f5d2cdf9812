"""Device rules on version 2: a BPF program of type cgroup/device, made from the OCI rules."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from boxship.runtime.cgroups.contract import Resources
from boxship.syscalls.libc import syscall

_PROG_LOAD, _PROG_ATTACH, _PROG_QUERY, _PROG_DETACH = 5, 8, 16, 9
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# opcodes (linux/bpf.h, bpf_common.h)
_LOAD_WORD, _MOVE, _MOVE_K, _AND_K, _SHIFT_RIGHT_K, _JUMP_NE_K, _JUMP_NE_X, _EXIT = (
    0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x5D, 0x95,
)  # fmt: skip


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, destination | source << 4, offset, immediate)


def program(rules: Sequence[Resources]) -> bytes:
    """The filter: the last rule that fits decides, and nothing fits means no.

    r2: kind of device, r3: access wanted, r4: major, r5: minor (`struct bpf_cgroup_dev_ctx`).
    """
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_MOVE, 3, 2),
        _instruction(_AND_K, 2, 0, 0, 0xFFFF),
        _instruction(_SHIFT_RIGHT_K, 3, 0, 0, 16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        code += _block(rule)
    code += [_instruction(_MOVE_K, 0, 0, 0, 0), _instruction(_EXIT)]
    return b"".join(code)


def _block(rule: Resources) -> list[bytes]:
    tests: list[tuple[int, int, int]] = []  # (opcode, register, immediate): jump past the block when it differs
    kind = rule.get("type") or "a"
    if kind != "a":
        tests.append((_JUMP_NE_K, 2, _KINDS[kind]))
    major, minor = rule.get("major"), rule.get("minor")
    if major is not None and major >= 0:
        tests.append((_JUMP_NE_K, 4, major))
    if minor is not None and minor >= 0:
        tests.append((_JUMP_NE_K, 5, minor))
    access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
    body = [_instruction(_MOVE_K, 0, 0, 0, int(rule["allow"])), _instruction(_EXIT)]
    block: list[bytes] = []
    partial = access != 7
    length = len(tests) + (3 if partial else 0) + len(body)
    for opcode, register, immediate in tests:
        block.append(_instruction(opcode, register, 0, length - len(block) - 1, immediate))
    if partial:
        block += [_instruction(_MOVE, 1, 3), _instruction(_AND_K, 1, 0, 0, access)]
        block.append(_instruction(_JUMP_NE_X, 1, 3, len(body)))
    return block + body


def attach(directory: str, rules: Sequence[Resources]) -> None:
    """Load the program and attach it to the group; the kernel drops it with the group. Raises `OSError`."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    loaded = -1
    try:
        text = program(rules)
        instructions = ctypes.create_string_buffer(text, len(text))
        licence = ctypes.create_string_buffer(b"Apache-2.0")
        loaded = _bpf(
            _PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16s", _PROG_TYPE_CGROUP_DEVICE, len(text) // 8, ctypes.addressof(instructions),
                ctypes.addressof(licence), 0, 0, 0, 0, 0, b"boxship_devices"[:15],
            ),
        )  # fmt: skip
        old = _attached(group)
        _bpf(_PROG_ATTACH, struct.pack("<IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        for identifier in old:
            _detach(group, identifier)
    finally:
        os.close(group)
        if loaded >= 0:
            os.close(loaded)


def _attached(group: int) -> list[int]:
    identifiers = (ctypes.c_uint32 * 64)()
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIIIQI", group, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(identifiers), 64), 128
    )
    syscall("bpf", _PROG_QUERY, attributes, 48)
    count = struct.unpack_from("<I", attributes.raw, 24)[0]
    return list(identifiers[:count])


def _detach(group: int, identifier: int) -> None:
    get_by_id = 13
    found = _bpf(get_by_id, struct.pack("<III", identifier, 0, 0))
    try:
        _bpf(_PROG_DETACH, struct.pack("<III", group, found, _ATTACH_CGROUP_DEVICE))
    finally:
        os.close(found)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall("bpf", command, buffer, len(attributes))
