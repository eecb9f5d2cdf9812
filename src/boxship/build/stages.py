"""A Dockerfile's stages: which there are, and which of them a target needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from boxship.build.parser import Dockerfile, Instruction, ParseError
from boxship.build.validation import check
from boxship.errors import Invalid

_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next; `base` is what FROM names, before its variables are replaced."""

    index: int
    name: str
    base: str
    start: Instruction
    steps: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments given before the first FROM, and every stage."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]

    def find(self, text: str, before: int | None = None) -> Stage | None:
        """The stage of that name or number, among those before a number."""
        candidates = self.stages[:before]
        if text.isdecimal() and int(text) < len(candidates):
            return candidates[int(text)]
        named = [stage for stage in candidates if stage.name and stage.name == text.lower()]
        return named[-1] if named else None

    def target(self, text: str) -> Stage:
        """The stage to build: the last, or the one asked for; raises `Invalid`."""
        if not text:
            return self.stages[-1]
        found = self.find(text)
        if found is None:
            raise Invalid(f"failed to reach build target {text} in Dockerfile")
        return found

    def needed(self, target: Stage) -> list[Stage]:
        """The stages that the target stands on or copies from, in their order, and the target itself."""
        wanted, waiting = {target.index}, [target]
        while waiting:
            stage = waiting.pop()
            names = [stage.base, *(step.flags["from"] for step in stage.steps if "from" in step.flags)]
            for name in names:
                found = self.find(name, stage.index)
                if found is not None and found.index not in wanted:
                    wanted.add(found.index)
                    waiting.append(found)
        return [self.stages[index] for index in sorted(wanted)]


def plan(dockerfile: Dockerfile) -> Plan:
    """Divide a Dockerfile into stages and check each instruction; raises `ParseError`, `Unsupported`."""
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    steps: list[Instruction] = []
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            base, name = _from(instruction)
            steps = []
            stages.append(Stage(len(stages), name, base, instruction, ()))
        elif stages:
            check(instruction, dockerfile.escape)
            steps.append(instruction)
            last = stages[-1]
            stages[-1] = Stage(last.index, last.name, last.base, last.start, tuple(steps))
        elif instruction.name == "ARG":
            check(instruction, dockerfile.escape)
            arguments.append(instruction)
        else:
            raise ParseError(instruction.line, "no build stage in current context: FROM must come first")
    if not stages:
        raise Invalid("no build stage in current context: the Dockerfile has no FROM")
    return Plan(tuple(arguments), tuple(stages))


def _from(instruction: Instruction) -> tuple[str, str]:
    words = instruction.text.split()
    if len(words) == 1:
        return words[0], ""
    if len(words) != 3 or words[1].lower() != "as":
        raise ParseError(instruction.line, "FROM requires either one or three arguments")
    name = words[2].lower()
    if not _NAME.fullmatch(name):
        raise ParseError(
            instruction.line, f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
        )
    return words[0], name
