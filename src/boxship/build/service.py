"""Builds: a context and a Dockerfile become an image."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from boxship.build import remote
from boxship.build.cache import BuildCache, CacheEntry
from boxship.build.context import Context, receive
from boxship.build.copying import Copier
from boxship.build.executor import Executor
from boxship.build.expansion import expand, split_words
from boxship.build.options import BuildOptions
from boxship.build.parser import Dockerfile, parse
from boxship.build.stage import PREDEFINED, StageBuild, Surroundings
from boxship.build.stages import Plan, Stage, plan
from boxship.build.transcript import Emit, Transcript
from boxship.errors import Invalid, Unsupported
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.state.database import Database

Pull = Callable[[Reference, Platform | None, Mapping[str, Any], Emit], Awaitable[Image]]


class Builder:
    """Carries out builds, one after another or side by side."""

    def __init__(self, images: Images, executor: Executor, pull: Pull, database: Database, root: Path) -> None:
        self._images = images
        self._executor = executor
        self._pull = pull
        self._root = root
        self.cache = BuildCache(images, database)
        # what an earlier process left
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)

    async def build(self, options: BuildOptions, context: AsyncIterator[bytes] | None, emit: Emit) -> Image:
        """Build and tag an image. Raises `Invalid` for a broken Dockerfile, `CommandFailed`, and what pulls raise.

        Without `context` the remote one of the options is fetched. Nothing but the cache outlives a failure.
        """
        if options.squash:
            raise Unsupported("--squash is not supported")
        transcript = Transcript(emit, quiet=options.quiet)
        tags = [Reference.parse(tag).with_default_tag() for tag in options.tags]
        scratch = self._root / secrets.token_hex(8)
        scratch.mkdir()
        opened: Context | None = None
        try:
            text: str | None = None
            if context is None:
                opened, text = await remote.fetch(options.remote, scratch / "context")
            else:
                opened = await receive(context, scratch / "context")
            dockerfile = parse(text if text is not None else opened.dockerfile(options.dockerfile))
            with self._images.pinned() as pin:
                build = _Build(self, dockerfile, options, opened, transcript, pin, scratch)
                with transcript.told():
                    image = await build.run()
                for tag in tags:
                    self._images.tag(image, tag)
        finally:
            if opened is not None:
                opened.close()
            shutil.rmtree(scratch, ignore_errors=True)
        transcript.built(image.id, [tag.familiar for tag in tags])
        return self._images.get(image.id)

    def entries(self) -> list[tuple[str, CacheEntry]]:
        """The cache's entries by key."""
        return self.cache.entries()

    def kept(self) -> set[str]:
        """The layers that the cache keeps."""
        return self.cache.layers()

    def prune(self, accept: Callable[[str, CacheEntry], bool], *, all_entries: bool) -> tuple[list[str], int]:
        """Forget the entries that `accept` takes: their keys, and the bytes freed.

        Without `all_entries` those stay that an image stands on, or whose step made no layer: they take no room.
        """
        in_images = self._images.shared_by()
        keys = [
            key for key, entry in self.entries()
            if (all_entries or (entry.layer and not in_images[entry.layer])) and accept(key, entry)
        ]  # fmt: skip
        layers = self.cache.forget(keys)
        snapshotter = self._images.snapshotter
        sizes = {layer: snapshotter.layer_size(layer) for layer in layers if snapshotter.has_layer(layer)}
        self._images.collect(layers, [])
        return keys, sum(size for layer, size in sizes.items() if not snapshotter.has_layer(layer))

    # --- for a build ---

    @property
    def images(self) -> Images:
        return self._images

    @property
    def executor(self) -> Executor:
        return self._executor

    async def base(self, name: str, platform: Platform | None, options: BuildOptions, emit: Emit) -> Image:
        """An image to stand on or to copy from, pulled where it is not here or is asked for anew."""
        found = None if options.pull else self._images.find(name)
        if found is not None and (platform is None or found.config.platform.satisfies(platform)):
            return found
        reference = Reference.parse(name).with_default_tag()
        return await self._pull(reference, platform, options.credentials, emit)


class _Build:
    """One build."""

    def __init__(
        self, builder: Builder, dockerfile: Dockerfile, options: BuildOptions, context: Context, transcript: Transcript,
        pin: Callable[[str], None], scratch: Path,
    ) -> None:  # fmt: skip
        self._builder = builder
        self._options = options
        self._transcript = transcript
        self._plan: Plan = plan(dockerfile)
        self._escape = dockerfile.escape
        self._built: dict[int, StageBuild] = {}
        self._current = 0
        images = builder.images
        self._arguments = self._platform_arguments()
        copier = Copier(context, images.snapshotter.viewed, self._layers_of, scratch)
        cache_from = [image for name in options.cache_from if (image := images.find(name)) is not None]
        self._around = Surroundings(
            images, builder.executor, builder.cache, cache_from, options, transcript, copier, pin, self._escape, self._arguments
        )

    def _platform_arguments(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for prefix, platform in (("TARGET", self._options.platform or Platform.host()), ("BUILD", Platform.host())):
            found |= {
                f"{prefix}PLATFORM": str(platform), f"{prefix}OS": platform.os, f"{prefix}ARCH": platform.architecture,
                f"{prefix}VARIANT": platform.variant or "",
            }  # fmt: skip
        return found

    async def run(self) -> Image:
        target = self._plan.target(self._options.target)
        stages = self._plan.needed(target)
        labels = self._options.labels
        self._transcript.total = len(self._plan.arguments) + sum(1 + len(stage.steps) for stage in stages) + bool(labels)
        for instruction in self._plan.arguments:
            self._transcript.step(instruction.original)
            try:
                self._global_argument(instruction.text)
            except Invalid as error:
                raise Invalid(f"dockerfile line {instruction.line}: {error.message}") from error
        for stage in stages:
            await self._stage(stage)
        last = self._built[target.index]
        if labels:
            shown = " ".join(f"{name}={value}" for name, value in labels.items())
            self._transcript.step(f"LABEL {shown}")
            await last.label(labels)
        given = set(self._options.build_arguments) - self._around.consumed - set(PREDEFINED) - set(self._arguments)
        if given:
            self._transcript.say(f"[Warning] One or more build-args [{' '.join(sorted(given))}] were not consumed\n")
        return last.finish()

    def _global_argument(self, text: str) -> None:
        for word in split_words(text, self._escape):
            name, separator, default = word.partition("=")
            given = self._options.build_arguments.get(name)
            self._around.consumed.add(name)
            if given is not None:
                self._arguments[name] = given
            elif separator:
                self._arguments[name] = expand(default, self._arguments.get, self._escape)

    async def _stage(self, stage: Stage) -> None:
        self._current = stage.index
        self._transcript.step(stage.start.original)
        try:
            base = expand(stage.base, self._arguments.get, self._escape)
            if not base:
                raise Invalid(f"base name ({stage.base}) should not be blank")
            platform = self._options.platform
            if "platform" in stage.start.flags:
                platform = Platform.parse(expand(stage.start.flags["platform"], self._arguments.get, self._escape))
        except Invalid as error:
            raise Invalid(f"dockerfile line {stage.start.line}: {error.message}", hint=error.hint) from error
        building = await self._begin(stage, base, platform)
        self._built[stage.index] = building
        await building.run_triggers()
        for instruction in stage.steps:
            self._transcript.step(instruction.original)
            await building.carry_out(instruction)

    async def _begin(self, stage: Stage, base: str, platform: Platform | None) -> StageBuild:
        if base == "scratch":
            self._transcript.say(" ---> \n")
            return StageBuild(self._around, None, platform or Platform.host())
        earlier = self._plan.find(base, stage.index)
        if earlier is not None:
            found = self._built[earlier.index]
            self._transcript.state(found.state)
            return StageBuild(self._around, found, found.platform)
        image = await self._base(base, platform)
        self._transcript.state(image.id)
        return StageBuild(self._around, image, image.config.platform)

    async def _base(self, name: str, platform: Platform | None) -> Image:
        image = await self._builder.base(name, platform, self._options, self._transcript.emit)
        for digest in (image.id, *image.layers):
            self._around.pin(digest)
        return image

    async def _layers_of(self, name: str) -> list[str]:
        """The layers of a stage or image that COPY --from names."""
        stage = self._plan.find(name, self._current)
        if stage is None:
            if name.isdecimal():
                raise Invalid(f"invalid from flag value {name}: index out of bounds")
            return [str(layer) for layer in (await self._base(name, self._options.platform)).layers]
        if stage.index not in self._built:  # a trigger of a base image names it
            current = self._current
            for needed in self._plan.needed(stage):
                if needed.index not in self._built:
                    self._transcript.total += 1 + len(needed.steps)
                    await self._stage(needed)
            self._current = current
        return self._built[stage.index].layers
