"""A data root on a disk that fills up: a clear error, nothing half there, and on again once there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.engine import Engine, running, running_engine, wait_until

FULL = "no space left on device"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Engine]:
    """A daemon whose data root holds 24 MB."""
    root = tmp_path / "e" / "data"
    root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "boxship-small", str(root)], check=True)
    try:
        with running_engine(tmp_path / "e") as engine:
            yield engine
    finally:
        subprocess.run(["umount", str(root)], check=True)


class Filling:
    """Takes every byte that is left, and gives it back."""

    def __init__(self, engine: Engine) -> None:
        self.file = engine.data_root / "filling"

    def __enter__(self) -> None:
        with self.file.open("wb", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2

    def __exit__(self, *_: object) -> None:
        self.file.unlink()


def files(engine: Engine) -> set[str]:
    """What is below the data root, but for the journal's files and what is on its way out."""
    found = (str(path.relative_to(engine.data_root)) for path in engine.data_root.rglob("*"))
    return {name for name in found if "/trash" not in name and not name.startswith(("state.db", "filling"))}


def nothing_new(engine: Engine, before: set[str]) -> bool:
    return not {name for name in files(engine) - before if "/new-" in name or "/writable/" in name or "containers/" in name}


def test_a_load_that_does_not_fit(small: Engine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN head -c 4000000 /dev/urandom > /big\n")
    small.docker("build", "-q", "-t", "big", str(context))
    archive = tmp_path / "big.tar"
    small.docker("save", "-o", str(archive), "big")
    small.docker("rmi", "big")
    small.docker("builder", "prune", "-af")
    images, before = small.out("images", "-aq"), files(small)
    with Filling(small):
        done = small.docker("load", "-i", str(archive), check=False)
        assert done.returncode != 0
        assert FULL in done.stderr.lower(), done.stderr
        assert small.out("images", "-aq") == images
        wait_until(lambda: nothing_new(small, before), "what was begun goes")
    small.docker("load", "-i", str(archive))
    assert small.out("run", "--rm", "big", "wc", "-c", "/big").split()[0] == "4000000"


def test_a_build_and_a_container_that_do_not_fit(small: Engine, tmp_path: Path) -> None:
    small.docker("run", "-d", "--name", "old", "busybox", "sh", "-c", "while :; do echo line; sleep 0.01; done")
    images, before = small.out("images", "-aq"), files(small)
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_bytes(b"x" * 1_500_000)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file /file\nRUN cat /file /file > /both\n")
    with Filling(small):
        for arguments in (["build", "-t", "made", str(context)], ["create", "--name", "new", "busybox"],
                          ["run", "--name", "newer", "busybox", "true"]):  # fmt: skip
            done = small.docker(*arguments, check=False)
            assert done.returncode != 0, arguments
            assert FULL in done.stderr.lower(), (arguments, done.stderr)
        assert small.out("ps", "-a", "--format", "{{.Names}}") == "old"
        assert small.out("images", "-aq") == images
        wait_until(lambda: nothing_new(small, before), "what was begun goes")
        assert small.inspect("old")["State"]["Running"]  # its log has gaps, and it goes on
        failed = small.docker("exec", "old", "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=9", check=False)
        assert FULL in failed.stderr.lower()
    lines = len(small.out("logs", "old").split())
    wait_until(lambda: len(small.out("logs", "old").split()) > lines, "lines are written again")
    assert set(small.out("logs", "old").split()) == {"line"}
    small.docker("exec", "old", "rm", "/file")
    small.docker("build", "-q", "-t", "made", str(context))
    assert small.out("run", "--rm", "--name", "new", "made", "wc", "-c", "/both").split()[0] == "3000000"


def test_a_start_on_a_full_disk(small: Engine) -> None:
    small.docker("run", "-d", "--name", "on", "busybox", "sleep", "100")
    pid = small.inspect("on")["State"]["Pid"]
    small.kill()
    with Filling(small):
        command = [sys.executable, "-m", "boxship.daemon", "-H", small.host, "--data-root", str(small.data_root),
                   "--exec-root", str(small.exec_root)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr, done.stderr
        assert FULL in done.stderr.lower() or "disk is full" in done.stderr, done.stderr
    assert running(pid)
    small.start()
    assert small.inspect("on")["State"]["Pid"] == pid
    assert small.out("run", "--rm", "busybox", "echo", "works") == "works"
