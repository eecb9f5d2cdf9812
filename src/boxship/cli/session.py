"""The connection of one command to the engine: where it is, and its answers as values or errors."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from boxship.errors import BoxshipError, Conflict, Denied, Invalid, NotFound, Unavailable
from boxship.http.client import TLS, Client, ClientResponse

DEFAULT_SOCKET = "/run/boxship/boxship.sock"
API = "/v1.47"
_START_SECONDS = 20.0
_KINDS: dict[int, type[BoxshipError]] = {400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict}


class Failed(BoxshipError):
    """Raised to end a command with an exit code of its own; said already unless it has a message."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Session:
    """Requests to the engine. The socket is opened by the first of them."""

    def __init__(
        self, host: str | None, context: str | None, *, tls: bool = False, tlsverify: bool = False,
        files: tuple[str | None, str | None, str | None] = (None, None, None),
    ) -> None:  # fmt: skip
        self._host = host
        self._context = context
        self._tls = tls
        self._verify = tlsverify
        self._files = files
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            host = self._find_host()
            self._client = Client(host, self._tls_of(host))
            if host == f"unix://{DEFAULT_SOCKET}":
                _ensure_daemon()
        return self._client

    def _find_host(self) -> str:
        if self._host:
            return self._host
        if self._context is None and os.environ.get("DOCKER_HOST"):
            return os.environ["DOCKER_HOST"]
        name = self._context or os.environ.get("DOCKER_CONTEXT") or str(docker_config().get("currentContext") or "")
        if name in ("", "default"):
            return f"unix://{DEFAULT_SOCKET}"
        file = config_directory() / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        try:
            return str(json.loads(file.read_text())["Endpoints"]["docker"]["Host"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotFound(f'context "{name}" does not exist') from None

    def _tls_of(self, host: str) -> TLS | None:
        verify = self._verify or bool(os.environ.get("DOCKER_TLS_VERIFY"))
        if not host.startswith(("tcp://", "https://")) or not (verify or self._tls or host.startswith("https://")):
            return None
        directory = Path(os.environ.get("DOCKER_CERT_PATH") or config_directory())
        ca, certificate, key = (
            given or str(directory / name) for given, name in zip(self._files, ("ca.pem", "cert.pem", "key.pem"), strict=True)
        )
        return TLS(ca, certificate, key, verify)

    # --- requests ---

    def call(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None,
        headers: dict[str, str] | None = None, stream: bytes | Iterable[bytes] | None = None,
    ) -> ClientResponse:  # fmt: skip
        """Ask; raises the engine's error."""
        chosen = {key: value for key, value in (query or {}).items() if value not in (None, "", False, [])}
        chosen = {key: "1" if value is True else value for key, value in chosen.items()}
        response = self.client.request(method, API + path, query=chosen, json_body=body, headers=headers, body=stream)
        raise_for(response)
        return response

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, query=query).json()

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        response = self.call("POST", path, query=query, body=body)
        data = response.read()
        return json.loads(data) if data.strip() else None

    def delete(self, path: str, **query: Any) -> Any:
        data = self.call("DELETE", path, query=query).read()
        return json.loads(data) if data.strip() else None


def raise_for(response: ClientResponse) -> None:
    """Raise what an answer of 400 and above says."""
    if response.status < 400:
        return
    data = response.read()
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode(errors="replace").strip() or f"the engine answered {response.status}"
    raise _KINDS.get(response.status, Unavailable)(message)


def messages(response: ClientResponse) -> Iterator[dict[str, Any]]:
    """The JSON messages of long work; an error among them is raised."""
    for line in response.iter_lines():
        message = json.loads(line)
        if "error" in message:
            code = (message.get("errorDetail") or {}).get("code")
            raise Failed(str(message["error"]), code) if code else Unavailable(str(message["error"]))
        yield message


def config_directory() -> Path:
    """Where the docker command keeps its settings."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def docker_config() -> dict[str, Any]:
    try:
        found = json.loads((config_directory() / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def registry_auth(reference: str) -> dict[str, str]:
    """The `X-Registry-Auth` header for a reference, from the credentials of `login`."""
    first, slash, _ = reference.partition("/")
    registry = first if slash and ("." in first or ":" in first or first == "localhost") else "https://index.docker.io/v1/"
    entry = (docker_config().get("auths") or {}).get(registry) or {}
    if not entry:
        return {}
    name, _, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
    document = {"username": name, "password": password, "serveraddress": registry,
                "identitytoken": entry.get("identitytoken", "")}  # fmt: skip
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(document).encode()).decode()}


def _ensure_daemon() -> None:
    """Where nobody listens on the default socket, root starts the daemon in the background, and is told so."""
    import socket

    def listening() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(DEFAULT_SOCKET)
            except OSError:
                return False
            return True

    if listening() or os.geteuid() != 0:
        return
    log = Path(DEFAULT_SOCKET).parent / "daemon.log"
    click.echo(f"boxship: no daemon runs: starting one in the background (its log: {log})", err=True)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    with log.open("ab") as out, open(os.devnull, "rb") as null:
        import subprocess

        process = subprocess.Popen(
            [sys.executable, "-m", "boxship.daemon"], stdin=null, stdout=out, stderr=out, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if listening():
            return
        if process.poll() is not None:
            raise Unavailable(f"the daemon did not start: {log.read_text().strip().splitlines()[-1:] or ['no reason given']}")
        time.sleep(0.02)
    raise Unavailable(f"the daemon does not listen on {DEFAULT_SOCKET} yet", hint=f"see {log}")


pass_session = click.make_pass_decorator(Session)
