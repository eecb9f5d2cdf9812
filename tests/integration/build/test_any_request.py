"""Whatever a client sends to `POST /build`, the answer is an image or an error that was meant."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.build.test_contexts import TAR, tar_of
from tests.support.engine import Engine

WORDS = st.sampled_from([
    "a", "a.txt", "dir", "/q", "/q/", ".", "..", "../..", "/", "*", "d*", "[", "nosuch",
    "$x", "${x:-y}", "${x:?z}", "${", "'", '"', "\\",
    "=", "x=1", "x", "--from=0", "--from=one", "--from=9", "--from=scratch", "--chown=1:2", "--chown=a b", "--chmod=0", "--chmod=x",
    '["a", "/q"]', "[]", '[""]', "/etc/passwd", "é", "80", "80/udp", "SIGKILL", "NONE", "CMD", "FROM",
    "x" * 300, "/" + "d/" * 200,
])  # fmt: skip
LINES = st.tuples(
    st.sampled_from(["COPY", "ADD", "ENV", "LABEL", "ARG", "WORKDIR", "USER", "VOLUME", "EXPOSE", "CMD", "ENTRYPOINT", "SHELL",
                     "STOPSIGNAL", "HEALTHCHECK", "ONBUILD COPY", "ONBUILD ENV", "MAINTAINER", "FROM scratch AS"]),
    st.lists(WORDS, min_size=1, max_size=4),
).map(lambda line: f"{line[0]} {' '.join(line[1])}")  # fmt: skip
TEXT = st.text(alphabet=string.printable + "\0é", max_size=12)


def answer(engine: Engine, query: dict[str, str], body: bytes) -> list[dict[str, Any]]:
    status, found = engine.api("POST", f"/build?{urlencode(query)}", body, TAR)
    messages: list[dict[str, Any]] = found if isinstance(found, list) else [found]
    assert status < 500 or status == 501, messages
    assert "internal error" not in str(messages[-1]), messages
    return messages


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, min_size=1, max_size=5))
def test_any_dockerfile(engine: Engine, lines: list[str]) -> None:
    context = tar_of(("Dockerfile", "\n".join(["FROM scratch AS one", "COPY a.txt /a", *lines])), ("a.txt", "a"), ("dir/b", "b"))
    messages = answer(engine, {"networkmode": "none"}, context)
    assert "aux" in str(messages) or "error" in messages[-1] or "message" in messages[-1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["t", "dockerfile", "remote", "networkmode", "target", "platform", "buildargs", "labels", "ulimits",
                     "cachefrom", "extrahosts", "cgroupparent", "memory", "shmsize", "cpusetcpus", "version", "outputs"]),
    TEXT | st.sampled_from(["\0", "[1]", '{"a": "\\u0000"}', '[{"Name": "x"}]', '["a", "\\ud800"]', "-1", "9" * 30, "a:b:c",
                            "/etc", "../x"]),
)  # fmt: skip
def test_any_parameter(engine: Engine, name: str, value: str) -> None:
    context = tar_of(("Dockerfile", "FROM busybox\nARG a\nRUN true\n"))
    answer(engine, {"networkmode": "none", "nocache": "1", name: value}, context)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600), st.integers(0, 2500))
def test_any_body(engine: Engine, noise: bytes, place: int) -> None:
    context = tar_of(("Dockerfile", "FROM scratch\nCOPY . /\n"), ("file", "content"))
    answer(engine, {}, context[:place] + noise + context[place + len(noise) :])
    answer(engine, {}, noise)
