"""`image bootstrap`: base images without a registry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Boxship
from tests.support.engine import Engine

from boxship.cli.apt import Mirror, mirror_of

APT = """#!/bin/sh
cat <<'END'
'http://other.test/debian/dists/trixie/InRelease' other.test_debian_dists_trixie_InRelease 0
'http://tools.test/debian/dists/bookworm/stable/binary-amd64/Packages.xz' tools.test 0
'http://mirror.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.test 0
END
"""
DEBOOTSTRAP = """#!/bin/sh
[ "$1" = --variant=minbase ] && shift
case $1 in --keyring=*) key=$1; shift ;; esac
mkdir -p "$2/etc" "$2/bin" "$2/dev" "$2/var/cache/apt/archives" "$2/var/lib/apt/lists"
echo "$1 $3 $key" >"$2/etc/asked"
echo host >"$2/etc/hostname"
cp /bin/busybox "$2/bin/busybox"
ln -s busybox "$2/bin/cat"
touch "$2/var/cache/apt/archives/x.deb"
"""


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """An environment with an apt and a debootstrap of our own."""
    for name, text in (("apt-get", APT), ("debootstrap", DEBOOTSTRAP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_busybox(boxship: Boxship) -> None:
    boxship("image", "bootstrap", "-t", "air:gapped", "busybox")
    assert boxship("run", "--rm", "air:gapped", "echo", "hi").stdout == "hi\n"
    boxship("rmi", "air:gapped")


def test_debian_comes_from_the_mirror_that_apt_uses(boxship: Boxship, tools: dict[str, str]) -> None:
    boxship("image", "bootstrap", "debian:bookworm", env=tools)
    shown = boxship("run", "--rm", "debian:bookworm", "cat", "/etc/asked", "/etc/hostname").stdout
    assert shown.startswith("bookworm http://mirror.test/debian")
    assert "x.deb" not in boxship("run", "--rm", "debian:bookworm", "busybox", "find", "/var").stdout
    boxship("rmi", "debian:bookworm")


def test_debian_comes_from_the_mirror_that_is_named(boxship: Boxship, tools: dict[str, str]) -> None:
    boxship("image", "bootstrap", "--mirror", "http://named.test/x", "-t", "named", "debian:trixie", env=tools)
    assert boxship("run", "--rm", "named", "cat", "/etc/asked").stdout == "trixie http://named.test/x \n"
    boxship("rmi", "named")


@pytest.mark.parametrize("base", ["nosuch", "debian", "debian:", "busybox:1"])
def test_another_base_is_an_error(boxship: Boxship, base: str) -> None:
    assert "expected busybox, or debian:SUITE" in boxship("image", "bootstrap", base, code=1).stderr


SOURCES = {
    "sources.list": "# deb [signed-by=/wrong] http://one.test/debian bookworm main\n"
    "deb [arch=amd64 signed-by=/keys/one.gpg] http://one.test/debian bookworm main\ndeb http://two.test/debian bookworm main\n",
    "sources.list.d/three.sources": "# of the third\nTypes: deb\nURIs: http://three.test/debian/\nSuites: sid\nComponents: main\n"
    "Signed-By: /keys/three.gpg\n\nTypes: deb\nURIs: http://four.test/debian\nSuites: bookworm\nComponents: main\n",
}


@pytest.mark.parametrize(
    ("url", "keyring"),
    [("one", "/keys/one.gpg"), ("two", ""), ("three", "/keys/three.gpg"), ("four", ""), ("five", "")],
)
def test_the_keys_are_the_sources(
    tmp_path: Path, tools: dict[str, str], monkeypatch: pytest.MonkeyPatch, url: str, keyring: str
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in SOURCES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "apt-get").write_text(APT.replace("mirror.test", f"{url}.test"))
    monkeypatch.setattr("boxship.cli.apt._SOURCES", tmp_path)
    monkeypatch.setenv("PATH", tools["PATH"])
    assert mirror_of("bookworm") == Mirror(f"http://{url}.test/debian", keyring)
    assert mirror_of("sid") is None


@pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed")
@pytest.mark.timeout(600)
def test_a_whole_debian(boxship: Boxship, engine: Engine) -> None:
    boxship("image", "bootstrap", "debian:bookworm")
    shown = boxship("run", "--rm", "debian:bookworm", "sh", "-ec", ". /etc/os-release; echo $VERSION_CODENAME; dpkg --audit").stdout
    assert shown == "bookworm\n"
    assert (
        boxship("run", "--rm", "debian:bookworm", "find", "/var/cache/apt/archives", "/var/lib/apt/lists", "-type", "f").stdout
        == ""
    )
    boxship("rmi", "debian:bookworm")
