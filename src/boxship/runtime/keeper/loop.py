"""An epoll loop of the plainest kind."""

from __future__ import annotations

import select
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP

Handler = Callable[[int], None]


class Loop:
    """Calls a handler with the events of its descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[Handler, int]] = {}

    def watch(self, descriptor: int, handler: Handler, events: int = READ) -> None:
        """Watch a descriptor, or change what it is watched for; no events at all stops it for now."""
        if descriptor in self._handlers:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._handlers[descriptor] = (handler, events)

    def forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def run_once(self, seconds: float) -> bool:
        """Handle what is ready within `seconds`; False where nothing was."""
        ready = self._epoll.poll(seconds)
        for descriptor, events in ready:
            found = self._handlers.get(descriptor)
            if found is not None:
                found[0](events)
        return bool(ready)
