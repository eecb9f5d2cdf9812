"""What a build says, in the messages of Docker's classic builder."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boxship.errors import BoxshipError

Emit = Callable[[dict[str, object]], None]


class Transcript:
    """Counts the steps; says nothing but the result when it is to be quiet, and everything where there is none."""

    def __init__(self, emit: Emit, *, quiet: bool) -> None:
        self._unsaid: list[dict[str, object]] = []
        self.emit: Emit = self._unsaid.append if quiet else emit
        self._always = emit
        self._quiet = quiet
        self._step = 0
        self.total = 0

    @contextmanager
    def told(self) -> Iterator[None]:
        """Where this fails, what was not said until then is."""
        try:
            yield
        except BoxshipError:
            for message in self._unsaid:
                self._always(message)
            raise
        finally:
            self._unsaid.clear()

    def say(self, text: str) -> None:
        self.emit({"stream": text})

    def step(self, original: str) -> None:
        self._step += 1
        self.say(f"Step {self._step}/{self.total} : {original}")
        self.say("\n")

    def state(self, identity: str) -> None:
        self.say(f" ---> {identity.partition(':')[2][:12]}\n")

    def output(self) -> Callable[[str, bytes], None]:
        """A taker of a command's output, which never cuts a character in two."""
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}

        def take(stream: str, data: bytes) -> None:
            text = decoders[stream].decode(data)
            if text:
                self.say(text)

        return take

    def built(self, identity: str, tags: list[str]) -> None:
        self.emit({"aux": {"ID": identity}})
        if self._quiet:
            self._always({"stream": f"{identity}\n"})
        self.say(f"Successfully built {identity.partition(':')[2][:12]}\n")
        for tag in tags:
            self.say(f"Successfully tagged {tag}\n")
