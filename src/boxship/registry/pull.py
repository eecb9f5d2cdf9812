"""From a registry to an image that can be run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Index, Manifest
from boxship.oci.image_config import ImageConfig, parse_image_config
from boxship.oci.platform import Platform, choose
from boxship.oci.reference import Reference
from boxship.registry.download import Download
from boxship.registry.failures import Passing, Unauthorized
from boxship.registry.manifests import fetch_document, fetch_manifest, list_tags
from boxship.registry.model import Credentials, Progress
from boxship.registry.registries import Registries
from boxship.registry.session import Session

T = TypeVar("T")


async def pull(
    registries: Registries, images: Images, reference: Reference, *, platform: Platform | None,
    credentials: Credentials | None, progress: Progress,
) -> Image:  # fmt: skip
    """Fetch an image by tag or digest. Raises `NotFound`, `Denied`, `Invalid`, `Unavailable`.

    Layers that are here already are not fetched; a layer cut off in the middle is continued, now or next time.
    """
    reference = reference.with_default_tag()
    failure: BoxshipError | None = None
    for endpoint in await registries.endpoints(reference.registry):
        try:
            session = await registries.session(endpoint, None if endpoint.mirror else credentials)
            return await _Pull(registries, images, reference, session, progress).run(platform)
        except BoxshipError as error:
            # what a mirror does not have, or says wrongly, the registry itself may have
            if not endpoint.mirror:
                raise
            failure = error
    raise failure or NotFound(f"no endpoint for {reference.registry}")


async def pull_all(
    registries: Registries, images: Images, reference: Reference, *, platform: Platform | None,
    credentials: Credentials | None, progress: Progress,
) -> None:  # fmt: skip
    """Fetch every tag of a repository; raises as `pull` does."""
    session = await registries.session(await registries.main_endpoint(reference.registry), credentials)
    try:
        tags = await list_tags(session, reference.repository)
    except (Denied, NotFound) as error:
        raise refusal(error, reference, session) from error
    if not tags:
        raise NotFound(f"no tags for repository {reference.familiar_name}")
    for tag in tags:
        await _Pull(registries, images, reference.with_tag(tag), session, progress).run(platform)


def refusal(error: BoxshipError, reference: Reference, session: Session) -> BoxshipError:
    """Docker's words for a manifest that a registry does not give."""
    if isinstance(error, Unauthorized) and not session.anonymous:
        return error  # the credentials are at fault, and the error says so
    if isinstance(error, Denied):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login':"
            f" {error.message}"
        )
    if error.message.startswith("name unknown"):
        return NotFound(f"repository {reference.familiar_name} not found: {error.message}")
    return NotFound(f"manifest for {reference.familiar} not found: {error.message}")


async def all_or_none(work: Iterable[Awaitable[T]]) -> list[T]:
    """Run things side by side: all results, or the first failure once the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Pull:
    """One image on its way from one endpoint."""

    def __init__(self, registries: Registries, images: Images, reference: Reference, session: Session, progress: Progress) -> None:
        self._registries = registries
        self._images = images
        self._reference = reference
        self._repository = reference.repository
        self._session = session
        self._progress = progress

    async def run(self, platform: Platform | None) -> Image:
        before = self._images.find(str(self._reference))
        wanted = str(self._reference.digest or self._reference.tag)
        try:
            raw, top, manifest = await fetch_manifest(self._session, self._repository, wanted)
        except (Denied, NotFound) as error:
            raise refusal(error, self._reference, self._session) from error
        self._progress({"status": f"Pulling from {self._repository}", "id": wanted})
        descriptor = top
        if isinstance(manifest, Index):
            raw, descriptor, manifest = await self._choose(manifest, platform)
        if isinstance(manifest, Index):
            raise Invalid(f"{self._reference.familiar}: an index inside an index cannot be pulled")
        self._check_kinds(manifest)
        image = await self._fetch(raw, descriptor, manifest, platform, top.digest)
        self._progress({"status": f"Digest: {self._reference.digest or top.digest}"})
        newer = before is None or before.id != image.id
        status = "Downloaded newer image for" if newer else "Image is up to date for"
        self._progress({"status": f"Status: {status} {self._reference.familiar}"})
        return image

    async def _choose(self, index: Index, platform: Platform | None) -> tuple[bytes, Descriptor, Manifest | Index]:
        wanted = platform or Platform.host()
        found = choose(wanted, [entry.platform for entry in index.manifests])
        if found is None:
            raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
        return await fetch_manifest(self._session, self._repository, index.manifests[found].digest)

    def _check_kinds(self, manifest: Manifest) -> None:
        name = self._reference.familiar
        if manifest.config.media_type not in media_types.CONFIGS:
            raise Invalid(
                f"{name} is no image: its configuration is of type {manifest.config.media_type}",
                hint="it is an artifact of another kind, such as a chart or a signature",
            )
        for layer in manifest.layers:
            if layer.media_type not in media_types.LAYERS:
                raise Invalid(f"{name}: layer {layer.digest} is of type {layer.media_type}, which cannot be unpacked")

    async def _fetch(self, raw: bytes, descriptor: Descriptor, manifest: Manifest, platform: Platform | None, top: str) -> Image:
        images = self._images
        blobs = [descriptor.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        diff_ids: list[str] = []
        try:
            with images.pinned() as pin:
                for digest in blobs:
                    pin(digest)
                config = await self._config(manifest.config)
                parsed = parse_image_config(config)
                self._check(parsed, manifest, platform)
                diff_ids += parsed.rootfs.diff_ids
                await self._layers(manifest.layers, diff_ids, pin)
                images.content.put(raw, descriptor.digest)
                return images.register(descriptor, config, self._reference, top)
        except Passing:
            raise  # another attempt may follow, and goes on from here
        except BoxshipError:
            images.collect(diff_ids, blobs)
            raise

    async def _config(self, descriptor: Descriptor) -> bytes:
        content = self._images.content
        if descriptor.digest in content:
            return content.read(descriptor.digest)
        try:
            config = await fetch_document(self._session, self._repository, descriptor)
        except Passing as error:
            raise Passing(f"error pulling image configuration: {error.message}") from error
        content.put(config, descriptor.digest)
        return config

    def _check(self, config: ImageConfig, manifest: Manifest, platform: Platform | None) -> None:
        name = self._reference.familiar
        if platform is not None and not config.platform.satisfies(platform):
            raise NotFound(f"image with reference {name} was found but does not provide the specified platform ({platform})")
        if config.os not in ("linux", ""):
            raise NotFound(f"image operating system {config.os!r} cannot be used on this platform: {name}")
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Invalid(
                f"{name}: the manifest has {len(manifest.layers)} layers, its configuration {len(config.rootfs.diff_ids)}"
            )

    async def _layers(self, layers: list[Descriptor], diff_ids: list[str], pin: Callable[[str], None]) -> None:
        for diff_id in diff_ids:
            pin(diff_id)
        missing = {}
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if self._images.snapshotter.has_layer(diff_id):
                self._tell(layer, "Already exists")
            elif diff_id not in missing:
                missing[diff_id] = layer
                self._tell(layer, "Pulling fs layer")
        await all_or_none(self._layer(layer, diff_id) for diff_id, layer in missing.items())

    def _tell(self, layer: Descriptor, status: str, detail: dict[str, object] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": layer.digest.partition(":")[2][:12]})

    async def _layer(self, layer: Descriptor, diff_id: str) -> None:
        def report(status: str, current: int) -> None:
            shown = status in ("Downloading", "Extracting")
            self._tell(layer, status, {"current": current, "total": layer.size} if shown else None)

        lock, downloads = self._registries.layer_lock(layer.digest), self._registries.downloads
        if lock.locked() or downloads.locked():
            self._tell(layer, "Waiting")
        async with lock:
            if self._images.snapshotter.has_layer(diff_id):  # another pull has fetched it meanwhile
                self._tell(layer, "Already exists")
                return
            async with downloads:
                try:
                    await Download(self._images, self._session, self._repository, layer, diff_id, report).run()
                except NotFound as error:
                    raise Unavailable(f"the registry does not have layer {layer.digest} of its image: {error.message}") from error
        self._tell(layer, "Pull complete")
