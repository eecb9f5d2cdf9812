"""Health checks: `--health-*`, `HEALTHCHECK`, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.engine import Engine, wait_until

QUICK = ("--health-interval", "50ms")


def health(engine: Engine) -> dict[str, Any]:
    found = engine.inspect("it")["State"].get("Health") or {}
    assert isinstance(found, dict)
    return found


def test_health(engine: Engine) -> None:
    options = ("--health-cmd", "echo probed; test -e /well", "--health-interval", "50ms", "--health-retries", "2")
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sleep", "1000")
    wait_until(lambda: engine.inspect("it")["State"]["Health"]["Status"] == "unhealthy", "it is unhealthy")
    assert engine.out("ps", "-q", "--no-trunc", "--filter", "health=unhealthy") == engine.inspect("it")["Id"]
    engine.docker("exec", "it", "touch", "/well")
    wait_until(lambda: engine.inspect("it")["State"]["Health"]["Status"] == "healthy", "it is healthy")
    assert engine.inspect("it")["State"]["Health"]["Log"][-1]["Output"] == "probed\n"
    assert "(healthy)" in engine.out("ps", "--format", "{{.Status}}")


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    """An image that has a check of its own."""
    check = "HEALTHCHECK --interval=50ms --retries=1 CMD echo image; test -e /well"
    engine.docker("build", "-q", "-t", "checked", "-", input=f"FROM busybox\n{check}\n")
    yield "checked"
    engine.clean()
    engine.docker("rmi", "checked")


def test_the_images_check(engine: Engine, image: str) -> None:
    engine.docker("run", "-d", "--name", "it", image, "sleep", "1000")
    wait_until(lambda: health(engine)["Status"] == "unhealthy", "it is unhealthy")
    assert health(engine)["Log"][-1]["Output"] == "image\n"


def test_the_images_check_with_options_of_ones_own(engine: Engine, image: str) -> None:
    engine.docker("run", "-d", "--name", "it", "--health-cmd", "echo own", image, "sleep", "1000")
    assert engine.inspect("it")["Config"]["Healthcheck"]["Test"] == ["CMD-SHELL", "echo own"]
    engine.docker("rm", "-f", "it")
    engine.docker("run", "-d", "--name", "it", "--health-retries", "7", image, "sleep", "1000")
    check = engine.inspect("it")["Config"]["Healthcheck"]
    assert (check["Retries"], check["Interval"]) == (7, 50_000_000)


def test_switched_off(engine: Engine, image: str) -> None:
    engine.docker("run", "-d", "--name", "it", "--no-healthcheck", image, "sleep", "1000")
    assert health(engine) == {}
    assert engine.out("ps", "-q", "--filter", "health=none") != ""
    assert "health" not in engine.out("ps", "--format", "{{.Status}}")


def test_it_runs_in_the_container_as_its_user(engine: Engine) -> None:
    command = "echo $MINE $(id -un) $(pwd) $(readlink /proc/self/ns/pid)"
    engine.docker("run", "-d", "--name", "it", "-e", "MINE=yes", "-u", "user", "-w", "/var/www", "--health-cmd", command,
                  *QUICK, "busybox", "sleep", "1000")  # fmt: skip
    wait_until(lambda: health(engine)["Status"] == "healthy", "it is healthy")
    namespace = engine.out("exec", "it", "readlink", "/proc/self/ns/pid")
    assert health(engine)["Log"][-1]["Output"] == f"yes user /var/www {namespace}\n"


def test_events_and_exec_form(engine: Engine) -> None:
    check = {"Test": ["CMD", "test", "-e", "/well"], "Interval": 50_000_000, "Retries": 1}
    engine.api("POST", "/containers/create?name=it", {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": check})
    engine.docker("start", "it")
    assert health(engine)["Status"] == "starting"
    wait_until(lambda: health(engine)["Status"] == "unhealthy", "it is unhealthy")
    engine.docker("exec", "it", "touch", "/well")
    wait_until(lambda: health(engine)["Status"] == "healthy", "it is healthy")
    assert health(engine)["FailingStreak"] == 0
    assert len(health(engine)["Log"]) <= 5
    engine.docker("kill", "it")
    actions = [event["Action"] for event in engine.events("it")]
    told_first = [action for action in actions if action.startswith("health")][:2]  # a probe may end with the container
    assert told_first == ["health_status: unhealthy", "health_status: healthy"]


def test_a_probe_that_takes_too_long_is_killed(engine: Engine) -> None:
    options = ("--health-cmd", "sleep 4321", "--health-timeout", "60ms", "--health-retries", "1")
    engine.docker("run", "-d", "--name", "it", *options, *QUICK, "busybox", "sleep", "1000")
    wait_until(lambda: health(engine)["Status"] == "unhealthy", "it is unhealthy")
    engine.docker("pause", "it")  # nothing is probed in what is paused
    engine.docker("unpause", "it")
    last = health(engine)["Log"][0]
    assert (last["ExitCode"], last["Output"]) == (-1, "Health check exceeded timeout (60ms)")


def test_failures_while_it_starts_do_not_count(engine: Engine) -> None:
    options = ("--health-cmd", "test -e /well", "--health-start-period", "1h", "--health-start-interval", "30ms")
    engine.docker("run", "-d", "--name", "it", *options, "--health-retries", "1", "busybox", "sleep", "1000")
    wait_until(lambda: len(health(engine)["Log"] or []) >= 3, "it has been probed")
    assert (health(engine)["Status"], health(engine)["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in engine.out("ps", "--format", "{{.Status}}")
    engine.docker("exec", "it", "touch", "/well")
    wait_until(lambda: health(engine)["Status"] == "healthy", "it is healthy")


def test_a_restart_begins_anew(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--health-cmd", "true", *QUICK, "busybox", "sleep", "1000")
    wait_until(lambda: health(engine)["Status"] == "healthy", "it is healthy")
    engine.docker("update", "--restart", "no", "it")
    engine.docker("restart", "-t", "0", "it")
    wait_until(lambda: health(engine)["Status"] == "healthy" and len(health(engine)["Log"]) < 5, "it is healthy again")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"Test": ["CMD-SHELL", "true"], "Interval": 1000}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD-SHELL", "true"], "Timeout": 1000}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD-SHELL", "true"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"Test": ["CMD-SHELL", "true"], "StartPeriod": 1000}, "StartPeriod in Healthcheck cannot be less than 1ms"),
    ],
)
def test_refused(engine: Engine, check: dict[str, object], message: str) -> None:
    status, answer = engine.api("POST", "/containers/create", {"Image": "busybox", "Healthcheck": check})
    assert (status, answer["message"]) == (400, message)
