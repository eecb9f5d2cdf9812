"""What is wrong with an instruction whatever stands before it: told before anything is built."""

from __future__ import annotations

from boxship.build import configuration as configure
from boxship.build.expansion import split_words
from boxship.build.parser import Instruction, ParseError, parse_instruction


def check(instruction: Instruction, escape: str) -> None:
    """Raises `ParseError` in Docker's words, `Unsupported`."""
    name, line, words = instruction.name, instruction.line, instruction.words
    match name:
        case "COPY" | "ADD":
            if len(words if words is not None else split_words(instruction.text, escape)) < 2:
                raise ParseError(
                    line,
                    f"{name} requires at least two arguments, but only one was provided. Destination could not be determined",
                )
            if "$" in instruction.flags.get("from", ""):
                raise ParseError(line, "variable expansion is not supported for --from, define a stage of that image instead")
        case "ENV" | "LABEL":
            configure.pairs(instruction, escape)
        case "ARG":
            if any(word.startswith("=") for word in split_words(instruction.text, escape)):
                raise ParseError(line, "ARG names can not be blank")
        case "HEALTHCHECK":
            configure.healthcheck(instruction)
        case "ONBUILD":
            check(trigger(instruction), escape)
        case "SHELL":
            if words is None:
                raise ParseError(line, "SHELL requires the arguments to be in JSON form")
            if not words:
                raise ParseError(line, "SHELL requires at least one argument")
        case "VOLUME":
            if words is not None and not words:
                raise ParseError(line, "VOLUME requires at least one argument")
            if words is not None and not all(word.strip() for word in words):
                raise ParseError(line, "VOLUME specified can not be an empty string")


def trigger(instruction: Instruction) -> Instruction:
    """The instruction that an ONBUILD holds; raises `ParseError`."""
    inner = parse_instruction(instruction.text, instruction.line)
    if inner.name == "ONBUILD":
        raise ParseError(instruction.line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner.name in ("FROM", "MAINTAINER"):
        raise ParseError(instruction.line, f"{inner.name} isn't allowed as an ONBUILD trigger")
    return inner
