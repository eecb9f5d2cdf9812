"""`docker run`, from its simplest form on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.engine import Engine, busybox_tar, wait_until

NewEngine = Callable[..., Engine]


def test_output_and_exit_code(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_standard_input(engine: Engine) -> None:
    assert engine.out("run", "--rm", "-i", "busybox", "cat", input="given\n") == "given"


def test_much_goes_through_both_ways(engine: Engine) -> None:
    data = "0123456789abcdef" * 65536 * 4
    assert engine.out("run", "--rm", "-i", "busybox", "cat", input=data) == data


def test_without_i_there_is_no_input(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "wc", "-c", input="not for you") == "0"


def test_killed_by_a_signal(engine: Engine) -> None:
    assert engine.docker("run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_detached(engine: Engine) -> None:
    identity = engine.out("run", "-d", "busybox", "sleep", "1000")
    found = engine.inspect(identity)
    assert (found["Id"], found["State"]["Status"]) == (identity, "running")
    assert len(identity) == 64


def test_rm_leaves_nothing(engine: Engine) -> None:
    engine.docker("run", "--rm", "--name", "gone", "-v", "/data", "busybox", "true")
    assert engine.api("GET", "/containers/json?all=1")[1] == []
    assert engine.api("GET", "/volumes")[1]["Volumes"] == []


def test_rm_of_a_detached_container(engine: Engine) -> None:
    engine.docker("run", "-d", "--rm", "--name", "gone", "busybox", "true")
    wait_until(lambda: not engine.out("ps", "-aq"), "the container is removed")


def test_name(engine: Engine) -> None:
    engine.docker("run", "--name", "given.name-1", "busybox", "true")
    assert engine.out("ps", "-a", "--format", "{{.Names}}") == "given.name-1"


def test_a_name_is_made_up(engine: Engine) -> None:
    engine.docker("run", "busybox", "true")
    adjective, _, city = engine.out("ps", "-a", "--format", "{{.Names}}").partition("_")
    assert adjective and city


def test_environment(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\nFROM_FILE=in file\nOVERRIDDEN=file\n")
    done = engine.out("run", "--rm", "--env-file", str(file), "-e", "OVERRIDDEN=flag", "-e", "FROM_CLIENT", "-e", "EMPTY=",
                      "-e", "NOT_SET", "-h", "box", "busybox", "env", env={"FROM_CLIENT": "client"})  # fmt: skip
    assert dict(line.split("=", 1) for line in done.splitlines()) == {
        "PATH": "/bin", "HOSTNAME": "box", "HOME": "/root", "FROM_FILE": "in file", "OVERRIDDEN": "flag",
        "FROM_CLIENT": "client", "EMPTY": "",
    }  # fmt: skip


def test_a_terminal_gets_term(engine: Engine) -> None:
    assert engine.out("run", "--rm", "-t", "busybox", "sh", "-c", "echo $TERM; tty").split() == ["xterm", "/dev/pts/0"]


def test_working_directory_is_made(engine: Engine) -> None:
    assert engine.out("run", "--rm", "-w", "/made/for/it", "busybox", "pwd") == "/made/for/it"


def test_entrypoint(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b") == "a b"


def test_entrypoint_drops_the_images_command(engine: Engine) -> None:
    # the image's command is sh: with an entrypoint of its own there are no arguments left
    assert engine.out("run", "--rm", "--entrypoint", "echo", "busybox") == ""


def test_an_empty_entrypoint_resets_the_images(engine: Engine) -> None:
    engine.docker("import", "--change", 'ENTRYPOINT ["echo", "from the image"]', "-", "with-entrypoint", input=busybox_tar())
    try:
        assert engine.out("run", "--rm", "with-entrypoint", "more") == "from the image more"
        assert engine.out("run", "--rm", "--entrypoint", "", "with-entrypoint", "echo", "own") == "own"
    finally:
        engine.docker("rmi", "with-entrypoint")


def test_hostname_and_domain(engine: Engine) -> None:
    script = "hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname; grep box /etc/hosts | cut -f2"
    options = ("--hostname", "box", "--domainname", "example.test")
    assert engine.out("run", "--rm", *options, "busybox", "sh", "-c", script).splitlines() == [
        "box", "box", "example.test", "box.example.test box",
    ]  # fmt: skip


def test_the_id_is_the_hostname(engine: Engine) -> None:
    name = engine.out("run", "--name", "it", "busybox", "hostname")
    assert name == engine.inspect("it")["Id"][:12]


def test_labels(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("file.label=1\n")
    engine.docker("create", "--name", "it", "-l", "a=1", "--label", "b", "--label-file", str(file), "busybox")
    assert engine.inspect("it")["Config"]["Labels"] == {"a": "1", "b": "", "file.label": "1"}


def test_cidfile(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    identity = engine.out("run", "-d", "--cidfile", str(file), "busybox", "true")
    assert file.read_text() == identity
    again = engine.docker("run", "-d", "--cidfile", str(file), "busybox", "true", check=False)
    assert (again.returncode, "already exists" in again.stderr or "file found" in again.stderr) == (125, True)


def test_init_reaps_and_forwards(engine: Engine) -> None:
    # the program is not the first process, and the orphan that it leaves is collected
    script = "(true &); while grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do :; done; echo $$; cat /proc/1/comm; exit 5"
    done = engine.docker("run", "--init", "--name", "it", "busybox", "sh", "-c", script, check=False)
    pid, comm = done.stdout.split()
    assert (done.returncode, pid != "1", comm) == (5, True, "boxship-init")


def test_init_forwards_signals(engine: Engine) -> None:
    engine.docker(
        "run", "-d", "--init", "--name", "it", "busybox", "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    )
    wait_until(lambda: engine.out("logs", "it") == "ready", "it has set its trap")
    engine.docker("stop", "it")
    assert engine.inspect("it")["State"]["ExitCode"] == 3


def test_platform(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--platform", "linux/amd64", "busybox", "uname", "-m") == "x86_64"
    done = engine.docker("run", "--rm", "--pull", "never", "--platform", "linux/arm64", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "does not" in done.stderr
    assert "linux/arm64" in done.stderr


def test_pull(engine: Engine) -> None:
    # nothing listens there: what tries to pull fails, what does not runs
    engine.docker("tag", "busybox", "127.0.0.1:1/busybox")
    try:
        for policy in ("missing", "never"):
            assert engine.out("run", "--rm", "--pull", policy, "127.0.0.1:1/busybox", "echo", "ran") == "ran"
        always = engine.docker("run", "--rm", "--pull", "always", "127.0.0.1:1/busybox", "echo", "ran", check=False)
        assert (always.returncode, "refused" in always.stderr) == (125, True)
    finally:
        engine.docker("rmi", "127.0.0.1:1/busybox")


def test_pull_from_a_registry(new_engine: NewEngine) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    engine = new_engine("--registry-listen", f"127.0.0.1:{port}")
    name = f"127.0.0.1:{port}/busybox"
    engine.docker("tag", "busybox", name)
    engine.docker("push", name)
    engine.docker("rmi", name)
    missing = engine.docker("run", "--rm", name, "echo", "ran")
    assert missing.stdout == "ran\n"
    assert f"Unable to find image '{name}:latest' locally" in missing.stderr
    assert "Pull complete" in missing.stderr or "Already exists" in missing.stderr or "Downloaded newer image" in missing.stderr
    assert engine.docker("run", "--rm", name, "echo", "ran").stderr == ""
    always = engine.docker("run", "--rm", "--pull", "always", name, "echo", "ran")
    assert always.stdout == "ran\n"
    assert f"Status: Image is up to date for {name}:latest" in always.stderr
    assert engine.docker("create", "--pull", "always", "-q", name).stderr == ""
    engine.clean()
    engine.docker("rmi", name)
    assert engine.docker("run", "--rm", "--pull", "never", name, "true", check=False).returncode == 125


def test_pull_never_of_what_is_not_here(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--pull", "never", "nothing-like-it", "true", check=False)
    assert (done.returncode, "No such image: nothing-like-it:latest" in done.stderr) == (125, True)


def test_a_port_on_localhost(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    assert engine.out("port", "web", "80").startswith("127.0.0.1:")


@pytest.mark.parametrize("volume", [(), ("-v", "named:/data")])
def test_volume_driver_that_is_not_there(engine: Engine, volume: tuple[str, ...]) -> None:
    done = engine.docker("create", "--volume-driver", "nosuch", *volume, "busybox", check=False)
    assert (done.returncode, "--volume-driver" in done.stderr) == (1, True)
    assert "named" not in engine.out("volume", "ls", "-q").split()
