"""Netlink: messages, attributes, and requests with their acknowledgements (netlink(7))."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP: Final = 0x300
NLM_F_EXCL: Final = 0x200
NLM_F_REPLACE: Final = 0x100
NLM_F_CREATE: Final = 0x400
NLA_F_NESTED: Final = 0x8000

_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, *children: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def text(kind: int, value: str) -> bytes:
    """A string attribute, ended by a zero byte."""
    return attribute(kind, value.encode() + b"\0")


@dataclass(frozen=True, slots=True)
class Message:
    kind: int
    flags: int
    body: bytes


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a payload by kind."""
    found: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


class Netlink:
    """A netlink socket in the network namespace of the thread that made it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Iterable[Message], *, acknowledged: bool = True) -> None:
        """Send messages together and wait for every acknowledgement; raises `OSError` for the first refusal."""
        packets, waiting = [], set()
        for message in messages:
            self._sequence += 1
            flags = message.flags | NLM_F_REQUEST
            if acknowledged:
                flags |= NLM_F_ACK
                waiting.add(self._sequence)
            packets.append(_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0) + message.body)
        self._socket.send(b"".join(packets))
        self._settle(waiting)

    def batch(self, opening: Message, messages: Iterable[Message], closing: Message) -> None:
        """Send a transaction (nfnetlink), of which all or nothing happens; raises `OSError` for the first refusal."""
        inside = list(messages)
        packets = []
        for message in [opening, *inside, closing]:
            self._sequence += 1
            # the kernel answers at the end of the transaction, to refused messages and to those that ask for it: one is
            # enough, and thousands would not fit the socket's buffer
            flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if message is inside[-1] else 0)
            packets.append(_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0) + message.body)
        self._socket.send(b"".join(packets))
        self._settle({self._sequence - 1}, refusable=range(self._sequence - len(inside) - 1, self._sequence + 1))

    def _settle(self, waiting: set[int], refusable: range = range(0)) -> None:
        failure: OSError | None = None
        while waiting:
            data = self._socket.recv(1 << 18)
            for kind, sequence, body in _messages(data):
                if kind == _ERROR and (sequence in waiting or sequence in refusable):
                    waiting.discard(sequence)
                    code = -struct.unpack_from("=i", body)[0]
                    if code and failure is None:
                        failure = OSError(code, os.strerror(code))
            if failure is not None and waiting:
                # what fails as a whole is acknowledged in part only
                self._socket.setblocking(False)
                try:
                    while True:
                        self._socket.recv(1 << 18)
                except BlockingIOError:
                    waiting.clear()
                finally:
                    self._socket.setblocking(True)
        if failure is not None:
            raise failure

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Every answer to a dump request: (message type, body)."""
        self._sequence += 1
        header = _HEADER.pack(16 + len(message.body), message.kind, message.flags | NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + message.body)
        found: list[tuple[int, bytes]] = []
        while True:
            for kind, sequence, body in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, os.strerror(code))
                found.append((kind, body))


def _messages(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    position = 0
    while position + 16 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
        if length < 16:
            break
        found.append((kind, sequence, data[position + 16 : position + length]))
        position += (length + 3) & ~3
    return found
