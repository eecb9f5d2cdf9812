"""Stop, kill, restart, pause, wait, rename, update, remove."""

from __future__ import annotations

import subprocess

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
