"""`docker volume` create, ls, inspect, rm, prune, and what `system df` and `events` say of volumes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.engine import Engine

ANONYMOUS = "com.docker.volume.anonymous"


def names(engine: Engine, *filters: str) -> list[str]:
    return engine.out("volume", "ls", "-q", *(f"--filter={text}" for text in filters)).split()


def fails(engine: Engine, *arguments: str) -> str:
    done = engine.docker(*arguments, check=False)
    assert done.returncode != 0
    return done.stderr.strip()


def test_create_and_inspect(engine: Engine) -> None:
    assert engine.out("volume", "create", "--label", "a=1", "--label", "b", "store") == "store"
    (found,) = json.loads(engine.out("volume", "inspect", "store"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("CreatedAt"))
    place = found.pop("Mountpoint")
    assert found == {"Driver": "local", "Labels": {"a": "1", "b": ""}, "Name": "store", "Options": None, "Scope": "local"}
    engine.docker("run", "--rm", "-v", "store:/data", "busybox", "touch", "/data/file")
    assert (Path(place) / "file").exists()


def test_create_is_idempotent(engine: Engine) -> None:
    engine.docker("volume", "create", "--label", "a=1", "store")
    assert engine.out("volume", "create", "--label", "a=2", "store") == "store"
    assert engine.out("volume", "inspect", "-f", "{{.Labels.a}}", "store") == "1"


def test_create_without_a_name(engine: Engine) -> None:
    status, made = engine.api("POST", "/volumes/create", {"Labels": {"mine": "yes"}})
    assert status == 201
    assert re.fullmatch("[0-9a-f]{64}", made["Name"])
    assert made["Labels"] == {ANONYMOUS: "", "mine": "yes"}
    name = engine.out("volume", "create")
    assert engine.out("volume", "inspect", "-f", "{{json .Labels}}", name) == f'{{"{ANONYMOUS}":""}}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x/y"], 'create x/y: "x/y" includes invalid characters for a local volume name'),
        (["x"], "create x: volume name is too short, names should be at least two alphanumeric characters"),
        (["-store"], 'includes invalid characters|unknown shorthand flag'),
        (["n" * 300], "file name too long"),
        (["-d", "nope", "store"], 'create store: error looking up volume plugin nope: plugin "nope" not found'),
        (["-o", "what=1", "store"], 'create store: invalid option: "what"'),
        (["-o", "type=tmpfs", "store"], 'create store: missing required option: "device"'),
        (["-o", "device=/tmp", "store"], 'create store: missing required option: "type"'),
        (["-o", "o=bind", "-o", "device=/tmp", "store"], 'create store: missing required option: "type"'),
        (["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "size=1m", "store"], "quota size requested but no quota support"),
        (["-o", "type=none", "-o", "device=/tmp", "-o", "o=bind,shared", "store"], "o=shared is not supported"),
        (["-o", "type=none", "-o", "device=/tmp", "-o", "o=bind,size=1m", "store"], 'option "size=1m" does not apply to a bind'),
        (["-o", "type=none", "-o", "device=/tmp", "-o", "o=bind,sync", "store"], 'option "sync" does not apply to a bind'),
        (["-o", "type=none", "-o", "device=tmp", "-o", "o=bind", "store"], "must be an absolute path"),
        (["--type", "block", "store"], "cluster volumes are not supported|volume driver"),
    ],
)  # fmt: skip
def test_bad_create(engine: Engine, arguments: list[str], message: str) -> None:
    assert re.search(message, fails(engine, "volume", "create", *arguments))
    assert names(engine) == []


def test_create_again_with_other_options(engine: Engine) -> None:
    tmpfs = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o")
    engine.docker("volume", "create", *tmpfs, "o=size=1m", "store")
    engine.docker("volume", "create", *tmpfs, "o=size=1m", "store")
    assert "exists already with other options" in fails(engine, "volume", "create", *tmpfs, "o=size=2m", "store")


def test_ls_filters(engine: Engine) -> None:
    engine.docker("volume", "create", "--label", "tier=front", "web-1")
    engine.docker("volume", "create", "--label", "tier=back", "web-2")
    engine.docker("volume", "create", "data")
    engine.docker("create", "-v", "web-1:/data", "busybox")
    assert names(engine) == ["data", "web-1", "web-2"]
    assert names(engine, "name=web") == ["web-1", "web-2"]
    assert names(engine, "name=^web-1$", "name=data") == ["data", "web-1"]
    assert names(engine, "label=tier") == ["web-1", "web-2"]
    assert names(engine, "label=tier=back") == ["web-2"]
    assert names(engine, "dangling=true") == ["data", "web-2"]
    assert names(engine, "dangling=0") == ["web-1"]
    assert names(engine, "driver=local") == ["data", "web-1", "web-2"]
    assert names(engine, "driver=other") == []
    assert "invalid filter 'dangling=[maybe]'" in fails(engine, "volume", "ls", "-f", "dangling=maybe").lower()
    assert "invalid filter 'nope'" in fails(engine, "volume", "ls", "-f", "nope=1").lower()
    assert engine.api("GET", '/volumes?filters={"name":["("]}')[0] == 400


def test_ls_table(engine: Engine) -> None:
    engine.docker("volume", "create", "store")
    assert engine.out("volume", "ls").splitlines() == ["DRIVER    VOLUME NAME", "local     store"]


def test_rm(engine: Engine) -> None:
    for name in ("one", "two"):
        engine.docker("volume", "create", name)
    place = Path(engine.out("volume", "inspect", "-f", "{{.Mountpoint}}", "one")).parent
    assert engine.out("volume", "rm", "one", "two").split() == ["one", "two"]
    assert names(engine) == []
    assert not place.exists()
    assert "get one: no such volume" in fails(engine, "volume", "rm", "one")
    assert "get one: no such volume" in fails(engine, "volume", "inspect", "one")
    assert engine.out("volume", "rm", "-f", "one") == "one"


def test_rm_in_use(engine: Engine) -> None:
    users = sorted(engine.out("create", "-v", "store:/data", "busybox") for _ in range(2))
    for force in ([], ["-f"]):
        message = fails(engine, "volume", "rm", *force, "store")
        assert message == f"Error response from daemon: remove store: volume is in use - [{', '.join(users)}]"
    assert engine.api("DELETE", "/volumes/store")[0] == 409
    engine.docker("rm", *users)
    engine.docker("volume", "rm", "store")


def test_removed_files_do_not_come_back(engine: Engine) -> None:
    engine.docker("run", "--rm", "-v", "store:/data", "busybox", "touch", "/data/file")
    engine.docker("volume", "rm", "store")
    assert engine.out("run", "--rm", "-v", "store:/data", "busybox", "ls", "/data") == ""


def test_prune_takes_anonymous_ones(engine: Engine) -> None:
    engine.docker("volume", "create", "named")
    engine.docker("run", "-v", "/data", "--name", "user", "busybox", "true")
    engine.docker("run", "-v", "/data", "--name", "gone", "busybox", "sh", "-c", "printf 12345 >/data/file; ln /data/file /data/l")
    (used,) = [mount["Name"] for mount in engine.inspect("user")["Mounts"]]
    (unused,) = [mount["Name"] for mount in engine.inspect("gone")["Mounts"]]
    engine.docker("rm", "gone")
    assert engine.out("volume", "prune", "-f").splitlines() == ["Deleted Volumes:", unused, "", "Total reclaimed space: 5B"]
    assert set(names(engine)) == {"named", used}


def test_prune_filters(engine: Engine) -> None:
    engine.docker("volume", "create", "--label", "keep", "kept")
    engine.docker("volume", "create", "--label", "a=1", "one")
    engine.docker("volume", "create", "--label", "a=2", "two")
    assert engine.out("volume", "prune", "-f", "--all", "--filter", "label=a=1").splitlines()[1] == "one"
    engine.docker("volume", "prune", "-f", "--all", "--filter", "label!=keep")
    assert names(engine) == ["kept"]
    engine.docker("volume", "prune", "-f")
    assert names(engine) == ["kept"]
    assert "invalid filter 'nope'" in fails(engine, "volume", "prune", "-f", "--filter", "nope=1").lower()
    # before 1.42 there were no others than all
    assert engine.api("POST", "/v1.41/volumes/prune")[1]["VolumesDeleted"] == ["kept"]


def test_prune_keeps_volumes_with_options(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "store")
    engine.docker("volume", "prune", "-f", "--all")
    assert names(engine) == ["store"]


def test_system_df(engine: Engine) -> None:
    engine.docker("run", "--rm", "-v", "store:/data", "busybox", "sh", "-c", "printf 12345 >/data/file")
    engine.docker("create", "-v", "used:/data", "busybox")
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    found = {entry["Name"]: entry["UsageData"] for entry in engine.api("GET", "/v1.44/system/df?type=volume")[1]["Volumes"]}
    assert found == {
        "memory": {"RefCount": 0, "Size": -1},
        "store": {"RefCount": 0, "Size": 5},
        "used": {"RefCount": 1, "Size": 0},
    }
    assert "store         0         5B" in engine.out("system", "df", "-v")


def test_events(engine: Engine) -> None:
    since = engine.api("GET", "/info")[1]["SystemTime"]
    engine.docker("run", "--name", "it", "-v", "store:/data", "busybox", "true")
    identity = engine.inspect("it")["Id"]
    engine.docker("rm", "it")
    engine.docker("volume", "rm", "store")
    until = engine.api("GET", "/info")[1]["SystemTime"]
    form = "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.container}}"
    found = engine.out("events", "--since", since, "--until", until, "--filter", "type=volume", "--format", form).splitlines()
    assert found == [
        "create store <no value>",
        f"mount store {identity}",
        f"unmount store {identity}",
        "destroy store <no value>",
    ]
