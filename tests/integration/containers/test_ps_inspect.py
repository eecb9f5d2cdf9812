"""`ps`, `inspect`, `top`, `stats`."""

from __future__ import annotations

import json

import pytest
from tests.support.engine import Engine, wait_until


def names(engine: Engine, *options: str) -> set[str]:
    return set(engine.out("ps", "--format", "{{.Names}}", *options).split())


def test_filters(engine: Engine) -> None:
    engine.docker("run", "--name", "ended", "-l", "role=db", "busybox", "sh", "-c", "exit 3", check=False)
    engine.docker("create", "--name", "made", "--expose", "90", "busybox")
    engine.docker(
        "run", "-d", "--name", "runs", "-l", "role=web", "-v", "store:/data", "-p", "127.0.0.1::80", "busybox", "sleep", "1000"
    )
    identity = engine.inspect("runs")["Id"]
    assert names(engine) == {"runs"}
    assert names(engine, "-a") == {"ended", "made", "runs"}
    assert names(engine, "-l") == {"runs"}
    assert names(engine, "-n", "2") == {"runs", "made"}
    for query, found in {
        "status=exited": {"ended"}, "status=created": {"made"}, "status=running": {"runs"}, "exited=3": {"ended"},
        "label=role": {"ended", "runs"}, "label=role=web": {"runs"}, "name=ma": {"made"}, f"id={identity[:8]}": {"runs"},
        "volume=store": {"runs"}, "volume=/data": {"runs"}, "ancestor=busybox": {"ended", "made", "runs"},
        "before=made": {"ended"}, "since=made": {"runs"}, "expose=90": {"made"}, "network=bridge": {"ended", "made", "runs"},
        "health=none": {"ended", "made", "runs"}, "ancestor=nothing": set(),
    }.items():  # fmt: skip
        assert names(engine, "-a", "--filter", query) == found, query


def test_filters_by_network_and_port(engine: Engine) -> None:
    engine.docker("network", "create", "net")
    engine.docker("run", "-d", "--name", "on", "--network", "net", "-p", "127.0.0.1::80", "--expose", "9000-9002/udp", "busybox",
                  "sleep", "1000")  # fmt: skip
    engine.docker("create", "--name", "off", "busybox")
    port = int(engine.out("port", "on", "80").rpartition(":")[2])
    net = engine.out("network", "inspect", "-f", "{{.Id}}", "net")
    for query, found in {
        "network=net": {"on"}, f"network={net}": {"on"}, "network=bridge": {"off"}, f"publish={port}": {"on"},
        f"publish={port}/udp": set(), f"publish={port - 1}-{port + 1}/tcp": {"on"}, "expose=9001/udp": {"on"},
        "expose=80": {"on"}, "expose=9001": set(), "expose=8000-9500/udp": {"on"},
    }.items():  # fmt: skip
        assert names(engine, "-a", "--filter", query) == found, query


def test_filter_by_ancestor(engine: Engine) -> None:
    engine.docker("create", "--name", "base", "busybox")
    engine.docker("commit", "base", "child")
    try:
        engine.docker("create", "--name", "derived", "child")
        image = engine.inspect("base")["Image"]
        for query, found in {"busybox": {"base", "derived"}, image: {"base", "derived"}, "child": {"derived"}}.items():
            assert names(engine, "-a", "--filter", f"ancestor={query}") == found, query
    finally:
        engine.clean()
        engine.docker("rmi", "child")


@pytest.mark.parametrize("query", ["status=sleeping", "colour=red", "expose=x", "exited=x", "health=ill", "name=["])
def test_bad_filters(engine: Engine, query: str) -> None:
    engine.docker("create", "busybox")
    name, _, value = query.partition("=")
    status, answer = engine.api(
        "GET", f"/containers/json?all=1&filters={json.dumps({name: [value]}).replace(' ', '').replace('[[', '[%5B')}"
    )
    assert (status, "invalid" in answer["message"]) == (400, True)


def test_sizes(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "head -c 300000 /dev/urandom >/big")
    found = engine.api("GET", "/containers/json?all=1&size=1")[1][0]
    assert 300_000 <= found["SizeRw"] < 400_000
    assert found["SizeRootFs"] > found["SizeRw"]


def test_inspect(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "-e", "A=b", "--memory", "64m", "busybox", "sleep", "1000")
    found = json.loads(engine.out("inspect", "-s", "it"))[0]
    assert (found["Path"], found["Args"], found["Config"]["Image"]) == ("sleep", ["1000"], "busybox")
    assert "A=b" in found["Config"]["Env"]
    assert found["State"]["Pid"] > 1
    assert found["SizeRw"] >= 0
    assert found["Image"] == engine.out("image", "inspect", "-f", "{{.Id}}", "busybox")


def test_prefixes(engine: Engine) -> None:
    identity = engine.out("create", "busybox")
    assert engine.inspect(identity[:6])["Id"] == identity
    assert engine.api("GET", "/containers/nothing/json") == (404, {"message": "No such container: nothing"})


def test_top(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", "sleep 1234 & exec sleep 1235")
    wait_until(lambda: engine.out("top", "it").count(" sleep 123") == 2 and "sh -c" not in engine.out("top", "it"), "both run")
    title, *rows = engine.out("top", "it").splitlines()
    assert title.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {" ".join(row.split()[7:]) for row in rows} == {"sleep 1234", "sleep 1235"}
    assert engine.out("top", "it", "-o", "pid,args").splitlines()[0].split() == ["PID", "COMMAND"]
    engine.docker("kill", "it")
    assert "is not running" in engine.docker("top", "it", check=False).stderr


def test_stats(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--memory", "64m", "--pids-limit", "9", "busybox", "sleep", "1000")
    found = engine.api("GET", "/containers/it/stats?stream=0&one-shot=1")[1]
    assert (found["memory_stats"]["limit"], found["pids_stats"]) == (64 << 20, {"current": 1, "limit": 9})
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert "eth0" in found["networks"]
    line = engine.out("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "it")
    assert line.startswith("it 1 ")
    assert line.endswith("/ 64MiB")
