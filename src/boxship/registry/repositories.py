"""The repositories that are served: names, tags, manifests, and which blobs each may show.

The bytes are in the content store, which an engine may share; what is named here is kept there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from boxship.content.store import ContentStore
from boxship.errors import Invalid
from boxship.oci import media_types
from boxship.oci.descriptor import Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.registry.faults import BlobUnknown, DigestInvalid, ManifestBlobUnknown, ManifestInvalid, ManifestUnknown, NameUnknown
from boxship.state.database import Database

UNNAMED_SECONDS = 3600.0
"""How long a blob is kept that no manifest of its repository names: a push brings the manifest last."""

_SWEEP_SECONDS = 600.0


class ManifestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A manifest of a repository: the digests that it names, and the one that it refers to."""

    media_type: str
    size: int
    parts: list[str]
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class _Tag(msgspec.Struct, frozen=True):
    digest: str


class _Link(msgspec.Struct, frozen=True):
    since: float


@dataclass(slots=True)
class Repository:
    """One repository: manifests by tag, all manifests, and since when it has each blob (seconds since 1970)."""

    tags: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, ManifestRecord] = field(default_factory=dict)
    blobs: dict[str, float] = field(default_factory=dict)


class Repositories:
    """Everything a registry serves."""

    def __init__(self, content: ContentStore, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.content = content
        self._database = database
        self._clock = clock
        self._tags = database.collection("repository tags", _Tag)
        self._manifests = database.collection("repository manifests", ManifestRecord)
        self._links = database.collection("repository blobs", _Link)
        self._repositories: dict[str, Repository] = {}
        self._swept = 0.0
        self.unused: Callable[[Iterable[str]], None] = self._delete
        """Told which blobs are served no more; without an engine on the same store, they are deleted."""
        self._read()

    def _read(self) -> None:
        for key, tag in self._tags.all.items():
            name, _, text = key.partition(":")
            self._at(name).tags[text] = tag.digest
        for key, record in self._manifests.all.items():
            name, _, digest = key.partition("@")
            self._at(name).manifests[digest] = record
        for key, link in self._links.all.items():
            name, _, digest = key.partition("@")
            self._at(name).blobs[digest] = link.since

    def _at(self, name: str) -> Repository:
        return self._repositories.setdefault(name, Repository())

    def names(self) -> list[str]:
        return sorted(self._repositories)

    def get(self, name: str) -> Repository:
        """Raises `NameUnknown`."""
        found = self._repositories.get(name)
        if found is None:
            raise NameUnknown(f"repository name not known to registry: {name}")
        return found

    def kept(self) -> set[str]:
        """Every blob that some repository serves."""
        found: set[str] = set()
        for repository in self._repositories.values():
            found.update(repository.blobs, repository.manifests)
        return found

    async def committed(self) -> None:
        """Wait until every change is on disk; raises `Internal`."""
        await self._database.committed()

    # --- blobs ---

    def blob(self, name: str, digest: str) -> int:
        """The size of a blob that the repository has; raises `NameUnknown`, `BlobUnknown`."""
        repository = self.get(name)
        if digest not in repository.blobs or digest not in self.content:
            raise BlobUnknown(f"blob unknown to registry: {digest}")
        # whoever has seen it will rely on it
        repository.blobs[digest] = self._clock()
        return self.content.size(digest)

    def link(self, name: str, digest: str) -> None:
        """Let a repository serve a blob that is in the store."""
        now = self._clock()
        self._at(name).blobs[digest] = now
        self._links.put(f"{name}@{digest}", _Link(now))

    def mount(self, name: str, source: str, digest: str) -> bool:
        """Take a blob over from another repository, or from any where none is named; False where that has it not."""
        sources = [self._repositories.get(source)] if source else self._repositories.values()
        if digest not in self.content or not any(other is not None and digest in other.blobs for other in sources):
            return False
        self.link(name, digest)
        return True

    def remove_blob(self, name: str, digest: str) -> None:
        """Raises `NameUnknown`, `BlobUnknown`."""
        self.blob(name, digest)
        self._unlink(name, digest)
        self._let_go([digest])

    def _unlink(self, name: str, digest: str) -> None:
        self.get(name).blobs.pop(digest, None)
        self._links.delete(f"{name}@{digest}")
        self._forget_if_empty(name)

    def _forget_if_empty(self, name: str) -> None:
        repository = self._repositories[name]
        if not repository.tags and not repository.manifests and not repository.blobs:
            del self._repositories[name]

    def _let_go(self, digests: Iterable[str]) -> None:
        kept = self.kept()
        gone = [digest for digest in digests if digest not in kept]
        if gone:
            self.unused(gone)

    def _delete(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self.content.delete(digest)

    def sweep(self) -> None:
        """Let go of blobs that no manifest of their repository names; called often, it looks now and then."""
        now = self._clock()
        if abs(now - self._swept) < _SWEEP_SECONDS:
            return
        self._swept = now
        gone: list[str] = []
        for name, repository in list(self._repositories.items()):
            named = {part for record in repository.manifests.values() for part in record.parts}
            old = [digest for digest, since in repository.blobs.items() if since < now - UNNAMED_SECONDS and digest not in named]
            for digest in old:
                self._unlink(name, digest)
            gone += old
        self._let_go(gone)

    # --- manifests ---

    def manifest(self, name: str, wanted: str) -> tuple[str, ManifestRecord]:
        """The digest and record of a manifest by tag or digest; raises `NameUnknown`, `ManifestUnknown`."""
        repository = self.get(name)
        digest = wanted if ":" in wanted else repository.tags.get(wanted, "")
        record = repository.manifests.get(digest)
        if record is None or digest not in self.content:
            raise ManifestUnknown(f"manifest unknown to registry: {wanted}")
        return digest, record

    def put_manifest(self, name: str, wanted: str, raw: bytes, media_type: str) -> tuple[Digest, str]:
        """Take a manifest in: its digest, and the digest of its subject.

        Raises `ManifestInvalid`, `DigestInvalid`, and `ManifestBlobUnknown` where the repository lacks what it names.
        """
        try:
            manifest = parse_manifest(raw, media_type)
        except Invalid as error:
            raise ManifestInvalid(str(error)) from error
        digest = Digest.of(raw)
        if ":" in wanted and wanted != digest:
            raise DigestInvalid(f"provided digest did not match uploaded content: {wanted} is not {digest}")
        parts = manifest.manifests if isinstance(manifest, Index) else [manifest.config, *manifest.layers]
        record = ManifestRecord(
            _media_type(manifest, media_type), len(raw), [part.digest for part in parts],
            manifest.subject.digest if manifest.subject else "", _artifact_type(manifest), manifest.annotations,
        )  # fmt: skip
        known = self._repositories.get(name) or Repository()
        _check_parts(parts, known.manifests if isinstance(manifest, Index) else known.blobs)
        self.content.put(raw, digest)
        repository = self._at(name)
        with self._database.transaction():
            repository.manifests[digest] = record
            self._manifests.put(f"{name}@{digest}", record)
            if ":" not in wanted:
                repository.tags[wanted] = digest
                self._tags.put(f"{name}:{wanted}", _Tag(digest))
        return digest, record.subject

    def remove_manifest(self, name: str, wanted: str) -> None:
        """Remove a tag, or a manifest with all its tags; raises `NameUnknown`, `ManifestUnknown`."""
        repository = self.get(name)
        tags = [wanted] if ":" not in wanted else [tag for tag, digest in repository.tags.items() if digest == wanted]
        if wanted not in repository.tags and wanted not in repository.manifests:
            raise ManifestUnknown(f"manifest unknown to registry: {wanted}")
        with self._database.transaction():
            for tag in tags:
                del repository.tags[tag]
                self._tags.delete(f"{name}:{tag}")
            if ":" in wanted:
                del repository.manifests[wanted]
                self._manifests.delete(f"{name}@{wanted}")
            self._forget_if_empty(name)
        if ":" in wanted:
            self._let_go([wanted])

    def referrers(self, name: str, subject: str) -> list[tuple[str, ManifestRecord]]:
        """The manifests that refer to another (distribution-spec, "Listing Referrers")."""
        repository = self._repositories.get(name) or Repository()
        return [(digest, record) for digest, record in repository.manifests.items() if record.subject == subject]


def _media_type(manifest: Manifest | Index, sent_as: str) -> str:
    own = manifest.media_type
    if own and sent_as and own != sent_as:
        raise ManifestInvalid(f"the manifest's mediaType is {own}, but it was sent as {sent_as}")
    usual = media_types.OCI_INDEX if isinstance(manifest, Index) else media_types.OCI_MANIFEST
    found = own or sent_as or usual
    if found not in (media_types.INDEXES if isinstance(manifest, Index) else media_types.MANIFESTS):
        raise ManifestInvalid(f"manifests of type {found} are not kept here")
    return found


def _artifact_type(manifest: Manifest | Index) -> str:
    """By what referrers are told apart: an image manifest without one goes by its configuration."""
    return manifest.artifact_type or ("" if isinstance(manifest, Index) else manifest.config.media_type)


def _check_parts(parts: Iterable[Descriptor], held: dict[str, ManifestRecord] | dict[str, float]) -> None:
    for part in parts:
        if not part.urls and part.digest not in held:
            raise ManifestBlobUnknown(f"the manifest names what the repository does not have: {part.digest}")
