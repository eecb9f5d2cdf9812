"""What concerns the engine as a whole: events, figures, pruning, and its socket carried elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Boxship
from tests.support.engine import Engine
from tests.support.terminal import Terminal


def test_events_of_the_past(boxship: Boxship, engine: Engine) -> None:
    begin = engine.out("info", "--format", "{{.SystemTime}}")
    boxship("run", "--rm", "--name", "cc", "--network", "none", "busybox", "sh", "-c", "exit 3", code=3)
    boxship("volume", "create", "data")
    end = engine.out("info", "--format", "{{.SystemTime}}")
    between = ("--since", begin, "--until", end)
    shown = boxship("events", *between, "--filter", "type=container", "--format", "{{.Action}} {{.Actor.Attributes.name}}").stdout
    assert [line for line in shown.splitlines() if not line.startswith("attach")] == [
        "create cc",
        "start cc",
        "die cc",
        "destroy cc",
    ]
    lines = boxship("events", *between, "--filter", "type=volume", "--filter", "event=create").stdout.splitlines()
    assert [line.split()[1:] for line in lines] == [["volume", "create", "data", "(driver=local)"]]
    died = json.loads(boxship("events", *between, "--filter", "event=die", "--format", "json").stdout)
    assert died["Actor"]["Attributes"]["exitCode"] == "3"


def test_stats_once(boxship: Boxship, engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "cc", "-m", "64m", "busybox", "sleep", "1000")
    engine.docker("create", "--name", "stopped", "busybox", "true")
    assert (
        boxship("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}").stdout.split("MiB")[-2].endswith(" / 64")
    )
    head, *lines = boxship("stats", "--no-stream", "-a").stdout.splitlines()
    assert head == engine.out("stats", "--no-stream", "-a").splitlines()[0].rstrip()
    assert sorted(line.split()[1] for line in lines) == ["cc", "stopped"]
    assert "No such container: nosuch" in boxship("stats", "--no-stream", "nosuch", code=1).stderr


def test_prune_takes_what_is_not_used(boxship: Boxship, engine: Engine) -> None:
    engine.docker("network", "create", "unused")
    engine.docker("network", "create", "used")
    engine.docker("run", "-d", "--name", "runs", "--network", "used", "busybox", "sleep", "1000")
    ended = engine.out("create", "busybox", "true")
    engine.docker("volume", "create", "named")
    engine.docker("build", "-q", "-", input="FROM busybox\nRUN echo dangling > /a\n")
    dangling = engine.out("images", "-q", "--no-trunc", "-f", "dangling=true")
    shown = boxship("system", "prune", "-f", "--volumes").stdout
    assert f"Deleted Containers:\n{ended}\n" in shown
    assert "Deleted Networks:\nunused\n" in shown
    assert dangling in shown
    assert "Total reclaimed space: " in shown
    assert engine.out("ps", "-a", "--format", "{{.Names}}") == "runs"
    assert engine.out("network", "ls", "-q", "-f", "name=used") != ""
    assert engine.out("volume", "ls", "-q") == "named"
    assert boxship("builder", "prune", "-a", "-f").stdout == "Total reclaimed space: 0B\n"


def test_prune_asks_first(boxship: Boxship, engine: Engine) -> None:
    engine.docker("create", "--name", "cc", "busybox", "true")
    assert "Are you sure you want to continue? [y/N]" in boxship("system", "prune", input="n\n", code=1).stdout
    assert engine.out("ps", "-aq") != ""


def test_attach_joins_and_takes_the_exit_code(boxship: Boxship, engine: Engine) -> None:
    engine.docker("run", "-di", "--name", "cc", "busybox", "sh", "-c", "read line; echo got $line; exit 4")
    assert boxship("attach", "cc", input="this\n", code=4).stdout == "got this\n"
    assert "cannot attach to a stopped container" in boxship("attach", "cc", code=1).stderr


def test_attach_to_a_terminal_and_detach(engine: Engine) -> None:
    engine.docker("run", "-dit", "--name", "cc", "busybox", "sh")
    command = [sys.executable, "-m", "boxship", "attach", "--detach-keys", "ctrl-a,x", "cc"]
    with Terminal(command, engine.environment()) as terminal:
        terminal.send("echo up-$((1+1))\n")
        terminal.expect("up-2")
        terminal.send("\x01x")
        assert terminal.wait() == 0
    assert engine.inspect("cc")["State"]["Running"] is True


def test_the_docker_command_through_ssh(engine: Engine, tmp_path: Path) -> None:
    """The docker command runs `docker system dial-stdio` at the other end of ssh: here a script runs ours."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {sys.executable} -m boxship -H {engine.host} system dial-stdio\n")
    ssh.chmod(0o755)
    env = {"DOCKER_HOST": "ssh://far", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    engine.docker("run", "-d", "--name", "cc", "busybox", "sleep", "1000", env=env)
    assert engine.out("exec", "-i", "cc", "cat", input="through", env=env) == "through"


@pytest.mark.parametrize(("arguments", "option"), [(("images", "--tree"), "--tree"), (("rmi", "--platform=x", "y"), "--platform")])
def test_an_option_that_is_not_there_is_named(boxship: Boxship, arguments: tuple[str, ...], option: str) -> None:
    assert option in boxship(*arguments, code=125).stderr
