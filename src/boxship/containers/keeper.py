"""The engine's side of the keeper: requests awaited, exits delivered."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from boxship.errors import BoxshipError, Conflict, Internal, Invalid, Unavailable
from boxship.runtime.client import KeeperClient
from boxship.runtime.protocol import Acknowledge, Exec, Exited, List, Reply, Request, Shutdown, Start

log = logging.getLogger(__name__)


class StartFailed(Invalid):
    """Raised when a process could not be started; `stage` says where it failed, `code` what a shell would exit with."""

    def __init__(self, message: str, stage: str, errno: int) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = 127 if stage in ("exec", "workdir") and errno in (2, 20) else 126


class Keeper:
    """One connection to the keeper, on the running loop."""

    def __init__(self, client: KeeperClient) -> None:
        self._client = client
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._held: set[tuple[str, str]] = set()
        self._ending = False
        self.exited: Callable[[Exited], None] = lambda _: None
        self.lost: Callable[[], None] = lambda: None

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._client.fileno(), self._receive)

    def replace(self, client: KeeperClient) -> None:
        """Go on with another keeper, once `lost` was called: whatever the old one held has ended, and is told so."""
        self._client = client
        self.start()
        for identity, exec_id in sorted(self._held, key=lambda key: not key[1]):
            self._deliver(Exited(identity, exec_id, 137, time.time_ns(), oom_killed=False))

    @property
    def pid(self) -> int:
        return self._client.peer_pid()

    def _deliver(self, exited: Exited) -> None:
        self._held.discard((exited.id, exited.exec_id))
        try:
            self.exited(exited)
        except BoxshipError:
            log.exception("the exit of %s could not be recorded", exited.id)

    def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                message = self._client.receive()
            except Unavailable as error:
                self.close()
                if self._ending:
                    return
                log.error("%s", error)
                for future in self._waiting.values():
                    if not future.done():
                        future.set_exception(Unavailable(error.message))
                self._waiting.clear()
                self.lost()
                return
            if message is None:
                return
            if isinstance(message, Exited):
                # behind whoever waits for the reply that came before it: a start is recorded before its end
                loop.call_soon(self._deliver, message)
                continue
            waiting = self._waiting.pop(message.number) if message.number in self._waiting else None
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            else:
                for descriptor in message.descriptors:
                    os.close(descriptor)

    async def ask(self, request: Request, descriptors: Sequence[int] = ()) -> Reply:
        """Send a request and wait for its reply; raises `StartFailed`, `Conflict`, `Unavailable`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        number = self._client.send(request, descriptors)
        self._waiting[number] = future
        reply = await future
        if reply.error is not None:
            body: dict[str, Any] = reply.body
            stage, errno = str(body.get("stage")), int(body.get("errno", 0))
            if stage == "request":
                raise Conflict(reply.error)
            if stage == "internal":
                raise Internal(reply.error)
            raise StartFailed(reply.error, stage, errno)
        if isinstance(request, Start | Exec):
            self._held.add((request.id, getattr(request, "exec_id", "")))
        return reply

    async def held(self) -> dict[str, Any]:
        """What the keeper holds, in the form of the protocol's `List`."""
        body = (await self.ask(List())).body
        for entry in body["containers"]:
            self._held |= {(entry["id"], ""), *((entry["id"], exec_id) for exec_id in entry["execs"])}
        return body

    async def shut_down(self) -> None:
        """Let the keeper end: it has nothing to keep any more."""
        self._ending = True
        await self.ask(Shutdown())

    def acknowledge(self, exited: Exited) -> None:
        self._client.send(Acknowledge(exited.id, exited.exec_id))

    def close(self) -> None:
        if self._client.fileno() < 0:
            return  # closed already, when the keeper was lost
        asyncio.get_running_loop().remove_reader(self._client.fileno())
        self._client.close()
