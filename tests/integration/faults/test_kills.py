"""The daemon and the keeper killed, and what goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from tests.integration.conftest import NewEngine
from tests.support.engine import Engine, running, wait_until
from tests.support.leftovers import check_nothing_left, keeper_pid

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


def test_containers_go_on_when_the_daemon_is_killed(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.docker("network", "create", "net")
    engine.docker("run", "-d", "--name", "count", "busybox", "sh", "-c", COUNT)
    engine.docker("run", "-d", "--name", "web", "--network", "net", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc")
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 9")
    engine.docker("run", "-d", "--name", "asleep", "busybox", "sleep", "100")
    engine.docker("pause", "asleep")
    engine.docker("run", "-d", "--name", "sound", "--health-cmd", "test ! -e /ill", "--health-interval", "200ms",
                  "--health-retries", "1", "busybox", "sleep", "100")  # fmt: skip
    wait_until(lambda: health(engine) == "healthy", "it is healthy")
    port = engine.out("port", "web", "80")
    pid = engine.inspect("ends")["State"]["Pid"]
    for _ in range(5):
        busy = threading.Thread(target=_work, args=(engine,))
        busy.start()
        wait_until(lambda: "working" in engine.out("ps", "-a", "--format", "{{.Names}}"), "work begins")
        engine.kill()
        busy.join()
        engine.start()
        assert health(engine) == "healthy"
        engine.docker("rm", "-f", "working", check=False)
    check_nothing_left(engine)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends")
    assert engine.out("wait", "ends") == "9"
    lines = engine.out("logs", "count").split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert engine.inspect("asleep")["State"]["Status"] == "paused"
    assert "root:" in engine.out("run", "--rm", "--network", "net", "busybox", "wget", "-qO-", "http://web/passwd")
    import urllib.request

    assert b"root:" in urllib.request.urlopen(f"http://{port}/passwd", timeout=10).read()
    engine.docker("exec", "sound", "touch", "/ill")
    wait_until(lambda: health(engine) == "unhealthy", "it is looked after")
    seen = len(lines)
    wait_until(lambda: len(engine.out("logs", "count").split()) > seen, "it counts on")


def health(engine: Engine) -> str:
    return str(engine.inspect("sound")["State"]["Health"]["Status"])


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
    check_nothing_left(engine)


def test_a_build_and_a_load_that_are_killed_leave_nothing(tmp_path: Path, new_engine: NewEngine) -> None:
    engine = new_engine()
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo one > /one\nRUN touch /begun && sleep 100\n")
    archive = tmp_path / "big.tar"
    engine.docker("save", "-o", str(archive), "busybox")
    data = archive.read_bytes()
    images = engine.out("images", "-aq", "--no-trunc")
    for _ in range(2):
        build = threading.Thread(target=engine.docker, args=("build", "-t", "never", str(context)), kwargs={"check": False})
        build.start()
        with socket.socket(socket.AF_UNIX) as load:
            load.connect(str(engine.socket))
            load.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(data))
            load.sendall(data[: len(data) - 2000])
            wait_until(lambda: list(engine.data_root.glob("snapshots/*/writable/build-*/upper/begun")), "the build's command runs")
            engine.kill()
        build.join()
        engine.start()
        assert "never" not in engine.out("images", "-a")
        engine.docker("builder", "prune", "-af")
        assert engine.out("images", "-aq", "--no-trunc") == images
        check_nothing_left(engine)
    engine.docker("load", "-i", str(archive))


def test_a_container_whose_network_was_not_recorded_is_ended(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.docker("run", "-d", "--name", "one", "busybox", "sleep", "100")
    engine.docker("run", "-d", "--name", "bare", "--network", "none", "busybox", "sleep", "100")
    pid = engine.inspect("one")["State"]["Pid"]
    engine.kill()
    with contextlib.closing(sqlite3.connect(engine.data_root / "state.db", isolation_level=None)) as database:
        assert database.execute("DELETE FROM documents WHERE collection = 'sandboxes'").rowcount == 1
    engine.start()
    assert engine.out("wait", "one") == "137"
    assert not running(pid)
    assert engine.inspect("bare")["State"]["Running"]


def test_a_removal_that_was_killed_is_finished(new_engine: NewEngine) -> None:
    engine = new_engine()
    identity = engine.out("run", "-d", "--name", "gone", "busybox", "true")
    engine.out("wait", "gone")
    engine.kill()
    (snapshot,) = engine.data_root.glob(f"snapshots/*/writable/{identity}")
    shutil.rmtree(snapshot)  # the first thing that a removal does
    engine.start()
    assert engine.api("GET", f"/containers/{identity}/json")[0] == 404
    assert engine.out("run", "--rm", "--name", "gone", "busybox", "echo", "works") == "works"
    check_nothing_left(engine)


def test_a_host_that_went_down(new_engine: NewEngine) -> None:
    engine = new_engine()
    policies = ("no", "always", "unless-stopped", "on-failure")
    for policy in policies:
        engine.docker("run", "-d", "--name", policy, "--restart", policy, "-p", "127.0.0.1::80", "busybox", "sleep", "100")
    engine.docker("run", "-d", "--rm", "--name", "removed", "busybox", "sleep", "100")
    keeper, pids = keeper_pid(engine), [engine.inspect(policy)["State"]["Pid"] for policy in policies]
    engine.kill()
    for pid in (keeper, *pids):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(running(pid) for pid in (keeper, *pids)), "all ends")
    shutil.rmtree(engine.exec_root)
    engine.start()
    for policy in policies[1:]:
        wait_until(lambda policy=policy: engine.inspect(policy)["State"]["Running"], f"it starts with the daemon: {policy}")
    state = engine.inspect("no")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 255, 0)
    wait_until(lambda: engine.api("GET", "/containers/removed/json")[0] == 404, "what was to be removed is")
    check_nothing_left(engine)


def test_a_damaged_database_is_named(new_engine: NewEngine) -> None:
    engine = new_engine(busybox=False)
    assert engine.stop() == 0
    database = engine.data_root / "state.db"
    whole = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    try:
        command = [sys.executable, "-m", "boxship.daemon", "-H", engine.host, "--data-root", str(engine.data_root),
                   "--exec-root", str(engine.exec_root)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    finally:
        database.write_bytes(whole)
    assert done.returncode == 1
    assert f"{database} cannot be used: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
    engine.start()


def test_a_layer_that_no_image_came_to_have_goes_after_a_week(new_engine: NewEngine) -> None:
    engine = new_engine()
    (layers,) = engine.data_root.glob("snapshots/*/layers")
    (used,) = layers.iterdir()
    engine.kill()
    old, young = layers / ("a" * 64), layers / ("b" * 64)
    for directory in (old, young):
        directory.mkdir()
        (directory / "size").write_text("1")
    for directory in (old, used):
        os.utime(directory, (0, 0))
    engine.start()
    assert {entry.name for entry in layers.iterdir()} == {used.name, young.name}
    assert engine.out("run", "--rm", "busybox", "echo", "works") == "works"
