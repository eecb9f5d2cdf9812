"""`login` and `logout` against Debian's registry; credentials in the file and with a helper, read by the docker command too."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Boxship
from tests.integration.registry.conftest import needs_peer, start_peer
from tests.support.engine import Engine

pytestmark = needs_peer


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that knows one user: its host and port."""
    directory = tmp_path_factory.mktemp("htpasswd")
    made = subprocess.run(["htpasswd", "-Bbn", "-C", "5", "user", "secret"], capture_output=True, check=True)
    (directory / "users").write_bytes(made.stdout)
    with start_peer(directory / "registry", auth={"htpasswd": {"realm": "test", "path": str(directory / "users")}}) as host:
        yield host


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def test_login_push_pull_logout(boxship: Boxship, engine: Engine, registry: str, config: Path) -> None:
    env = {"DOCKER_CONFIG": str(config)}
    image = f"{registry}/box"
    engine.docker("tag", "busybox", image)
    assert "unauthorized: authentication required" in boxship("push", image, env=env, code=1).stderr
    wrong = boxship("login", "-u", "user", "--password-stdin", registry, input="wrong", env=env, code=1)
    assert "401 Unauthorized" in wrong.stderr
    assert not (config / "config.json").exists()
    done = boxship("login", "-u", "user", "--password-stdin", registry, input="secret\n", env=env)
    assert done.stdout == "Login Succeeded\n"
    assert "stored unencrypted" in done.stderr
    assert (config / "config.json").stat().st_mode & 0o777 == 0o600
    kept = json.loads((config / "config.json").read_text())
    assert kept == {"auths": {registry: {"auth": base64.b64encode(b"user:secret").decode()}}}
    boxship("push", "-q", image, env=env)
    boxship("rmi", image)
    engine.docker("pull", "-q", image, env=env)
    engine.docker("rmi", image)
    assert boxship("pull", "-q", image, env=env).stdout == f"{image}:latest\n"
    engine.docker("rmi", image)
    assert boxship("login", registry, env=env).stdout.endswith("Login Succeeded\n")
    assert boxship("logout", registry, env=env).stdout == f"Removing login credentials for {registry}\n"
    assert json.loads((config / "config.json").read_text()) == {"auths": {}}
    assert boxship("logout", registry, env=env).stdout == f"Not logged in to {registry}\n"
    boxship("pull", "-q", image, env=env, code=1)


def test_what_docker_kept_is_found(boxship: Boxship, engine: Engine, registry: str, config: Path) -> None:
    env = {"DOCKER_CONFIG": str(config)}
    engine.docker("login", "-u", "user", "--password-stdin", registry, input="secret", env=env)
    engine.docker("tag", "busybox", f"{registry}/other")
    boxship("push", "-q", f"{registry}/other", env=env)
    boxship("rmi", f"{registry}/other")


HELPER = """#!/bin/sh
# keeps one secret; as docker-credential-helpers' protocol has it: JSON or a server on stdin, JSON on stdout
read -r request
case $1 in
    store) printf '%s' "$request" >"$(dirname "$0")/kept" ;;
    get) cat "$(dirname "$0")/kept" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
    erase) rm "$(dirname "$0")/kept" ;;
esac
"""


def test_a_credential_helper_keeps_the_secret(
    boxship: Boxship, engine: Engine, registry: str, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "docker-credential-test").write_text(HELPER)
    (tmp_path / "docker-credential-test").chmod(0o755)
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"credHelpers": {registry: "test"}}))
    env = {"DOCKER_CONFIG": str(config), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = boxship("login", "-u", "user", "--password-stdin", registry, input="secret", env=env)
    assert "unencrypted" not in done.stderr
    assert json.loads((tmp_path / "kept").read_text()) == {"ServerURL": registry, "Username": "user", "Secret": "secret"}
    assert "secret" not in (config / "config.json").read_text()
    engine.docker("tag", "busybox", f"{registry}/helped")
    boxship("push", "-q", f"{registry}/helped", env=env)
    engine.docker("push", "-q", f"{registry}/helped", env=env)
    assert boxship("logout", registry, env=env).stdout == f"Removing login credentials for {registry}\n"
    assert not (tmp_path / "kept").exists()
    boxship("rmi", f"{registry}/helped")


def test_a_broken_helper_is_named(boxship: Boxship, config: Path, registry: str) -> None:
    config.mkdir()
    (config / "config.json").write_text('{"credsStore": "nosuch"}')
    env = {"DOCKER_CONFIG": str(config)}
    failed = boxship("login", "-u", "user", "--password-stdin", registry, input="secret", env=env, code=1)
    assert "docker-credential-nosuch" in failed.stderr
