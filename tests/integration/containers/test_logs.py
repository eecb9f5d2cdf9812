"""`docker logs`, and the drivers behind it."""

from __future__ import annotations

import subprocess

import pytest
from tests.support.engine import DOCKER, Engine, wait_until


def test_stdout_and_stderr_apart(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "echo out; echo err >&2")
    done = engine.docker("logs", "it")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_tail(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "seq", "100")
    assert engine.out("logs", "--tail", "3", "it").split() == ["98", "99", "100"]
    assert engine.out("logs", "-n", "0", "it") == ""
    assert engine.out("logs", "-n", "all", "it").split() == [str(n) for n in range(1, 101)]


def test_timestamps_since_and_until(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "echo one; sleep 0.05; echo two; sleep 0.05; echo three")
    lines = [line.split() for line in engine.out("logs", "-t", "it").splitlines()]
    assert [text for _, text in lines] == ["one", "two", "three"]
    second = lines[1][0]
    assert engine.out("logs", "--since", second, "it").split() == ["two", "three"]
    assert engine.out("logs", "--until", second, "it").split() == ["one", "two"]
    assert engine.out("logs", "--since", second, "--until", second, "it").split() == ["two"]
    assert engine.out("logs", "--since", "1h", "it").split() == ["one", "two", "three"]
    assert engine.out("logs", "--until", "1h", "it") == ""


def test_follow(engine: Engine) -> None:
    engine.docker(
        "run", "-d", "--name", "it", "busybox", "sh", "-c", "echo first; while [ ! -e /go ]; do sleep 0.01; done; echo last"
    )
    with subprocess.Popen([DOCKER, "logs", "-f", "it"], env=engine.environment(), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "first\n"
        engine.docker("exec", "it", "touch", "/go")
        assert follower.stdout.read() == "last\n"
        assert follower.wait(30) == 0


def test_a_line_without_an_end(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "printf unfinished")
    assert engine.docker("logs", "it").stdout == "unfinished"


def test_of_what_has_stopped_and_of_what_has_gone(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "echo", "kept")
    assert engine.out("logs", "it") == "kept"
    assert engine.out("logs", "-f", "it") == "kept"
    engine.docker("rm", "it")
    assert "No such container: it" in engine.docker("logs", "it", check=False).stderr
    engine.docker("create", "--name", "it", "busybox")
    assert engine.docker("logs", "it").stdout == ""


def test_following_through_rotations(engine: Engine) -> None:
    # more is written than the log keeps, step by step; the follower has every line
    script = "for step in 1 2 3 4; do seq $((step * 20 - 19)) $((step * 20)); while [ ! -e /go$step ]; do sleep 0.01; done; done"
    options = ("--log-opt", "max-size=1k", "--log-opt", "max-file=3")
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sh", "-c", script)
    with subprocess.Popen([DOCKER, "logs", "-f", "it"], env=engine.environment(), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        for step in range(1, 5):
            found = [int(follower.stdout.readline()) for _ in range(20)]
            assert found == list(range(step * 20 - 19, step * 20 + 1))
            engine.docker("exec", "it", "touch", f"/go{step}")
        assert follower.stdout.read() == ""
    assert len(engine.out("logs", "it").split()) < 80


def test_following_ends_with_the_container(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", "echo first; exec sleep 1000")
    with subprocess.Popen([DOCKER, "logs", "-f", "it"], env=engine.environment(), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "first\n"
        engine.docker("rm", "-f", "it")
        assert follower.wait(30) == 0


def test_rotation(engine: Engine) -> None:
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=3")
    engine.docker("run", "--name", "it", *options, "busybox", "seq", "2000")
    numbers = [int(text) for text in engine.out("logs", "it").split()]
    # the newest are there without a gap, the oldest are gone
    assert numbers == list(range(numbers[0], 2001))
    assert 1 < numbers[0] < 2000


def test_labels_and_environment(engine: Engine) -> None:
    options = ("--log-opt", "labels=role", "--log-opt", "env=STAGE", "-l", "role=web", "-e", "STAGE=test")
    engine.docker("run", "--name", "it", *options, "busybox", "echo", "x")
    assert engine.out("logs", "--details", "it") == "STAGE=test,role=web x"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_drivers(engine: Engine, driver: str) -> None:
    engine.docker("run", "--name", "it", "--log-driver", driver, "busybox", "echo", "x")
    assert engine.out("logs", "it") == "x"


def test_no_log(engine: Engine) -> None:
    assert engine.out("run", "--name", "it", "--log-driver", "none", "busybox", "echo", "seen") == "seen"
    done = engine.docker("logs", "it", check=False)
    assert "configured logging driver does not support reading" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--log-driver", "syslog"), "logger: no log driver named 'syslog' is registered"),
        (("--log-opt", "colour=red"), "unknown log opt 'colour' for json-file log driver"),
        (("--log-opt", "max-size=big"), "invalid size: 'big'"),
        (("--log-opt", "max-file=0"), "max-file"),
        (("--log-opt", "compress=true"), "--log-opt compress is not supported"),
    ],
)
def test_refused(engine: Engine, options: tuple[str, ...], message: str) -> None:
    done = engine.docker("create", *options, "busybox", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_after_a_restart_there_is_one_log(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "echo", "again")
    engine.docker("start", "-a", "it")
    wait_until(lambda: engine.out("logs", "it").split() == ["again", "again"], "both lines are there")
