"""The Engine API over a unix socket, with as little of our own in the time measured as can be."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

_READ = 1 << 20


class Failed(Exception):
    """Raised where an engine answers with an error."""


class Connection:
    """One kept connection to an engine."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(120)
        self._socket.connect(str(path))
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def json(self, method: str, path: str, body: object = None) -> Any:
        """One request; the body of the answer as JSON, None where there is none."""
        data = self.request(method, path, body)
        return json.loads(data) if data.strip() else None

    def request(self, method: str, path: str, body: object = None, headers: str = "") -> bytes:
        """One request; the answer's body. Raises `Failed`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        if len(data) < _READ:
            self._socket.sendall(head.encode() + data)
        else:
            self._socket.sendall(head.encode())
            self._socket.sendall(data)
        parts: list[bytes] = []
        self._answer(parts)
        return b"".join(parts)

    def discard(self, path: str) -> int:
        """GET what is large, and let it fall: how many bytes it was."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        return self._answer(None)

    def _answer(self, parts: list[bytes] | None) -> int:
        """Read an answer, its body into `parts`; the size of the body. Raises `Failed`."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        kept: list[bytes] | None = parts if status < 400 else []
        size = 0
        if fields.get("transfer-encoding") == "chunked":
            while True:
                while b"\r\n" not in self._buffer:
                    self._fill()
                text, _, self._buffer = self._buffer.partition(b"\r\n")
                length = int(text.split(b";")[0], 16)
                self._take(length, kept)
                self._take(2, None)
                size += length
                if not length:
                    break
        elif "content-length" in fields:
            size = int(fields["content-length"])
            self._take(size, kept)
        elif status not in (204, 304):
            while True:
                if kept is not None:
                    kept.append(self._buffer)
                size += len(self._buffer)
                self._buffer = self._socket.recv(_READ)
                if not self._buffer:
                    break
        if status >= 400:
            raise Failed(f"{status}: {b''.join(kept or []).decode(errors='replace').strip()}")
        return size

    def _fill(self) -> None:
        data = self._socket.recv(_READ)
        if not data:
            raise Failed("the engine closed the connection")
        self._buffer += data

    def _take(self, size: int, parts: list[bytes] | None) -> None:
        while size:
            data = self._buffer[:size] if self._buffer else self._socket.recv(min(size, _READ))
            self._buffer = self._buffer[len(data) :] if self._buffer else b""
            if not data:
                raise Failed("the engine closed the connection")
            if parts is not None:
                parts.append(data)
            size -= len(data)
