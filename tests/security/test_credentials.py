"""Passwords of registries: used, and found nowhere afterwards."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from tests.integration.registry.conftest import needs_peer, start_peer
from tests.support.engine import Engine, running_engine
from tests.support.leftovers import keeper_pid

pytestmark = [needs_peer, pytest.mark.skipif(shutil.which("htpasswd") is None, reason="htpasswd is not installed")]

USER = "alice"


@pytest.fixture
def password() -> str:
    return f"planted-{token_hex(12)}"


@pytest.fixture
def guarded(tmp_path: Path, password: str) -> Iterator[str]:
    """The host and port of Debian's registry that knows one user."""
    line = subprocess.run(["htpasswd", "-Bbn", USER, password], check=True, capture_output=True).stdout
    (tmp_path / "htpasswd").write_bytes(line)
    auth = {"htpasswd": {"realm": "guarded", "path": str(tmp_path / "htpasswd")}}
    with start_peer(tmp_path / "registry", auth=auth) as host:
        yield host


def forms(password: str) -> list[bytes]:
    """What a password looks like: plain, in a Basic header at any alignment, and turned to JSON's escapes or a URL's."""
    found = {password.encode()}
    for shift in range(3):
        data = bytes(shift) + password.encode()
        whole = base64.b64encode(data[: len(data) // 3 * 3])
        # the first characters hold bits of what stands before
        found |= {whole[4 if shift else 0 :], base64.urlsafe_b64encode(data[: len(data) // 3 * 3])[4 if shift else 0 :]}
    return sorted(found)


def holding(place: Path, password: str) -> list[str]:
    """The files below a directory that hold the password."""
    files = [Path(directory) / name for directory, _, names in os.walk(place) for name in names]
    wanted = forms(password)
    return [str(file) for file in files if file.is_file() and any(form in file.read_bytes() for form in wanted)]


def test_the_search_finds_what_it_is_for(tmp_path: Path, password: str) -> None:
    """In a header of any user, in the document that the docker command sends, and plainly."""
    for number, user in enumerate(("a", "al", "ali")):
        (tmp_path / f"basic{number}").write_bytes(base64.b64encode(f"{user}:{password}".encode()))
        document = json.dumps({"username": user, "password": password})
        (tmp_path / f"sent{number}").write_bytes(base64.urlsafe_b64encode(document.encode()))
    (tmp_path / "plain").write_text(f"x{password}x")
    (tmp_path / "innocent").write_text(f"x{password[:-1]}x")
    assert len(holding(tmp_path, password)) == 7


@pytest.mark.parametrize("client", ["docker", "boxship"])
def test_a_password_is_used_and_kept_nowhere(tmp_path: Path, guarded: str, password: str, client: str) -> None:
    with running_engine(tmp_path / "engine", "--log-level", "debug") as engine:

        def run(*arguments: str, check: bool = True, input: str | None = None) -> str:
            command = [sys.executable, "-m", "boxship"] if client == "boxship" else ["docker"]
            done = subprocess.run([*command, *arguments], input=input, capture_output=True, text=True, check=False,
                                  env=engine.environment(), timeout=30)  # fmt: skip
            assert (done.returncode == 0) == check, done
            return done.stdout + done.stderr

        name = f"{guarded}/box:1"
        said = run("login", "-u", USER, "--password-stdin", guarded, input=password)
        said += run("tag", "busybox", name)
        said += run("push", name)
        said += run("rmi", name, "busybox")
        said += run("pull", name)
        said += run("run", "-d", "--name", "it", name, "sleep", "1000")
        said += run("inspect", "it") + run("inspect", name) + run("history", "--no-trunc", name) + run("info")
        (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN env; cat /proc/*/environ /proc/*/cmdline\n")
        (tmp_path / ".dockerignore").write_text("*\n")
        said += run("build", "-t", "built", "--no-cache", "--pull", str(tmp_path)) + run("history", "--no-trunc", "built")
        said += " ".join(process_arguments(engine))
        said += run("logout", guarded)
        said += run("push", name, check=False)
        said += run("pull", f"{guarded}/box:2", check=False)
        # the password in the wrong places: as another user's, and for a registry that is not there
        said += run("login", "-u", "bob", "--password-stdin", guarded, check=False, input=password)
        said += run("login", "-u", USER, "--password-stdin", "127.0.0.1:9", check=False, input=password)
        said += json.dumps(engine.api("GET", f"/events?since=0&until={time.time():.0f}")[1])
        for form in forms(password):
            assert form.decode() not in said
        # what it said is in the log: it was spoken to with --debug
        assert engine.log()
        assert holding(engine.directory, password) == []
        engine.docker("rm", "-f", "it")


def process_arguments(engine: Engine) -> Iterator[str]:
    """The command lines and environments of the daemon, of the keeper and of the container."""
    assert engine.process is not None
    for pid in (engine.process.pid, keeper_pid(engine), engine.inspect("it")["State"]["Pid"]):
        for name in ("cmdline", "environ"):
            yield Path(f"/proc/{pid}/{name}").read_text()


def test_a_login_is_kept_for_its_user_alone(tmp_path: Path, guarded: str, password: str) -> None:
    with running_engine(tmp_path / "engine") as engine:
        login = [sys.executable, "-m", "boxship", "login", "-u", USER, "--password-stdin", guarded]
        subprocess.run(login, input=password, text=True, check=True, capture_output=True, env=engine.environment())
        file = engine.directory / "config" / "config.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert holding(engine.directory, password) == [str(file)]
        # and the docker command goes on from there
        engine.docker("tag", "busybox", f"{guarded}/box:1")
        engine.docker("push", f"{guarded}/box:1")
