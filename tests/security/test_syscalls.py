"""System calls that have led out of containers, made raw from inside of one: the default filter refuses each."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.security.conftest import Python
from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")

CALLS = {
    "bpf (make a map)": (321, 0, b"\2\0\0\0\4\0\0\0\4\0\0\0\1\0\0\0" + bytes(112), 128),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, bytes(120)),
    "keyctl (join a session)": (250, 1, b"mine\0"),
    "add_key": (248, b"user\0", b"planted\0", b"x", 1, -3),
    "request_key": (249, b"user\0", b"planted\0", 0, -3),
    "perf_event_open": (298, b"\1\0\0\0\x80\0\0\0" + bytes(120), 0, -1, -1, 0),
    "mount": (165, b"none\0", b"/tmp\0", b"tmpfs\0", 0, 0),
    "fsopen": (430, b"tmpfs\0", 0),
    "open_tree (a copy)": (428, -100, b"/\0", 1),
    "unshare (mounts)": (272, 0x20000),
    "unshare (users)": (272, 0x10000000),
    "setns": (308, 0, 0),
    "open_by_handle_at": (304, -100, bytes(16), 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, b"x", 1, b"\0"),
    "socket (vsock)": (41, 40, 1, 0),
}
"""Number and arguments of each on x86-64."""

ATTACK = f"""
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
for number, *arguments in {list(CALLS.values())!r}:
    held = [ctypes.create_string_buffer(each, 128) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    print(0 if call(ctypes.c_long(number), *held) >= 0 else ctypes.get_errno(), flush=True)
"""


def named(output: str) -> dict[str, str]:
    """What each call gave: the name of its error, or success."""
    numbers = map(int, output.split())
    return {name: errno.errorcode[number] if number else "success" for name, number in zip(CALLS, numbers, strict=True)}


def test_the_default_filter_refuses_them(engine: Engine, python: Python) -> None:
    refused = dict.fromkeys(CALLS, "EPERM")
    assert named(engine.out("run", "--rm", *python.options, "busybox", *python.command, ATTACK)) == refused
    engine.docker("run", "-d", "--name", "it", *python.options, "busybox", "sleep", "1000")
    assert named(engine.out("exec", "it", *python.command, ATTACK)) == refused
    assert named(engine.out("exec", "-u", "user", "it", *python.command, ATTACK)) == refused


def test_without_it_they_get_through(engine: Engine, python: Python) -> None:
    """Each of the calls works, or fails for its arguments, where nothing refuses it: the attack is one."""
    found = named(engine.out("run", "--rm", "--privileged", *python.options, "busybox", *python.command, ATTACK))
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    if switch.exists() and switch.read_text().strip() == "2":
        del found["io_uring_setup"]
    assert "EPERM" not in found.values(), found


def test_the_filter_and_not_the_lack_of_capabilities_keeps_keyrings_and_users(engine: Engine, python: Python) -> None:
    unconfined = ("--security-opt", "seccomp=unconfined")
    found = named(engine.out("run", "--rm", *unconfined, *python.options, "busybox", *python.command, ATTACK))
    assert (found["keyctl (join a session)"], found["add_key"], found["socket (vsock)"]) == ("success",) * 3
