"""Containers started, their stdio, their ends."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from tests.support.engine import wait_until
from tests.support.runtime import Run, Runtime

from boxship.containers.config import Ulimit
from boxship.runtime.protocol import Freeze, List, Resize, Signal, Start, Update


def test_output_and_exit_code(keeper: Runtime) -> None:
    assert keeper.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_a_signal_ends_it_with_128_and_its_number(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    assert keeper.kill(identity).code == 137


def test_it_is_process_1_and_sees_no_other(keeper: Runtime) -> None:
    out = keeper.shell("echo $$; ls -d /proc/[0-9]* | wc -l")
    assert out.split() == ["1", "3"]  # itself, ls and wc


def test_environment_directory_user_and_groups(keeper: Runtime) -> None:
    out = keeper.shell("id -u; id -g; id -G; pwd; echo $HOME $WORD; hostname", config={
        "user": "user", "working_dir": "/made/anew", "env": ["PATH=/bin", "WORD=a b"], "hostname": "named"})  # fmt: skip
    assert out == "1000\n1000\n1000 2000\n/made/anew\n/home/user a b\nnamed\n"


@pytest.mark.parametrize(
    ("user", "extra", "ids"),
    [("0", [], "0 0 0"), ("1000", [], "1000 1000 1000 2000"), ("5", [], "5 0 0"), ("5:6", [], "5 6 6"),
     ("user:extra", [], "1000 2000 2000"), ("1000:1000", [], "1000 1000 1000"), ("", ["9"], "0 0 0 9"),
     ("user", ["extra", "77"], "1000 1000 1000 2000 77")],
)  # fmt: skip
def test_users_by_name_and_number(keeper: Runtime, user: str, extra: list[str], ids: str) -> None:
    out = keeper.shell("echo $(id -u) $(id -g) $(id -G)", config={"user": user}, host={"group_add": extra})
    shown = out.split()
    assert shown[:3] == ids.split()[:3]
    assert sorted(shown[3:]) == sorted(ids.split()[3:])


@pytest.mark.parametrize(
    ("run", "stage", "errno", "words"),
    [
        (Run(["nosuchprogram"]), "exec", 2, 'exec: "nosuchprogram": executable file not found in $PATH'),
        (Run(["/no/such"]), "exec", 2, "no such file or directory"),
        (Run(["/etc/passwd"]), "exec", 13, "permission denied"),
        (Run(["/etc"]), "exec", 13, "is a directory"),
        (Run(["nosuchprogram"], init=True), "exec", 2, "executable file not found in $PATH"),
        (Run(["true"], config={"user": "nobody-here"}), "user", 0,
         "unable to find user nobody-here: no matching entries in passwd file"),
        (Run(["true"], config={"user": "0:no-group"}), "user", 0, "unable to find group no-group"),
        (Run(["true"], config={"user": "4294967296"}), "user", 0, "must be in range"),
        (Run(["true"], config={"working_dir": "/etc/passwd"}), "workdir", 20, "chdir to cwd"),
        (Run(["true"], mounts=[{"destination": "/m", "type": "bind", "source": "/nowhere", "options": ["rbind"]}]), "mount", 2,
         'error mounting "/nowhere"'),
        (Run(["true"], host={"sysctls": {"net.no.such": "1"}}), "mount", 2, "setting sysctl net.no.such"),
        (Run(["true"], change=lambda spec: spec["linux"]["resources"].update(cpu={"cpus": "x"})), "cgroup", 22, "cpuset.cpus"),
        (Run(["a\0b"]), "exec", 22, "null byte"),
    ],
)  # fmt: skip
def test_what_cannot_start_says_why_and_leaves_nothing(keeper: Runtime, run: Run, stage: str, errno: int, words: str) -> None:
    identity, reply = keeper.request_start(run)
    assert (reply.body.get("stage"), reply.body.get("errno")) == (stage, errno), reply.body
    assert words in str(reply.error)
    assert keeper.ask(List()).body == {"containers": [], "exits": []}
    eventually_gone(keeper, identity)


def eventually_gone(keeper: Runtime, identity: str) -> None:
    deadline = time.monotonic() + 5
    while list(Path("/sys/fs/cgroup").glob(f"*{keeper.cgroup(identity)}")):
        assert time.monotonic() < deadline
        keeper.ask(List())
        time.sleep(0.05)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("process"), lambda spec: spec["linux"].pop("namespaces"),
        lambda spec: spec["linux"]["namespaces"].append({"type": "unheard-of"}),
        lambda spec: spec["linux"]["resources"]["devices"].append({}), lambda spec: spec["mounts"].append({"type": "tmpfs"}),
        lambda spec: spec["linux"]["devices"].append({"path": "/dev/x"}), lambda spec: spec["process"].update(args=[]),
        lambda spec: spec["process"].update(rlimits=[{"type": "RLIMIT_NO", "soft": 1, "hard": 1}]),
        lambda spec: spec["process"].update(capabilities={"bounding": ["CAP_NO"]}),
    ],
)  # fmt: skip
def test_a_malformed_specification_is_an_error_and_not_the_keepers_end(keeper: Runtime, change: Any) -> None:
    identity = token_hex(32)
    spec = keeper.spec(identity, Run(["true"]))
    change(spec)
    reply = keeper.ask(Start(identity, spec, asdict(keeper.root(identity)), keeper.cgroup(identity)))
    assert reply.error
    assert keeper.run("true")[0] == 0
    eventually_gone(keeper, identity)


def test_input_reaches_it_and_its_end_too(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["cat"], config={"open_stdin": True, "stdin_once": True}))
    stream = keeper.attach(identity)
    data = os.urandom(3_000_000)

    def send() -> None:
        stream.send(data)
        stream.close_input()

    sending = threading.Thread(target=send)
    sending.start()
    received, _ = stream.read_all()
    sending.join()
    assert received == data
    assert keeper.exit_of(identity).code == 0


def test_input_stays_open_for_the_next_one(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["cat"], config={"open_stdin": True}))
    for word in (b"one\n", b"two\n"):
        stream = keeper.attach(identity)
        stream.send(word)
        stream.read_until(word)
        stream.close_input()
        stream.close()
    keeper.kill(identity)


def test_without_input_there_is_none(keeper: Runtime) -> None:
    assert keeper.run("cat") == (0, b"", b"")


def test_attached_before_the_start_nothing_is_missed(keeper: Runtime) -> None:
    for _ in range(20):
        assert keeper.run("echo", "at once") == (0, b"at once\n", b"")


def test_several_attached_get_the_same(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "read x; echo $x; echo err >&2"], config={"open_stdin": True}))
    first, only_errors = keeper.attach(identity), keeper.attach(identity, stdin=False, stdout=False)
    first.send(b"word\n")
    assert first.read_all() == (b"word\n", b"err\n")
    assert only_errors.read_all() == (b"", b"err\n")
    keeper.exit_of(identity)


def test_one_that_does_not_read_holds_the_process_not_the_keeper(keeper: Runtime) -> None:
    identity = token_hex(32)
    lazy = keeper.attach(identity, stdin=False)
    keeper.start(Run(["sh", "-c", "yes 0123456789 | head -c 8000000; echo done >&2"]), identity)
    time.sleep(0.3)
    assert keeper.run("true")[0] == 0
    assert _memory(keeper.keeper_pid) < 60_000
    out, err = lazy.read_all()
    assert len(out) == 8_000_000
    assert err == b"done\n"
    assert keeper.exit_of(identity).code == 0


def _memory(pid: int) -> int:
    """KiB resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def test_one_that_leaves_does_not_matter(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "sleep 0.2; yes 0123456789 | head -c 5000000; exit 3"]))
    keeper.attach(identity, stdin=False).close()
    assert keeper.exit_of(identity).code == 3


# --- terminals ---


def test_a_terminal(keeper: Runtime) -> None:
    identity, _ = keeper.start(
        Run(["sh"], config={"tty": True, "open_stdin": True, "env": ["PATH=/bin", "PS1=>"]}, host={"console_size": [33, 77]})
    )
    stream = keeper.attach(identity, tty=True)
    stream.send(b"stty size; test -t 0 && test -t 1 && test -t 2 && echo a-tty; echo $TERM\n")
    stream.read_until(b"xterm\r\n")
    assert b"33 77\r\n" in stream.output[1]
    assert b"a-tty\r\n" in stream.output[1]
    assert keeper.ask(Resize(identity, "", 120, 40)).error is None
    stream.send(b"stty size\n")
    stream.read_until(b"40 120\r\n")
    stream.send(b"sh -c 'echo g''o; exec sleep 100'\n")
    stream.read_until(b"go\r\n")
    stream.send(b"\x03")
    stream.read_until(b">")
    stream.send(b"echo after-$?\n")
    stream.read_until(b"after-130\r\n")
    stream.send(b"ls -l /dev/console; exit 5\n")
    stream.read_all()
    assert b"crw" in stream.output[1]
    assert keeper.exit_of(identity).code == 5


def test_the_terminal_is_the_users_own(keeper: Runtime) -> None:
    _, out, _ = keeper.run("sh", "-c", "stat -c %u /dev/pts/0; echo > /dev/tty && echo fine", config={"tty": True, "user": "user"})
    assert b"1000" in out
    assert b"fine" in out


# --- exec ---


def test_exec_in_a_running_container(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"], config={"hostname": "inside"}))
    assert keeper.exec_output(identity, "sh", "-c", "hostname; echo e >&2; exit 9") == (9, b"inside\n", b"e\n")
    code, out, _ = keeper.exec_output(identity, "sh", "-c", "cat /proc/1/cmdline; id -u; pwd", process={
        "user": {"username": "user"}, "cwd": "/tmp"})  # fmt: skip
    assert (code, out) == (0, b"sleep\x00100\x001000\n/tmp\n")
    keeper.kill(identity)


def test_exec_is_in_the_containers_control_group(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    exec_id, reply = keeper.exec(identity, "sleep", "50")
    assert reply.body["pid"] in keeper.cgroups.processes(keeper.cgroup(identity))
    keeper.ask(Signal(identity, signal.SIGTERM, exec_id))
    assert keeper.exit_of(identity, exec_id).code == 143
    keeper.kill(identity)


def test_exec_with_a_terminal_and_input(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    exec_id, reply = keeper.exec(identity, "sh", stdin=True, process={"terminal": True, "consoleSize": {"height": 10, "width": 20}})
    assert reply.error is None
    stream = keeper.attach(identity, exec_id, tty=True)
    stream.send(b"stty size\n")
    stream.read_until(b"10 20\r\n")
    keeper.ask(Resize(identity, exec_id, 30, 15))
    stream.send(b"stty size; exit 4\n")
    stream.read_until(b"15 30\r\n")
    assert keeper.exit_of(identity, exec_id).code == 4
    keeper.kill(identity)


@pytest.mark.parametrize(
    ("args", "process", "stage", "words"),
    [
        (["nosuch"], {}, "exec", "executable file not found in $PATH"),
        (["true"], {"cwd": "/etc/passwd"}, "workdir", "chdir to cwd"),
        (["true"], {"user": {"username": "ghost"}}, "user", "unable to find user ghost"),
        (["true"], {"capabilities": {"bounding": ["CAP_GHOST"]}}, "internal", "CAP_GHOST"),
    ],
)
def test_exec_that_cannot_start(keeper: Runtime, args: list[str], process: dict[str, Any], stage: str, words: str) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    _, reply = keeper.exec(identity, *args, process=process)
    assert reply.body["stage"] == stage
    assert words in str(reply.error)
    keeper.kill(identity)
    assert not keeper.exits


def test_exec_needs_a_container_that_runs_and_is_not_frozen(keeper: Runtime) -> None:
    assert "is not running" in str(keeper.exec("f" * 64, "true")[1].error)
    identity, _ = keeper.start(Run(["sleep", "100"]))
    keeper.ask(Freeze(identity, True))
    assert "is paused, unpause the container before exec" in str(keeper.exec(identity, "true")[1].error)
    keeper.ask(Freeze(identity, False))
    assert keeper.exec_output(identity, "true")[0] == 0
    keeper.kill(identity)


def test_execs_end_with_their_container(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"]))
    exec_id, _ = keeper.exec(identity, "sleep", "100")
    keeper.ask(Signal(identity, signal.SIGKILL))
    assert keeper.exit_of(identity).code == 137
    assert keeper.exit_of(identity, exec_id).code == 137


# --- signals, freezing, limits ---


def test_signals_reach_the_process(keeper: Runtime) -> None:
    identity = token_hex(32)
    stream = keeper.attach(identity, stdin=False)
    script = "trap 'echo usr1' USR1; trap 'exit 12' TERM; echo ready; while :; do sleep 0.05; done"
    keeper.start(Run(["sh", "-c", script]), identity)
    stream.read_until(b"ready")
    keeper.ask(Signal(identity, signal.SIGUSR1))
    stream.read_until(b"usr1")
    keeper.ask(Signal(identity, signal.SIGTERM))
    assert keeper.exit_of(identity).code == 12


def test_an_init_forwards_signals_reaps_and_ends_as_its_program(keeper: Runtime) -> None:
    script = "trap 'exit 21' TERM; (sleep 0.01 &) ; echo $$; while :; do sleep 0.05; done"
    identity = token_hex(32)
    stream = keeper.attach(identity, stdin=False)
    keeper.start(Run(["sh", "-c", script], init=True), identity)
    stream.read_until(b"\n")
    time.sleep(0.1)
    code, out, _ = keeper.exec_output(identity, "sh", "-c", "cat /proc/1/comm; cat /proc/[0-9]*/stat | cut -d' ' -f3")
    assert code == 0
    assert out.startswith(b"boxship-init\n")
    assert b"Z" not in out.split()
    keeper.ask(Signal(identity, signal.SIGTERM))
    assert keeper.exit_of(identity).code == 21


def test_an_init_holds_nothing_of_other_containers(keeper: Runtime) -> None:
    """A fork that never execs would keep every descriptor of the keeper open, and with it others' streams."""
    first, _ = keeper.start(Run(["cat"], config={"open_stdin": True, "stdin_once": True}))
    stream = keeper.attach(first)
    second, pid = keeper.start(Run(["sleep", "100"], init=True))
    assert os.listdir(f"/proc/{pid}/fd") == []
    stream.close_input()
    assert stream.read_all() == (b"", b"")
    keeper.exit_of(first)
    keeper.kill(second)


def test_frozen_nothing_moves(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "while :; do echo x; sleep 0.01; done"]))
    stream = keeper.attach(identity, stdin=False)
    stream.read_until(b"x\nx\n")
    assert keeper.ask(Freeze(identity, True)).error is None
    stream.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        while True:
            stream.read_some()
    stream.socket.settimeout(20)
    seen = len(stream.output[1])
    assert [entry["frozen"] for entry in keeper.ask(List()).body["containers"] if entry["id"] == identity] == [True]
    assert keeper.ask(Freeze(identity, False)).error is None
    while len(stream.output[1]) < seen + 10:
        stream.read_some()
    keeper.ask(Freeze(identity, True))
    assert keeper.kill(identity).code == 137


def test_limits_are_set_and_changed(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"], host={"memory": 32 << 20, "pids_limit": 50, "cpu_shares": 512}))
    stats = keeper.cgroups.stats(keeper.cgroup(identity))
    assert (stats.memory_limit, stats.pids_limit) == (32 << 20, 50)
    for memory in (128 << 20, 16 << 20):
        reply = keeper.ask(Update(identity, {"memory": {"limit": memory, "swap": memory * 2}, "pids": {"limit": 7}}))
        assert reply.error is None, reply.body
        stats = keeper.cgroups.stats(keeper.cgroup(identity))
        assert (stats.memory_limit, stats.pids_limit) == (memory, 7)
    assert "cpuset" in str(keeper.ask(Update(identity, {"cpu": {"cpus": "4000"}})).error)
    keeper.kill(identity)


def test_a_process_limit_holds(keeper: Runtime) -> None:
    code, out, _ = keeper.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo made", host={"pids_limit": 4})
    assert b"made" not in out or code != 0


def test_killed_for_its_memory_is_told(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=4"], host={"memory": 16 << 20,
                               "memory_swap": 16 << 20}))  # fmt: skip
    exited = keeper.exit_of(identity)
    assert (exited.code, exited.oom_killed) == (137, True)
    identity, _ = keeper.start(Run(["true"], host={"memory": 16 << 20}))
    assert keeper.exit_of(identity).oom_killed is False


def test_limits_of_resources(keeper: Runtime) -> None:
    out = keeper.shell("ulimit -n; ulimit -Hn; ulimit -c", host={"ulimits": [
        Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=0)]})  # fmt: skip
    assert out.split() == ["100", "200", "0"]


def test_the_keepers_own_limit_of_files_is_not_the_containers(keeper: Runtime) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert keeper.shell("ulimit -n; ulimit -Hn").split() == [str(soft), str(hard)]
    limits = Path(f"/proc/{keeper.keeper_pid}/limits").read_text().splitlines()
    assert next(line.split()[3] for line in limits if line.startswith("Max open files")) == str(hard)


def test_a_read_only_root(keeper: Runtime) -> None:
    code, _, err = keeper.run("sh", "-c", "echo x > /file", host={"readonly_rootfs": True})
    assert code != 0
    assert b"Read-only file system" in err
    assert keeper.shell("echo x > /dev/shm/file && cat /dev/shm/file", host={"readonly_rootfs": True}) == "x\n"


def test_what_it_writes_is_in_the_upper_directory(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "echo data > /file; rm /etc/group"]))
    keeper.exit_of(identity)
    assert (keeper.upper(identity) / "file").read_text() == "data\n"
    assert (keeper.upper(identity) / "etc" / "group").is_char_device()


def test_mounts(keeper: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    out = keeper.shell(
        "cat /a/b/c/file; echo x > /rw/new; echo x 2>/dev/null > /a/b/c/new || echo read-only; cat /single;"
        " grep -c ' /t ' /proc/mounts",
        mounts=[
            {"destination": "/a/b/c", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro", "rro"]},
            {"destination": "/rw", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rprivate"]},
            {"destination": "/single", "type": "bind", "source": str(tmp_path / "file"), "options": ["bind"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700", "nosuid"]},
        ],
    )
    assert out == "from the host\nread-only\nfrom the host\n1\n"
    assert (tmp_path / "new").read_text() == "x\n"


def test_nothing_is_left_of_one_that_has_ended(keeper: Runtime) -> None:
    before = set(os.listdir(f"/proc/{keeper.keeper_pid}/fd"))
    for _ in range(5):
        keeper.run("true")
    identity, _ = keeper.start(Run(["sleep", "100"], config={"tty": True, "open_stdin": True}))
    keeper.attach(identity, tty=True).close()
    keeper.exec(identity, "nosuch")
    keeper.kill(identity)
    keeper.request_start(Run(["nosuch"]))
    eventually_gone(keeper, identity)
    deadline = time.monotonic() + 5
    while set(os.listdir(f"/proc/{keeper.keeper_pid}/fd")) != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert keeper.ask(List()).body["containers"] == []


def test_fifty_at_once(keeper: Runtime) -> None:
    started = [keeper.start(Run(["sh", "-c", f"echo {number} > /number; sleep 100"]))[0] for number in range(50)]
    assert len(keeper.ask(List()).body["containers"]) == 50
    assert _memory(keeper.keeper_pid) < 60_000
    streams = [keeper.attach(identity, stdin=False) for identity in started]

    def numbers() -> list[str]:
        return [file.read_text() for identity in started if (file := keeper.upper(identity) / "number").exists()]

    wait_until(lambda: numbers() == [f"{number}\n" for number in range(50)], "all have written")
    for identity in started:
        keeper.ask(Signal(identity, signal.SIGKILL))
    assert [keeper.exit_of(identity).code for identity in started] == [137] * 50
    for stream in streams:
        assert stream.read_all() == (b"", b"")
        stream.close()
    assert keeper.ask(List()).body["containers"] == []
