"""Builds that fail, are given up, or are cut off: what they say, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.build.conftest import DOCKERS, Bench
from tests.support.engine import Engine, wait_until


@pytest.mark.parametrize("docker", DOCKERS)
@pytest.mark.parametrize(
    ("command", "code", "shown"),
    [
        ("RUN exit 7", 7, "/bin/sh -c exit 7"),
        ('RUN ["sh", "-c", "exit 3"]', 3, "sh -c exit 3"),
        ("RUN nosuch", 127, "/bin/sh -c nosuch"),
        ("RUN sh -c 'kill -9 $$'; exit $?", 137, "/bin/sh -c sh -c 'kill -9 $$'; exit $?"),
    ],
)
def test_a_command_that_fails(bench: Bench, docker: str, command: str, code: int, shown: str) -> None:
    assert bench.fails(f"FROM busybox\n{command}\n", code=code, docker=docker) == (
        f"The command '{shown}' returned a non-zero code: {code}"
    )


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ('RUN ["nosuch"]', 127, 'dockerfile line 2: exec: "nosuch": executable file not found in $PATH'),
        ('RUN ["/etc/passwd"]', 126, 'dockerfile line 2: exec: "/etc/passwd": permission denied'),
        ("USER nosuch\nRUN id", 126, "dockerfile line 3: unable to find user nosuch: no matching entries in passwd file"),
        ("ENV a=${b:?missing}", 1, 'dockerfile line 2: failed to process "${b:?missing}": b: missing'),
        ("EXPOSE $p", 1, None),
        ("EXPOSE x", 1, "dockerfile parse error on line 2: invalid containerPort: x"),
        ("STOPSIGNAL x", 1, "dockerfile parse error on line 2: Invalid signal: x"),
        ("FROM $nothing", 1, "dockerfile line 2: base name ($nothing) should not be blank"),
        ("FROM --platform=a/b/c/d busybox", 1, "dockerfile line 2: invalid platform 'a/b/c/d'"),
        ("FROM BAD", 1, "invalid reference format"),
    ],
)
def test_an_instruction_that_fails(bench: Bench, lines: str, code: int, message: str | None) -> None:
    if message is None:
        bench.build(f"FROM busybox\n{lines}\n")  # a variable of nothing is nothing
        return
    assert message in bench.fails(f"FROM busybox\n{lines}\n", code=code)


@pytest.mark.parametrize("docker", DOCKERS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM busybox\n\nRUNN x\n", "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM busybox\nRUN --mount=type=cache,target=/x true\n", "dockerfile line 2: RUN --mount is not supported"),
        ("FROM busybox\nRUN cat <<EOF\nx\nEOF\n", "dockerfile line 2: here-documents are not supported"),
        ("# nothing\n", "the Dockerfile cannot be empty"),
    ],
)
def test_a_broken_dockerfile_starts_nothing(bench: Bench, docker: str, text: str, message: str) -> None:
    done = bench.run_build(text, check=False, docker=docker)
    assert (done.returncode, "Step" in done.stdout) == (1, False)
    assert done.stderr.rstrip().endswith(f"Error response from daemon: {message}")


def test_a_base_that_is_nowhere(bench: Bench) -> None:
    assert "connection refused" in bench.fails("FROM localhost:9/nosuch\n")


def test_a_failed_build_leaves_its_finished_steps_to_the_next_and_nothing_else(bench: Bench) -> None:
    bench.engine.docker("builder", "prune", "-af")
    images, layers = bench.engine.out("images", "-aq"), bench.layers()
    bench.fails("FROM busybox\nRUN echo 1 > /x\nRUN exit 1\n", "-t", "never")
    assert bench.engine.out("images", "-aq") == images
    assert bench.engine.out("ps", "-aq") == ""
    assert len(bench.layers() - layers) == 1
    assert " ---> Using cache\n" in bench.run_build(None, check=False).stdout
    bench.engine.docker("builder", "prune", "-af")
    assert bench.layers() == layers
    assert snapshots(bench.engine) == []


def snapshots(engine: Engine) -> list[str]:
    return [path.name for path in engine.data_root.glob("snapshots/*/writable/*")]


def running(marker: str) -> list[int]:
    """The processes whose arguments hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[:1] == [b"sleep"] and marker.encode() in arguments:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("docker", DOCKERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_goes_away_ends_the_build(bench: Bench, docker: str, number: signal.Signals) -> None:
    marker = f"3{os.getpid():07}"
    bench.write("Dockerfile", f"FROM busybox\nRUN echo 1 > /x; exec sleep {marker}\n")
    client = subprocess.Popen(
        [docker, "build", "--no-cache", "-t", "never", str(bench.directory)], env=bench.engine.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: running(marker), "the command runs")
    finally:
        client.send_signal(number)
        client.wait(10)
    wait_until(lambda: not running(marker), "the command is gone")
    wait_until(lambda: not snapshots(bench.engine), "its files are gone")
    wait_until(lambda: not list((bench.engine.data_root / "build").iterdir()), "its context is gone")
    assert "never" not in bench.engine.out("images")


def test_a_daemon_that_is_killed_leaves_no_build_behind(new_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = new_engine()
    bench = Bench(engine, tmp_path / "context")
    marker = f"4{os.getpid():07}"
    bench.write("Dockerfile", f"FROM busybox\nRUN echo 1 > /x\nRUN echo 2 > /y; exec sleep {marker}\n")
    client = subprocess.Popen(
        ["docker", "build", str(bench.directory)], env=engine.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: running(marker), "the command runs")
    engine.kill()
    assert client.wait(10) == 1
    engine.start()
    wait_until(lambda: not running(marker), "the command is gone")
    wait_until(lambda: not snapshots(engine), "its files are gone")
    assert list((engine.data_root / "build").iterdir()) == []
    image = bench.build("FROM busybox\nRUN echo 1 > /x\nRUN echo 2 > /y\n")
    assert bench.run(image, "cat /x /y") == "1\n2"


def test_builds_side_by_side(bench: Bench, tmp_path: Path) -> None:
    environment = bench.engine.environment()
    started = []
    for number in range(6):
        directory = tmp_path / f"context{number}"
        directory.mkdir()
        same = "RUN echo same > /same\n"
        (directory / "Dockerfile").write_text(f"FROM busybox\n{same}RUN echo {number} > /number\nCOPY . /x\n")
        started.append(subprocess.Popen(
            ["docker", "build", "-q", "--no-cache", "-t", f"beside:{number}", str(directory)], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ))  # fmt: skip
    for process in started:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert [bench.run(f"beside:{number}", "cat /same /number") for number in range(6)] == [f"same\n{number}" for number in range(6)]


def test_an_image_removed_under_a_build_does_not_hurt_it(bench: Bench) -> None:
    marker = f"5{os.getpid():07}"
    bench.build("FROM busybox\nRUN echo base > /base\n", "--no-cache", "-t", "base")
    bench.write("Dockerfile", f"FROM base\nRUN sleep {marker}; true\nRUN cat /base > /copy\n")
    client = subprocess.Popen(
        ["docker", "build", "--no-cache", "-t", "over", str(bench.directory)], env=bench.engine.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: running(marker), "the command runs")
    bench.engine.docker("rmi", "base")
    bench.engine.docker("builder", "prune", "-af")
    for pid in running(marker):
        os.kill(pid, signal.SIGTERM)
    _, errors = client.communicate(timeout=30)
    assert client.returncode == 0, errors
    assert bench.run("over", "cat /copy") == "base"
