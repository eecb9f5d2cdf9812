"""Debian's packages: a base image of its smallest variant, kept in the user's cache, and the mirror of this host."""

from __future__ import annotations

import os
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

SUITE = "bookworm"
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_LEFT_OUT = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*")


def mirror() -> str:
    """Where this host takes Debian's packages from; the test is skipped where that cannot be reached."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}", "Component: main"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except FileNotFoundError:
        listed = []
    found = next((uri for uri in listed if uri.startswith(("http://", "https://"))), _DEFAULT_MIRROR).rstrip("/")
    release = f"{found}/dists/{SUITE}/Release"
    try:
        urllib.request.urlopen(release, timeout=10).close()
    except OSError as error:
        pytest.skip(f"Debian's packages cannot be fetched: {release}: {error}")
    return found


def base(mirror: str) -> Path:
    """The root of Debian's smallest variant as a tar; debootstrap is run only where the cache has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxship-tests"
    cache.mkdir(parents=True, exist_ok=True)
    tar = cache / f"debian-{SUITE}-{os.uname().machine}.tar"
    if tar.exists():
        return tar
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        root, made = Path(temporary) / "root", Path(temporary) / "root.tar"
        done = subprocess.run(["debootstrap", "--variant=minbase", SUITE, str(root), mirror], capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        excluded = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), *excluded, "-cf", str(made), "."], check=True)
        os.replace(made, tar)
    return tar
