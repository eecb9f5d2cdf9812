"""The works compared: what is done, what of it is timed, and how we must stand."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import Connection
from bench.engines import Engine

CONTAINERS = 100
CLIENTS = 8
PULLED, PUSHED = 5001, 5002
"""The ports of the registries that are pulled from and pushed to."""

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of the table. `factor`: ours may be that many times the peer's (for a rate: must be at least)."""

    title: str
    unit: str
    peer: str
    factor: float
    rate: bool = False
    absolute: float | None = None
    """A limit in the unit itself, in place of the ratio."""


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work: `run` returns a value for each line; `repeat` is how often it is done in a round."""

    name: str
    lines: tuple[Line, ...]
    run: Callable[[Engine], Values]
    repeat: int = 1


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# --- containers ---


def _cycle(network: str) -> Callable[[Engine], Values]:
    def run(engine: Engine) -> Values:
        with engine.connect() as connection:

            def work() -> None:
                made = engine.create(connection, "busybox", ["true"], {"NetworkMode": network})
                connection.request("POST", f"/containers/{made}/start")
                status = connection.json("POST", f"/containers/{made}/wait")
                assert status["StatusCode"] == 0, status
                connection.request("DELETE", f"/containers/{made}")

            return (_seconds(work) * 1e3,)

    return run


def _exec(engine: Engine) -> Values:
    with engine.connect() as connection:
        made = engine.create(connection, "busybox", ["sleep", "1000"], {"NetworkMode": "none"})
        connection.request("POST", f"/containers/{made}/start")

        def work() -> None:
            body = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["true"]}
            started = connection.json("POST", f"/containers/{made}/exec", body)["Id"]
            with engine.connect() as other:
                other.request("POST", f"/exec/{started}/start", {"Detach": False, "Tty": False})
            # the end of the stream may come before the end is known
            while (state := connection.json("GET", f"/exec/{started}/json"))["Running"]:
                time.sleep(0.0005)
            assert state["ExitCode"] == 0, state

        values = [_seconds(work) * 1e3 for _ in range(3)]
        connection.request("DELETE", f"/containers/{made}?force=1")
    return (sorted(values)[1],)


def _command(engine: Engine) -> Values:
    return (_seconds(lambda: engine.run("run", "--rm", "busybox", "true")) * 1e3,)


def _many(engine: Engine) -> Values:
    """As many containers at once: started, weighed, removed."""
    # weighed before the first of all: what a daemon keeps for later is its weight too
    engine.weight = before = engine.weight or engine.pss()
    made: list[str] = []

    def start(count: int) -> None:
        with engine.connect() as connection:
            for _ in range(count):
                one = engine.create(connection, "busybox", ["sleep", "1000"])
                connection.request("POST", f"/containers/{one}/start")
                made.append(one)

    def remove(share: list[str]) -> None:
        with engine.connect() as connection:
            for one in share:
                connection.request("DELETE", f"/containers/{one}?force=1")

    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [CONTAINERS // CLIENTS + (index < CONTAINERS % CLIENTS) for index in range(CLIENTS)]
        started = _seconds(lambda: list(pool.map(start, shares)))
        grown = engine.pss() - before
        removed = _seconds(lambda: list(pool.map(remove, [made[index::CLIENTS] for index in range(CLIENTS)])))
    return started, removed, grown / CONTAINERS / (1 << 20)


# --- images ---


def _pull(engine: Engine) -> Values:
    name = f"127.0.0.1:{PULLED}/debian"
    engine.remove_image("debian")
    engine.remove_image(name)
    with engine.connect() as connection:

        def work() -> None:
            _succeed(connection.request("POST", f"/images/create?fromImage={name}&tag=latest"))
            made.append(engine.create(connection, name, ["true"], {"NetworkMode": "none"}))

        made: list[str] = []
        seconds = _seconds(work)
        connection.request("POST", f"/containers/{made[0]}/start")
        status = connection.json("POST", f"/containers/{made[0]}/wait")
        assert status["StatusCode"] == 0, status
        connection.request("DELETE", f"/containers/{made[0]}")
    engine.remove_image(name)
    return (seconds,)


def _push(archive: Path) -> Callable[[Engine], Values]:
    data = archive.read_bytes()
    anonymous = f"X-Registry-Auth: {base64.urlsafe_b64encode(b'{}').decode()}\r\n"

    def run(engine: Engine) -> Values:
        name = f"127.0.0.1:{PUSHED}/debian"
        # loaded anew: nobody may know yet how its layer looks when compressed
        engine.remove_image(name)
        engine.remove_image("debian")
        engine.load(data)
        registry = next(registry for registry in engine.registries if registry.port == PUSHED)
        registry.empty()
        with engine.connect() as connection:
            connection.request("POST", f"/images/debian/tag?repo={name}&tag=latest")

            def work() -> None:
                _succeed(connection.request("POST", f"/images/{name}/push?tag=latest{engine.push_query}", headers=anonymous))

            return (_seconds(work),)

    return run


def _load_save(archive: Path) -> Callable[[Engine], Values]:
    data = archive.read_bytes()

    def run(engine: Engine) -> Values:
        engine.remove_image("python")
        engine.remove_image("debian")
        loaded = _seconds(lambda: engine.load(data))
        with engine.connect() as connection:
            sizes: list[int] = []
            saved = _seconds(lambda: sizes.append(connection.discard("/images/python/get")))
        assert sizes[0] > len(data) * 0.9, sizes
        return loaded, saved

    return run


_DOCKERFILE = """FROM busybox
ENV PLACE=/srv/app
WORKDIR /srv/app
COPY one .
RUN echo one > first
RUN cat one first > second
COPY two .
RUN cat two second > third
RUN rm first && ln -s third first
CMD ["cat", "third"]
"""


def _build(engine: Engine) -> Values:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in (("Dockerfile", _DOCKERFILE), ("one", "1\n"), ("two", "2\n")):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    context = out.getvalue()

    def build(query: str) -> None:
        with engine.connect() as connection:
            _succeed(connection.request("POST", f"/build?t=built&rm=1&forcerm=1&layers=1{query}", context))

    cold = _seconds(lambda: build("&nocache=1"))
    build("")
    return cold, _seconds(lambda: build(""))


def _succeed(answer: bytes) -> None:
    """Raises `AssertionError` where a stream of progress ends in an error."""
    messages: list[dict[str, Any]] = [json.loads(line) for line in answer.splitlines() if line.strip()]
    for message in messages:
        assert "error" not in message, message


# --- the network ---


def _between(engine: Engine) -> Values:
    with engine.connect() as connection:
        server = engine.create(connection, "iperf", ["iperf3", "-s", "--forceflush"])
        connection.request("POST", f"/containers/{server}/start")
        address = engine.address(connection, server)
        _await_server(connection, server)
        client = engine.create(connection, "iperf", ["iperf3", "-c", address, "-t", "1", "-J"])
        connection.request("POST", f"/containers/{client}/start")
        connection.request("POST", f"/containers/{client}/wait")
        output = connection.request("GET", f"/containers/{client}/logs?stdout=1")
        for one in (client, server):
            connection.request("DELETE", f"/containers/{one}?force=1")
    return (_rate(_unframed(output)),)


def _published(engine: Engine) -> Values:
    with engine.connect() as connection:
        host = {"PortBindings": {"5201/tcp": [{"HostIp": "127.0.0.1", "HostPort": "15201"}]}}
        body = {"Image": "iperf", "Cmd": ["iperf3", "-s", "--forceflush"], "ExposedPorts": {"5201/tcp": {}}, "HostConfig": host}
        server = connection.json("POST", "/containers/create", body)["Id"]
        connection.request("POST", f"/containers/{server}/start")
        _await_server(connection, server)
        command = engine.inside("iperf3", "-c", "127.0.0.1", "-p", "15201", "-t", "1", "-J")
        output = subprocess.run(command, check=True, capture_output=True).stdout
        connection.request("DELETE", f"/containers/{server}?force=1")
    return (_rate(output),)


def _await_server(connection: Connection, container: str) -> None:
    deadline = time.monotonic() + 10
    while b"listening" not in (log := connection.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1")):
        assert time.monotonic() < deadline, f"the server does not listen: {log!r}"
        time.sleep(0.02)


def _unframed(data: bytes) -> bytes:
    """What a container without a terminal wrote (Engine API, "ContainerAttach", "Stream format")."""
    parts = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        parts.append(data[8 : 8 + size])
        data = data[8 + size :]
    return b"".join(parts)


def _rate(report: bytes) -> float:
    return float(json.loads(report)["end"]["sum_received"]["bits_per_second"]) / 1e9


def works(archives: dict[str, Path]) -> list[Work]:
    """All of them, in the order of the table."""
    return [
        Work("cycle", (Line("create, start, wait, remove of `true` over the API", "ms", "dockerd", 1 / 12),), _cycle("default"), 3),
        Work("cycle-none", (Line("the same with `--network none`", "ms", "dockerd", 1 / 14),), _cycle("none"), 3),
        Work("exec", (Line("exec of `true` over the API", "ms", "dockerd", 1 / 5),), _exec, 2),
        Work("command", (Line("the command `run --rm busybox true`", "ms", "dockerd", 1 / 3),), _command, 2),
        Work("many", (
            Line(f"{CONTAINERS} containers started by {CLIENTS} clients", "s", "podman", 1 / 4),
            Line("removed by force", "s", "podman", 1 / 3),
            Line("memory for each idle container (PSS)", "MiB", "podman", 1, absolute=0.4),
        ), _many),
        Work("pull", (Line("pull of a Debian image from docker-registry", "s", "dockerd", 1 / 5),), _pull),
        Work("push", (Line("push of the same", "s", "podman", 1),), _push(archives["debian"])),
        Work("archive", (
            Line("load of a Python image", "s", "dockerd", 1 / 5),
            Line("save of the same", "s", "podman", 1),
        ), _load_save(archives["python"])),
        Work("build", (
            Line("10-step build, cold", "s", "podman", 1 / 2),
            Line("the same, fully cached", "s", "dockerd", 1 / 2),
        ), _build),
        Work("tcp", (Line("TCP from container to container", "Gbit/s", "podman", 0.95, rate=True),), _between),
        Work("published", (
            Line("TCP from the host to a published port on 127.0.0.1", "Gbit/s", "podman", 0.95, rate=True),
        ), _published),
    ]  # fmt: skip
