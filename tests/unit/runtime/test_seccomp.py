"""Profiles compiled to BPF, and the programs run as the kernel would run them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import Invalid
from boxship.runtime import capabilities
from boxship.runtime.seccomp import Seccomp

ALLOW, ERRNO, KILL, LOG = 0x7FFF0000, 0x00050000, 0x00000000, 0x7FFC0000
EPERM, ENOSYS = 1, 38
X86_64, I386 = 0xC000003E, 0x40000003

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of system calls below are x86_64's")


def verdict(program: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What a classic BPF program returns for a system call (`struct seccomp_data`)."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = index = position = 0
    memory = [0] * 16
    while True:
        code, jt, jf, k = instructions[position]
        position += 1
        operand = index if code & 8 else k
        match code & 7:
            case 0:
                mode = code & 0xE0
                accumulator = int(struct.unpack_from("<I", data, k)[0]) if mode == 0x20 else memory[k] if mode == 0x60 else k
            case 1:
                index = memory[k] if code & 0xE0 == 0x60 else k
            case 2:
                memory[k] = accumulator
            case 4:
                accumulator = {0x50: accumulator & operand, 0x40: accumulator | operand}[code & 0xF0]
            case 5:
                match code & 0xF0:
                    case 0x00:
                        position += k
                    case 0x10:
                        position += jt if accumulator == operand else jf
                    case 0x20:
                        position += jt if accumulator > operand else jf
                    case 0x30:
                        position += jt if accumulator >= operand else jf
                    case 0x40:
                        position += jt if accumulator & operand else jf
            case 6:
                return int(k)
            case 7:
                index, accumulator = (accumulator, accumulator) if code & 0xF8 == 0 else (index, index)


READ, CLONE, SETNS, MOUNT, PERSONALITY, SETTIMEOFDAY, BPF, CLONE3, SOCKET, KEXEC = 0, 56, 308, 165, 135, 164, 321, 435, 41, 246


@pytest.fixture
def seccomp(tmp_path: Path) -> Seccomp:
    return Seccomp(tmp_path / "cache")


def test_the_default_profile(seccomp: Seccomp) -> None:
    program = seccomp.default(capabilities.DEFAULT)
    assert verdict(program, READ) == ALLOW
    for forbidden in (MOUNT, SETNS, BPF, KEXEC):
        assert verdict(program, forbidden) == ERRNO | EPERM
    assert verdict(program, CLONE3) == ERRNO | ENOSYS
    assert verdict(program, CLONE, 0x11) == ALLOW
    assert verdict(program, CLONE, 0x10000000) == ERRNO | EPERM  # CLONE_NEWUSER
    assert verdict(program, PERSONALITY, 0) == ALLOW
    assert verdict(program, PERSONALITY, 0xFFFFFFFF) == ALLOW
    assert verdict(program, PERSONALITY, 0x40000) == ERRNO | EPERM
    assert verdict(program, SOCKET, 2) == ALLOW
    assert verdict(program, SOCKET, 40) == ERRNO | EPERM  # AF_VSOCK


def test_capabilities_open_what_they_stand_for(seccomp: Seccomp) -> None:
    admin = seccomp.default([*capabilities.DEFAULT, "CAP_SYS_ADMIN"])
    assert verdict(admin, MOUNT) == ALLOW
    assert verdict(admin, SETNS) == ALLOW
    assert verdict(admin, CLONE, 0x10000000) == ALLOW
    assert verdict(admin, SETTIMEOFDAY) == ERRNO | EPERM
    assert verdict(seccomp.default(["CAP_SYS_TIME"]), SETTIMEOFDAY) == ALLOW


def test_the_32_bit_calls_are_filtered_too(seccomp: Seccomp) -> None:
    program = seccomp.default(capabilities.DEFAULT)
    assert verdict(program, 3, architecture=I386) == ALLOW  # read
    assert verdict(program, 21, architecture=I386) == ERRNO | EPERM  # mount
    assert verdict(program, READ, architecture=0x1234) == KILL
    assert verdict(program, 0x40000000 + MOUNT) != ALLOW  # by way of x32


def profile(default: str, *rules: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"defaultAction": default, "syscalls": list(rules), **more}).encode()


def comparing(argument: dict[str, Any]) -> bytes:
    return profile("SCMP_ACT_ALLOW", {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [argument]})


def test_a_profile_of_ones_own(seccomp: Seccomp) -> None:
    program = seccomp.program(
        profile(
            "SCMP_ACT_ALLOW",
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["no_such_call", "setns"], "action": "SCMP_ACT_ERRNO"},
            {"name": "kexec_load", "action": "SCMP_ACT_KILL"},
            {"names": ["bpf"], "action": "SCMP_ACT_LOG"},
        ),
        [],
    )
    assert [verdict(program, call) for call in (READ, MOUNT, SETNS, KEXEC, BPF)] == [ALLOW, ERRNO | 95, ERRNO | 1, KILL, LOG]


@pytest.mark.parametrize(
    ("operator", "value", "second", "let_through", "refused"),
    [
        ("SCMP_CMP_EQ", 5, 0, [5], [4, 6]),
        ("SCMP_CMP_NE", 5, 0, [4, 6], [5]),
        ("SCMP_CMP_LT", 5, 0, [4], [5, 6]),
        ("SCMP_CMP_LE", 5, 0, [4, 5], [6]),
        ("SCMP_CMP_GT", 1 << 40, 0, [(1 << 40) + 1], [1 << 40, 5]),
        ("SCMP_CMP_GE", 5, 0, [5, 6], [4]),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, [0x2F, 0x20], [0x3F, 0]),
    ],
)
def test_comparisons(seccomp: Seccomp, operator: str, value: int, second: int, let_through: list[int], refused: list[int]) -> None:
    rule = {
        "names": ["setns"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 1, "op": operator, "value": value, "valueTwo": second}],
    }
    program = seccomp.program(profile("SCMP_ACT_ERRNO", rule), [])
    assert {argument: verdict(program, SETNS, 0, argument) == ALLOW for argument in (*let_through, *refused)} == {
        **dict.fromkeys(let_through, True), **dict.fromkeys(refused, False),
    }  # fmt: skip


def test_several_comparisons_of_one_argument_are_alternatives(seccomp: Seccomp) -> None:
    arguments = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 3)]
    program = seccomp.program(profile("SCMP_ACT_ERRNO", {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "args": arguments}), [])
    assert [verdict(program, SETNS, value) == ALLOW for value in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, True), ({"includes": {"caps": ["CAP_C"]}}, False),
        ({"excludes": {"caps": ["CAP_A"]}}, False), ({"excludes": {"caps": ["CAP_C"]}}, True),
        ({"includes": {"arches": ["amd64"]}}, True), ({"includes": {"arches": ["s390x"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False), ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "99.0"}}, False), ({"excludes": {"minKernel": "4.8"}}, False),
    ],
)  # fmt: skip
def test_conditions_of_rules(seccomp: Seccomp, condition: dict[str, Any], applies: bool) -> None:
    rule = {"names": ["setns"], "action": "SCMP_ACT_ALLOW", **condition}
    program = seccomp.program(profile("SCMP_ACT_ERRNO", rule), ["CAP_A", "CAP_B"])
    assert (verdict(program, SETNS) == ALLOW) is applies


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"{}", b'"x"', profile("SCMP_ACT_NO"), profile("SCMP_ACT_ALLOW", {"names": ["read"]}),
     profile("SCMP_ACT_ALLOW", {"action": "SCMP_ACT_ERRNO"}), profile("SCMP_ACT_ALLOW", {"names": ["read"], "action": "NO"}),
     comparing({"index": 9, "op": "SCMP_CMP_EQ", "value": 1}), comparing({"index": 1, "op": "NO", "value": 1}),
     comparing({"index": 1, "op": "SCMP_CMP_EQ"}), comparing({"index": 1, "op": "SCMP_CMP_EQ", "value": "1"}),
     profile("SCMP_ACT_ALLOW", {"names": [7], "action": "SCMP_ACT_ERRNO"}), b"\xff\xfe"],
)  # fmt: skip
def test_malformed_profiles_are_invalid(seccomp: Seccomp, text: bytes) -> None:
    with pytest.raises(Invalid, match="seccomp profile"):
        seccomp.program(text, [])


def test_a_program_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Seccomp(tmp_path)
    program = first.default(["CAP_SYS_ADMIN", "CAP_KILL"])
    assert len(list(tmp_path.glob("*.bpf"))) == 1
    second = Seccomp(tmp_path)
    monkeypatch.setattr(second, "_compile", None)
    assert second.default(["CAP_KILL", "CAP_SYS_ADMIN"]) == program
    assert first.default([]) != program
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cached_program_cut_off_by_a_crash_is_made_again(tmp_path: Path) -> None:
    program = Seccomp(tmp_path).default([])
    (cached,) = tmp_path.glob("*.bpf")
    whole = cached.read_bytes()
    for damaged in (b"", whole[:-8], whole[:32], bytes(len(whole))):
        cached.write_bytes(damaged)
        assert Seccomp(tmp_path).default([]) == program
        assert cached.read_bytes() == whole
