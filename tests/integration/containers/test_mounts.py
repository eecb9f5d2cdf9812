"""`-v`, `--mount`, `--tmpfs`, `--read-only`: what is mounted where, and how."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.engine import Engine

NewEngine = Callable[..., Engine]


def test_bind(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    script = "cat /data/file; echo back >/data/answer"
    assert engine.out("run", "--rm", "-v", f"{tmp_path}:/data", "busybox", "sh", "-c", script) == "from the host"
    assert (tmp_path / "answer").read_text() == "back\n"


def test_bind_of_one_file(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert engine.out("run", "--rm", "-v", f"{tmp_path}/file:/deep/down/file", "busybox", "cat", "/deep/down/file") == "x"


@pytest.mark.parametrize("option", ["-v", "--mount"])
def test_read_only_bind(engine: Engine, tmp_path: Path, option: str) -> None:
    text = f"{tmp_path}:/data:ro" if option == "-v" else f"type=bind,src={tmp_path},dst=/data,readonly"
    done = engine.docker("run", "--name", "it", option, text, "busybox", "touch", "/data/x", check=False)
    assert "Read-only file system" in done.stderr
    assert engine.inspect("it")["Mounts"] == [
        {"Type": "bind", "Source": str(tmp_path), "Destination": "/data", "Mode": "ro" if option == "-v" else "", "RW": False,
         "Propagation": "rprivate"}
    ]  # fmt: skip


def test_read_only_is_recursive(mounted: Path, new_engine: NewEngine) -> None:
    (mounted / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "inner", mounted / "sub"], check=True)
    engine = new_engine()
    done = engine.docker("run", "--rm", "-v", f"{mounted}:/data:ro", "busybox", "touch", "/data/sub/x", check=False)
    assert "Read-only file system" in done.stderr


def test_bind_makes_its_source(engine: Engine, tmp_path: Path) -> None:
    engine.docker("run", "--rm", "-v", f"{tmp_path}/made/here:/data", "busybox", "touch", "/data/x")
    assert (tmp_path / "made/here/x").exists()


def test_mount_wants_its_source(engine: Engine, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = engine.docker("create", "--mount", f"type=bind,src={missing},dst=/data", "busybox", check=False)
    assert f'invalid mount config for type "bind": bind source path does not exist: {missing}' in done.stderr
    assert not missing.exists()


@pytest.mark.parametrize("mode", ["z", "Z", "ro,z", "rw", "cached", "delegated", "consistent"])
def test_bind_modes(engine: Engine, tmp_path: Path, mode: str) -> None:
    engine.docker("run", "--rm", "-v", f"{tmp_path}:/data:{mode}", "busybox", "ls", "/data")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a mount of its own."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "outer", directory], check=True)
    yield directory
    subprocess.run(["umount", "-R", "-l", directory], check=True)


@pytest.mark.parametrize("propagation", ["private", "rprivate", "slave", "rslave"])
def test_propagation(engine: Engine, tmp_path: Path, propagation: str) -> None:
    engine.docker("create", "--name", "it", "-v", f"{tmp_path}:/data:{propagation}", "busybox")
    assert engine.inspect("it")["Mounts"][0]["Propagation"] == propagation
    engine.docker("start", "it")


@pytest.mark.parametrize("propagation", ["shared", "rshared"])
def test_sharing_is_refused(engine: Engine, tmp_path: Path, propagation: str) -> None:
    for option, text in (("-v", f"{tmp_path}:/data:{propagation}"),
                         ("--mount", f"type=bind,src={tmp_path},dst=/data,bind-propagation={propagation}")):  # fmt: skip
        done = engine.docker("create", option, text, "busybox", check=False)
        assert f"bind propagation {propagation} is not supported" in done.stderr


def test_bind_non_recursive(mounted: Path, new_engine: NewEngine) -> None:
    (mounted / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "inner", mounted / "sub"], check=True)
    (mounted / "sub/file").touch()
    engine = new_engine()
    for option, wanted in (("", "file"), (",bind-nonrecursive", "")):
        mount = f"type=bind,src={mounted},dst=/data{option}"
        assert engine.out("run", "--rm", "--mount", mount, "busybox", "ls", "/data/sub") == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/tmp:/data:fast", "invalid mode: fast"),
        ("/tmp:data", "mount path must be absolute"),
        ("/tmp:/", "destination can't be '/'"),
        ("a b:/data", "includes invalid characters for a local volume name"),
    ],
)
def test_bad_volume(engine: Engine, text: str, message: str) -> None:
    done = engine.docker("create", "-v", text, "busybox", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_duplicate_mount_point(engine: Engine) -> None:
    done = engine.docker("create", "-v", "/tmp:/data", "-v", "/var:/data", "busybox", check=False)
    assert "Duplicate mount point: /data" in done.stderr


@pytest.mark.parametrize("option", ["-v", "--mount"])
def test_named_volume(engine: Engine, option: str) -> None:
    text = "store:/data" if option == "-v" else "type=volume,src=store,dst=/data"
    engine.docker("run", "--rm", option, text, "busybox", "sh", "-c", "echo kept >/data/file")
    assert engine.out("run", "--rm", option, text, "busybox", "cat", "/data/file") == "kept"
    assert engine.out("volume", "ls", "-q") == "store"


@pytest.fixture
def image_with_data(engine: Engine) -> Iterator[str]:
    """An image that has a directory with an owner, a mode, a link and a file in it."""
    script = "mkdir -p /data/sub; echo x >/data/sub/file; ln -s sub /data/link; chown -R 1000:2000 /data; chmod 750 /data"
    engine.docker("run", "--name", "made", "busybox", "sh", "-c", script)
    engine.docker("commit", "--change", "VOLUME /declared", "made", "with-data")
    engine.docker("rm", "made")
    yield "with-data"
    engine.clean()
    engine.docker("rmi", "with-data")


def test_a_volume_is_filled_from_the_image(engine: Engine, image_with_data: str) -> None:
    script = "stat -c '%u %g %a' /data; cat /data/link/file; stat -c %u /data/sub/file"
    wanted = ["1000 2000 750", "x", "1000"]
    assert engine.out("run", "--rm", "-v", "store:/data", image_with_data, "sh", "-c", script).splitlines() == wanted
    # once: what has been changed stays
    engine.docker("run", "--rm", "-v", "store:/data", image_with_data, "rm", "/data/link")
    assert engine.out("run", "--rm", "-v", "store:/data", image_with_data, "ls", "/data") == "sub"


@pytest.mark.parametrize("options", [("-v", "store:/data:nocopy"), ("--mount", "type=volume,src=store,dst=/data,volume-nocopy")])
def test_a_volume_is_not_filled_when_asked_not_to(engine: Engine, image_with_data: str, options: tuple[str, str]) -> None:
    assert engine.out("run", "--rm", *options, image_with_data, "ls", "/data") == ""


def test_declared_volumes(engine: Engine, image_with_data: str) -> None:
    engine.docker("run", "--name", "it", image_with_data, "touch", "/declared/file")
    (mount,) = engine.inspect("it")["Mounts"]
    assert (mount["Type"], mount["Destination"], len(mount["Name"])) == ("volume", "/declared", 64)
    engine.docker("rm", "it")
    assert engine.out("volume", "ls", "-q") == mount["Name"]


def test_rm_v_takes_anonymous_volumes_only(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "-v", "/one", "-v", "kept:/two", "busybox")
    engine.docker("rm", "-v", "it")
    assert engine.out("volume", "ls", "-q") == "kept"


def test_volume_subpath(engine: Engine) -> None:
    engine.docker(
        "run", "--rm", "-v", "store:/data", "busybox", "sh", "-c", "mkdir /data/sub; echo x >/data/sub/file; ln -s /etc /data/out"
    )
    mount = "type=volume,src=store,dst=/data,volume-subpath="
    assert engine.out("run", "--rm", "--mount", mount + "sub", "busybox", "cat", "/data/file") == "x"
    for path in ("missing", "out"):
        done = engine.docker("run", "--rm", "--mount", mount + path, "busybox", "true", check=False)
        assert f"cannot access path '{path}'" in done.stderr


def test_volumes_from(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    engine.docker("run", "--name", "one", "-v", "store:/data", "-v", f"{tmp_path}:/bound", "busybox", "touch", "/data/file")
    assert engine.out("run", "--rm", "--volumes-from", "one", "busybox", "sh", "-c", "ls /data; cat /bound/file").split() == [
        "file",
        "bound",
    ]
    done = engine.docker("run", "--rm", "--volumes-from", "one:ro", "busybox", "touch", "/data/x", check=False)
    assert "Read-only file system" in done.stderr


def options_of(engine: Engine, target: str, *options: str) -> set[str]:
    line = engine.out("run", "--rm", *options, "busybox", "grep", f" {target} ", "/proc/mounts")
    return {line.split()[2], *line.split()[3].split(",")}


def test_tmpfs(engine: Engine) -> None:
    assert options_of(engine, "/scratch", "--tmpfs", "/scratch") >= {"tmpfs", "rw", "nosuid", "nodev", "noexec"}
    found = options_of(engine, "/scratch", "--tmpfs", "/scratch:size=1m,mode=700,exec,ro")
    assert found >= {"tmpfs", "ro", "size=1024k", "mode=700"}
    assert "noexec" not in found


def test_mount_tmpfs(engine: Engine) -> None:
    found = options_of(engine, "/scratch", "--mount", "type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=0700")
    assert found >= {"tmpfs", "nosuid", "nodev", "size=1024k", "mode=700"}


def test_bad_tmpfs(engine: Engine) -> None:
    done = engine.docker("create", "--tmpfs", "/scratch:fast", "busybox", check=False)
    assert done.returncode != 0
    assert "fast" in done.stderr


def test_read_only_root(engine: Engine) -> None:
    script = "touch /x; touch /scratch/x && touch /dev/shm/x && echo ok"
    done = engine.docker("run", "--rm", "--read-only", "--tmpfs", "/scratch", "busybox", "sh", "-c", script)
    assert "Read-only file system" in done.stderr
    assert done.stdout == "ok\n"


def test_mounts_in_mounts(engine: Engine, tmp_path: Path) -> None:
    options = ("-v", "inner:/data/sub", "-v", f"{tmp_path}:/data", "--tmpfs", "/data/sub/deep")
    found = engine.out("run", "--rm", *options, "busybox", "sh", "-c", "grep ' /data' /proc/mounts | cut -d' ' -f2")
    assert found.split() == ["/data", "/data/sub", "/data/sub/deep"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=magic,dst=/data", "magic"),
        ("type=tmpfs,src=/x,dst=/data", "tmpfs"),
        ("type=image,src=busybox,dst=/data", "image"),
        ("type=bind,src=/tmp,dst=/data,bind-propagation=magic", "magic"),
    ],
)
def test_bad_mount(engine: Engine, text: str, message: str) -> None:
    done = engine.docker("create", "--mount", text, "busybox", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_a_link_to_nothing_as_a_target(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    links = "ln -s /made/deep /absolute; ln -s ../../../../made/file /etc/relative; ln -s chain2 /chain1; ln -s /made/c /chain2"
    engine.docker("build", "-q", "-t", "linked", "-", input=f"FROM busybox\nRUN {links}; ln -s /round /round\n")
    try:
        volumes = ("-v", f"{tmp_path}:/absolute", "-v", f"{tmp_path}/file:/etc/relative", "-v", f"{tmp_path}:/chain1/below")
        script = "cat /made/deep/file /made/file /made/c/below/file"
        assert engine.out("run", "--rm", *volumes, "linked", "sh", "-c", script) == "content" * 3
        done = engine.docker("run", "--rm", "-v", f"{tmp_path}:/round", "linked", "true", check=False)
        assert "too many levels of symbolic links" in done.stderr
    finally:
        engine.clean()
        engine.docker("rmi", "linked")


def test_a_link_in_the_image_leads_no_mount_astray(engine: Engine) -> None:
    engine.docker("run", "--name", "made", "busybox", "ln", "-s", "../../../../var", "/data")
    engine.docker("commit", "made", "linked")
    try:
        script = "touch /data/x; ls /data; grep -c ' /var ' /proc/mounts"
        assert engine.out("run", "--rm", "--tmpfs", "/data", "linked", "sh", "-c", script).split() == ["x", "1"]
    finally:
        engine.docker("rm", "made")
        engine.docker("rmi", "linked")
