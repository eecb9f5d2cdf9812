"""The daemon and the keeper killed, and what goes on."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.integration.conftest import NewEngine
from tests.support.engine import Engine, running, wait_until

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


def keeper_pid(engine: Engine) -> int:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"launch.py\0{engine.exec_root}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        except OSError:
            continue
    raise AssertionError("no keeper runs")


def test_containers_go_on_when_the_daemon_is_killed(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.docker("network", "create", "net")
    engine.docker("run", "-d", "--name", "count", "busybox", "sh", "-c", COUNT)
    engine.docker("run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc")
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 9")
    engine.docker("run", "-d", "--name", "asleep", "busybox", "sleep", "100")
    engine.docker("pause", "asleep")
    port = engine.out("port", "web", "80")
    pid = engine.inspect("ends")["State"]["Pid"]
    for _ in range(5):
        busy = threading.Thread(target=_work, args=(engine,))
        busy.start()
        wait_until(lambda: "working" in engine.out("ps", "-a", "--format", "{{.Names}}"), "work begins")
        engine.kill()
        busy.join()
        engine.start()
        engine.docker("rm", "-f", "working", check=False)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends")
    assert engine.out("wait", "ends") == "9"
    lines = engine.out("logs", "count").split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert engine.inspect("asleep")["State"]["Status"] == "paused"
    assert "root:" in engine.out("run", "--rm", "--network", "net", "busybox", "wget", "-qO-", "http://web/passwd")
    import urllib.request

    assert b"root:" in urllib.request.urlopen(f"http://{port}/passwd", timeout=10).read()
    seen = len(lines)
    wait_until(lambda: len(engine.out("logs", "count").split()) > seen, "it counts on")


def _work(engine: Engine) -> None:
    engine.docker("create", "--name", "working", "busybox", "sleep", "100", check=False)
    for verb in (["start", "working"], ["exec", "working", "true"], ["rm", "-f", "working"]):
        engine.docker(*verb, check=False)


def test_containers_end_when_the_keeper_is_killed_and_the_daemon_goes_on(new_engine: NewEngine) -> None:
    engine = new_engine()
    for name, policy in (("plain", "no"), ("always", "always"), ("frozen", "no")):
        engine.docker("run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "100")
    engine.docker("pause", "frozen")
    pids = [engine.inspect(name)["State"]["Pid"] for name in ("plain", "always", "frozen")]
    os.kill(keeper_pid(engine), signal.SIGKILL)
    for name in ("plain", "frozen"):
        assert engine.out("wait", name) == "137"
    wait_until(lambda: engine.inspect("always")["State"]["Running"], "it is started again")
    assert not any(running(pid) for pid in pids)
    assert engine.out("run", "--rm", "busybox", "echo", "works") == "works"
