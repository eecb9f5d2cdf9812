"""TLS over a blocking socket, which one side can end while the other goes on (RFC 8446, section 6.1).

The standard library's `SSLSocket` cannot: its `shutdown` ends TLS for both sides. That is what piped stdin needs.
"""

from __future__ import annotations

import socket
import ssl
import threading

_READ = 1 << 16


class TLSConnection:
    """As much of a socket as the client uses; one thread may receive while another sends."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Shakes hands; raises `OSError`, of which `ssl.SSLError` is one."""
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        """Held while bytes go out, taken before the other: whoever waits to send keeps nobody from receiving."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
        self._flush()

    def recv(self, size: int) -> bytes:
        """Some bytes; none once the other side has ended."""
        while True:
            with self._lock:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    answers = self._outgoing.pending  # to what TLS itself was told
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            if answers:
                self._flush()
            self._receive()

    def sendall(self, data: bytes) -> None:
        with self._sending:
            with self._lock:
                self._tls.write(data)
                encrypted = self._outgoing.read()
            self._connection.sendall(encrypted)

    def shutdown(self, how: int) -> None:
        """End our side alone, whatever `how` is."""
        with self._lock:
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # the other side goes on
        self._flush()

    def close(self) -> None:
        self._connection.close()

    def _receive(self) -> None:
        data = self._connection.recv(_READ)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        with self._sending:
            with self._lock:
                data = self._outgoing.read()
            self._connection.sendall(data)
