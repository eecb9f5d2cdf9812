"""What a registry has under a name, without fetching it (Engine API, `/distribution`)."""

from __future__ import annotations

from typing import Any

from boxship.oci.descriptor import Index
from boxship.oci.image_config import parse_image_config
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.registry.manifests import fetch_document, fetch_manifest
from boxship.registry.model import Credentials
from boxship.registry.registries import Registries


async def inspect(registries: Registries, reference: Reference, credentials: Credentials | None) -> dict[str, Any]:
    """The descriptor and the platforms of a reference; raises `NotFound`, `Denied`, `Unavailable`."""
    session = await registries.session(await registries.main_endpoint(reference.registry), credentials)
    repository = reference.repository
    _, descriptor, manifest = await fetch_manifest(session, repository, str(reference.digest or reference.tag))
    if isinstance(manifest, Index):
        platforms = [entry.platform for entry in manifest.manifests if entry.platform is not None]
    else:
        platforms = [parse_image_config(await fetch_document(session, repository, manifest.config)).platform]
    return {
        "Descriptor": {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size},
        "Platforms": [_document(platform) for platform in platforms],
    }


def _document(platform: Platform) -> dict[str, Any]:
    fields = {
        "architecture": platform.architecture, "os": platform.os, "os.version": platform.os_version,
        "os.features": platform.os_features, "variant": platform.variant,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value}
