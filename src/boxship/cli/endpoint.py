"""Where the engine is: the host, and the files for TLS, from options, environment and the docker command's contexts."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from boxship.errors import Invalid, NotFound, Unsupported
from boxship.http.client import TLS

DEFAULT_HOST = "unix:///run/boxship/boxship.sock"


class Options(NamedTuple):
    """What the command line says of it."""

    host: str | None = None
    context: str | None = None
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str | None = None
    tlscert: str | None = None
    tlskey: str | None = None


def find(options: Options) -> tuple[str, TLS | None]:
    """The host and its TLS files: `--host`, `--context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context in use, in that order.

    Raises `Invalid`, `NotFound` for an unknown context, `Unsupported` for ssh.
    """
    if options.host and options.context:
        raise Invalid("conflicting options: cannot specify both --host and --context")
    name = options.context or ""
    if not name and not options.host and not os.environ.get("DOCKER_HOST"):
        name = os.environ.get("DOCKER_CONTEXT") or str(docker_config().get("currentContext") or "")
    if name in ("", "default"):
        host = options.host or ("" if options.context else os.environ.get("DOCKER_HOST")) or DEFAULT_HOST
        return _checked(host), _tls(host, options)
    document, directory = _context(name)
    host = _checked(str(document.get("Host") or ""))
    ca, certificate, key = (f"{directory}/{name}" for name in ("ca.pem", "cert.pem", "key.pem"))
    found = TLS(ca, certificate, key, not document.get("SkipTLSVerify"))
    return host, found if os.path.exists(certificate) else _tls(host, options)


def _checked(host: str) -> str:
    if host.startswith("ssh://"):
        raise Unsupported("hosts reached through ssh are not supported", hint="forward the socket with ssh -L")
    return host if "://" in host else f"tcp://{host}"


def _tls(host: str, options: Options) -> TLS | None:
    files = (options.tlscacert, options.tlscert, options.tlskey)
    verify = options.tlsverify or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if host.startswith(("unix://", "http://")) or not (verify or options.tls or any(files) or host.startswith("https://")):
        return None
    directory = os.environ.get("DOCKER_CERT_PATH") or config_directory()
    ca, certificate, key = (
        given or f"{directory}/{name}" for given, name in zip(files, ("ca.pem", "cert.pem", "key.pem"), strict=True)
    )
    return TLS(ca, certificate, key, verify or not options.tls)


def _context(name: str) -> tuple[dict[str, Any], str]:
    import hashlib

    identity = hashlib.sha256(name.encode()).hexdigest()
    root = f"{config_directory()}/contexts"
    try:
        with open(f"{root}/meta/{identity}/meta.json") as file:
            found = json.load(file)["Endpoints"]["docker"]
        return dict(found), f"{root}/tls/{identity}/docker"
    except (OSError, ValueError, KeyError, TypeError):
        raise NotFound(f'context "{name}" does not exist', hint=f"contexts are looked for in {root}") from None


def config_directory() -> str:
    """Where the docker command keeps its settings."""
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def docker_config() -> dict[str, Any]:
    """The docker command's config.json; empty where there is none. Raises `Invalid` for a broken one."""
    path = f"{config_directory()}/config.json"
    try:
        with open(path) as file:
            found = json.loads(file.read() or "{}")
    except OSError:
        return {}
    except ValueError as error:
        raise Invalid(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid(f"{path} is no JSON object")
    return found
