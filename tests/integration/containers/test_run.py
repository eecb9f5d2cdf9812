"""`docker run`, from its simplest form on."""

from __future__ import annotations

from tests.support.engine import Engine


def test_output_and_exit_code(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_standard_input(engine: Engine) -> None:
    assert engine.out("run", "--rm", "-i", "busybox", "cat", input="given\n") == "given"


def test_a_port_on_localhost(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    assert engine.out("port", "web", "80").startswith("127.0.0.1:")
