"""The local driver's options: `type`, `device` and `o`, as mount(2) takes them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.engine import Engine, wait_until

TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs")


def bind(engine: Engine, source: Path, words: str = "bind", name: str = "store") -> None:
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={source}", "-o", f"o={words}", name)


def options_at(engine: Engine, target: str, volume: str = "store") -> set[str]:
    line = engine.out("run", "--rm", "-v", f"{volume}:{target}", "busybox", "grep", f" {target} ", "/proc/mounts")
    return {line.split()[2], *line.split()[3].split(",")}


def mounted(engine: Engine, volume: str = "store") -> bool:
    """Whether the volume is a mount, as the daemon sees it."""
    assert engine.process is not None
    path = f"{engine.data_root}/volumes/{volume}/_data"
    lines = Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
    return any(line.split()[4] == path for line in lines)


def refused(engine: Engine, *arguments: str) -> str:
    done = engine.docker("create", "--name", "it", *arguments, "busybox", check=False)
    assert done.returncode != 0
    # a client that is told 404 would pull the image
    assert "Unable to find image" not in done.stderr
    assert engine.api("GET", "/containers/it/json")[0] == 404
    return done.stderr


def test_tmpfs(engine: Engine) -> None:
    engine.docker("volume", "create", *TMPFS, "-o", "o=size=1m,uid=1000,mode=700,nosuid", "store")
    assert options_at(engine, "/data") >= {"tmpfs", "rw", "nosuid", "size=1024k", "uid=1000", "mode=700"}
    done = engine.docker(
        "run", "--rm", "-v", "store:/data", "busybox", "dd", "if=/dev/zero", "of=/data/x", "bs=1M", "count=2", check=False
    )
    assert "No space left on device" in done.stderr


def test_tmpfs_lives_as_long_as_it_is_used(engine: Engine) -> None:
    engine.docker("volume", "create", *TMPFS, "store")
    assert not mounted(engine)
    for name in ("one", "two"):
        engine.docker("run", "-d", "--name", name, "-v", "store:/data", "busybox", "sleep", "1000")
    engine.docker("exec", "one", "touch", "/data/file")
    engine.docker("rm", "-f", "one")
    assert engine.out("exec", "two", "ls", "/data") == "file"
    engine.docker("rm", "-f", "two")
    assert not mounted(engine)
    assert engine.out("run", "--rm", "-v", "store:/data", "busybox", "ls", "/data") == ""


def test_bind(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    bind(engine, tmp_path)
    script = "cat /data/file; echo back >/data/answer"
    assert engine.out("run", "--rm", "-v", "store:/data", "busybox", "sh", "-c", script) == "from the host"
    assert not mounted(engine)
    engine.docker("volume", "rm", "store")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "answer"}


def test_read_only_bind(engine: Engine, tmp_path: Path) -> None:
    bind(engine, tmp_path, "bind,ro,nosuid,nodev,noexec,noatime")
    done = engine.docker("run", "--rm", "-v", "store:/data", "busybox", "touch", "/data/x", check=False)
    assert "Read-only file system" in done.stderr
    assert options_at(engine, "/data") >= {"ro", "nosuid", "nodev", "noexec", "noatime"}
    (tmp_path / "file").touch()  # the host's own view is as it was


@pytest.mark.parametrize("words", ["rbind", "bind,private", "bind,rslave", "rw,bind,ro,rw", "defaults,bind"])
def test_words_of_binds(engine: Engine, tmp_path: Path, words: str) -> None:
    bind(engine, tmp_path, words)
    engine.docker("run", "--rm", "-v", "store:/data", "busybox", "touch", "/data/file")
    assert (tmp_path / "file").exists()


def test_bind_without_a_source(engine: Engine, tmp_path: Path) -> None:
    bind(engine, tmp_path / "missing")
    message = refused(engine, "-v", "/scratch", "-v", "store:/etc")
    assert f"failed to mount local volume: mount {tmp_path}/missing:" in message
    assert "flags: 0x1000: no such file or directory" in message
    assert engine.out("volume", "ls", "-q") == "store"


def test_mount_at_the_start_fails(engine: Engine, tmp_path: Path) -> None:
    bind(engine, tmp_path / "source")
    engine.docker("create", "--name", "it", "-v", "store:/nowhere", "busybox", "touch", "/nowhere/file")
    done = engine.docker("start", "it", check=False)
    assert "failed to mount local volume" in done.stderr
    (tmp_path / "source").mkdir()
    engine.docker("start", "-a", "it")
    assert (tmp_path / "source/file").exists()


@pytest.mark.parametrize(
    ("kind", "device", "words", "message"),
    [
        ("nfs", ":/export", "addr=192.0.2.1,nolock,ro", "mount :/export:"),
        ("nfs", ":/export", "addr=192.0.2.1,nolock,ro", "flags: 0x1, data: addr=192.0.2.1,nolock: "),
        ("nfs", ":/export", "addr=localhost,nolock", "data: addr=127.0.0.1,nolock: "),
        ("nfs4", ":/export", "addr=no-such-host.invalid", "lookup no-such-host.invalid: "),
        ("cifs", "//192.0.2.1/share", "username=me,password=secret", "data: username=me,password=********: "),
        ("tmpfs", "tmpfs", "nonsense=1", "data: nonsense=1: invalid argument"),
        ("no-such-type", "x", "ro", "no such device (this kernel does not know the type)"),
    ],
)
def test_failing_mounts(engine: Engine, kind: str, device: str, words: str, message: str) -> None:
    engine.docker("volume", "create", "-o", f"type={kind}", "-o", f"device={device}", "-o", f"o={words}", "store")
    found = refused(engine, "-v", "store:/etc")
    assert message in found
    assert "secret" not in found
    assert not mounted(engine)


def test_options_of_a_mount(engine: Engine) -> None:
    mount = "type=volume,src=store,dst=/data,volume-label=a=1,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m"
    for _ in range(2):
        assert "size=1024k" in engine.out("run", "--rm", "--mount", mount, "busybox", "grep", " /data ", "/proc/mounts")
    assert engine.out("volume", "inspect", "-f", "{{.Labels.a}} {{.Options.o}}", "store") == "1 size=1m"


def test_a_bind_is_filled_from_the_image(engine: Engine, tmp_path: Path) -> None:
    bind(engine, tmp_path)
    assert engine.out("run", "--rm", "-v", "store:/home", "busybox", "ls", "/home") == "user"
    assert (tmp_path / "user").is_dir()


def test_a_read_only_bind_is_not_filled(engine: Engine, tmp_path: Path) -> None:
    bind(engine, tmp_path, "bind,ro")
    assert engine.out("run", "--rm", "-v", "store:/home", "busybox", "ls", "/home") == ""


def test_a_volume_too_small_is_not_half_filled(engine: Engine) -> None:
    engine.docker("volume", "create", *TMPFS, "-o", "o=size=64k", "store")
    message = refused(engine, "-v", "store:/bin", "-v", "/scratch")
    assert "filling volume store from the image: unpacking: no space left on device" in message
    assert engine.out("volume", "ls", "-q") == "store"


def test_in_use_after_the_daemon_was_killed(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    engine.docker("volume", "create", *TMPFS, "store")
    engine.docker("run", "-d", "--name", "one", "-v", "store:/data", "busybox", "sh", "-c", "touch /data/file; sleep 1000")
    engine.docker("run", "-d", "--name", "two", "-v", "store:/data", "busybox", "sleep", "1000")
    engine.kill()
    engine.start()
    assert engine.out("run", "--rm", "-v", "store:/data", "busybox", "ls", "/data") == "file"
    assert mounted(engine)
    engine.docker("rm", "-f", "one", "two")
    assert not mounted(engine)


def test_ended_while_the_daemon_was_away(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    engine.docker("volume", "create", *TMPFS, "store")
    engine.docker("run", "-d", "--name", "one", "-v", "store:/data", "busybox", "sleep", "1000")
    pid = engine.inspect("one")["State"]["Pid"]
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    engine.start()
    wait_until(lambda: not mounted(engine), "the volume's mount goes with its last container")
