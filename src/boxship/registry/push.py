"""From an image to a registry."""

from __future__ import annotations

import json

from boxship.errors import Conflict, NotFound, Unavailable
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials, Progress
from boxship.registry.pull import all_or_none
from boxship.registry.registries import Registries
from boxship.registry.session import Session
from boxship.registry.threads import begin, settled
from boxship.registry.upload import Uploads

_SOURCES = 3
"""How many other repositories are asked for a layer before it is sent."""

_OCI_TYPES = {
    media_types.DOCKER_LAYER: media_types.OCI_LAYER,
    media_types.DOCKER_LAYER_GZIP: media_types.OCI_LAYER_GZIP,
    media_types.DOCKER_LAYER_ZSTD: media_types.OCI_LAYER_ZSTD,
}
_DOCKER_TYPES = {
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
}


async def push(
    registries: Registries, images: Images, reference: Reference, *, credentials: Credentials | None, progress: Progress,
    platform: Platform | None = None,
) -> None:  # fmt: skip
    """Send an image by tag, or every tag of a repository. Raises `NotFound`, `Denied`, `Unavailable`, `Conflict`.

    `platform` is what the images must be of, or `NotFound`.
    """
    if reference.digest is not None:
        raise Conflict("cannot push a digest reference")
    names = [tag for image in images.all() for tag in image.tags if tag.name == reference.name]
    if reference.tag is not None:
        names = [name for name in names if name.tag == reference.tag]
    for name in names:
        if platform is not None and not images.get(str(name)).config.platform.satisfies(platform):
            raise NotFound(
                f"image with reference {name.familiar} was found but does not provide the specified platform ({platform})"
            )
    progress({"status": f"The push refers to repository [{reference.name}]"})
    if not names:
        # told in the stream, as dockerd does: clients look for it there
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    session = await registries.session(await registries.main_endpoint(reference.registry), credentials)
    for name in sorted(names, key=str):
        await _Push(registries, images, session, name, progress).run(images.get(str(name)))


class _Push:
    """One image on its way to one repository."""

    def __init__(self, registries: Registries, images: Images, session: Session, reference: Reference, progress: Progress) -> None:
        self._limit = registries.uploads
        self._images = images
        self._session = session
        self._reference = reference
        self._repository = reference.repository
        self._uploads = Uploads(images.content, session, reference.repository)
        self._progress = progress

    async def run(self, image: Image) -> None:
        for diff_id in image.layers:
            self._tell(diff_id, "Preparing")
        with self._images.pinned() as pin:
            for digest in (image.id, *image.layers):
                pin(digest)
            raw, descriptor, layers = await self._describe(image)
            for layer in layers:
                pin(layer.digest)
            # a layer that the image has twice is sent once
            unique = {layer.digest: (diff_id, layer) for diff_id, layer in zip(image.layers, layers, strict=True)}
            await all_or_none(self._layer(diff_id, layer) for diff_id, layer in unique.values())
            config = Descriptor(media_types.DOCKER_CONFIG, image.id, len(image.raw))
            if not await self._uploads.exists(config):
                await self._uploads.send(config, None)
            await self._put_manifest(raw, descriptor)
        self._images.record_digest(image, self._reference, descriptor)
        tag = self._reference.tag
        self._progress({"status": f"{tag}: digest: {descriptor.digest} size: {len(raw)}"})
        self._progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": descriptor.digest, "Size": len(raw)}})

    async def _put_manifest(self, raw: bytes, descriptor: Descriptor) -> None:
        answer = await self._session.request(
            "PUT", f"/v2/{self._repository}/manifests/{self._reference.tag}", scope=self._uploads.scope,
            headers={"Content-Type": descriptor.media_type}, body=raw,
        )  # fmt: skip
        stated = answer.headers.get("Docker-Content-Digest", descriptor.digest)
        if stated != descriptor.digest:
            raise Unavailable(f"the registry took the manifest {descriptor.digest} as {stated}")

    async def _describe(self, image: Image) -> tuple[bytes, Descriptor, list[Descriptor]]:
        """The manifest to send: the one the image came with wherever its blobs are at hand, here or there."""
        content = self._images.content
        if image.manifest is not None and image.manifest.digest in content:
            raw = content.read(image.manifest.digest)
            manifest = parse_manifest(raw, image.manifest.media_type)
            if isinstance(manifest, Manifest):
                missing = [layer for layer in manifest.layers if layer.digest not in content]
                if all(await all_or_none(self._uploads.exists(layer) for layer in missing)):
                    return raw, image.manifest, manifest.layers
        layers = [await self._compressed(diff_id) for diff_id in image.layers]
        raw, media_type = make_manifest(image, layers)
        return raw, Descriptor(media_type, Digest.of(raw), len(raw)), layers

    async def _compressed(self, diff_id: str) -> Descriptor:
        layer = await settled(begin(self._images.compress_layer, diff_id))
        self._images.remember_blob(diff_id, layer)
        return layer

    def _tell(self, diff_id: str, status: str, detail: dict[str, object] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": diff_id.partition(":")[2][:12]})

    async def _layer(self, diff_id: str, layer: Descriptor) -> None:
        def report(sent: int) -> None:
            self._tell(diff_id, "Pushing", {"current": sent, "total": layer.size})

        if self._limit.locked():
            self._tell(diff_id, "Waiting")
        async with self._limit:
            if await self._uploads.exists(layer):
                self._tell(diff_id, "Layer already exists")
                return
            source, location = await self._uploads.mount(layer, self._elsewhere(diff_id))
            if source is not None:
                self._tell(diff_id, f"Mounted from {source}")
                return
            await self._uploads.send(layer, report, location)
            self._tell(diff_id, "Pushed")

    def _elsewhere(self, diff_id: str) -> list[str]:
        """Other repositories of the registry that are known to have the layer."""
        found = {
            reference.repository: None
            for image in self._images.all()
            if diff_id in image.layers
            for reference in image.digests
            if reference.registry == self._reference.registry and reference.repository != self._repository
        }
        return list(found)[:_SOURCES]


def make_manifest(image: Image, layers: list[Descriptor]) -> tuple[bytes, str]:
    """A manifest for an image that came without one, and its media type: Docker's, unless a layer needs OCI's.

    Docker's, as its configuration is Docker's: health checks, shells and ONBUILD are no part of OCI's, and
    clients that go by the manifest's type pass them over.
    """
    oci = any(_DOCKER_TYPES.get(layer.media_type, layer.media_type) not in _DOCKER_TYPES.values() for layer in layers)
    types = _OCI_TYPES if oci else _DOCKER_TYPES
    media_type = media_types.OCI_MANIFEST if oci else media_types.DOCKER_MANIFEST
    config_type = media_types.OCI_CONFIG if oci else media_types.DOCKER_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "size": len(image.raw), "digest": image.id},
        "layers": [
            {"mediaType": types.get(layer.media_type, layer.media_type), "size": layer.size, "digest": layer.digest}
            for layer in layers
        ],
    }
    return json.dumps(document, indent=3).encode(), media_type
