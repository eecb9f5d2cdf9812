"""The query of `POST /build`, as options or as a refusal that names what is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

from boxship.api.engine.build import options_of
from boxship.build.options import BuildOptions
from boxship.errors import BoxshipError, Invalid, Unsupported
from boxship.http.message import Headers, Query, Request, Stream


class _Nobody:
    async def body(self) -> AsyncIterator[bytes]:
        yield b""

    async def hijack(self, head: bytes) -> Stream:
        raise AssertionError


def options(headers: dict[str, str] | None = None, **query: Any) -> BuildOptions:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return options_of(Request("POST", "/build", Query(urlencode(query, doseq=True)), Headers(fields), _Nobody()))


def test_what_the_docker_command_sends_when_nothing_is_asked() -> None:
    sent: dict[str, Any] = {
        "buildargs": "{}", "cachefrom": "[]", "cgroupparent": "", "cpuperiod": "0", "cpuquota": "0", "cpusetcpus": "",
        "cpusetmems": "", "cpushares": "0", "dockerfile": "Dockerfile", "labels": "{}", "memory": "0", "memswap": "0",
        "networkmode": "default", "rm": "1", "shmsize": "0", "target": "", "ulimits": "null", "version": "1",
    }  # fmt: skip
    assert options(**sent) == BuildOptions()


def test_everything() -> None:
    found = options(
        t=["a", "b:c"], dockerfile="d/e", q="1", nocache="1", pull="1", buildargs='{"a": "b", "c": null}', labels='{"l": "m"}',
        target="t", networkmode="none", platform="linux/arm64", extrahosts=["a:1.2.3.4,b:::1", "c:5.6.7.8"], shmsize="64",
        memory="8", memswap="-1", cpushares="2", cpuquota="3", cpuperiod="4", cpusetcpus="0", cpusetmems="0-1",
        ulimits='[{"Name": "nofile", "Soft": 1, "Hard": 2}]', cachefrom='["x"]', cgroupparent="p", squash="1",
    )  # fmt: skip
    assert found.tags == ("a", "b:c")
    assert (found.quiet, found.no_cache, found.pull, found.squash) == (True, True, True, True)
    assert (found.build_arguments, found.labels) == ({"a": "b", "c": None}, {"l": "m"})
    assert found.extra_hosts == ("a:1.2.3.4", "b:::1", "c:5.6.7.8")
    assert (found.shm_size, found.memory, found.memory_swap, found.cpu_shares) == (64, 8, -1, 2)
    assert (found.cpu_quota, found.cpu_period, found.cpuset_cpus, found.cpuset_mems) == (3, 4, "0", "0-1")
    assert found.ulimits == ({"Name": "nofile", "Soft": 1, "Hard": 2},)
    assert (found.cache_from, found.cgroup_parent, found.target, found.network) == (("x",), "p", "t", "none")
    assert str(found.platform) == "linux/arm64/v8"


@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
def test_credentials(encode: Any) -> None:
    registries = {"localhost:5000": {"username": "u", "password": "p?>~"}}
    header = encode(json.dumps(registries).encode()).decode()
    assert options({"X-Registry-Config": header}).credentials == registries


@pytest.mark.parametrize(
    ("query", "kind", "named"),
    [
        ({"version": "2"}, Unsupported, "BuildKit"),
        ({"outputs": "[]"}, Unsupported, "outputs"),
        ({"securityopt": '["label=x"]'}, Unsupported, "--security-opt"),
        ({"isolation": "hyperv"}, Invalid, "hyperv"),
        ({"buildargs": "{"}, Invalid, "buildargs"),
        ({"buildargs": "[]"}, Invalid, "buildargs"),
        ({"buildargs": '{"a": 1}'}, Invalid, "buildargs"),
        ({"labels": '{"a": null}'}, Invalid, "labels"),
        ({"labels": "[" * 5000}, Invalid, "labels"),
        ({"cachefrom": "{}"}, Invalid, "cachefrom"),
        ({"ulimits": '["nofile=1"]'}, Invalid, "ulimits"),
        ({"memory": "much"}, Invalid, "memory"),
        ({"platform": "a/b/c/d"}, Invalid, "a/b/c/d"),
    ],
)
def test_refusals(query: dict[str, Any], kind: type[BoxshipError], named: str) -> None:
    with pytest.raises(kind, match=named):
        options(**query)


@pytest.mark.parametrize("header", ["!!!", "bm90IGpzb24=", "W10=", "eyJhIjogMX0="])
def test_malformed_credentials(header: str) -> None:
    with pytest.raises(Invalid, match="X-Registry-Config"):
        options({"X-Registry-Config": header})
