"""The repositories that are served: names, tags, manifests, and which blobs each may show.

The bytes are in the content store, which an engine may share; what is named here is kept there.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

import msgspec

from boxship.content.store import ContentStore, Ingest
from boxship.errors import Invalid, NotFound
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Index, parse_manifest
from boxship.oci.digest import Digest
from boxship.state.database import Database

_UPLOAD_SECONDS = 3600.0


class ManifestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A manifest of a repository; `subject` is what it refers to."""

    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Repository(msgspec.Struct, frozen=True, omit_defaults=True):
    """One repository: tags and manifests by digest, and the blobs pushed or mounted."""

    name: str
    tags: dict[str, str] = {}
    manifests: dict[str, ManifestRecord] = {}
    blobs: list[str] = []


@dataclass(slots=True)
class Upload:
    """A blob being pushed."""

    id: str
    repository: str
    ingest: Ingest
    touched: float = field(default_factory=time.monotonic)


class Repositories:
    """Everything a registry serves."""

    def __init__(self, content: ContentStore, database: Database) -> None:
        self.content = content
        self._repositories = database.collection("repositories", Repository)
        self._database = database
        self._uploads: dict[str, Upload] = {}

    def names(self) -> list[str]:
        return sorted(self._repositories.all)

    def get(self, name: str) -> Repository:
        """Raises `NotFound`."""
        found = self._repositories.get(name)
        if found is None:
            raise NotFound(f"repository name not known to registry: {name}")
        return found

    def kept(self) -> set[str]:
        """Every blob that some repository serves."""
        found: set[str] = set()
        for repository in self._repositories.all.values():
            found.update(repository.blobs)
            found.update(repository.manifests)
        return found

    async def committed(self) -> None:
        await self._database.committed()

    # --- blobs ---

    def blob(self, name: str, digest: str) -> int:
        """The size of a blob that the repository has; raises `NotFound`."""
        if digest not in self.get(name).blobs or digest not in self.content:
            raise NotFound(f"blob unknown to registry: {digest}")
        return self.content.size(digest)

    def begin(self, name: str) -> Upload:
        """Begin an upload."""
        self._expire()
        identity = secrets.token_hex(16)
        upload = self._uploads[identity] = Upload(identity, name, self.content.ingest(f"upload-{identity}"))
        return upload

    def upload(self, name: str, identity: str) -> Upload:
        """Raises `NotFound` for one that is not, or has expired."""
        self._expire()
        upload = self._uploads.get(identity)
        if upload is None or upload.repository != name:
            raise NotFound(f"blob upload unknown to registry: {identity}")
        upload.touched = time.monotonic()
        return upload

    def finish(self, upload: Upload, digest: str) -> None:
        """Verify and take in an upload; raises `Invalid` where it is not what the digest says."""
        self._uploads.pop(upload.id, None)
        with upload.ingest as ingest:
            ingest.expect(Digest(digest))
            ingest.commit()
        self.link(upload.repository, digest)

    def cancel(self, upload: Upload) -> None:
        self._uploads.pop(upload.id, None)
        with upload.ingest as ingest:
            ingest.abort()

    def _expire(self) -> None:
        now = time.monotonic()
        for upload in [upload for upload in self._uploads.values() if now - upload.touched > _UPLOAD_SECONDS]:
            self.cancel(upload)

    def link(self, name: str, digest: str) -> None:
        """Let a repository serve a blob that is in the store."""
        repository = self._repositories.get(name) or Repository(name)
        if digest not in repository.blobs:
            self._put(msgspec.structs.replace(repository, blobs=[*repository.blobs, digest]))

    def mount(self, name: str, source: str, digest: str) -> bool:
        """Take a blob over from another repository; False where that has it not."""
        other = self._repositories.get(source)
        if other is None or digest not in other.blobs or digest not in self.content:
            return False
        self.link(name, digest)
        return True

    def remove_blob(self, name: str, digest: str) -> None:
        self.blob(name, digest)
        repository = self.get(name)
        self._put(msgspec.structs.replace(repository, blobs=[blob for blob in repository.blobs if blob != digest]))

    # --- manifests ---

    def manifest(self, name: str, wanted: str) -> tuple[str, ManifestRecord]:
        """The digest and record of a manifest by tag or digest; raises `NotFound`."""
        repository = self.get(name)
        digest = wanted if ":" in wanted else repository.tags.get(wanted, "")
        record = repository.manifests.get(digest)
        if record is None or digest not in self.content:
            raise NotFound(f"manifest unknown: {wanted}")
        return digest, record

    def put_manifest(self, name: str, wanted: str, raw: bytes, media_type: str) -> tuple[Digest, str]:
        """Take a manifest in: its digest, and the digest of its subject. Raises `Invalid`, `NotFound` for its blobs."""
        manifest = parse_manifest(raw, media_type)
        own = media_type or manifest.media_type or media_types.OCI_MANIFEST
        if manifest.media_type and media_type and manifest.media_type != media_type:
            raise Invalid(f"the manifest's mediaType is {manifest.media_type}, but it was sent as {media_type}")
        digest = Digest.of(raw)
        if ":" in wanted and wanted != digest:
            raise Invalid(f"provided digest did not match uploaded content: {wanted} is not {digest}")
        repository = self._repositories.get(name) or Repository(name)
        self._check_parts(repository, manifest.manifests if isinstance(manifest, Index) else [manifest.config, *manifest.layers],
                          of_index=isinstance(manifest, Index))  # fmt: skip
        subject = manifest.subject.digest if manifest.subject else ""
        kind = manifest.artifact_type or ("" if isinstance(manifest, Index) else manifest.config.media_type)
        self.content.put(raw, digest)
        record = ManifestRecord(own, len(raw), subject, kind, manifest.annotations)
        tags = repository.tags if ":" in wanted else {**repository.tags, wanted: digest}
        self._put(
            msgspec.structs.replace(repository, tags=tags, manifests={**repository.manifests, digest: record})
        )
        return digest, subject

    def _check_parts(self, repository: Repository, parts: list[Descriptor], *, of_index: bool) -> None:
        held = repository.manifests if of_index else repository.blobs
        for part in parts:
            if part.urls or part.digest in held:
                continue
            raise NotFound(f"{'manifest' if of_index else 'blob'} unknown to registry: {part.digest}")

    def remove_manifest(self, name: str, wanted: str) -> None:
        """Remove a tag, or a manifest with all its tags; raises `NotFound`."""
        repository = self.get(name)
        if ":" not in wanted:
            if wanted not in repository.tags:
                raise NotFound(f"manifest unknown: {wanted}")
            tags = {tag: digest for tag, digest in repository.tags.items() if tag != wanted}
            self._put(msgspec.structs.replace(repository, tags=tags))
            return
        self.manifest(name, wanted)
        manifests = {digest: record for digest, record in repository.manifests.items() if digest != wanted}
        tags = {tag: digest for tag, digest in repository.tags.items() if digest != wanted}
        self._put(msgspec.structs.replace(repository, tags=tags, manifests=manifests))

    def referrers(self, name: str, subject: str) -> list[tuple[str, ManifestRecord]]:
        """The manifests that refer to another (distribution-spec, "Listing Referrers")."""
        repository = self._repositories.get(name)
        if repository is None:
            return []
        return [(digest, record) for digest, record in repository.manifests.items() if record.subject == subject]

    def _put(self, repository: Repository) -> None:
        self._repositories.put(repository.name, repository)
