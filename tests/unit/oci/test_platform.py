from __future__ import annotations

import os

import pytest

from boxship.errors import Invalid
from boxship.oci.platform import Platform, choose


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/aarch64", "linux/arm64/v8"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("s390x", "linux/s390x"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms_are_read_as_docker_does(text: str, shown: str) -> None:
    assert str(Platform.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "lin ux/amd64", "linux/am$d64", "//"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Platform.parse(text)


def test_an_operating_system_alone_means_this_machine() -> None:
    assert Platform.parse("linux") == Platform(Platform.host().architecture, "linux")
    if os.uname().machine == "x86_64":
        assert str(Platform.host()) == "linux/amd64"


@pytest.mark.parametrize(
    ("own", "wanted", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
    ],
)
def test_what_can_stand_in_for_what(own: str, wanted: str, fits: bool) -> None:
    assert Platform.parse(own).satisfies(Platform.parse(wanted)) is fits


def test_arm64_without_a_variant_is_v8() -> None:
    assert Platform("arm64", "linux").satisfies(Platform("arm64", "linux", "v8"))


def test_the_exact_one_wins_then_the_highest_that_runs() -> None:
    amd, v6, v7 = (Platform.parse(text) for text in ("linux/amd64", "linux/arm/v6", "linux/arm/v7"))
    assert choose(v7, [amd, v6, v7]) == 2
    assert choose(v7, [amd, Platform("arm", "linux", "v5"), v6]) == 2
    assert choose(v6, [amd, v7]) is None
    assert choose(amd, [None, amd]) == 1
    assert choose(amd, []) is None
