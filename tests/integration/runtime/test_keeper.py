"""The keeper itself: it outlives daemons, forgets nothing that was not acknowledged, and keeps logs within bounds."""

from __future__ import annotations

import array
import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest
from tests.support.engine import wait_until
from tests.support.runtime import Run, Runtime, runtime

from boxship.containers.logs import opened, parse
from boxship.errors import Unavailable
from boxship.runtime.client import SOCKET_NAME, KeeperClient
from boxship.runtime.protocol import PACKET_LIMIT, Acknowledge, Attach, Discard, List, Log, Shutdown, Signal
from boxship.syscalls import mount as m


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Runtime]:
    """A keeper for one test, which may end it."""
    with runtime(tmp_path) as made:
        yield made


def entries(path: Path | str) -> list[tuple[str, str]]:
    """(stream, text) of every entry, across rotated files."""
    found = []
    with ExitStack() as stack:
        for raw in b"".join(file.read() for file in opened(str(path), stack)).splitlines():
            line = parse(raw)
            assert line is not None, raw
            found.append((line.stream, line.text))
    return found


# --- daemons come and go ---


def test_containers_and_their_ends_survive_the_daemon(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running, pid = keeper.start(Run(["sh", "-c", "while :; do echo tick; sleep 0.02; done"], log=Log(str(log))))
    ending, _ = keeper.start(Run(["sh", "-c", "sleep 0.2; exit 42"]))
    exec_id, _ = keeper.exec(running, "sh", "-c", "sleep 0.2; exit 43")
    keeper.client.close()
    time.sleep(0.5)
    keeper.reconnect()
    held = keeper.ask(List()).body
    assert [(entry["id"], entry["pid"]) for entry in held["containers"]] == [(running, pid)]
    assert {(entry["id"], entry["exec_id"], entry["code"]) for entry in held["exits"]} == {
        (ending, "", 42),
        (running, exec_id, 43),
    }
    assert all(abs(entry["time"] / 1e9 - time.time()) < 5 for entry in held["exits"])
    before = len(entries(log))
    time.sleep(0.1)
    assert len(entries(log)) > before > 15
    # not acknowledged: the next one hears of it again
    keeper.reconnect()
    assert len(keeper.ask(List()).body["exits"]) == 2

    keeper.client.send(Acknowledge(ending))
    keeper.client.send(Acknowledge(running, exec_id))
    assert keeper.ask(List()).body["exits"] == []
    keeper.kill(running)


def test_attached_streams_do_not_hold_a_process_whose_daemon_was_killed(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sh", "-c", "yes 0123456789 | head -c 5000000; exit 6"]))
    stream = keeper.attach(identity, stdin=False)
    time.sleep(0.1)
    stream.close()
    keeper.reconnect()
    deadline = time.monotonic() + 10
    while not keeper.ask(List()).body["exits"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (entry,) = keeper.ask(List()).body["exits"]
    assert (entry["id"], entry["code"]) == (identity, 6)

    keeper.client.send(Acknowledge(identity))


def test_it_ends_only_when_nothing_is_held(own: Runtime) -> None:
    identity, _ = own.start(Run(["sleep", "100"]))
    assert own.ask(Shutdown()).error == "1 containers are running"
    own.kill(identity)
    assert own.ask(Shutdown()).error is None
    assert os.waitpid(own.keeper_pid, 0)[1] == 0
    assert not (own.exec_root / SOCKET_NAME).exists()
    with pytest.raises(Unavailable, match="ended"):
        while True:
            own.client.receive()
    with pytest.raises(Unavailable, match="no keeper listens"):
        own.connect()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_meant_for_the_daemon_do_not_end_it(keeper: Runtime, number: int) -> None:
    os.kill(keeper.keeper_pid, number)
    assert keeper.run("true")[0] == 0


@pytest.mark.parametrize(
    "packet",
    [b"{", b"\xff\xfe", b"[]", b"null", b"7", b"{}", b'{"op": "no such"}', b'{"op": "start"}', b'{"op": ["start"]}', b"\0",
     b'{"op": "signal", "id": 5, "signal": "x"}', b'{"op": "resize", "number": 1}', b"x" * (PACKET_LIMIT + 500)],
)  # fmt: skip
def test_what_it_cannot_understand_is_not_its_end(keeper: Runtime, packet: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        stranger.connect(str(keeper.exec_root / SOCKET_NAME))
        read, write = os.pipe()
        stranger.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write]))])
        os.close(write)
        assert select.select([read], [], [], 5)[0]
        assert os.read(read, 1) == b""  # what came with it is closed
        os.close(read)
    assert keeper.run("true")[0] == 0


def test_messages_larger_than_a_packet(keeper: Runtime) -> None:
    value = "v" * (2 * PACKET_LIMIT)
    pieces = [f"V{number}={value[:100_000]}" for number in range(5)]
    assert keeper.shell("echo ${#V4}", config={"env": ["PATH=/bin", *pieces]}) == "100000\n"


def test_the_socket_is_roots_alone(keeper: Runtime) -> None:
    assert (keeper.exec_root / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    client = KeeperClient(keeper.exec_root / SOCKET_NAME)
    assert client.peer_pid() == keeper.keeper_pid
    client.close()


def test_streams_waiting_for_what_never_starts_are_let_go(keeper: Runtime) -> None:
    identity = token_hex(32)
    before = len(os.listdir(f"/proc/{keeper.keeper_pid}/fd"))
    stream = keeper.attach(identity)
    assert keeper.ask(Discard(identity)).error is None
    assert stream.read_all() == (b"", b"")
    deserted = keeper.ask(Attach(token_hex(32)))
    os.close(deserted.descriptors[0])
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{keeper.keeper_pid}/fd")) != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_sits_still_when_nothing_happens(keeper: Runtime) -> None:
    identity, _ = keeper.start(Run(["sleep", "100"], config={"tty": True, "open_stdin": True}))
    stream = keeper.attach(identity, tty=True)
    time.sleep(0.05)
    before = _ticks(keeper.keeper_pid)
    time.sleep(0.5)
    assert _ticks(keeper.keeper_pid) - before <= 2
    stream.close()
    keeper.kill(identity)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# --- logs ---


def test_a_log_tells_streams_apart_and_has_every_line(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo one; echo two >&2; printf 'ünï\\377\\t\"quoted\" \\\\\\n'; printf unfinished"
    identity, _ = keeper.start(Run(["sh", "-c", script], log=Log(str(log), attributes={"label": 'v"x'})))
    keeper.exit_of(identity)
    out = [text for stream, text in entries(log) if stream == "stdout"]
    assert out == ["one\n", 'ünï\ufffd\t"quoted" \\\n', "unfinished"]
    assert [text for stream, text in entries(log) if stream == "stderr"] == ["two\n"]
    documents = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(set(document) == {"log", "stream", "attrs", "time"} for document in documents)
    assert documents[0]["attrs"] == {"label": 'v"x'}
    assert all(len(document["time"]) == len("2024-01-01T00:00:00.123456789Z") for document in documents)


def test_long_lines_are_split_and_nothing_of_them_is_lost(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    identity, _ = keeper.start(
        Run(["sh", "-c", "yes 0123456789 | tr -d '\\n' | head -c 100000; echo; echo next"], log=Log(str(log)))
    )
    keeper.exit_of(identity)
    found = [text for _, text in entries(log)]
    assert "".join(found) == ("0123456789" * 10_000) + "\nnext\n"
    assert [text.endswith("\n") for text in found] == [False] * (len(found) - 2) + [True, True]
    assert max(map(len, found)) <= 16 * 1024 + 1


def test_a_log_is_rotated_within_its_bounds(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    identity, _ = keeper.start(Run(["sh", "-c", "seq 1 20000"], log=Log(str(log), max_size=200_000, max_files=3)))
    keeper.exit_of(identity)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 200_000 for path in tmp_path.iterdir())
    numbers = [int(text) for _, text in entries(log)]
    assert numbers == list(range(numbers[0], 20_001))


def test_a_log_of_one_file_begins_anew(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    identity, _ = keeper.start(Run(["sh", "-c", "seq 1 20000"], log=Log(str(log), max_size=200_000, max_files=1)))
    keeper.exit_of(identity)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert entries(log)[-1] == ("stdout", "20000\n")
    assert log.stat().st_size <= 200_000


def test_a_log_goes_on_where_the_last_run_ended(keeper: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("first", "second"):
        identity, _ = keeper.start(Run(["echo", word], log=Log(str(log))))
        keeper.exit_of(identity)
    assert entries(log) == [("stdout", "first\n"), ("stdout", "second\n")]


def test_a_log_taken_away_is_no_harm(keeper: Runtime, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    script = "for i in $(seq 1 300); do yes 0123456789 | head -c 2000; sleep 0.001; done; exit 8"
    identity, _ = keeper.start(Run(["sh", "-c", script], log=Log(str(place / "log"), max_size=4000, max_files=3)))
    wait_until((place / "log.1").exists, "the log has been rotated")
    place.rename(tmp_path / "away")
    shutil.rmtree(tmp_path / "away")
    assert keeper.exit_of(identity).code == 8
    assert keeper.run("true")[0] == 0


def test_a_full_disk_loses_output_but_neither_container_nor_log(keeper: Runtime, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    m.mount("tmpfs", str(disk), "tmpfs", 0, "size=256k")
    try:
        with Path(f"/proc/{keeper.keeper_pid}/root{disk}/probe").open("w") as probe:
            probe.write("the keeper sees the same disk")
        (disk / "probe").unlink()
        filler = disk / "filler"
        filler.write_bytes(bytes(200_000))
        log = disk / "log"
        script = "seq -f '%06g' 1 20000; echo sync >&2; read x; echo after"
        identity = token_hex(32)
        stream = keeper.attach(identity)
        run = Run(["sh", "-c", script], config={"open_stdin": True}, log=Log(str(log), max_size=10_000_000, max_files=2))
        keeper.start(run, identity)
        stream.read_until(b"sync", 2)
        filler.unlink()
        stream.send(b"\n")
        stream.read_until(b"after")
        assert keeper.exit_of(identity).code == 0
        damaged = [raw for raw in log.read_bytes().splitlines() if parse(raw) is None]
        assert len(damaged) <= 1
        assert parse(log.read_bytes().splitlines()[-1]).text == "after\n"  # type: ignore[union-attr]
    finally:
        m.unmount(str(disk), m.MNT_DETACH)


def test_no_log_where_none_is_wanted(keeper: Runtime, tmp_path: Path) -> None:
    identity, _ = keeper.start(Run(["echo", "x"]))
    keeper.exit_of(identity)
    keeper.ask(Signal(identity, signal.SIGKILL))
    assert list(tmp_path.iterdir()) == []
