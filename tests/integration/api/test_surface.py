"""Every path of the Engine API answers, in every version, and bad input is told what is wrong with it."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.engine import Engine

PATHS = (
    """
GET /containers/json|POST /containers/create|GET /containers/x/json|GET /containers/x/top|GET /containers/x/logs?stdout=1
GET /containers/x/changes|GET /containers/x/export|GET /containers/x/stats|POST /containers/x/resize?w=1&h=1
POST /containers/x/start|POST /containers/x/stop|POST /containers/x/restart|POST /containers/x/kill|POST /containers/x/update
POST /containers/x/rename?name=y|POST /containers/x/pause|POST /containers/x/unpause|POST /containers/x/attach
GET /containers/x/attach/ws|POST /containers/x/wait|DELETE /containers/x|HEAD /containers/x/archive?path=/
GET /containers/x/archive?path=/|PUT /containers/x/archive?path=/|POST /containers/prune|POST /commit
GET /images/json|POST /build/prune|POST /images/create|GET /images/x/json|GET /images/x/attestations|GET /images/x/history
POST /images/x/push|POST /images/x/tag?repo=y|DELETE /images/x|GET /images/search?term=x|GET /images/x/get|GET /images/get?names=x
POST /images/load|POST /auth|GET /info|GET /version|GET /_ping|HEAD /_ping|GET /events?until=1|GET /system/df
POST /containers/x/exec|POST /exec/x/start|POST /exec/x/resize?w=1&h=1|GET /exec/x/json
GET /volumes|POST /volumes/create|GET /volumes/x|PUT /volumes/x|DELETE /volumes/x|POST /volumes/prune
GET /networks|GET /networks/|GET /networks/x|DELETE /networks/x|POST /networks/create|POST /networks/x/connect
POST /networks/x/disconnect|POST /networks/prune
GET /plugins|GET /plugins/privileges?remote=x|POST /plugins/pull?remote=x|GET /plugins/x/json|DELETE /plugins/x
POST /plugins/x/enable|POST /plugins/x/disable|POST /plugins/x/upgrade|POST /plugins/create?name=x|POST /plugins/x/push
POST /plugins/x/set|GET /nodes|GET /nodes/x|DELETE /nodes/x|POST /nodes/x/update|GET /swarm|POST /swarm/init|POST /swarm/join
POST /swarm/leave|POST /swarm/update|GET /swarm/unlockkey|POST /swarm/unlock|GET /services|POST /services/create|GET /services/x
DELETE /services/x|POST /services/x/update|GET /services/x/logs|GET /tasks|GET /tasks/x|GET /tasks/x/logs|GET /secrets
POST /secrets/create|GET /secrets/x|DELETE /secrets/x|POST /secrets/x/update|GET /configs|POST /configs/create|GET /configs/x
DELETE /configs/x|POST /configs/x/update|POST /session
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("line", PATHS)
def test_a_path_of_the_api_is_served_or_refused_with_a_reason(engine: Engine, line: str) -> None:
    method, path = line.split(" ")
    status, body = engine.api(method, f"/v1.56{path}")
    assert status < 500 or status in (501, 503), body
    if status >= 400 and method != "HEAD":
        assert body["message"] and body["message"] != "page not found"
    if path.startswith(("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")):
        assert status == 503


@pytest.mark.parametrize("line", ["PUT /containers/json", "GET /nope", "GET /v1.41", "POST /info", "GET /vx.y/info"])
def test_what_is_no_path_is_not_found(engine: Engine, line: str) -> None:
    method, path = line.split(" ")
    assert engine.api(method, path) == (404, {"message": "page not found"})


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.57", "client version 1.57 is too new. Maximum supported API version is 1.56"),
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
    ],
)
def test_a_version_that_is_not_spoken_is_refused(engine: Engine, version: str, message: str) -> None:
    assert engine.api("GET", f"/v{version}/info") == (400, {"message": message})


def test_fields_come_and_go_with_the_version(engine: Engine) -> None:
    engine.docker("create", "--name", "c1", "busybox", "true")
    new, old = (engine.api("GET", f"/v{version}/containers/c1/json")[1] for version in ("1.52", "1.43"))
    assert "IPAddress" in old["NetworkSettings"]
    assert "IPAddress" not in new["NetworkSettings"]
    new, middle, old = (engine.api("GET", f"/v{v}/images/busybox/json")[1] for v in ("1.52", "1.50", "1.41"))
    assert "VirtualSize" in old and "ContainerConfig" in old and "Hostname" in old["Config"]
    assert "Hostname" not in middle["Config"] and "Entrypoint" in middle["Config"]
    assert "Entrypoint" not in new["Config"] and new["Config"]["Cmd"] == ["sh"]
    for version, found in (("1.53", {"ImageUsage"}), ("1.51", {"Images", "LayersSize"})):
        assert set(engine.api("GET", f"/v{version}/system/df?type=image")[1]) == found
    assert engine.api("GET", "/v1.53/system/df?type=container")[1]["ContainerUsage"]["TotalCount"] == 1
    assert engine.api("GET", "/v1.53/system/df?type=container&verbose=1")[1]["ContainerUsage"]["Items"][0]["Names"] == ["/c1"]
    assert "Health" in engine.api("GET", "/v1.52/containers/json?all=1")[1][0]
    assert "Health" not in engine.api("GET", "/v1.51/containers/json?all=1")[1][0]


def test_a_prune_tells_its_steps_where_asked(engine: Engine) -> None:
    made = engine.out("create", "busybox", "true")
    status, body = engine.api("POST", "/v1.56/containers/prune?stream=1")
    first, last = body
    assert (status, first) == (200, {"id": made, "status": "Deleted"})
    assert last["aux"]["ContainersDeleted"] == [made]


SMOKE = (
    """
version|info|ps -a|images|image ls --digests|inspect busybox|history busybox|run --rm busybox echo hi
create --name s1 busybox sleep 60|start s1|ps|top s1|exec s1 true|logs s1|stats --no-stream s1|port s1|diff s1
rename s1 t1|pause t1|unpause t1|update -m 64m --memory-swap 128m t1|stop -t 0 t1|wait t1|commit t1 made:1
tag made:1 made:2|rmi made:1 made:2|rm t1|network create n1|network ls|network inspect n1|network rm n1|volume create v1
volume ls|volume rm v1|system df|system df -v|container prune -f
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("docker", ["/usr/bin/docker", "/usr/local/bin/docker"])
def test_the_docker_commands_of_then_and_now(engine: Engine, docker: str) -> None:
    if subprocess.run([docker, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{docker} is not installed")
    for line in SMOKE:
        engine.docker(*line.split(), docker=docker)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"Image": 5}', b"null", b'"x"', b"\xff\xfe", b"[" * 10_000])
def test_a_malformed_body_is_a_bad_request(engine: Engine, body: bytes) -> None:
    status, answer = engine.api("POST", "/containers/create", body)
    assert status == 400
    assert answer["message"]


@pytest.mark.parametrize("path", ["/containers/json", "/images/json", "/networks", "/volumes", "/events"])
def test_an_unknown_filter_is_named(engine: Engine, path: str) -> None:
    status, answer = engine.api("GET", f"{path}?filters={quote(json.dumps({'nosuch': ['1']}))}")
    assert (status, answer) == (400, {"message": "invalid filter 'nosuch'"})


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=6,
)
_FILTER_NAMES = ("label", "name", "until", "before", "since", "id", "status", "publish", "expose", "reference")
_FILTER = st.dictionaries(st.sampled_from(_FILTER_NAMES), st.lists(_TEXT, max_size=2) | _JSON, max_size=3)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, database=None
)
@given(_TEXT, _FILTER, _JSON)
def test_no_input_breaks_the_engine(engine: Engine, name: str, filters: object, body: object) -> None:
    text, wanted = quote(name, safe=""), quote(json.dumps(filters))
    for method, path in (
        ("GET", f"/images/{text}/json"), ("GET", f"/containers/{text}/json"), ("GET", f"/containers/json?all=1&filters={wanted}"),
        ("GET", f"/images/json?filters={wanted}"), ("GET", f"/networks?filters={wanted}"), ("GET", f"/volumes?filters={wanted}"),
        ("POST", f"/images/busybox/tag?repo=nosuch{text}"), ("GET", f"/events?until=1&filters={wanted}&since={text}"),
    ):  # fmt: skip
        status, answer = engine.api(method, path)
        assert status < 500, (method, path, answer)
    for path in ("/containers/create", "/networks/create", "/volumes/create", "/containers/x/exec", "/auth"):
        status, answer = engine.api("POST", path, body)
        assert status < 500, (path, body, answer)
    assert "Traceback" not in engine.log()
