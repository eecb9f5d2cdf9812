"""Events through the docker command, and the prune family."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import DOCKER, Engine, running_engine


@pytest.fixture(scope="module")
def _own(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("events")) as engine:
        yield engine


@pytest.fixture
def own(_own: Engine) -> Iterator[Engine]:
    yield _own
    _own.clean()


@pytest.fixture
def since() -> str:
    """The time before the test's own events."""
    return f"{time.time():.9f}"


def told(engine: Engine, since: str, *filters: str) -> list[str]:
    """`type action` of what happened up to now."""
    options = [option for text in filters for option in ("--filter", text)]
    shown = engine.out("events", "--since", since, "--until", f"{time.time():.9f}", *options, "--format", "{{.Type}} {{.Action}}")
    return shown.splitlines()


def test_every_kind_of_event_is_told(own: Engine, since: str) -> None:
    own.docker("network", "create", "net")
    own.docker("volume", "create", "vol")
    own.docker("run", "-d", "--name", "box", "--network", "net", "-v", "vol:/v", "busybox", "sleep", "1000")
    own.docker("exec", "box", "true")
    for verb in ("pause", "unpause"):
        own.docker(verb, "box")
    own.docker("rename", "box", "other")
    own.docker("cp", "other:/etc/passwd", "-")
    own.docker("kill", "other")
    own.docker("wait", "other")
    own.docker("commit", "other", "made")
    own.docker("rm", "other")
    own.docker("network", "rm", "net")
    own.docker("volume", "rm", "vol")
    own.docker("tag", "made", "again")
    own.docker("rmi", "made", "again")

    events = told(own, since)
    wanted = [
        "network create", "volume create", "container create", "network connect", "volume mount", "container start",
        "container exec_create: true", "container exec_start: true", "container exec_die", "container pause",
        "container unpause", "container rename", "container archive-path", "container kill", "container die",
        "network disconnect", "volume unmount", "container commit", "container destroy", "network destroy",
        "volume destroy", "image tag", "image untag", "image delete",
    ]  # fmt: skip
    assert [event for event in wanted if event not in events] == []
    assert events.index("container create") < events.index("container start") < events.index("container die")
    assert told(own, since, "type=volume") == ["volume create", "volume mount", "volume unmount", "volume destroy"]
    assert set(told(own, since, "type=network", "type=volume", "event=create")) == {"network create", "volume create"}
    assert told(own, since, "event=exec_start") == ["container exec_start: true"]
    assert told(own, since, "container=box", "event=pause") == ["container pause"]
    assert told(own, since, "container=other", "event=pause") == []  # its name of later
    assert told(own, since, "container=nobody") == []
    assert "container die" in told(own, since, "image=busybox")


def test_events_carry_their_attributes(own: Engine, since: str) -> None:
    container = own.out("run", "-d", "--name", "box", "-l", "team=red", "busybox", "sh", "-c", "exit 7")
    own.docker("wait", "box")
    lines = own.out("events", "--since", since, "--until", f"{time.time():.9f}", "--filter", "label=team=red",
                    "--format", "{{json .}}").splitlines()  # fmt: skip
    die = next(event for event in map(json.loads, lines) if event["Action"] == "die")
    assert die["Actor"]["ID"] == container
    assert {"name": "box", "image": "busybox", "team": "red", "exitCode": "7"}.items() <= die["Actor"]["Attributes"].items()
    assert die["scope"] == "local"
    assert die["timeNano"] // 10**9 == die["time"]
    assert told(own, since, "label=team=blue") == []


def test_what_happens_is_told_at_once_until_the_time_given(own: Engine) -> None:
    watching = subprocess.Popen(
        [DOCKER, "events", "--since", "1s", "--filter", "container=watched", "--format", "{{.Action}}"],
        env=own.environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watching.stdout is not None
        own.docker("run", "--name", "watched", "busybox", "true")
        seen: list[str] = []
        while "die" not in seen:
            seen.append(watching.stdout.readline().strip())
        assert seen[0] == "create"
        assert watching.poll() is None
    finally:
        watching.kill()
        watching.communicate()
    assert own.docker("events", "--until", "0s").returncode == 0


def test_wrong_requests_for_events(own: Engine) -> None:
    for arguments, message in (
        (("--filter", "bogus=x"), "invalid filter 'bogus'"),
        (("--since", "2020-13-01"), "2020-13-01"),
    ):  # fmt: skip
        done = own.docker("events", *arguments, "--until", "0s", check=False)
        assert done.returncode == 1
        assert message in done.stderr


def test_prune_takes_what_its_filters_take(own: Engine, since: str) -> None:
    def left(kind: str, *options: str) -> set[str]:
        return set(own.out(kind, "ls", "--format", "{{.Name}}" if kind != "container" else "{{.Names}}", *options).split())

    for name, label in (("keep", "keep=yes"), ("drop", "keep=no")):
        own.docker("network", "create", "--label", label, name)
        own.docker("volume", "create", "--label", label, name)
        own.docker("create", "--label", label, "--name", name, "busybox")
    own.docker("volume", "create", "used")
    own.docker("run", "-d", "--name", "user", "-v", "used:/v", "busybox", "sleep", "1000")

    for kind in ("network", "container"):
        assert own.out(kind, "prune", "-f", "--filter", "until=1h") in ("", "Total reclaimed space: 0B")
    own.docker("network", "prune", "-f", "--filter", "label=keep=no")
    own.docker("container", "prune", "-f", "--filter", "label!=keep=yes")
    own.docker("volume", "prune", "-af", "--filter", "label=keep=no")
    assert left("network") >= {"keep"} and "drop" not in left("network")
    assert left("container", "-a") == {"keep", "user"}
    assert left("volume") == {"keep", "used"}
    assert "until" in own.docker("volume", "prune", "-f", "--filter", "until=1h", check=False).stderr

    own.docker("system", "prune", "-f", "--volumes", "--filter", "label=keep=no")
    assert left("container", "-a") == {"keep", "user"}
    own.docker("system", "prune", "-f")
    assert left("container", "-a") == {"user"}
    assert "keep" not in left("network")
    assert left("volume") == {"keep", "used"}
    own.docker("volume", "prune", "-af")
    assert left("volume") == {"used"}
    assert [event for event in told(own, since) if event.endswith(" prune")].count("network prune") >= 2


def test_df_and_info_are_told_to_every_version(own: Engine, tmp_path: Path) -> None:
    older: dict[str, Any] = own.api("GET", "/v1.41/system/df")[1]
    newer: dict[str, Any] = own.api("GET", "/v1.56/system/df?verbose=1&type=image")[1]
    assert older["BuilderSize"] == 0
    assert set(newer) == {"ImageUsage"}
    assert newer["ImageUsage"]["TotalCount"] == len(older["Images"]) == len(newer["ImageUsage"]["Items"])
    assert own.api("GET", "/v1.56/system/df?type=nothing")[0] == 400
