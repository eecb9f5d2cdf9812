"""What a build says, in the messages of Docker's classic builder."""

from __future__ import annotations

import codecs
from collections.abc import Callable

Emit = Callable[[dict[str, object]], None]


class Transcript:
    """Counts the steps; says nothing but the result when it is to be quiet."""

    def __init__(self, emit: Emit, *, quiet: bool) -> None:
        self.emit: Emit = (lambda _: None) if quiet else emit
        self._always = emit
        self._quiet = quiet
        self._step = 0
        self.total = 0

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
