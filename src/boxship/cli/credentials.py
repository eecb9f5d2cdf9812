"""Credentials for registries, in the docker command's own places: config.json and its credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from boxship.cli.endpoint import config_directory, docker_config
from boxship.errors import Unavailable

HUB = "https://index.docker.io/v1/"
_TOKEN = "<token>"  # noqa: S105 - a user name
"""The name under which helpers keep an identity token."""

_HELPER_SECONDS = 60

Credentials = dict[str, str]


def server_of(reference: str) -> str:
    """The key under which the credentials of a reference's registry are kept."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost") and first not in ("docker.io", "index.docker.io"):
        return first
    return HUB


def find(server: str) -> Credentials:
    """What is kept for a server: username and password, or identitytoken; empty where nothing is."""
    config = docker_config()
    helper = _helper(config, server)
    if helper:
        return _from_helper(helper, server)
    entry = (config.get("auths") or {}).get(server)
    return _from_entry(entry) if isinstance(entry, dict) else {}


def find_all() -> dict[str, Credentials]:
    """What is kept for every server."""
    config = docker_config()
    servers = [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]
    return {server: found for server in dict.fromkeys(servers) if (found := find(server))}


def keep(server: str, username: str, password: str, token: str) -> bool:
    """Keep credentials for a server: whether they stand in the file, unencrypted."""
    config = docker_config()
    helper = _helper(config, server)
    if helper:
        secret = {"ServerURL": server, "Username": _TOKEN if token else username, "Secret": token or password}
        _ask_helper(helper, "store", json.dumps(secret))
        config.setdefault("auths", {})[server] = {}
    else:
        pair = f"{username}:{'' if token else password}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        config.setdefault("auths", {})[server] = {**entry, **({"identitytoken": token} if token else {})}
    write_config(config)
    return not helper


def forget(server: str) -> bool:
    """Forget the credentials of a server; False where there were none."""
    config = docker_config()
    helper = _helper(config, server)
    known = server in (config.get("auths") or {})
    if helper and (known or _from_helper(helper, server)):
        _ask_helper(helper, "erase", server)
        known = True
    if server in (config.get("auths") or {}):
        del config["auths"][server]
        write_config(config)
    return known


def auth_header(reference: str) -> dict[str, str]:
    """`X-Registry-Auth` for the registry of a reference; nothing where no credentials are kept."""
    found = find(server_of(reference))
    return {"X-Registry-Auth": encoded({**found, "serveraddress": server_of(reference)})} if found else {}


def encoded(document: object) -> str:
    """A document as headers carry it: base64 of its JSON, in the alphabet for URLs (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def _from_entry(entry: dict[str, Any]) -> Credentials:
    found = {name: str(entry[name]) for name in ("username", "password", "identitytoken", "registrytoken") if entry.get(name)}
    if entry.get("auth"):
        try:
            name, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, ValueError):
            return found
        found = {"username": name, "password": password.rstrip("\0"), **found}
    return found


def _helper(config: dict[str, Any], server: str) -> str:
    return str((config.get("credHelpers") or {}).get(server) or config.get("credsStore") or "")


def _from_helper(helper: str, server: str) -> Credentials:
    try:
        answer = json.loads(_ask_helper(helper, "get", server))
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except Unavailable as error:
        if "credentials not found" in error.message:
            return {}
        raise
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"docker-credential-{helper} answered what cannot be read") from None
    return {"identitytoken": secret} if username == _TOKEN else {"username": username, "password": secret}


def _ask_helper(helper: str, verb: str, text: str) -> str:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", verb],
            input=text,
            capture_output=True,
            text=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the credential helper docker-credential-{helper} cannot be used: {error}") from error
    if done.returncode:
        reason = (done.stdout or done.stderr).strip() or f"exit code {done.returncode}"
        raise Unavailable(f"docker-credential-{helper} {verb}: {reason}")
    return done.stdout


def write_config(config: dict[str, Any]) -> None:
    """Replace the docker command's config.json, readable by its owner alone."""
    directory = Path(config_directory())
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = (directory / "config.json").resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        json.dump(config, file, indent="\t")
        file.write("\n")
    temporary.replace(target)
