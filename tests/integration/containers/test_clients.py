"""The day's work, with the newest docker command that is there and with Debian's 20.10."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.support.engine import DOCKER, Engine, wait_until
from tests.support.terminal import Terminal


@pytest.fixture(params=dict.fromkeys([DOCKER, "/usr/bin/docker"]))
def client(request: pytest.FixtureRequest) -> str:
    path = str(request.param)
    if not Path(path).exists():
        pytest.skip(f"{path} is not installed")
    return path


def test_version_and_info(engine: Engine, client: str) -> None:
    assert json.loads(engine.out("version", "--format", "{{json .Server}}", docker=client))["ApiVersion"]
    assert "Storage Driver" in engine.out("info", docker=client)


def test_run(engine: Engine, client: str) -> None:
    assert engine.out("run", "--rm", "-i", "busybox", "cat", input="through\n", docker=client) == "through"
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo err >&2; exit 7", docker=client, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "err\n")
    assert engine.docker("run", "--rm", "busybox", "no-such-command", docker=client, check=False).returncode == 127


def test_a_life(engine: Engine, client: str) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", "echo logged; exec sleep 1000", docker=client)
    done = engine.docker("exec", "-i", "it", "sh", "-c", "cat; exit 5", input="in\n", docker=client, check=False)
    assert (done.returncode, done.stdout) == (5, "in\n")
    wait_until(lambda: engine.out("logs", "it", docker=client) == "logged", "the line has come")
    assert engine.out("ps", "--format", "{{.Names}} {{.Image}} {{.State}}", docker=client) == "it busybox running"
    assert "sleep 1000" in engine.out("top", "it", docker=client)
    assert json.loads(engine.out("inspect", "it", docker=client))[0]["State"]["Running"]
    engine.docker("rename", "it", "that", docker=client)
    engine.docker("stop", "-t", "0", "that", docker=client)
    assert engine.out("wait", "that", docker=client) == "137"
    engine.docker("rm", "that", docker=client)


def test_terminals(engine: Engine, client: str) -> None:
    with Terminal([client, "run", "-it", "--name", "it", "busybox", "sh"], engine.environment(), rows=33, columns=111) as person:
        person.expect("# ")
        person.send("until [ \"$(stty size)\" = '33 111' ]; do sleep 0.05; done; echo si''zed\r")
        person.expect("sized")
        person.send("\x10\x11")
        person.wait()
    with Terminal([client, "exec", "-it", "it", "sh"], engine.environment()) as person:
        person.expect("# ")
        person.send("exit 9\r")
        assert person.wait() == 9
    with Terminal([client, "attach", "it"], engine.environment()) as person:
        person.send("exit 4\r")
        assert person.wait() == 4


def test_cp(engine: Engine, client: str, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("content")
    engine.docker("create", "--name", "it", "busybox", docker=client)
    engine.docker("cp", str(tmp_path / "given"), "it:/tmp/there", docker=client)
    engine.docker("cp", "it:/tmp/there", str(tmp_path / "back"), docker=client)
    assert (tmp_path / "back").read_text() == "content"
    assert "A /tmp/there" in engine.out("diff", "it", docker=client).splitlines()


def test_stats(engine: Engine, client: str) -> None:
    engine.docker("run", "-d", "--name", "it", "--memory", "64m", "busybox", "sleep", "1000")
    told = json.loads(engine.out("stats", "--no-stream", "--format", "{{json .}}", "it", docker=client))
    assert (told["Name"], told["MemUsage"].split(" / ")[1]) == ("it", "64MiB")


def test_events(engine: Engine, client: str) -> None:
    identity = engine.out("create", "--name", "it", "busybox", "true", docker=client)
    command = [client, "events", "--since", "5m", "--filter", f"container={identity}", "--format", "{{.Action}}"]
    with subprocess.Popen(command, env=engine.environment(), stdout=subprocess.PIPE, text=True) as listener:
        engine.docker("start", "it", docker=client)
        assert listener.stdout is not None
        found: list[str] = []
        while "die" not in found:
            found.append(listener.stdout.readline().strip())
        listener.terminate()
    assert found == ["create", "start", "die"]
