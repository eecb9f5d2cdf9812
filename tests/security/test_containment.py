"""Attacks from inside a container, each once successful against some engine, and the defaults that stop them."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path
from secrets import token_hex

import pytest
from tests.support.runtime import Run, Runtime

from boxship.containers.config import DeviceMapping
from boxship.runtime import capabilities
from boxship.runtime.protocol import Acknowledge, List, Signal


def status(keeper: Runtime, **options: object) -> dict[str, str]:
    """/proc/self/status of a container's process."""
    lines = keeper.shell("cat /proc/self/status", **options).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# --- capabilities, seccomp, privileges ---


def test_dockers_fourteen_capabilities_and_no_more(keeper: Runtime) -> None:
    found = status(keeper)
    fourteen = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    assert bin(int(fourteen, 16)).count("1") == 14
    assert fourteen == "00000000a80425fb"  # as `docker run busybox grep CapBnd /proc/self/status` tells
    assert {name: found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": "0" * 16, "CapPrm": fourteen, "CapEff": fourteen, "CapBnd": fourteen, "CapAmb": "0" * 16,
    }  # fmt: skip


def test_a_plain_user_holds_none(keeper: Runtime) -> None:
    found = status(keeper, config={"user": "1000"})
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert found["CapBnd"] == "00000000a80425fb"
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["1000"] * 4


@pytest.mark.parametrize(
    ("added", "dropped", "expected"),
    [
        ([], ["ALL"], []), (["NET_ADMIN"], ["ALL"], ["CAP_NET_ADMIN"]), ([], ["chown", "CAP_KILL"], None),
        (["ALL"], ["NET_RAW"], "all"),
    ],
)  # fmt: skip
def test_capabilities_added_and_dropped(keeper: Runtime, added: list[str], dropped: list[str], expected: object) -> None:
    held = int(status(keeper, host={"cap_add": added, "cap_drop": dropped})["CapBnd"], 16)
    if expected is None:
        assert held == capabilities.mask(capabilities.DEFAULT) & ~capabilities.mask(["CAP_CHOWN", "CAP_KILL"])
    elif expected == "all":
        assert held == capabilities.bounding_of_host() & ~capabilities.mask(["CAP_NET_RAW"])
    else:
        assert isinstance(expected, list)
        assert held == capabilities.mask(expected)


def test_the_filter_is_active(keeper: Runtime) -> None:
    assert status(keeper)["Seccomp"] == "2"
    assert status(keeper, seccomp=False)["Seccomp"] == "0"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("unshare -m true", b"Operation not permitted"),
        ("unshare -U true", b"Operation not permitted"),
        ("mount -t tmpfs none /tmp", b"ermi"),
        ("dmesg", b"Operation not permitted"),
        ("mknod /tmp/disk b 8 0 && cat /tmp/disk", b"Operation not permitted"),
        ("echo 1 > /proc/sys/kernel/panic", b"Read-only file system"),
        ("echo x > /sys/kernel/uevent_helper", b"Read-only file system"),
        ("mkdir /sys/fs/cgroup/memory/x", b"Read-only file system"),
        ("echo /cmd > /sys/fs/cgroup/memory/release_agent", b"Read-only file system"),
        ("hostname other", b"Operation not permitted"),
        ("ip link add dummy0 type dummy", b"not permitted"),
        ("chroot /proc/1/root/../../.. ls /work /root/.ssh", b"No such file"),
    ],
)
def test_what_root_in_a_container_may_not(keeper: Runtime, command: str, words: bytes) -> None:
    code, _, err = keeper.run("sh", "-c", command)
    assert code != 0
    assert words in err, err


def test_the_filter_alone_refuses_what_the_capabilities_would_not(keeper: Runtime) -> None:
    """Without it `unshare -U` succeeds on a kernel that lets users make namespaces: the attack works where it is off."""
    assert keeper.run("unshare", "-U", "true", seccomp=False)[0] == 0
    assert keeper.run("unshare", "-U", "true")[0] != 0


def test_no_new_privileges_holds_a_setuid_program_down(keeper: Runtime) -> None:
    place = keeper.busybox / "setuid"
    place.mkdir()
    (place / "su").write_bytes(Path("/bin/busybox").read_bytes())
    (place / "su").chmod(0o4755)
    _, _, free = keeper.run("/setuid/su", config={"user": "1000"})
    option = {"security_opt": ["no-new-privileges"]}
    _, _, held = keeper.run("/setuid/su", config={"user": "1000"}, host=option)
    assert b"must be suid" not in free
    assert b"must be suid" in held
    found = status(keeper, host=option)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert status(keeper)["NoNewPrivs"] == "0"


# --- files and paths ---


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug"])
def test_masked_files_are_the_null_device(keeper: Runtime, path: str) -> None:
    if not os.path.exists(path):
        assert keeper.run("test", "-e", path)[0] == 1
        return
    assert keeper.shell(f"stat -c '%t:%T %F' {path}; cat {path} | wc -c") == "1:3 character special file\n0\n"


@pytest.mark.parametrize("path", ["/sys/firmware", "/proc/acpi", "/proc/scsi", "/proc/asound"])
def test_masked_directories_are_empty(keeper: Runtime, path: str) -> None:
    if not os.path.isdir(path):
        assert keeper.run("test", "-e", path)[0] == 1
        return
    assert keeper.shell(f"ls -A {path} | wc -l; touch {path}/x 2>/dev/null || echo read-only") == "0\nread-only\n"


@pytest.mark.parametrize("path", ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys"])
def test_read_only_paths(keeper: Runtime, path: str) -> None:
    out = keeper.shell(f"grep -c ' {path} [a-z]* ro' /proc/mounts")
    assert int(out) >= 1


def test_a_null_device_put_there_by_the_image_masks_nothing_else(keeper: Runtime) -> None:
    """CVE-2025-31133: a link in place of /dev/null would be mounted over the masked path."""
    identity = token_hex(32)
    upper = Path(keeper.root(identity).upper)
    (upper / "dev").mkdir()
    (upper / "dev" / "null").symlink_to("/proc/sys/kernel/core_pattern")
    stream = keeper.attach(identity, stdin=False)
    keeper.start(Run(["sh", "-c", "stat -c '%t:%T %F' /dev/null /proc/interrupts"]), identity)
    out, _ = stream.read_all()
    keeper.exit_of(identity)
    assert out == b"1:3 character special file\n" * 2


@pytest.mark.parametrize("target", ["/", "/etc", "../../../../etc", "/proc/1/root/etc", "/proc/self/cwd"])
def test_a_link_in_the_image_leads_no_mount_out_of_the_root(keeper: Runtime, tmp_path: Path, target: str) -> None:
    """CVE-2021-30465 and its kin: mount targets are resolved inside the root."""
    (tmp_path / "payload").write_text("attack")
    identity = token_hex(32)
    upper = Path(keeper.root(identity).upper)
    (upper / "mnt").symlink_to(target)
    stream = keeper.attach(identity, stdin=False)
    mounts = [{"destination": "/mnt/deep/er", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}]
    _, reply = keeper.request_start(Run(["cat", "/mnt/deep/er/payload"], mounts=mounts), identity)
    if reply.error is None:
        assert stream.read_all()[0] == b"attack"
        keeper.exit_of(identity)
    else:
        keeper.ask(Signal(identity, signal.SIGKILL))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    for place in ("/deep", "/etc/deep"):
        assert not os.path.exists(place)


@pytest.mark.parametrize("target", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/cwd", "/proc/self/root/.."])
def test_a_leaked_descriptor_is_no_way_out(keeper: Runtime, target: str) -> None:
    """CVE-2024-21626: a working directory that leads through a descriptor left open."""
    identity = token_hex(32)
    stream = keeper.attach(identity, stdin=False)
    _, reply = keeper.request_start(Run(["sh", "-c", "ls -a ../../../../../.."], config={"working_dir": target}), identity)
    if reply.error is not None:
        assert reply.body["stage"] == "workdir"
        return
    out, _ = stream.read_all()
    keeper.exit_of(identity)
    assert set(out.decode().split()) <= {".", "..", "bin", "dev", "proc", "sys", "etc", "tmp", "root", "home", "setuid"}


def test_no_descriptor_but_stdio_reaches_the_program(keeper: Runtime) -> None:
    assert keeper.shell("ls /proc/self/fd | tr '\\n' ' '").split() == ["0", "1", "2", "3"]  # the last is ls's own
    for options in ({"config": {"tty": True}}, {"init": True}):
        code, out, _ = keeper.run("ls", "/proc/self/fd", **options)
        assert (code, out.split()) == (0, [b"0", b"1", b"2", b"3"])


def test_no_descriptor_but_stdio_reaches_an_exec(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    assert keeper.exec_output(identity, "ls", "/proc/self/fd")[1].split() == [b"0", b"1", b"2", b"3"]
    keeper.kill(identity)


def test_stdio_is_nothing_of_the_hosts(keeper: Runtime) -> None:
    out = keeper.shell("for fd in 0 1 2; do readlink /proc/self/fd/$fd; done")
    kinds = [line.partition(":")[0] for line in out.splitlines()]
    assert kinds == ["/dev/null", "pipe", "pipe"]


# --- the keeper itself ---


def test_the_keeper_cannot_be_dumped_and_runs_from_a_read_only_view(keeper: Runtime) -> None:
    pid = keeper.keeper_pid
    assert Path(f"/proc/{pid}/comm").read_text() == "boxship-keeper\n"
    status_text = Path(f"/proc/{pid}/status").read_text()
    assert "\nCoreDumping:\t0" in status_text
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
    assert not os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY


def test_the_init_cannot_be_opened_from_the_container(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"], init=True))
    for path in ("/proc/1/exe", "/proc/1/mem", "/proc/1/fd/0", "/proc/1/maps", "/proc/1/root/", "/proc/1/environ"):
        code, out, err = keeper.exec_output(identity, "head", "-c", "1", path)
        assert (code, out) == (1, b"")
        assert b"ermission denied" in err or b"No such file" in err
    keeper.kill(identity)


def test_the_hosts_interpreter_cannot_be_overwritten_through_proc_self_exe(keeper: Runtime) -> None:
    """CVE-2019-5736: a program that is a script of /proc/self/exe makes the engine run itself in the container, where
    it can be opened for writing. An exec is started while a process in the container waits for it with the file open."""
    binary = Path(f"/proc/{keeper.keeper_pid}/exe").resolve()
    before = binary.stat()
    attacker = (
        "while :; do for p in /proc/[0-9]*; do"
        "  case $p in /proc/1|/proc/$$) continue;; esac;"
        "  { exec 9< $p/exe; } 2>/dev/null && { printf '#!' > /proc/self/fd/9; } 2>>/errors && echo overwritten >> /result;"
        "  exec 9<&-; done; done"
    )
    identity, _ = keeper.start(Run(["sh", "-c", attacker]))
    upper = keeper.upper(identity)
    (upper / "evil").write_text("#!/proc/self/exe\n")
    (upper / "evil").chmod(0o755)
    for _ in range(30):
        keeper.exec(identity, "/evil")
    time.sleep(0.2)
    keeper.kill(identity)
    keeper.exits.clear()
    keeper.reconnect()
    after = binary.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)
    # what the attacker got to write to was its own shell's binary, in its own layers, if anything
    assert keeper.run("true")[0] == 0

    for entry in keeper.ask(List()).body["exits"]:
        keeper.client.send(Acknowledge(entry["id"], entry["exec_id"]))


def test_a_container_sees_nothing_of_the_keepers_mounts(keeper: Runtime) -> None:
    out = keeper.shell("cat /proc/self/mountinfo")
    assert str(keeper.directory) not in "\n".join(line.split(" - ")[0] for line in out.splitlines() if " / / " not in line)
    assert "/work" not in [line.split()[4] for line in out.splitlines()]


def test_each_has_a_session_keyring_of_its_own(keeper: Runtime) -> None:
    """The keyring of a session is searched by all that share it: without one of their own, containers would."""
    proc_keys = keeper.shell("cat /proc/keys | wc -l")
    assert proc_keys.strip() == "0"


# --- devices ---


def test_the_default_devices_and_no_others(keeper: Runtime) -> None:
    found = keeper.shell("ls /dev").split()
    links = {"fd", "stdin", "stdout", "stderr", "ptmx"} | ({"core"} if os.path.exists("/proc/kcore") else set())
    assert set(found) == links | {"full", "mqueue", "null", "pts", "random", "shm", "tty", "urandom", "zero"}


def test_a_device_made_inside_cannot_be_opened(keeper: Runtime) -> None:
    """Making nodes is allowed, as Docker allows it; the control group forbids opening what is not listed."""
    code, _, err = keeper.run("sh", "-c", "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem")
    assert code != 0
    assert b"Operation not permitted" in err
    assert keeper.run("sh", "-c", "mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero")[0] == 0


def test_a_device_that_is_passed_in_is_there(keeper: Runtime) -> None:

    mapping = DeviceMapping(path_on_host="/dev/zero", path_in_container="/dev/deep/mine", cgroup_permissions="r")
    out = keeper.shell("stat -c '%t:%T' /dev/deep/mine; head -c 4 /dev/deep/mine | wc -c", host={"devices": [mapping]})
    assert out == "1:5\n4\n"


def test_privileged_has_everything_and_says_so(keeper: Runtime) -> None:
    script = "grep CapEff /proc/self/status; mount -t tmpfs none /tmp && echo mounted; test -w /proc/sys/kernel/panic && echo w"
    out = keeper.shell(script, host={"privileged": True}, seccomp=False)
    assert out.split() == ["CapEff:", f"{capabilities.bounding_of_host():016x}", "mounted", "w"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
