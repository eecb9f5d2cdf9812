"""Stop, kill, restart, pause, wait, rename, update, remove."""

from __future__ import annotations

import subprocess

import pytest
from tests.support.engine import DOCKER, Engine, wait_until

TRAP = "trap 'echo {0}; exit 3' {0}; echo ready; while :; do sleep 0.01; done"


def ready(engine: Engine, *options: str, signal: str = "TERM") -> None:
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sh", "-c", TRAP.format(signal))
    wait_until(lambda: "ready" in engine.out("logs", "it"), "it has set its trap")


def test_stop(engine: Engine) -> None:
    ready(engine)
    engine.docker("stop", "it")
    assert engine.inspect("it")["State"]["ExitCode"] == 3
    assert engine.api("POST", "/containers/it/stop")[0] == 304


def test_stop_signal(engine: Engine) -> None:
    ready(engine, "--stop-signal", "USR1", signal="USR1")
    engine.docker("stop", "it")
    assert engine.out("logs", "it").split() == ["ready", "USR1"]


def test_stop_timeout(engine: Engine) -> None:
    engine.docker(
        "run", "-d", "--name", "it", "--stop-timeout", "0", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"
    )
    engine.docker("stop", "it")
    assert engine.inspect("it")["State"]["ExitCode"] == 137


def test_kill(engine: Engine) -> None:
    ready(engine, signal="USR2")
    engine.docker("kill", "-s", "SIGUSR2", "it")
    assert engine.out("wait", "it") == "3"
    done = engine.docker("kill", "it", check=False)
    assert "is not running" in done.stderr
    assert engine.api("POST", "/containers/it/kill")[0] == 409


def test_restart(engine: Engine) -> None:
    ready(engine)
    before = engine.inspect("it")["State"]["Pid"]
    engine.docker("restart", "it")
    after = engine.inspect("it")["State"]
    assert after["Running"]
    assert after["Pid"] != before


def test_pause(engine: Engine) -> None:
    ready(engine)
    engine.docker("pause", "it")
    assert engine.inspect("it")["State"]["Paused"]
    assert "Paused" in engine.out("ps", "--format", "{{.Status}}")
    assert "already paused" in engine.docker("pause", "it", check=False).stderr
    engine.docker("unpause", "it")
    assert "is not paused" in engine.docker("unpause", "it", check=False).stderr
    engine.docker("pause", "it")
    # what sleeps can be stopped and removed
    engine.docker("rm", "-f", "it")


def test_wait(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "-i", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; exit 6")
    with subprocess.Popen([DOCKER, "wait", "it"], env=engine.environment(), stdout=subprocess.PIPE, text=True) as waiting:
        engine.docker("exec", "it", "touch", "/go")
        assert waiting.communicate(timeout=30)[0] == "6\n"


def test_rename(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox")
    engine.docker("create", "--name", "other", "busybox")
    done = engine.docker("rename", "it", "other", check=False)
    assert 'The container name "/other" is already in use' in done.stderr
    engine.docker("rename", "it", "that")
    assert engine.api("GET", "/containers/it/json")[0] == 404
    assert engine.inspect("that")["Name"] == "/that"


def test_update(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--memory", "64m", "busybox", "sleep", "1000")
    engine.docker(
        "update",
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--restart",
        "on-failure:2",
        "it",
    )
    host = engine.inspect("it")["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (32 << 20, 500_000_000, 50)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    stats = engine.api("GET", "/containers/it/stats?stream=0&one-shot=1")[1]
    assert (stats["memory_stats"]["limit"], stats["pids_stats"]["limit"]) == (32 << 20, 50)


def test_remove(engine: Engine) -> None:
    ready(engine)
    done = engine.docker("rm", "it", check=False)
    assert "container is running: stop the container before removing or force remove" in done.stderr
    assert engine.api("DELETE", "/containers/it")[0] == 409
    engine.docker("rm", "-f", "it")
    assert engine.api("DELETE", "/containers/it")[0] == 404


def test_twenty_leave_nothing(engine: Engine) -> None:
    # the check around every test looks at mounts, control groups, links and processes
    names = [f"many{number}" for number in range(20)]
    for name in names:
        status, made = engine.api("POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
        assert status == 201, made
        assert engine.api("POST", f"/containers/{name}/start")[0] == 204
    engine.docker("rm", "-f", *names)
    assert list((engine.data_root / "containers").iterdir()) == []


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_timeout_of_the_command(engine: Engine, verb: str) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    engine.docker("run", "-d", "--name", "it", "--stop-timeout", "1000", "busybox", "sh", "-c", script)
    wait_until(lambda: "ready" in engine.out("logs", "it"), "it ignores the signal")
    engine.docker(verb, "-t", "0", "it")
    assert [event["Actor"]["Attributes"]["signal"] for event in engine.events("it", "kill")] == ["15", "9"]
    assert engine.inspect("it")["State"]["Running"] == (verb == "restart")


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_signal_of_the_command(engine: Engine, verb: str) -> None:
    ready(engine, "--stop-signal", "USR2", signal="USR1")
    assert "invalid signal: SIGNONE" in engine.docker(verb, "-s", "SIGNONE", "it", check=False).stderr
    engine.docker(verb, "-s", "SIGUSR1", "it")
    assert "USR1" in engine.out("logs", "it").split()
    if verb == "stop":
        assert engine.inspect("it")["State"]["ExitCode"] == 3


def test_stop_that_waits_as_long_as_it_takes(engine: Engine) -> None:
    script = "trap 'while [ ! -e /go ]; do sleep 0.01; done; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", script)
    wait_until(lambda: "ready" in engine.out("logs", "it"), "it has set its trap")
    with subprocess.Popen([DOCKER, "stop", "-t", "-1", "it"], env=engine.environment(), stdout=subprocess.DEVNULL) as stopping:
        wait_until(lambda: engine.events("it", "kill"), "it has been told")
        assert stopping.poll() is None
        engine.docker("exec", "it", "touch", "/go")
        assert stopping.wait(30) == 0
    assert engine.inspect("it")["State"]["ExitCode"] == 5


def test_restart_of_what_does_not_run(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox", "sleep", "1000")
    engine.docker("restart", "it")
    assert engine.inspect("it")["State"]["Running"]


def test_stop_of_what_is_paused(engine: Engine) -> None:
    ready(engine)
    engine.docker("pause", "it")
    engine.docker("stop", "it")
    state = engine.inspect("it")["State"]
    assert (state["ExitCode"], state["Paused"], state["Running"]) == (3, False, False)


def test_restart_and_start_of_what_is_paused(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--init", "busybox", "sleep", "1000")
    engine.docker("pause", "it")
    assert "cannot start a paused container" in engine.docker("start", "it", check=False).stderr
    engine.docker("restart", "it")
    state = engine.inspect("it")["State"]
    assert (state["Paused"], state["Running"]) == (False, True)
    engine.docker("pause", "it")
    engine.docker("kill", "it")
    assert engine.inspect("it")["State"]["ExitCode"] == 137


def test_wait_for_the_next_exit(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "test -e /again && exit 4; touch /again; exit 3", check=False)
    assert engine.out("wait", "it") == "3"
    with engine.waiting("it", "next-exit") as told:
        engine.docker("start", "it")
        assert told() == 4


@pytest.mark.parametrize("state", ["created", "running"])
def test_wait_for_the_removal(engine: Engine, state: str) -> None:
    engine.docker("create", "--name", "it", "busybox", "sleep", "1000")
    if state == "running":
        engine.docker("start", "it")
    with engine.waiting("it", "removed") as told:
        engine.docker("rm", "-f", "it")
        assert told() == (137 if state == "running" else 0)


def test_wait_for_nothing_known(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox")
    assert engine.api("POST", "/containers/it/wait?condition=sunset")[0] == 400


def test_rename_while_it_runs(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    engine.docker("rename", "it", "that")
    assert engine.out("exec", "that", "echo", "x") == "x"
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")  # the name is free again
    for bad in ("-bad", "a/b", "x"):
        assert engine.api("POST", f"/containers/that/rename?name={bad}")[0] == 400, bad
    assert engine.api("POST", "/containers/that/rename?name=that")[0] == 400


def test_prune(engine: Engine) -> None:
    for name, role in (("first", "old"), ("second", "old"), ("third", "new")):
        engine.docker("run", "--name", name, "-l", f"role={role}", "busybox", "sh", "-c", "head -c 100000 /dev/zero >/big")
    engine.docker("run", "-d", "--name", "runs", "busybox", "sleep", "1000")

    def left() -> set[str]:
        return set(engine.out("ps", "-a", "--format", "{{.Names}}").split())

    assert "Total reclaimed space: 0B" in engine.out("container", "prune", "-f", "--filter", "until=10m")
    engine.docker("container", "prune", "-f", "--filter", f"until={engine.inspect('second')['Created']}")
    assert left() == {"second", "third", "runs"}
    engine.docker("container", "prune", "-f", "--filter", "label!=role=new")
    assert left() == {"third", "runs"}
    engine.docker("container", "prune", "-f", "--filter", "label=role=old")
    assert left() == {"third", "runs"}
    third = engine.inspect("third")["Id"]
    told = engine.out("container", "prune", "-f")
    assert third in told
    assert "Total reclaimed space: 1" in told  # 100 kB and what the filesystem rounds it up to
    assert left() == {"runs"}
    assert engine.docker("container", "prune", "-f", "--filter", "colour=red", check=False).returncode != 0
