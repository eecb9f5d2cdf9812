"""`docker exec`."""

from __future__ import annotations

import pytest
from tests.support.engine import Engine, wait_until


@pytest.fixture
def running(engine: Engine) -> Engine:
    engine.docker("run", "-d", "--name", "it", "-e", "OF=container", "busybox", "sleep", "1000")
    return engine


def test_output_input_and_exit_code(running: Engine) -> None:
    done = running.docker("exec", "-i", "it", "sh", "-c", "cat; echo err >&2; exit 7", input="given\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "given\n", "err\n")


def test_environment_user_and_directory(running: Engine) -> None:
    script = "echo $OF $OWN; id -un; pwd"
    options = ("-e", "OWN=exec", "-u", "user", "-w", "/var/www")
    assert running.out("exec", *options, "it", "sh", "-c", script).splitlines() == ["container exec", "user", "/var/www"]


def test_detached(running: Engine) -> None:
    running.docker("exec", "-d", "it", "touch", "/made")
    wait_until(lambda: running.docker("exec", "it", "ls", "/made", check=False).returncode == 0, "the file is made")


def test_privileged(running: Engine) -> None:
    mount = ("it", "sh", "-c", "mkdir -p /m && mount -t tmpfs t /m")
    assert running.docker("exec", *mount, check=False).returncode != 0
    running.docker("exec", "--privileged", *mount)


def test_it_joins_the_container(running: Engine) -> None:
    script = "for kind in mnt pid ipc uts net cgroup; do readlink /proc/1/ns/$kind; readlink /proc/self/ns/$kind; done"
    names = running.out("exec", "it", "sh", "-c", script).split()
    assert names[::2] == names[1::2]


@pytest.mark.parametrize(
    "options", [("--network", "none"), ("--network", "container:donor", "--ipc", "container:donor", "--pid", "container:donor"),
                ("--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host")]
)  # fmt: skip
def test_it_joins_whatever_the_container_is_in(engine: Engine, options: tuple[str, ...]) -> None:
    engine.docker("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sleep", "1000")
    script = "for kind in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$kind; done"
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sh", "-c", f"{script}; exec sleep 1000")
    joined = engine.out("exec", "it", "sh", "-c", script)
    wait_until(lambda: engine.out("logs", "it") == joined, "the container is where its exec is")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("no-such-command", 127, 'exec: "no-such-command": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ],
)
def test_what_cannot_be_executed(running: Engine, command: str, code: int, message: str) -> None:
    done = running.docker("exec", "it", command, check=False)
    assert done.returncode == code
    assert message in done.stdout + done.stderr


def test_in_what_does_not_run(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox")
    identity = engine.inspect("it")["Id"]
    assert engine.api("POST", "/containers/it/exec", {"Cmd": ["true"]}) == (
        409,
        {"message": f"container {identity} is not running"},
    )


def test_in_what_is_paused(running: Engine) -> None:
    running.docker("pause", "it")
    done = running.docker("exec", "it", "true", check=False)
    assert "is paused, unpause the container before exec" in done.stderr
    running.docker("unpause", "it")


def test_it_ends_with_the_container(running: Engine) -> None:
    status, made = running.api("POST", "/containers/it/exec", {"Cmd": ["sleep", "1000"]})
    assert status == 201
    assert running.api("POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200
    assert running.inspect("it")["ExecIDs"] == [made["Id"]]
    running.docker("kill", "it")
    wait_until(lambda: running.api("GET", f"/exec/{made['Id']}/json")[1]["ExitCode"] == 137, "it has ended")
    running.docker("rm", "it")  # the session goes with it
    assert running.api("GET", f"/exec/{made['Id']}/json")[0] == 404
