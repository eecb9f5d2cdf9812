"""From an image to a registry."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx

from boxship.errors import BoxshipError, Conflict, Denied, NotFound, Unavailable
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials, Progress
from boxship.registry.pull import all_or_none
from boxship.registry.registries import Registries
from boxship.registry.session import ATTEMPTS, Session, pause, raise_for

_CHUNK = 1 << 20
_REPORT_SECONDS = 0.1
_OCI_TYPES = {
    media_types.DOCKER_LAYER: media_types.OCI_LAYER,
    media_types.DOCKER_LAYER_GZIP: media_types.OCI_LAYER_GZIP,
    media_types.DOCKER_LAYER_ZSTD: media_types.OCI_LAYER_ZSTD,
}


async def push(
    registries: Registries, images: Images, reference: Reference, *, credentials: Credentials | None, progress: Progress
) -> None:
    """Send an image by tag, or every tag of a repository. Raises `NotFound`, `Denied`, `Unavailable`, `Conflict`."""
    if reference.digest is not None:
        raise Conflict("cannot push a digest reference")
    names = [tag for image in images.all() for tag in image.tags if tag.name == reference.name]
    if reference.tag is not None:
        names = [name for name in names if name.tag == reference.tag]
        if not names:
            raise NotFound(f"tag does not exist: {reference.familiar}")
    if not names:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    progress({"status": f"The push refers to repository [{reference.name}]"})
    endpoint = registries.endpoints(reference.registry)[-1]
    session = await registries.session(endpoint, credentials)
    for name in sorted(names, key=str):
        try:
            await _Push(registries, images, session, name, progress).run(images.get(str(name)))
        except Denied as error:
            raise Denied(f"denied: requested access to the resource is denied: {error.message}") from error


class _Push:
    """One image on its way to one repository."""

    def __init__(
        self, registries: Registries, images: Images, session: Session, reference: Reference, progress: Progress
    ) -> None:
        self._registries = registries
        self._images = images
        self._session = session
        self._reference = reference
        self._repository = reference.repository
        self._scope = f"repository:{reference.repository}:pull,push"
        self._progress = progress

    async def run(self, image: Image) -> None:
        for diff_id in image.layers:
            self._tell(diff_id, "Preparing")
        with self._images.pinned() as pin:
            for diff_id in image.layers:
                pin(diff_id)
            raw, descriptor, layers = await self._describe(image)
            await all_or_none(self._layer(image, d, layer) for d, layer in zip(image.layers, layers, strict=True))
            config = Descriptor(media_types.DOCKER_CONFIG, image.id, len(image.raw))
            if not await self._exists(config):
                await self._upload(config, image.id, None)
        response = await self._session.request(
            "PUT", f"/v2/{self._repository}/manifests/{self._reference.tag}", scope=self._scope,
            headers={"Content-Type": descriptor.media_type}, body=raw,
        )  # fmt: skip
        stated = response.headers.get("Docker-Content-Digest", descriptor.digest)
        if stated != descriptor.digest:
            raise Unavailable(f"the registry took the manifest {descriptor.digest} as {stated}")
        self._images.content.put(raw)
        self._images.record_digest(image, self._reference, descriptor)
        tag = self._reference.tag
        self._progress({"status": f"{tag}: digest: {descriptor.digest} size: {len(raw)}"})
        self._progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": descriptor.digest, "Size": len(raw)}})

    async def _describe(self, image: Image) -> tuple[bytes, Descriptor, list[Descriptor]]:
        """The manifest to send: the one the image came with wherever its blobs are at hand."""
        content = self._images.content
        if image.manifest is not None and image.manifest.digest in content:
            raw = content.read(image.manifest.digest)
            manifest = parse_manifest(raw, image.manifest.media_type)
            if isinstance(manifest, Manifest):
                at_hand = [layer.digest in content for layer in manifest.layers]
                if all(at_hand) or all(await all_or_none(self._exists(layer) for layer in manifest.layers)):
                    return raw, image.manifest, manifest.layers
        layers = [await asyncio.to_thread(self._images.compress_layer, diff_id) for diff_id in image.layers]
        for diff_id, layer in zip(image.layers, layers, strict=True):
            self._images.remember_blob(diff_id, layer)
        raw, media_type = _manifest(image, layers)
        return raw, Descriptor(media_type, Digest.of(raw), len(raw)), layers

    def _tell(self, diff_id: str, status: str, current: int = 0, total: int = 0) -> None:
        detail: dict[str, object] = {"current": current, "total": total} if total else {}
        self._progress({"status": status, "progressDetail": detail, "id": diff_id.partition(":")[2][:12]})

    async def _exists(self, blob: Descriptor) -> bool:
        response = await self._session.request(
            "HEAD", f"/v2/{self._repository}/blobs/{blob.digest}", scope=self._scope, check=False
        )
        if response.status_code in (401, 403):
            raise_for(response)
        return response.status_code == 200

    async def _layer(self, image: Image, diff_id: str, layer: Descriptor) -> None:
        async with self._registries.uploads:
            if await self._exists(layer):
                self._tell(diff_id, "Layer already exists")
                return
            for source in self._elsewhere(diff_id):
                if await self._mount(layer, source):
                    self._tell(diff_id, f"Mounted from {source}")
                    return
            await self._upload(layer, layer.digest, diff_id)
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
        return list(found)[:3]

    async def _mount(self, layer: Descriptor, source: str) -> bool:
        """Ask the registry to take a blob over from another repository (distribution-spec, "Mounting a blob")."""
        scope = f"{self._scope} repository:{source}:pull"
        try:
            response = await self._session.request(
                "POST", f"/v2/{self._repository}/blobs/uploads/", scope=scope,
                params={"mount": layer.digest, "from": source}, check=False,
            )  # fmt: skip
        except BoxshipError:
            return False
        if response.status_code == 202:  # it began an upload instead: not needed
            await self._session.request("DELETE", response.headers["Location"], scope=self._scope, check=False)
        return response.status_code == 201

    async def _upload(self, blob: Descriptor, digest: str, diff_id: str | None) -> None:
        attempt = 0
        while True:
            try:
                await self._send(blob, digest, diff_id)
                return
            except Unavailable:
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
            await pause(attempt - 1)

    async def _send(self, blob: Descriptor, digest: str, diff_id: str | None) -> None:
        """Upload in one piece (distribution-spec, "POST then PUT")."""
        begun = await self._session.request("POST", f"/v2/{self._repository}/blobs/uploads/", scope=self._scope)
        location = httpx.URL(self._session.base).join(begun.headers["Location"]).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        async with self._session.stream(
            "PUT", str(location), scope=self._scope, headers=headers, body=self._content(blob, diff_id)
        ) as response:
            if response.status_code == 401:
                raise Unavailable("the registry's token has expired")
            raise_for(response)

    async def _content(self, blob: Descriptor, diff_id: str | None) -> AsyncIterator[bytes]:
        sent, reported = 0, 0.0
        with self._images.content.open(blob.digest) as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk
                sent += len(chunk)
                if diff_id is not None and time.monotonic() - reported >= _REPORT_SECONDS:
                    reported = time.monotonic()
                    self._tell(diff_id, "Pushing", sent, blob.size)


def _manifest(image: Image, layers: list[Descriptor]) -> tuple[bytes, str]:
    """A manifest for an image made here: Docker's, which every registry takes, unless a layer needs OCI's."""
    oci = any(layer.media_type not in (media_types.DOCKER_LAYER_GZIP, media_types.DOCKER_LAYER) for layer in layers)
    media_type = media_types.OCI_MANIFEST if oci else media_types.DOCKER_MANIFEST
    config_type = media_types.OCI_CONFIG if oci else media_types.DOCKER_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "size": len(image.raw), "digest": image.id},
        "layers": [
            {
                "mediaType": _OCI_TYPES.get(layer.media_type, layer.media_type) if oci else layer.media_type,
                "size": layer.size,
                "digest": layer.digest,
            }
            for layer in layers
        ],
    }
    return json.dumps(document, indent=3).encode(), media_type
