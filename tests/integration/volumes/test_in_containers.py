"""Volumes as containers have them: whose they are, what goes with `--rm` and `rm -v`, `--volumes-from`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.engine import Engine, wait_until


def names(engine: Engine) -> list[str]:
    return engine.out("volume", "ls", "-q").split()


def test_rm_flag_takes_anonymous_ones(engine: Engine) -> None:
    anonymous = ("-v", "/one", "--mount", "type=volume,dst=/two")
    engine.docker("run", "--rm", *anonymous, "-v", "kept:/three", "busybox", "touch", "/one/x", "/two/x", "/three/x")
    assert names(engine) == ["kept"]
    engine.docker("run", "-d", "--rm", "--name", "it", *anonymous, "busybox", "sleep", "1000")
    assert len(names(engine)) == 3
    engine.docker("kill", "it")
    wait_until(lambda: names(engine) == ["kept"], "the anonymous volumes go with the container")


def test_rm_f_of_one_that_removes_itself(engine: Engine) -> None:
    """As with Docker: it was asked for a removal that keeps the volumes."""
    engine.docker("run", "-d", "--rm", "--name", "it", "-v", "/data", "busybox", "sleep", "1000")
    engine.docker("rm", "-f", "it")
    assert len(names(engine)) == 1


def test_a_named_volume_is_nobodys(engine: Engine) -> None:
    """What `volume create` named by itself is kept: the container was given a name."""
    made = engine.out("volume", "create")
    engine.docker("run", "--rm", "-v", f"{made}:/data", "busybox", "true")
    assert names(engine) == [made]


def test_rm_without_v_keeps_all(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "-v", "/data", "busybox")
    engine.docker("rm", "it")
    assert len(names(engine)) == 1


def test_volumes_from_several(engine: Engine) -> None:
    engine.docker("run", "--name", "one", "-v", "first:/first", "-v", "/shared", "busybox", "touch", "/first/a", "/shared/one")
    engine.docker("run", "--name", "two", "-v", "second:/second", "-v", "/shared", "busybox", "touch", "/second/b", "/shared/two")
    engine.docker("run", "--name", "it", "--volumes-from", "one:ro", "--volumes-from", "two", "-v", "own:/second", "busybox",
                  "ls", "/first", "/second", "/shared")  # fmt: skip
    assert engine.out("logs", "it").split() == ["/first:", "a", "/second:", "/shared:", "two"]
    found = {mount["Destination"]: (mount["Name"], mount["RW"]) for mount in engine.inspect("it")["Mounts"]}
    assert found["/first"] == ("first", False)
    assert found["/second"] == ("own", True)


def test_an_anonymous_volume_goes_with_its_last_container(engine: Engine) -> None:
    engine.docker("create", "--name", "one", "-v", "/data", "busybox")
    engine.docker("create", "--name", "two", "--volumes-from", "one", "busybox")
    (shared,) = names(engine)
    engine.docker("rm", "-v", "one")
    assert names(engine) == [shared]
    engine.docker("rm", "-v", "two")
    assert names(engine) == []


@pytest.mark.parametrize(
    ("entry", "message"), [("nope", "No such container: nope"), ("one:fast", "invalid mode for volumes-from: fast")]
)
def test_bad_volumes_from(engine: Engine, entry: str, message: str) -> None:
    engine.docker("create", "--name", "one", "busybox")
    status, found = engine.api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"VolumesFrom": [entry]}})
    assert (status, message in found["message"]) == (404 if entry == "nope" else 400, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-v", "/etc/passwd"], "cannot mount volume over existing file, file exists /etc/passwd"),
        (["-v", "/one", "-v", "store:/two:rslave"], "invalid mode: rslave"),
        (["-v", "/one", "--mount", "type=bind,src=/no/such/path,dst=/two"], "bind source path does not exist: /no/such/path"),
        (["--mount", "type=volume,dst=/two", "--tmpfs", "/two"], "Duplicate mount point: /two"),
        (["--mount", "type=volume,dst=/two,volume-subpath=../x"], "invalid subpath '../x': it must lie in the volume"),
        (["--mount", "type=bind,src=relative,dst=/two"], "'relative' mount path must be absolute"),
        (["--mount", "type=image,src=busybox,dst=/two"], 'mount type "image" is not supported'),
    ],
)
def test_what_is_refused_leaves_no_volume(engine: Engine, options: list[str], message: str) -> None:
    done = engine.docker("create", *options, "busybox", check=False)
    assert message in done.stderr
    assert names(engine) == []


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Binds": ["store:/x:ro,rw"]}, "invalid mode: ro,rw"),
        ({"Binds": ["/tmp:/x:z,Z"]}, "invalid mode: z,Z"),
        ({"Binds": ["a:/b:ro:d"]}, "invalid volume specification: 'a:/b:ro:d'"),
        ({"Mounts": [{"Type": "volume"}]}, 'for type "volume": field Target must not be empty'),
        ({"Mounts": [{"Type": "bind", "Target": "/x"}]}, 'for type "bind": field Source must not be empty'),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/x", "Source": "y"}]}, 'type "tmpfs": field Source must not be specified'),
        ({"Mounts": [{"Type": "volume", "Target": "/x", "BindOptions": {}}]}, "field BindOptions must not be specified"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/x", "VolumeOptions": {}}]}, "field VolumeOptions must not be specified"),
        ({"Mounts": [{"Type": "what", "Target": "/x"}]}, 'mount type unknown: "what"'),
        ({"Tmpfs": {"/x": "bogus"}}, "invalid tmpfs option 'bogus'"),
    ],
)  # fmt: skip
def test_bad_requests(engine: Engine, host: dict[str, object], message: str) -> None:
    status, found = engine.api("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    assert status == 400
    assert message in found["message"]
    assert names(engine) == []


@pytest.mark.parametrize(("recursive", "writable"), [("enabled", False), ("writable", True)])
def test_read_only_binds_and_what_is_below(
    tmp_path: Path, new_engine: Callable[..., Engine], recursive: str, *, writable: bool
) -> None:
    below = tmp_path / "bound/below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", below], check=True)
    try:
        engine = new_engine()
        mount = f"type=bind,src={tmp_path}/bound,dst=/x,readonly,bind-recursive={recursive}"
        engine.docker("run", "--rm", "--mount", mount, "busybox", "touch", "/x/below/file", check=False)
        assert (below / "file").exists() == writable
    finally:
        subprocess.run(["umount", below], check=True)


def test_volume_driver(engine: Engine) -> None:
    engine.docker("run", "--rm", "--volume-driver", "local", "-v", "store:/data", "busybox", "true")
    assert names(engine) == ["store"]
    done = engine.docker("create", "--volume-driver", "nope", "-v", "other:/data", "busybox", check=False)
    assert "--volume-driver" in done.stderr
    assert names(engine) == ["store"]


def test_two_containers_share_a_volume(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "reader", "-v", "store:/data:ro", "busybox", "sleep", "1000")
    engine.docker("run", "--rm", "-v", "store:/data", "busybox", "sh", "-c", "echo x >/data/file")
    assert engine.out("exec", "reader", "cat", "/data/file") == "x"
    assert "Read-only" in engine.docker("exec", "reader", "rm", "/data/file", check=False).stderr


def test_nested_volumes(engine: Engine) -> None:
    """The outer one is mounted first, in whatever order they are given."""
    volumes = ("-v", "inner:/data/in/ner", "-v", "outer:/data")
    engine.docker("run", "--rm", *volumes, "busybox", "touch", "/data/in/ner/file", "/data/outside")
    assert engine.out("run", "--rm", "-v", "inner:/data", "busybox", "ls", "/data") == "file"
    assert engine.out("run", "--rm", "-v", "outer:/data", "busybox", "ls", "/data", "/data/in/ner").split() == [
        "/data:", "in", "outside", "/data/in/ner:",
    ]  # fmt: skip


def test_filling_keeps_what_files_are(engine: Engine) -> None:
    script = (
        "mkdir /data; cd /data; echo x >file; ln file hard; chmod 4755 file; mkfifo pipe; ln -s /etc/passwd link;"
        " mkdir -m 1777 sticky; chown 1000:2000 sticky; touch -d '2001-02-03 04:05:06' old; chown 5:6 .; chmod 2750 ."
    )
    engine.docker("run", "--name", "made", "busybox", "sh", "-c", script)
    engine.docker("commit", "made", "filled")
    engine.docker("rm", "made")
    try:
        look = "stat -c '%n %a %u %g %h %F' . file hard pipe link sticky; stat -c %Y old; readlink link"
        wanted = engine.out("run", "--rm", "-w", "/data", "filled", "sh", "-c", look)
        assert engine.out("run", "--rm", "-w", "/data", "-v", "store:/data", "filled", "sh", "-c", look) == wanted
        assert "file 4755 0 0 2 regular file" in wanted
    finally:
        engine.docker("rmi", "filled")


@pytest.fixture(params=["erofs", "overlay2"])
def either_driver(request: pytest.FixtureRequest, engine: Engine, new_engine: Callable[..., Engine]) -> Engine:
    """A daemon with each snapshot driver; the shared one where it has it."""
    if engine.out("info", "-f", "{{.Driver}}") == request.param:
        return engine
    return new_engine("--storage-driver", request.param)


def test_copying_to_a_container_that_never_ran(either_driver: Engine, tmp_path: Path) -> None:
    engine = either_driver
    (tmp_path / "file").write_text("given")
    (tmp_path / "bound").mkdir()
    options = ("-v", "store:/data/store", "-v", f"{tmp_path}/bound:/bound", "-v", "closed:/closed:ro", "--read-only")
    engine.docker("create", "--name", "it", *options, "busybox", "cat", "/data/store/file", "/bound/file")
    for target in ("/data/store", "/bound"):
        engine.docker("cp", f"{tmp_path}/file", f"it:{target}")
    assert (tmp_path / "bound/file").read_text() == "given"
    for target, what in (("/closed", "mounted volume"), ("/data", "container rootfs")):
        done = engine.docker("cp", f"{tmp_path}/file", f"it:{target}", check=False)
        assert f"{what} is marked read-only" in done.stderr
    assert engine.out("start", "-a", "it") == "givengiven"
    engine.docker("cp", "it:/data", f"{tmp_path}/back")
    assert (tmp_path / "back/store/file").read_text() == "given"
    engine.docker("rm", "it")
    engine.docker("volume", "rm", "store", "closed")


def test_copying_to_a_running_container(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("given")
    engine.docker("run", "-d", "--name", "it", "-v", "store:/data", "-v", "closed:/closed:ro", "busybox", "sleep", "1000")
    engine.docker("cp", f"{tmp_path}/file", "it:/data")
    assert engine.out("exec", "it", "cat", "/data/file") == "given"
    assert "marked read-only" in engine.docker("cp", f"{tmp_path}/file", "it:/closed", check=False).stderr


def test_export_leaves_volumes_out(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "-v", "store:/data", "busybox", "touch", "/data/file", "/beside")
    members = engine.docker("export", "it").stdout
    assert "beside" in members
    assert "data/file" not in members
