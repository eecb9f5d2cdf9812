"""Terminals: `run -it`, `attach`, `exec -it`, their windows and their detach keys."""

from __future__ import annotations

import socket
import subprocess

import pytest
from tests.support.engine import DOCKER, Engine, wait_until
from tests.support.terminal import Terminal


def terminal(engine: Engine, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
    return Terminal([DOCKER, *arguments], engine.environment(), rows=rows, columns=columns)


def test_run_with_a_terminal(engine: Engine) -> None:
    with terminal(engine, "run", "--rm", "-it", "busybox", "sh", rows=33, columns=111) as person:
        person.expect("# ")
        person.send("stty size; echo $((6*7))\r")
        person.expect("33 111")
        person.expect("42")
        person.send("exit 5\r")
        assert person.wait() == 5


def test_window_resize(engine: Engine) -> None:
    script = "echo ready; until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo resized"
    with terminal(engine, "run", "--name", "it", "-it", "busybox", "sh", "-c", script) as person:
        person.expect("ready")

        def resized() -> bool:
            person.resize(50, 132)  # again: the client misses a signal that comes before it listens for any
            return "resized" in engine.out("logs", "it")

        wait_until(resized, "the new size has come")
        assert person.wait() == 0


def test_interrupt_goes_to_the_program(engine: Engine) -> None:
    with terminal(engine, "run", "--rm", "-it", "busybox", "sh") as person:
        person.expect("# ")
        person.send("echo be''gun; sleep 1000\r")
        person.expect("begun")
        person.send("\x03")
        person.expect("# ")
        person.send("echo $?; exit\r")
        person.expect("130")
        person.wait()


def test_detach_and_attach(engine: Engine) -> None:
    with terminal(engine, "run", "-it", "--name", "it", "busybox", "sh") as person:
        person.expect("# ")
        person.send("kept=yes\r")
        person.expect("# ")
        person.send("\x10\x11")
        person.wait()
    assert engine.inspect("it")["State"]["Running"]
    with terminal(engine, "attach", "it") as person:
        person.send("echo $kept-there\r")
        person.expect("yes-there")
        person.send("exit 4\r")
        assert person.wait() == 4


def test_detach_keys_of_ones_own(engine: Engine) -> None:
    with terminal(engine, "run", "-it", "--name", "it", "--detach-keys", "ctrl-a,x", "busybox", "sh") as person:
        person.expect("# ")
        person.send("\x01x")
        person.wait()
    assert engine.inspect("it")["State"]["Running"]


def test_attach_without_a_terminal(engine: Engine) -> None:
    engine.docker("run", "-d", "-i", "--name", "it", "busybox", "sh", "-c", "read line; echo got $line; echo err >&2; exit 3")
    done = engine.docker("attach", "it", input="given\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "got given\n", "err\n")


def test_start_attached(engine: Engine) -> None:
    engine.docker("create", "-i", "--name", "it", "busybox", "sh", "-c", "cat; exit 6")
    done = engine.docker("start", "-ai", "it", input="through\n", check=False)
    assert (done.returncode, done.stdout) == (6, "through\n")


def test_exec_with_a_terminal(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    with terminal(engine, "exec", "-it", "it", "sh", rows=31, columns=99) as person:
        person.expect("# ")
        # the window's size follows the start
        person.send("while ! [ \"$(stty size)\" = '31 99' ]; do sleep 0.05; done; echo si''zed; tty\r")
        person.expect("sized")
        person.expect("/dev/pts/0")
        person.send("exit 9\r")
        assert person.wait() == 9


def test_attach_to_what_does_not_run(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox")
    done = engine.docker("attach", "it", check=False)
    assert (done.returncode, "cannot attach to a stopped container" in done.stderr) == (1, True)


def test_a_signal_is_passed_on(engine: Engine) -> None:
    with terminal(
        engine, "run", "--name", "it", "busybox", "sh", "-c", "trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done"
    ) as run:
        run.expect("ready")
        run.process.terminate()
        assert run.wait() == 8
    wait_until(lambda: not engine.inspect("it")["State"]["Running"], "it has ended")


def test_a_signal_is_not_passed_on_without_a_proxy(engine: Engine) -> None:
    script = "trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done"
    with terminal(engine, "run", "--sig-proxy=false", "--name", "it", "busybox", "sh", "-c", script) as run:
        run.expect("ready")

        def terminated() -> bool:
            run.process.terminate()  # the client goes at the third time of asking
            return run.process.poll() is not None

        wait_until(terminated, "the client has ended")
    assert engine.inspect("it")["State"]["Running"]
    assert engine.events("it", "kill") == []


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        (("-a", "stdout"), "out\n", ""),
        (("-a", "stderr"), "", "err\n"),
        (("-a", "stdout", "-a", "stderr"), "out\n", "err\n"),
        (("-i", "-a", "stdin", "-a", "stdout"), "out\n", ""),
    ],
)
def test_streams_chosen(engine: Engine, options: tuple[str, ...], out: str, err: str) -> None:
    done = engine.docker("run", "--name", "it", *options, "busybox", "sh", "-c", "cat; echo out; echo err >&2", input="")
    assert (done.stdout, done.stderr) == (out, err)
    logged = engine.docker("logs", "it")
    assert (logged.stdout, logged.stderr) == ("out\n", "err\n")


def test_only_stdin_attached(engine: Engine) -> None:
    # the client has written all and gone before the container starts
    engine.docker("run", "-i", "-a", "stdin", "--name", "it", "busybox", "cat", input="fed\n")
    engine.docker("wait", "it")
    assert engine.out("logs", "it") == "fed"


def test_attached_to_what_never_starts(engine: Engine) -> None:
    engine.docker("create", "-i", "--name", "it", "busybox", "cat")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(engine.socket))
        path = "/containers/it/attach?stream=1&stdin=1&stdout=1"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        engine.docker("rm", "it")
        assert connection.recv(4096) == b""


def test_two_attached_see_the_same(engine: Engine) -> None:
    engine.docker("run", "-d", "-i", "--name", "it", "busybox", "sh", "-c", "read line; echo got $line")
    command = [DOCKER, "attach", "--no-stdin", "it"]
    with subprocess.Popen(command, env=engine.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as other:
        wait_until(lambda: engine.events("it", "attach"), "the other has attached")
        assert engine.docker("attach", "it", input="this\n").stdout == "got this\n"
        assert other.communicate(timeout=30)[0] == b"got this\n"
