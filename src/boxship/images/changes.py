"""`--change` of commit and import: Dockerfile instructions that alter only the configuration."""

from __future__ import annotations

import json
import shlex

import msgspec

from boxship.errors import Invalid
from boxship.oci.image_config import ExecutionConfig, Healthcheck


def apply_changes(config: ExecutionConfig, changes: list[str]) -> ExecutionConfig:
    """The configuration after each instruction; raises `Invalid` that names the instruction."""
    for change in changes:
        instruction, _, rest = change.strip().partition(" ")
        config = _apply(config, instruction.upper(), rest.strip(), change)
    return config


def _apply(config: ExecutionConfig, instruction: str, rest: str, change: str) -> ExecutionConfig:
    match instruction:
        case "CMD":
            return msgspec.structs.replace(config, cmd=_command(rest, config))
        case "ENTRYPOINT":
            return msgspec.structs.replace(config, entrypoint=_command(rest, config))
        case "ENV":
            return msgspec.structs.replace(config, env=_merged_environment(config.env or [], _pairs(rest, change)))
        case "LABEL":
            return msgspec.structs.replace(config, labels={**(config.labels or {}), **dict(_pairs(rest, change))})
        case "EXPOSE":
            ports: dict[str, dict[str, str]] = {port if "/" in port else f"{port}/tcp": {} for port in rest.split()}
            return msgspec.structs.replace(config, exposed_ports={**(config.exposed_ports or {}), **ports})
        case "VOLUME":
            paths = _list(rest) if rest.startswith("[") else rest.split()
            return msgspec.structs.replace(config, volumes={**(config.volumes or {}), **{path: {} for path in paths}})
        case "USER":
            return msgspec.structs.replace(config, user=rest)
        case "WORKDIR":
            return msgspec.structs.replace(config, working_dir=rest)
        case "STOPSIGNAL":
            return msgspec.structs.replace(config, stop_signal=rest)
        case "ONBUILD":
            return msgspec.structs.replace(config, on_build=[*(config.on_build or []), rest])
        case "HEALTHCHECK":
            test = ["NONE"] if rest.upper() == "NONE" else _health(rest, change)
            return msgspec.structs.replace(config, healthcheck=Healthcheck(test))
    raise Invalid(f"{instruction} is not a valid change command", hint=f"in {change!r}")


def _health(rest: str, change: str) -> list[str]:
    if not rest.upper().startswith("CMD "):
        raise Invalid(f"invalid HEALTHCHECK in {change!r}", hint="expected HEALTHCHECK CMD … or NONE")
    command = rest[4:].strip()
    return ["CMD", *_list(command)] if command.startswith("[") else ["CMD-SHELL", command]


def _command(rest: str, config: ExecutionConfig) -> list[str]:
    if rest.startswith("["):
        return _list(rest)
    return [*(config.shell or ["/bin/sh", "-c"]), rest] if rest else []


def _list(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Invalid(f"malformed JSON list {text!r}: {error}") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Invalid(f"malformed JSON list {text!r}: expected strings")
    return value


def _pairs(rest: str, change: str) -> list[tuple[str, str]]:
    first = rest.split(" ", 1)
    if "=" not in first[0] and len(first) == 2:
        return [(first[0], first[1])]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise Invalid(f"malformed change {change!r}: {error}") from error
    if not words or not all("=" in word for word in words):
        raise Invalid(f"malformed change {change!r}", hint="expected name=value")
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


def _merged_environment(env: list[str], pairs: list[tuple[str, str]]) -> list[str]:
    merged = {item.partition("=")[0]: item for item in env}
    merged.update({name: f"{name}={value}" for name, value in pairs})
    return list(merged.values())
