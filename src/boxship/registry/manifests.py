"""Manifests, configurations and tags as a registry gives them: verified, and of bounded size."""

from __future__ import annotations

import hashlib

from boxship.errors import Invalid
from boxship.oci import media_types
from boxship.oci.descriptor import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.registry.failures import Answer
from boxship.registry.session import Session

_ACCEPT = ", ".join((*sorted(media_types.INDEXES), *sorted(media_types.MANIFESTS)))
_SCHEMA_1 = (media_types.DOCKER_MANIFEST_V1, media_types.DOCKER_MANIFEST_V1_SIGNED)
_MOST_TAGS = 100_000


def pull_scope(repository: str) -> str:
    """What a token must allow for reading."""
    return f"repository:{repository}:pull"


async def fetch_manifest(session: Session, repository: str, wanted: str) -> tuple[bytes, Descriptor, Manifest | Index]:
    """A manifest or index by tag or digest; raises `NotFound`, `Denied`, `Invalid`, `Unavailable`."""
    answer = await session.request(
        "GET", f"/v2/{repository}/manifests/{wanted}", scope=pull_scope(repository), headers={"Accept": _ACCEPT}
    )
    raw = answer.content
    digest = Digest.of(raw)
    if ":" in wanted and not _is(raw, Digest(wanted)):
        raise Invalid(f"manifest verification failed for digest {wanted}: the content is {digest}")
    stated = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if stated in _SCHEMA_1:
        raise Invalid(
            f"{repository}:{wanted} is an image of the schema version 1, which is not supported",
            hint="push it again with a current client, as schema 2 or OCI",
        )
    manifest = parse_manifest(raw, stated)
    # what the document says of itself is part of the digest; the header is not
    media_type = manifest.media_type or (stated if stated in _ACCEPT else "") or _usual_type(manifest)
    return raw, Descriptor(media_type, digest, len(raw)), manifest


def _usual_type(manifest: Manifest | Index) -> str:
    return media_types.OCI_INDEX if isinstance(manifest, Index) else media_types.OCI_MANIFEST


async def fetch_document(session: Session, repository: str, descriptor: Descriptor) -> bytes:
    """A small blob, such as a configuration; raises `NotFound`, `Denied`, `Invalid`, `Unavailable`."""
    if descriptor.size > MANIFEST_LIMIT:
        raise Invalid(f"configuration {descriptor.digest} of {descriptor.size} bytes is larger than the limit of {MANIFEST_LIMIT}")
    answer: Answer = await session.request("GET", f"/v2/{repository}/blobs/{descriptor.digest}", scope=pull_scope(repository))
    if not _is(answer.content, Digest(descriptor.digest)):
        raise Invalid(f"verification failed for digest {descriptor.digest}: the content is {Digest.of(answer.content)}")
    return answer.content


def _is(data: bytes, digest: Digest) -> bool:
    return hashlib.new(digest.algorithm, data).hexdigest() == digest.hex


async def list_tags(session: Session, repository: str) -> list[str]:
    """Every tag of a repository, page by page (distribution-spec, "Listing tags"). Raises `NotFound`, `Denied`, `Unavailable`."""
    target = f"/v2/{repository}/tags/list"
    tags: list[str] = []
    seen = {target}
    while target:
        answer = await session.request("GET", target, scope=pull_scope(repository))
        tags += answer.texts("tags")
        target = answer.next_page()
        if target in seen or len(tags) > _MOST_TAGS:
            raise Invalid(f"the registry's list of the tags of {repository} does not end")
        seen.add(target)
    return tags
