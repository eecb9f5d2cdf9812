"""Where the daemon listens: unix sockets, TCP with verified clients, sockets passed by an activator."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

from boxship.daemon.configuration import Settings
from boxship.daemon.isolation import FIRST_PASSED
from boxship.errors import Invalid
from boxship.http.server import Server


async def listen(server: Server, settings: Settings) -> None:
    """Open every host of the settings; raises `Invalid`, `Unavailable`."""
    for host in settings.hosts:
        scheme, _, rest = host.partition("://")
        if scheme == "unix":
            await server.serve_unix(Path(rest), group=settings.group)
        elif scheme == "tcp":
            name, _, port = rest.rpartition(":")
            await server.serve_tcp(name.strip("[]"), int(port), _tls(settings))
        else:
            for listener in _passed():
                await server.serve_socket(listener)


def _tls(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(settings.tlscacert)
        context.load_cert_chain(settings.tlscert, settings.tlskey)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"cannot use the TLS files: {error}") from error
    return context


def _passed() -> list[socket.socket]:
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdecimal():
        raise Invalid("fd:// needs sockets passed by an activator, and there are none", hint="see systemd.socket(5)")
    count = int(os.environ["LISTEN_FDS"])
    return [socket.socket(fileno=descriptor) for descriptor in range(FIRST_PASSED, FIRST_PASSED + count)]


async def listen_registry(server: Server, address: str) -> int:
    """Serve a registry at `host:port` without TLS, for this host alone: the port. Raises `Invalid`, `Unavailable`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise Invalid(f"invalid address of the registry {address!r}", hint="use HOST:PORT, such as 127.0.0.1:5000")
    return await server.serve_tcp(host.strip("[]"), int(port))
