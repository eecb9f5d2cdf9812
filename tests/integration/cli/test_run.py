"""`run` and `exec`: output, exit codes, a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.integration.cli.conftest import Boxship
from tests.support.engine import Engine, wait_until


def test_output_and_exit_codes(boxship: Boxship) -> None:
    done = boxship("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    boxship("run", "--rm", "busybox", "nosuch", code=127)
    boxship("run", "--rm", "busybox", "/etc", code=126)
    assert "--nosuch" in boxship("run", "--nosuch", "busybox", code=125).stderr


def test_stdin_reaches_it(boxship: Boxship) -> None:
    assert boxship("run", "--rm", "-i", "busybox", "cat", input="through\n").stdout == "through\n"


def test_switches_as_go_reads_them(boxship: Boxship, engine: Engine) -> None:
    boxship("run", "-d", "--rm=false", "--name=cc", "-e=A=1", "busybox", "sleep", "1000")
    assert "A=1" in engine.inspect("cc")["Config"]["Env"]
    assert engine.inspect("cc")["HostConfig"]["AutoRemove"] is False
    assert boxship("exec", "cc", "sh", "-c", "exit 3", code=3).stdout == ""


class Terminal:
    """The command with a terminal of its own."""

    def __init__(self, engine: Engine, *arguments: str) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen([sys.executable, "-m", "boxship", *arguments], stdin=side, stdout=side, stderr=side,
                                        env=engine.environment(), start_new_session=True)  # fmt: skip
        os.close(side)
        os.set_blocking(self.main, False)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def until(self, text: str) -> None:
        def read() -> bool:
            try:
                self.shown += os.read(self.main, 65536).decode()
            except (BlockingIOError, OSError):
                pass
            return text in self.shown

        wait_until(read, f"{text!r} in {self.shown!r}")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        code = self.process.wait(30)
        os.close(self.main)
        return code


def test_a_terminal_its_size_and_its_exit_code(engine: Engine) -> None:
    terminal = Terminal(engine, "run", "--rm", "-it", "busybox", "sh")
    terminal.type("until stty size | grep '30 100'; do :; done; echo first-$((1+1))\n")
    terminal.until("first-2")
    terminal.resize(41, 91)
    terminal.type("until stty size | grep '41 91'; do :; done; echo second-$((1+1))\n")
    terminal.until("second-2")
    terminal.type("exit 5\n")
    assert terminal.end() == 5


def test_the_keys_that_detach_leave_it_running(engine: Engine) -> None:
    terminal = Terminal(engine, "run", "-it", "--name", "cc", "busybox", "sh")
    terminal.type("echo up-$((1+1))\n")
    terminal.until("up-2")
    terminal.type("\x10\x11")
    assert terminal.end() == 0
    assert engine.inspect("cc")["State"]["Running"] is True


def test_signals_are_passed_on(engine: Engine, tmp_path: Path) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([sys.executable, "-m", "boxship", "run", "--rm", "busybox", "sh", "-c", script],
                          stdout=subprocess.PIPE, env=engine.environment()) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got\n"
    assert process.returncode == 9
