"""What a registry has under a name, without fetching it (Engine API, `/distribution`)."""

from __future__ import annotations

from typing import Any

from boxship.oci.descriptor import Index, parse_manifest
from boxship.oci.image_config import parse_image_config
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials
from boxship.registry.pull import fetch_manifest, pull_scope
from boxship.registry.registries import Registries


async def inspect(registries: Registries, reference: Reference, credentials: Credentials | None) -> dict[str, Any]:
    """The descriptor and the platforms of a reference; raises `NotFound`, `Denied`, `Unavailable`."""
    session = await registries.session(registries.endpoints(reference.registry)[-1], credentials)
    repository = reference.repository
    raw, descriptor = await fetch_manifest(session, repository, str(reference.digest or reference.tag))
    manifest = parse_manifest(raw, descriptor.media_type)
    if isinstance(manifest, Index):
        platforms = [entry.platform for entry in manifest.manifests if entry.platform is not None]
    else:
        target = f"/v2/{repository}/blobs/{manifest.config.digest}"
        config = parse_image_config((await session.request("GET", target, scope=pull_scope(repository))).content)
        platforms = [config.platform]
    return {
        "Descriptor": {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size},
        "Platforms": [
            {"architecture": p.architecture, "os": p.os, **({"variant": p.variant} if p.variant else {})} for p in platforms
        ],
    }
