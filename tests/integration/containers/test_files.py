"""`cp` both ways, `diff`, `commit`, `export`."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.engine import Engine, wait_until

NewEngine = Callable[..., Engine]


@pytest.fixture(params=["running", "stopped"])
def container(engine: Engine, request: pytest.FixtureRequest) -> Engine:
    script = "mkdir -p /d/sub; echo x >/d/sub/file; ln -s sub /d/link; ln -s /etc/passwd /outward; echo ready; exec sleep 1000"
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", script)
    wait_until(lambda: engine.out("logs", "it") == "ready", "the files are made")
    if request.param == "stopped":
        engine.docker("kill", "it")
    return engine


def test_out(container: Engine, tmp_path: Path) -> None:
    container.docker("cp", "it:/d/sub/file", str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "x\n"
    container.docker("cp", "it:/d", str(tmp_path))
    assert (tmp_path / "d/sub/file").read_text() == "x\n"
    assert (tmp_path / "d/link").readlink() == Path("sub")
    container.docker("cp", "it:/d/.", str(tmp_path))
    assert (tmp_path / "sub/file").exists()
    container.docker("cp", "-L", "it:/outward", str(tmp_path / "followed"))
    assert "root:x:0:0" in (tmp_path / "followed").read_text()
    assert "user:x:1000" in (tmp_path / "followed").read_text()


def test_in(container: Engine, tmp_path: Path) -> None:
    (tmp_path / "new/deep").mkdir(parents=True)
    (tmp_path / "new/deep/file").write_text("given")
    container.docker("cp", str(tmp_path / "new"), "it:/d")
    container.docker("cp", str(tmp_path / "new/deep/file"), "it:/d/named")
    container.docker("cp", "it:/d/new/deep/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "given"
    container.docker("cp", "it:/d/named", str(tmp_path / "back"))
    done = container.docker("cp", str(tmp_path / "new"), "it:/nowhere/at/all", check=False)
    assert done.returncode == 1


def test_streams(container: Engine) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("piped")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"bytes"))
    container.docker("cp", "-", "it:/d", input=out.getvalue())
    assert "bytes" in container.docker("cp", "it:/d/piped", "-").stdout


def test_missing(container: Engine, tmp_path: Path) -> None:
    done = container.docker("cp", "it:/nothing", str(tmp_path), check=False)
    assert "Could not find the file /nothing in container it" in done.stderr


def test_a_link_does_not_lead_out(engine: Engine, tmp_path: Path) -> None:
    # the attack swaps links while it is copied: whichever is met, it is resolved inside the container
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    script = (
        f"mkdir -p /real{tmp_path}; while :; do rm -rf /swap; ln -s {tmp_path} /swap;"
        " rm /swap; mkdir /swap; echo own >/swap/secret; done"
    )
    engine.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", script)
    for number in range(10):
        engine.docker("cp", "it:/swap/secret", str(tmp_path / f"got{number}"), check=False)
        got = tmp_path / f"got{number}"
        assert not got.exists() or "of the host" not in got.read_text()
    engine.docker("cp", str(secret), "it:/swap/secret2", check=False)
    assert not (tmp_path / "secret2").exists()


def check_changes(engine: Engine) -> None:
    script = "echo x >/new; rm /etc/group; echo more >>/etc/passwd; mkdir /dir"
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", script)
    assert set(engine.out("diff", "it").splitlines()) == {"A /new", "C /etc", "D /etc/group", "C /etc/passwd", "A /dir"}
    engine.docker("commit", "-m", "why", "-a", "Who", "-c", 'CMD ["cat", "/new"]', "-c", "ENV ADDED=1", "it", "committed:v1")
    try:
        assert engine.out("run", "--rm", "committed:v1") == "x"
        assert "group" not in engine.out("run", "--rm", "committed:v1", "ls", "/etc").split()
        assert "ADDED=1" in engine.out("run", "--rm", "committed:v1", "env").split()
        assert engine.out("image", "inspect", "-f", "{{.Comment}} {{.Author}}", "committed:v1") == "why Who"
    finally:
        engine.docker("rmi", "committed:v1")


def check_export(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "root.tar"
    engine.docker("export", "-o", str(file), "it")
    with tarfile.open(file) as tar:
        names = set(tar.getnames())
    assert {"new", "dir", "etc/passwd", "bin/busybox"} <= names
    assert "etc/group" not in names


def test_diff_commit_export(engine: Engine, tmp_path: Path) -> None:
    check_changes(engine)
    check_export(engine, tmp_path)


def test_with_directories(new_engine: NewEngine, tmp_path: Path) -> None:
    engine = new_engine("--storage-driver", "overlay2")
    check_changes(engine)
    check_export(engine, tmp_path)
    engine.docker("cp", "it:/new", str(tmp_path / "new"))
    assert (tmp_path / "new").read_text() == "x\n"


@pytest.mark.parametrize("pause", ["true", "false"])
def test_commit_of_what_runs(engine: Engine, pause: str) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    engine.docker("exec", "it", "touch", "/made")
    engine.docker("commit", f"--pause={pause}", "it", "committed")
    try:
        assert engine.inspect("it")["State"]["Status"] == "running"
        engine.docker("run", "--rm", "committed", "ls", "/made")
    finally:
        engine.docker("rmi", "committed")


def test_read_only_root_takes_no_files(engine: Engine, tmp_path: Path) -> None:
    engine.docker("create", "--name", "it", "--read-only", "busybox")
    (tmp_path / "file").touch()
    done = engine.docker("cp", str(tmp_path / "file"), "it:/", check=False)
    assert "container rootfs is marked read-only" in done.stderr


@pytest.mark.parametrize(
    ("user", "options", "owner"),
    [("user:extra", (), "1234:1235"), ("user:extra", ("-a",), "1000:2000"), ("77", ("-a",), "77:0"), ("", ("-a",), "1234:1235")],
)
def test_owner_in(engine: Engine, tmp_path: Path, user: str, options: tuple[str, ...], owner: str) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").touch()
    for path in (tmp_path / "given", tmp_path / "given/file"):
        os.chown(path, 1234, 1235)
    engine.docker("create", "--name", "it", "-u", user, "busybox", "stat", "-c", "%u:%g", "/tmp/given", "/tmp/given/file")
    engine.docker("cp", *options, str(tmp_path / "given"), "it:/tmp")
    assert engine.out("start", "-a", "it").split() == [owner, owner]


def test_owner_in_of_a_user_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine.docker("create", "--name", "it", "-u", "nobody-like-it", "busybox")
    done = engine.docker("cp", "-a", str(tmp_path / "file"), "it:/tmp", check=False)
    assert "unable to find user nobody-like-it" in done.stderr


def test_owner_out(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox", "sh", "-c", "touch /file; chown 1234:1235 /file")
    engine.docker("start", "-a", "it")
    streamed = engine.docker("cp", "it:/file", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(streamed.encode())) as tar:
        entry = tar.getmember("file")
    assert (entry.uid, entry.gid) == (1234, 1235)
