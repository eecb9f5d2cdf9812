"""One stage built: each instruction carried out, or found done before."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from boxship.build import configuration as configure
from boxship.build.cache import BuildCache, in_image
from boxship.build.copying import Copier
from boxship.build.executor import Executor, RunRequest
from boxship.build.expansion import expand, split_words
from boxship.build.options import BuildOptions
from boxship.build.parser import Instruction, ParseError, parse_instruction
from boxship.build.transcript import Transcript
from boxship.build.validation import check
from boxship.errors import BoxshipError, Invalid, from_os_error
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci.digest import Digest
from boxship.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from boxship.oci.platform import Platform
from boxship.registry.threads import begin, settled
from boxship.snapshots.archive import make_directories
from boxship.syscalls.files import open_in_root

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREDEFINED = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy",
    "ALL_PROXY", "all_proxy",
)  # fmt: skip
"""Build arguments that need no ARG and are part of no cache key."""


class CommandFailed(Invalid):
    """Raised where a RUN ends with another exit code than 0."""

    def __init__(self, shown: str, code: int) -> None:
        super().__init__(f"The command '{shown}' returned a non-zero code: {code}")
        self.code = code


@dataclass(slots=True)
class Surroundings:
    """What every stage of one build shares."""

    images: Images
    executor: Executor
    cache: BuildCache
    cache_from: list[Image]
    options: BuildOptions
    transcript: Transcript
    copier: Copier
    pin: Callable[[str], None]
    escape: str
    global_arguments: dict[str, str]
    consumed: set[str] = field(default_factory=set)


class StageBuild:
    """The state of a stage as its instructions change it."""

    def __init__(self, around: Surroundings, base: Image | StageBuild | None, platform: Platform) -> None:
        self._around = around
        self._cmd_set = False
        self._arguments: dict[str, str | None] = {}
        self.platform = platform
        self.author = ""
        self.config = ExecutionConfig()
        self.layers: list[str] = []
        self.history: list[History] = []
        self.state = ""
        """The id that the image would have if the stage ended here; empty for an empty one."""
        self.image: Image | None = None
        if isinstance(base, StageBuild):
            self.config, self.layers, self.history = base.config, list(base.layers), list(base.history)
            self.author, self.state, self.image = base.author, base.state, base.image
        elif base is None:
            self.config = ExecutionConfig(env=[DEFAULT_PATH])
        else:
            self.config = base.config.config or ExecutionConfig()
            self.layers, self.history = [str(layer) for layer in base.layers], list(base.config.history or [])
            self.author, self.state = base.config.author, str(base.id)
            self.image = base

    # --- from the outside ---

    async def run_triggers(self) -> None:
        """The ONBUILD instructions of the base image."""
        triggers = self.config.on_build or []
        if not triggers:
            return
        self.config = msgspec.structs.replace(self.config, on_build=None)
        word = "trigger" if len(triggers) == 1 else "triggers"
        self._around.transcript.say(f"# Executing {len(triggers)} build {word}\n")
        for text in triggers:
            instruction = parse_instruction(text, 0)
            check(instruction, self._around.escape)
            await self.carry_out(instruction)

    async def carry_out(self, instruction: Instruction) -> None:
        """Do one instruction; raises `CommandFailed`, and other failures with the line in their message."""
        handler = getattr(self, f"_{instruction.name.lower()}")
        try:
            await handler(instruction)
        except (ParseError, CommandFailed):
            raise
        except BoxshipError as error:
            if instruction.line:
                error.message = f"dockerfile line {instruction.line}: {error.message}"
            raise
        except OSError as error:
            raise from_os_error(error, f"dockerfile line {instruction.line}: {instruction.name} failed:") from error

    async def label(self, labels: dict[str, str]) -> None:
        """What `--label` adds at the end."""
        merged = {**(self.config.labels or {}), **labels}
        shown = " ".join(f"{name}={value}" for name, value in labels.items())
        await self._configure(f"LABEL {shown}", msgspec.structs.replace(self.config, labels=merged))

    def finish(self) -> Image:
        """The image of this stage; raises `Invalid` where nothing was made."""
        if not self.state:
            raise Invalid("No image was generated. Is your Dockerfile empty?")
        if self.image is not None and self.image.id == self.state:
            return self.image
        return self._around.images.create(self._document().encode(), built=True)

    # --- steps ---

    def _document(self) -> ImageConfig:
        created = self.history[-1].created if self.history else _now()
        return ImageConfig(
            self.platform.architecture, self.platform.os, RootFS("layers", list(self.layers)), created=created,
            author=self.author, config=self.config, history=list(self.history), variant=self.platform.variant or "",
        )  # fmt: skip

    async def _step(
        self, created_by: str, config: ExecutionConfig, act: Callable[[], Awaitable[str]] | None, *covered: str
    ) -> None:
        """Take a result from the cache, or make it: `act` gives a layer's diff id, or an empty text for none."""
        around = self._around
        key = BuildCache.key(self.state, created_by, str(self.platform), *covered)
        entry = None
        if not around.options.no_cache:
            entry = around.cache.find(key)
            entry = entry or in_image(around.cache_from, self.layers, self.history, created_by)
        if entry is not None:
            around.transcript.say(" ---> Using cache\n")
            layer, created = entry.layer, entry.created
            if layer:
                around.pin(layer)
        else:
            layer = await act() if act is not None else ""
            created = _now()
            around.cache.put(key, layer, created, created_by)
        if layer:
            self.layers.append(layer)
        self.config = config
        self.history.append(History(created, created_by, empty_layer=not layer))
        self.state = str(Digest.of(self._document().encode()))
        around.transcript.state(self.state)

    async def _configure(self, shown: str, config: ExecutionConfig) -> None:
        await self._step(f"{' '.join(config.shell or configure.DEFAULT_SHELL)} #(nop) {shown}", config, None)

    async def _changed(self, act: Callable[[str], Awaitable[None]]) -> str:
        """The layer of what `act` does to a snapshot, given by its key, over the layers so far; empty where that is nothing."""
        around = self._around
        snapshotter = around.images.snapshotter
        key = f"build-{secrets.token_hex(16)}"
        snapshotter.prepare(key, self.layers)
        try:
            await act(key)
            if snapshotter.unchanged(key):
                return ""

            def write() -> Digest:
                with snapshotter.writer(keep=True) as writer:
                    snapshotter.write_diff(key, writer)
                    return writer.commit()

            layer = await settled(begin(write))
        finally:
            snapshotter.remove(key)
        around.pin(layer)
        return str(layer)

    # --- variables ---

    def _lookup(self, name: str) -> str | None:
        for item in self.config.env or []:
            own, _, value = item.partition("=")
            if own == name:
                return value
        return self._arguments.get(name)

    def _expanded(self, text: str) -> str:
        return expand(text, self._lookup, self._around.escape)

    def _words(self, instruction: Instruction) -> list[str]:
        words = instruction.words
        if words is None:
            words = tuple(split_words(instruction.text, self._around.escape))
        return [self._expanded(word) for word in words]

    def _pairs(self, instruction: Instruction) -> list[tuple[str, str]]:
        written = configure.pairs(instruction, self._around.escape)
        return [(self._expanded(name), self._expanded(value)) for name, value in written]

    async def _arg(self, instruction: Instruction) -> None:
        shown = []
        for word in split_words(instruction.text, self._around.escape):
            name, separator, default = word.partition("=")
            value: str | None = self._expanded(default) if separator else self._around.global_arguments.get(name)
            given = self._around.options.build_arguments
            if given.get(name) is not None:
                value = given[name]
            self._around.consumed.add(name)
            self._arguments[name] = value
            shown.append(f"{name}={self._expanded(default)}" if separator else name)
        await self._configure(f" ARG {' '.join(shown)}", self.config)

    async def _env(self, instruction: Instruction) -> None:
        values = self._pairs(instruction)
        shown = " ".join(f"{name}={value}" for name, value in values)
        await self._configure(f" ENV {shown}", configure.with_environment(self.config, values))

    # --- configuration ---

    async def _label(self, instruction: Instruction) -> None:
        values = self._pairs(instruction)
        labels = {**(self.config.labels or {}), **dict(values)}
        shown = " ".join(f"{name}={value}" for name, value in values)
        await self._configure(f" LABEL {shown}", msgspec.structs.replace(self.config, labels=labels))

    async def _maintainer(self, instruction: Instruction) -> None:
        self.author = instruction.text
        await self._configure(f" MAINTAINER {instruction.text}", self.config)

    async def _cmd(self, instruction: Instruction) -> None:
        words = configure.command(instruction, self.config)
        self._cmd_set = True
        await self._configure(f" CMD {configure.quoted(words)}", msgspec.structs.replace(self.config, cmd=words))

    async def _entrypoint(self, instruction: Instruction) -> None:
        words = configure.command(instruction, self.config)
        cmd = self.config.cmd if self._cmd_set else None  # the base image's belongs to its own entry point
        config = msgspec.structs.replace(self.config, entrypoint=words, cmd=cmd)
        await self._configure(f" ENTRYPOINT {configure.quoted(words)}", config)

    async def _shell(self, instruction: Instruction) -> None:
        words = list(instruction.words or ())
        await self._configure(f" SHELL [{' '.join(words)}]", msgspec.structs.replace(self.config, shell=words))

    async def _expose(self, instruction: Instruction) -> None:
        words = [port for word in self._words(instruction) for port in word.split()]
        config = configure.with_ports(self.config, words, instruction.line)
        await self._configure(f" EXPOSE {' '.join(sorted(words))}", config)

    async def _volume(self, instruction: Instruction) -> None:
        paths = self._words(instruction)
        if not all(path.strip() for path in paths):
            raise ParseError(instruction.line, "VOLUME specified can not be an empty string")
        await self._configure(f" VOLUME [{' '.join(paths)}]", configure.with_volumes(self.config, paths))

    async def _user(self, instruction: Instruction) -> None:
        user = self._expanded(instruction.text)
        await self._configure(f" USER {user}", msgspec.structs.replace(self.config, user=user))

    async def _stopsignal(self, instruction: Instruction) -> None:
        signal = self._expanded(instruction.text)
        configure.check_signal(signal, instruction.line)
        await self._configure(f" STOPSIGNAL {signal}", msgspec.structs.replace(self.config, stop_signal=signal))

    async def _healthcheck(self, instruction: Instruction) -> None:
        health = configure.healthcheck(instruction)
        shown = msgspec.json.encode(health).decode()
        await self._configure(f" HEALTHCHECK {shown}", msgspec.structs.replace(self.config, healthcheck=health))

    async def _onbuild(self, instruction: Instruction) -> None:
        config = msgspec.structs.replace(self.config, on_build=[*(self.config.on_build or []), instruction.text])
        await self._configure(f" ONBUILD {instruction.text}", config)

    # --- files ---

    async def _workdir(self, instruction: Instruction) -> None:
        config = configure.with_directory(self.config, self._expanded(instruction.text))
        snapshotter = self._around.images.snapshotter

        def missing() -> bool:
            with snapshotter.viewed(self.layers) as root:
                try:
                    os.close(open_in_root(root, config.working_dir, os.O_PATH | os.O_DIRECTORY))
                except FileNotFoundError:
                    return True
            return False

        async def make(key: str) -> None:
            self._make_directories(key, [config.working_dir])

        async def act() -> str:
            return await self._changed(make) if missing() else ""

        await self._step(f"/bin/sh -c #(nop) WORKDIR {config.working_dir}", config, act)

    def _make_directories(self, key: str, paths: Iterable[str]) -> None:
        with self._around.images.snapshotter.mounted(key) as root:
            for path in paths:
                os.close(make_directories(root, [part for part in path.split("/") if part]))

    async def _copy(self, instruction: Instruction) -> None:
        *sources, destination = self._words(instruction)
        flags = {name: self._expanded(value) for name, value in instruction.flags.items()}
        target = posixpath.join(self.config.working_dir or "/", destination)
        async with self._around.copier.prepared(instruction.name, sources, destination, flags.get("from", "")) as copy:
            created_by = f"/bin/sh -c #(nop) {instruction.name} {copy.described} in {destination} "
            snapshotter = self._around.images.snapshotter

            async def act(key: str) -> None:
                def work() -> None:
                    with snapshotter.mounted(key) as root:
                        copy.apply(root, target, flags.get("chown", ""), flags.get("chmod", ""))

                await settled(begin(work))

            await self._step(
                created_by, self.config, lambda: self._changed(act), flags.get("chown", ""), flags.get("chmod", ""), target
            )

    _add = _copy

    async def _run(self, instruction: Instruction) -> None:
        around, options = self._around, self._around.options
        arguments = configure.command(instruction, self.config)
        own = {item.partition("=")[0] for item in self.config.env or []}
        declared = [f"{name}={value}" for name, value in sorted(self._arguments.items()) if value is not None and name not in own]
        proxies = [
            f"{name}={options.build_arguments[name]}"
            for name in PREDEFINED
            if options.build_arguments.get(name) is not None and name not in own and name not in self._arguments
        ]
        around.consumed.update(PREDEFINED)
        environment = [*(self.config.env or []), *declared, *proxies]
        if "PATH" not in own:
            environment.insert(0, DEFAULT_PATH)
        shown = " ".join(arguments)
        created_by = f"|{len(declared)} {' '.join(declared)} {shown}" if declared else shown

        async def act(key: str) -> None:
            if self.config.volumes:  # what is done in them stays, as nothing is mounted there
                self._make_directories(key, self.config.volumes)
            short = secrets.token_hex(6)
            around.transcript.say(f" ---> Running in {short}\n")
            code = await around.executor.run(
                RunRequest(
                    key, tuple(arguments), tuple(environment), self.config.working_dir or "/", self.config.user, options.network,
                    options.extra_hosts, options.shm_size, options.memory, options.memory_swap, options.cpu_shares,
                    options.cpu_quota, options.cpu_period, options.cpuset_cpus, options.cpuset_mems, options.ulimits,
                    options.cgroup_parent,
                ),
                around.transcript.output(),
            )  # fmt: skip
            around.transcript.say(f" ---> Removed intermediate container {short}\n")
            if code:
                raise CommandFailed(shown, code)

        await self._step(created_by, self.config, lambda: self._changed(act), options.network)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
