"""From an instruction's text to a new configuration."""

from __future__ import annotations

import pytest

from boxship.build import configuration as configure
from boxship.build.parser import Instruction, ParseError, parse_instruction
from boxship.oci.image_config import ExecutionConfig, Healthcheck

S = 1_000_000_000


def instruction(text: str) -> Instruction:
    return parse_instruction(text, 7)


@pytest.mark.parametrize(
    ("text", "shell", "expected"),
    [
        ("RUN a b", None, ["/bin/sh", "-c", "a b"]),
        ("RUN a b", ["/bin/bash", "-ec"], ["/bin/bash", "-ec", "a b"]),
        ('RUN ["a", "b c"]', ["/bin/bash"], ["a", "b c"]),
        ("CMD []", None, []),
        ("CMD", None, []),
        ("RUN ['a']", None, ["/bin/sh", "-c", "['a']"]),
    ],
)
def test_commands(text: str, shell: list[str] | None, expected: list[str]) -> None:
    assert configure.command(instruction(text), ExecutionConfig(shell=shell)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENV a=1", [("a", "1")]),
        ("ENV a=1 b='x y' c=\"p q\"", [("a", "1"), ("b", "'x y'"), ("c", '"p q"')]),
        ("ENV a one  two", [("a", "one  two")]),
        ("ENV a\tb=c", [("a", "b=c")]),
        ("ENV a=b=c", [("a", "b=c")]),
        ("ENV a=", [("a", "")]),
        ('LABEL "a b"=c', [('"a b"', "c")]),
    ],
)
def test_pairs(text: str, expected: list[tuple[str, str]]) -> None:
    assert configure.pairs(instruction(text), "\\") == expected


def test_the_environment_keeps_its_order() -> None:
    config = configure.with_environment(ExecutionConfig(env=["a=1", "b=2"]), [("c", "3"), ("a", "4=5")])
    assert config.env == ["a=4=5", "b=2", "c=3"]


def test_ports() -> None:
    config = configure.with_ports(ExecutionConfig(), ["80", "53/UDP", "8000-8002", "1/sctp", "8080:81"], 1)
    assert sorted(config.exposed_ports or {}) == [
        "1/sctp", "53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp", "81/tcp",
    ]  # fmt: skip


@pytest.mark.parametrize("port", ["x", "0", "65536", "5-3", "80/icmp", "-1", "1-70000", ""])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(ParseError, match=f"on line 7: invalid containerPort: {port}"):
        configure.with_ports(ExecutionConfig(), [port], 7)


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("", "a", "/a"),
        ("/a", "b", "/a/b"),
        ("/a", "/b", "/b"),
        ("/a/b", "..", "/a"),
        ("/", "../../..", "/"),
        ("", "//x//y/", "/x/y"),
    ],
)
def test_working_directories(before: str, path: str, after: str) -> None:
    assert configure.with_directory(ExecutionConfig(working_dir=before), path).working_dir == after


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEALTHCHECK NONE", Healthcheck(["NONE"])),
        ("HEALTHCHECK CMD a || b", Healthcheck(["CMD-SHELL", "a || b"])),
        ('HEALTHCHECK CMD ["a", "b"]', Healthcheck(["CMD", "a", "b"])),
        ("HEALTHCHECK cmd a", Healthcheck(["CMD-SHELL", "a"])),
        (
            "HEALTHCHECK --interval=1m30s --timeout=2s --start-period=0 --start-interval=500ms --retries=3 CMD a",
            Healthcheck(["CMD-SHELL", "a"], 90 * S, 2 * S, 0, S // 2, 3),
        ),
    ],
)
def test_health_checks(text: str, expected: Healthcheck) -> None:
    assert configure.healthcheck(instruction(text)) == expected


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1s", S), ("1.5h", 5400 * S), ("2m3s", 123 * S), ("7us", 7000), ("7µs", 7000), ("1", None), ("1d", None),
     ("", None), ("-1s", None), ("1s ", None)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int | None) -> None:
    assert configure.parse_duration(text) == nanoseconds


@pytest.mark.parametrize("signal", ["SIGTERM", "TERM", "term", "9", "SIGRTMIN+3", "rtmax-1"])
def test_signals(signal: str) -> None:
    configure.check_signal(signal, 7)


@pytest.mark.parametrize("signal", ["", "nonsense", "0", "99", "SIG", "RTMIN+", "-9"])
def test_what_is_no_signal(signal: str) -> None:
    with pytest.raises(ParseError, match="line 7: Invalid signal"):
        configure.check_signal(signal, 7)
