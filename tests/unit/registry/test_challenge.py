"""Challenges as registries of all sorts write them."""

from __future__ import annotations

import pytest

from boxship.registry.challenge import Challenge, parse

BEARER = Challenge("bearer", {"realm": "https://auth.example/token", "service": "registry.example"})


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (['Bearer realm="https://auth.example/token",service="registry.example"'], [BEARER]),
        (['bearer  realm = "https://auth.example/token" , service=registry.example'], [BEARER]),
        (['Basic realm="a, \\"b\\"=c"'], [Challenge("basic", {"realm": 'a, "b"=c'})]),
        (["Basic"], [Challenge("basic")]),
        (
            ['Basic realm="one", Bearer realm="https://auth.example/token",service="registry.example"'],
            [Challenge("basic", {"realm": "one"}), BEARER],
        ),
        (["Negotiate", 'Basic realm="x"'], [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ([""], []),
        (['realm="stray"'], []),
        (['Bearer realm="first",realm="second"'], [Challenge("bearer", {"realm": "first"})]),
        (['Bearer realm="open'], [Challenge("bearer", {"realm": ""})]),
    ],
)
def test_challenges_are_told_apart(fields: list[str], found: list[Challenge]) -> None:
    assert parse(fields) == found


def test_a_long_field_is_read_in_linear_time() -> None:
    assert parse(['Bearer realm="' + "\\" * 60_000]) == [Challenge("bearer", {"realm": ""})]
