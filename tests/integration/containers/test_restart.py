"""Restart policies: `--restart`, `update --restart`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.engine import Engine, wait_until

SLOW = ("sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; rm /go; exit 4")
"""Ends when it is told to, with `go`."""


def go(engine: Engine) -> None:
    engine.docker("exec", "it", "touch", "/go")


def restarts(engine: Engine) -> int:
    count = engine.inspect("it")["RestartCount"]
    assert isinstance(count, int)
    return count


def status(engine: Engine) -> str:
    return str(engine.inspect("it")["State"]["Status"])


def test_restart_on_failure(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 1")
    wait_until(
        lambda: engine.inspect("it")["State"]["Status"] == "exited" and engine.inspect("it")["RestartCount"] == 2, "it gave up"
    )
    assert engine.out("logs", "it").split() == ["run"] * 3


@pytest.mark.parametrize("options", [("--restart", "sometimes"), ("--restart", "always:3"), ("--rm", "--restart", "always")])
def test_bad_restart_policy(engine: Engine, options: tuple[str, ...]) -> None:
    assert engine.docker("create", *options, "busybox", check=False).returncode != 0


def test_always_after_success_too(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--restart", "always", "busybox", *SLOW)
    first = engine.inspect("it")["State"]["Pid"]
    go(engine)
    wait_until(lambda: restarts(engine) == 1 and status(engine) == "running", "it has been started again")
    assert engine.inspect("it")["State"]["Pid"] != first


def test_on_failure_lets_success_be(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "--restart", "on-failure", "busybox", "true")
    assert (status(engine), restarts(engine)) == ("exited", 0)


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_not_after_an_end_that_was_asked_for(engine: Engine, verb: str) -> None:
    engine.docker("run", "-d", "--name", "it", "--init", "--restart", "always", "busybox", "sleep", "1000")
    engine.docker(verb, "it")
    assert (status(engine), restarts(engine)) == ("exited", 0)
    # what is started by hand has its policy again, and counts from the start
    engine.docker("start", "it")
    engine.docker("exec", "it", "kill", "-KILL", "1", check=False)
    engine.docker("exec", "it", "kill", "1", check=False)
    wait_until(lambda: restarts(engine) == 1, "it has been started again")


@pytest.fixture
def looping(engine: Engine) -> Engine:
    """With `it`, which ends as soon as it is started, and waits twice as long for each restart."""
    engine.docker("run", "-d", "--name", "it", "--restart", "always", "busybox", "false")
    wait_until(lambda: restarts(engine) >= 2, "it has been restarted")
    return engine


def test_while_it_waits(looping: Engine) -> None:
    def observed() -> list[Any]:
        """What is seen and told within one wait; nothing where it was over too soon."""
        found = [
            looping.inspect("it")["State"],
            looping.api("GET", "/containers/json")[1][0]["Status"],
            looping.api("POST", "/containers/it/exec", {"Cmd": ["true"]}),
            looping.api("POST", "/containers/it/pause"),
            looping.api("DELETE", "/containers/it"),
        ]
        looping.api("POST", "/containers/it/unpause")
        return found if found[0]["Restarting"] and looping.inspect("it")["State"] == found[0] else []

    state, shown, exec_, pause, remove = wait_until(observed, "all was seen within one wait")
    assert (state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]) == (True, True, 0, 1)
    assert shown.startswith("Restarting (1)")
    for status, answer in (exec_, pause):
        assert (status, "is restarting, wait until the container is running" in answer["message"]) == (409, True)
    assert (remove[0], "container is restarting: stop the container before" in remove[1]["message"]) == (409, True)


@pytest.mark.parametrize("verb", [("stop", "it"), ("kill", "it"), ("rm", "-f", "it")])
def test_it_ends_while_it_waits(looping: Engine, verb: tuple[str, ...]) -> None:
    wait_until(lambda: status(looping) == "restarting", "it waits for its restart")
    with looping.waiting("it") as told:
        looping.docker(*verb)
        assert told() in (1, 137)  # killed, where it has just begun to run again
    assert looping.out("ps", "-q") == ""


def test_update(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", *SLOW)
    engine.docker("update", "--restart", "on-failure:1", "it")
    go(engine)
    wait_until(lambda: restarts(engine) == 1 and status(engine) == "running", "it has been started again")
    engine.docker("update", "--restart", "no", "it")
    go(engine)
    wait_until(lambda: status(engine) == "exited", "it has ended")
    assert (restarts(engine), engine.inspect("it")["State"]["ExitCode"]) == (1, 4)


def test_update_of_what_removes_itself(engine: Engine) -> None:
    engine.docker("run", "-d", "--rm", "--name", "it", "busybox", "sleep", "1000")
    done = engine.docker("update", "--restart", "always", "it", check=False)
    assert "Restart policy cannot be updated because AutoRemove is enabled" in done.stderr


def test_a_command_that_cannot_be_executed_is_not_tried_again(engine: Engine) -> None:
    done = engine.docker("run", "-d", "--name", "it", "--restart", "always", "busybox", "no-such-command", check=False)
    assert done.returncode == 127
    assert (status(engine), restarts(engine)) == ("created", 0)
