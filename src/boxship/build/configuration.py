"""The instructions that change only the configuration: from their text to a new configuration."""

from __future__ import annotations

import json
import posixpath
import re
import signal

import msgspec

from boxship.build.expansion import split_words
from boxship.build.parser import Instruction, ParseError, parse_instruction
from boxship.oci.image_config import ExecutionConfig, Healthcheck

DEFAULT_SHELL = ["/bin/sh", "-c"]
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def command(instruction: Instruction, config: ExecutionConfig) -> list[str]:
    """The arguments of RUN, CMD, ENTRYPOINT: the JSON form as it is, the shell form behind the shell."""
    if instruction.words is not None:
        return list(instruction.words)
    return [*(config.shell or DEFAULT_SHELL), instruction.text] if instruction.text else []


def quoted(words: list[str]) -> str:
    """A command as the history shows it: `["echo" "hi"]`."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


def pairs(instruction: Instruction, escape: str) -> list[tuple[str, str]]:
    """The names and values of ENV and LABEL, as they are written; raises `ParseError`."""
    words = split_words(instruction.text, escape)
    if "=" not in words[0]:
        name, *rest = instruction.text.split(None, 1)
        if not rest:
            raise ParseError(instruction.line, f"{instruction.name} must have two arguments")
        return [(name, rest[0].strip())]
    found = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise ParseError(instruction.line, f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise ParseError(instruction.line, f"{instruction.name} names can not be blank")
        found.append((name, value))
    return found


def with_environment(config: ExecutionConfig, values: list[tuple[str, str]]) -> ExecutionConfig:
    merged = {item.partition("=")[0]: item for item in config.env or []}
    merged.update({name: f"{name}={value}" for name, value in values})
    return msgspec.structs.replace(config, env=list(merged.values()))


def with_ports(config: ExecutionConfig, words: list[str], line: int) -> ExecutionConfig:
    """EXPOSE: single ports and ranges."""
    ports = dict(config.exposed_ports or {})
    for word in words:
        match = _PORT.fullmatch(word.rpartition(":")[2])  # host ports are no business of an image
        if match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) < 65536:
            raise ParseError(line, f"invalid containerPort: {word}")
        for port in range(int(match[1]), int(match[2] or match[1]) + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    return msgspec.structs.replace(config, exposed_ports=ports)


def with_volumes(config: ExecutionConfig, paths: list[str]) -> ExecutionConfig:
    volumes = dict(config.volumes or {})
    volumes.update({path: {} for path in paths})
    return msgspec.structs.replace(config, volumes=volumes)


def with_directory(config: ExecutionConfig, path: str) -> ExecutionConfig:
    joined = posixpath.normpath(posixpath.join(config.working_dir or "/", path))
    return msgspec.structs.replace(config, working_dir="/" + joined.lstrip("/"))


def check_signal(text: str, line: int) -> None:
    """Raises `ParseError` for what is no signal by name or number."""
    name = text.upper().removeprefix("SIG")
    if text.isdecimal() and 0 < int(text) < signal.NSIG:
        return
    if f"SIG{name}" not in signal.Signals.__members__ and not re.fullmatch(r"RTM(IN\+|AX-)\d+", name):
        raise ParseError(line, f"Invalid signal: {text}")


def healthcheck(instruction: Instruction) -> Healthcheck:
    """HEALTHCHECK with its options; raises `ParseError`."""
    kind, _, rest = instruction.text.partition(" ")
    if kind.upper() == "NONE":
        if rest.strip() or instruction.flags:
            raise ParseError(instruction.line, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(["NONE"])
    if kind.upper() != "CMD":
        raise ParseError(instruction.line, f'unknown type {kind!r} in HEALTHCHECK (try "CMD")')
    if not rest.strip():
        raise ParseError(instruction.line, "missing command after HEALTHCHECK CMD")
    inner = parse_instruction(f"CMD {rest.strip()}", instruction.line)
    test = ["CMD", *inner.words] if inner.words is not None else ["CMD-SHELL", inner.text]
    flags = instruction.flags

    def duration(name: str) -> int:
        value = flags.get(name)
        if value is None:
            return 0
        nanoseconds = parse_duration(value)
        if nanoseconds is None:
            raise ParseError(instruction.line, f'invalid duration "{value}" of --{name}')
        if 0 < nanoseconds < 10**6:
            raise ParseError(instruction.line, f"Interval {value!r} of --{name} cannot be less than 1ms")
        return nanoseconds

    retries = flags.get("retries", "0")
    if not retries.isdecimal():
        raise ParseError(instruction.line, f"--retries must be a number, not {retries!r}")
    return Healthcheck(
        test, duration("interval"), duration("timeout"), duration("start-period"), duration("start-interval"), int(retries)
    )


def parse_duration(text: str) -> int | None:
    """Nanoseconds of Go's `1m30s`; None for anything else."""
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))
