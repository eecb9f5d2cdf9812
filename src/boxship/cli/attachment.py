"""A command joined to a container: `run`, `start --attach`, `attach`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from boxship.cli import stdio
from boxship.cli.session import Failed, Session, at
from boxship.errors import BoxshipError, NotFound


class Join(NamedTuple):
    """How to be joined to a container."""

    streams: Collection[str]
    """Of stdin, stdout and stderr."""

    terminal: bool
    sig_proxy: bool = True
    detach_keys: str = ""
    condition: str = "next-exit"
    """What to wait for: `next-exit`, `removed` or `not-running`."""


def joined(session: Session, name: str, how: Join, start: Callable[[], None] | None = None) -> int:
    """Start the container, if asked to, and carry its stdio until it ends: its exit code; 0 where we detached.

    Raises the engine's error, and what `start` raises.
    """
    waiting = _Wait(session.beside(), name, how.condition)
    query = {
        "stream": True, "stdin": "stdin" in how.streams, "stdout": "stdout" in how.streams, "stderr": "stderr" in how.streams,
        "detachKeys": how.detach_keys,
    }  # fmt: skip
    connection, early = session.hijack(at("containers", name, "attach"), query=query)
    signals = session.beside()

    def send(signal_name: str) -> None:
        signals.post(at("containers", name, "kill"), signal=signal_name)

    def resize(columns: int, rows: int) -> None:
        signals.post(at("containers", name, "resize"), w=str(columns), h=str(rows))

    stdin, keys = "stdin" in how.streams, stdio.DetachKeys(how.detach_keys)
    with stdio.forwarded_signals(send, enabled=how.sig_proxy and not how.terminal):
        if start is not None:
            start()
        with stdio.raw_terminal(how.terminal and stdin), stdio.on_resize(resize, enabled=how.terminal):
            stdio.relay(connection, early, stdin=stdin, framed=not how.terminal, keys=keys)
        if how.terminal and keys.typed and not waiting.ended and _runs(session, name):
            return 0
        return waiting.exit_code()


def _runs(session: Session, name: str) -> bool:
    try:
        return bool(session.get(at("containers", name, "json"))["State"]["Running"])
    except NotFound:
        return False


class _Wait:
    """A wait for the end, begun before the start so that no end is missed."""

    def __init__(self, session: Session, name: str, condition: str) -> None:
        response = session.call("POST", at("containers", name, "wait"), query={"condition": condition})
        self._result: dict[str, Any] | BoxshipError | None = None

        def wait() -> None:
            try:
                self._result = response.json()
            except BoxshipError as error:
                self._result = error

        self._thread = threading.Thread(target=wait, name="wait", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return self._result is not None

    def exit_code(self) -> int:
        """Wait; raises where the engine went away meanwhile."""
        self._thread.join()
        if not isinstance(self._result, dict):
            raise Failed(f"the connection to the engine was lost: {self._result}", 125)
        error = (self._result.get("Error") or {}).get("Message")
        if error:
            raise Failed(str(error), 125)
        return int(self._result["StatusCode"])
