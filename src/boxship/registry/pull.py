"""From a registry to an image that can be run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from boxship.errors import BoxshipError, Denied, Invalid, NotFound, Unavailable
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.images.unpack import Unpacker
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.image_config import parse_image_config
from boxship.oci.platform import Platform, choose
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials, Progress
from boxship.registry.registries import Endpoint, Registries
from boxship.registry.session import ATTEMPTS, Session, pause, raise_for

T = TypeVar("T")

ACCEPT = ", ".join((*sorted(media_types.INDEXES), *sorted(media_types.MANIFESTS)))
_BATCH = 1 << 20
"""How many bytes are handed to the unpacking thread at once."""
_REPORT_SECONDS = 0.1


async def pull(
    registries: Registries, images: Images, reference: Reference, *, platform: Platform | None,
    credentials: Credentials | None, progress: Progress,
) -> Image:  # fmt: skip
    """Fetch an image by tag or digest. Raises `NotFound`, `Denied`, `Invalid`, `Unavailable`.

    Layers that are here already are not fetched; a layer cut off in the middle is continued, now or next time.
    """
    reference = reference.with_default_tag()
    before = images.find(str(reference))
    failure: BoxshipError | None = None
    for endpoint in registries.endpoints(reference.registry):
        try:
            session = await registries.session(endpoint, None if endpoint.mirror else credentials)
            image, digest = await _Pull(registries, images, reference, session, progress).run(platform)
        except BoxshipError as error:
            if not endpoint.mirror:
                raise _translated(error, reference) from error
            failure = error
            continue
        progress({"status": f"Digest: {digest}"})
        newer = before is None or before.id != image.id
        status = "Downloaded newer image for" if newer else "Image is up to date for"
        progress({"status": f"Status: {status} {reference.familiar}"})
        return image
    raise failure or NotFound(f"no endpoint for {reference.registry}")


async def pull_all(
    registries: Registries, images: Images, reference: Reference, *, platform: Platform | None,
    credentials: Credentials | None, progress: Progress,
) -> None:  # fmt: skip
    """Fetch every tag of a repository."""
    endpoint: Endpoint = registries.endpoints(reference.registry)[-1]
    session = await registries.session(endpoint, credentials)
    try:
        tags = await list_tags(session, reference.repository)
    except BoxshipError as error:
        raise _translated(error, reference) from error
    for tag in tags:
        await pull(registries, images, reference.with_tag(tag), platform=platform, credentials=credentials, progress=progress)


async def list_tags(session: Session, repository: str) -> list[str]:
    """Every tag of a repository, page by page (distribution-spec, "Listing tags")."""
    scope, target = pull_scope(repository), f"/v2/{repository}/tags/list"
    tags: list[str] = []
    while target:
        response = await session.request("GET", target, scope=scope)
        found = response.json().get("tags") or []
        tags += [str(tag) for tag in found]
        following = response.links.get("next", {}).get("url", "")
        target = following if following and found else ""
    return tags


def pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def _translated(error: BoxshipError, reference: Reference) -> BoxshipError:
    """Docker's words for what a registry refuses."""
    if isinstance(error, Denied):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require"
            f" 'docker login': denied: {error.message}"
        )
    if isinstance(error, NotFound) and "name unknown" in error.message:
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login'"
        )
    if isinstance(error, NotFound) and "no matching manifest" not in error.message:
        return NotFound(f"manifest for {reference.familiar} not found: {error.message}")
    return error


async def all_or_none(work: Iterable[Awaitable[T]]) -> list[T]:
    """Run things side by side: all results, or the first failure once the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def fetch_manifest(session: Session, repository: str, wanted: str) -> tuple[bytes, Descriptor]:
    """A manifest or index by tag or digest, verified; raises `NotFound`, `Denied`, `Invalid`, `Unavailable`."""
    response = await session.request(
        "GET", f"/v2/{repository}/manifests/{wanted}", scope=pull_scope(repository), headers={"Accept": ACCEPT}
    )
    raw = response.content
    digest = Digest.of(raw)
    if wanted.startswith("sha256:") and wanted != digest:
        raise Invalid(f"manifest verification failed for digest {wanted}: the content is {digest}")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    parsed = parse_manifest(raw, media_type)
    own = parsed.media_type or media_type or media_types.OCI_MANIFEST
    return raw, Descriptor(own, digest, len(raw))


class _Pull:
    """One image on its way from one endpoint."""

    def __init__(
        self, registries: Registries, images: Images, reference: Reference, session: Session, progress: Progress
    ) -> None:
        self._registries = registries
        self._images = images
        self._reference = reference
        self._repository = reference.repository
        self._session = session
        self._progress = progress

    async def run(self, platform: Platform | None) -> tuple[Image, str]:
        wanted = str(self._reference.digest or self._reference.tag)
        raw, top = await fetch_manifest(self._session, self._repository, wanted)
        self._progress({"status": f"Pulling from {self._repository}", "id": wanted})
        descriptor = top
        manifest = parse_manifest(raw, top.media_type)
        if isinstance(manifest, Index):
            raw, descriptor = await self._choose(manifest, platform)
            manifest = parse_manifest(raw, descriptor.media_type)
        if isinstance(manifest, Index):
            raise Invalid(f"{self._reference.familiar}: an index inside an index cannot be pulled")
        if manifest.config.media_type not in media_types.CONFIGS:
            raise Invalid(
                f"{self._reference.familiar} is no image: its configuration is of type {manifest.config.media_type}"
            )
        with self._images.pinned() as pin:
            for digest in (descriptor.digest, manifest.config.digest):
                pin(digest)
            image = await self._fetch(raw, descriptor, manifest, platform, top.digest, pin)
        return image, top.digest

    async def _choose(self, index: Index, platform: Platform | None) -> tuple[bytes, Descriptor]:
        wanted = platform or Platform.host()
        found = choose(wanted, [entry.platform for entry in index.manifests])
        if found is None:
            raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
        return await fetch_manifest(self._session, self._repository, index.manifests[found].digest)

    async def _fetch(
        self, raw: bytes, descriptor: Descriptor, manifest: Manifest, platform: Platform | None, top: str, pin: object
    ) -> Image:
        assert callable(pin)
        images = self._images
        config = await self._config(manifest.config)
        parsed = parse_image_config(config)
        if platform is not None and not parsed.platform.satisfies(platform):
            raise NotFound(
                f"image with reference {self._reference.familiar} was found but does not provide the specified"
                f" platform ({platform})"
            )
        diff_ids = parsed.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise Invalid(
                f"{self._reference.familiar}: the manifest has {len(manifest.layers)} layers, its configuration {len(diff_ids)}"
            )
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            pin(layer.digest)
            pin(diff_id)
            self._tell(layer, "Pulling fs layer")
        await all_or_none(self._layer(layer, diff_id) for layer, diff_id in zip(manifest.layers, diff_ids, strict=True))
        images.content.put(raw, descriptor.digest)
        return images.register(descriptor, config, self._reference, top)

    async def _config(self, descriptor: Descriptor) -> bytes:
        content = self._images.content
        if descriptor.digest in content:
            return content.read(descriptor.digest)
        target = f"/v2/{self._repository}/blobs/{descriptor.digest}"
        response = await self._session.request("GET", target, scope=pull_scope(self._repository))
        content.put(response.content, descriptor.digest)
        return response.content

    def _tell(self, layer: Descriptor, status: str, current: int = 0, total: int = 0) -> None:
        detail: dict[str, object] = {"current": current, "total": total} if total else {}
        self._progress({"status": status, "progressDetail": detail, "id": layer.digest.partition(":")[2][:12]})

    async def _layer(self, layer: Descriptor, diff_id: str) -> None:
        if layer.media_type in (media_types.DOCKER_LAYER_FOREIGN, media_types.OCI_LAYER_FOREIGN):
            raise Invalid(f"layer {layer.digest} is not distributed by registries (type {layer.media_type})")
        async with self._registries.layer_locks[layer.digest]:
            if self._images.snapshotter.has_layer(diff_id):
                self._tell(layer, "Already exists")
                return
            self._tell(layer, "Waiting")
            async with self._registries.downloads:
                await self._download(layer, diff_id)
        self._tell(layer, "Pull complete")

    async def _download(self, layer: Descriptor, diff_id: str) -> None:
        """Fetch and unpack, continuing after each failure of the connection from where it was cut."""
        attempt = 0
        while True:
            with Unpacker(self._images, layer, diff_id) as unpacker:
                offset = unpacker.offset
                try:
                    if unpacker.offset:
                        await asyncio.to_thread(unpacker.replay)
                    if unpacker.offset < layer.size:
                        await self._stream(layer, unpacker)
                    self._tell(layer, "Verifying Checksum")
                    self._tell(layer, "Download complete")
                    self._tell(layer, "Extracting", layer.size, layer.size)
                    await asyncio.to_thread(unpacker.commit)
                    unpacker.remember()
                    return
                except Unavailable:
                    if unpacker.offset > offset:
                        attempt = 0  # it gets on
                    attempt += 1
                    if attempt >= ATTEMPTS:
                        raise
            await pause(attempt - 1)

    async def _stream(self, layer: Descriptor, unpacker: Unpacker) -> None:
        """Download what is missing; one batch is unpacked on a thread while the next one comes."""
        headers = {"Range": f"bytes={unpacker.offset}-"} if unpacker.offset else {}
        target = f"/v2/{self._repository}/blobs/{layer.digest}"
        skip = 0
        unpacking: asyncio.Future[None] | None = None
        reported = 0.0
        async with self._session.stream("GET", target, scope=pull_scope(self._repository), headers=headers) as response:
            if response.status_code == 401:
                raise Unavailable("the registry's token has expired")
            raise_for(response)
            if headers and response.status_code != 206:
                skip = unpacker.offset  # the registry knows no ranges: what is here already is passed over
            batch = bytearray()
            received = unpacker.offset - skip
            try:
                async for chunk in response.aiter_raw():
                    received += len(chunk)
                    if skip:
                        cut = min(skip, len(chunk))
                        skip -= cut
                        chunk = chunk[cut:]  # noqa: PLW2901
                    batch += chunk
                    if len(batch) >= _BATCH:
                        if unpacking is not None:
                            await unpacking
                        unpacking = asyncio.ensure_future(asyncio.to_thread(unpacker.feed, bytes(batch)))
                        batch.clear()
                        if time.monotonic() - reported >= _REPORT_SECONDS:
                            reported = time.monotonic()
                            self._tell(layer, "Downloading", received, layer.size)
            finally:
                # whatever has come is kept for a resume
                if unpacking is not None:
                    await unpacking
                if batch:
                    await asyncio.to_thread(unpacker.feed, bytes(batch))
        if unpacker.offset < layer.size:
            raise Unavailable(f"layer {layer.digest} was cut off after {unpacker.offset} of {layer.size} bytes")
