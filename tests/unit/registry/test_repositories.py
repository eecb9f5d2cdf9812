"""The repositories of a registry, without the protocol: what is kept, what is let go, what a restart finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.content.store import ContentStore
from boxship.oci import media_types
from boxship.oci.digest import Digest
from boxship.registry import faults
from boxship.registry.repositories import UNNAMED_SECONDS, Repositories
from boxship.state.database import Database


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Open = Callable[[], Repositories]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the same store anew each time."""
    databases: list[Database] = []

    def open_store() -> Repositories:
        for database in databases:
            database.close()
        databases[:] = [Database(tmp_path / "state.db")]
        return Repositories(ContentStore(tmp_path / "content"), databases[0], clock)

    yield open_store
    for database in databases:
        database.close()


@pytest.fixture
def repositories(open_: Open) -> Repositories:
    return open_()


def blob(repositories: Repositories, name: str, data: bytes) -> str:
    digest = repositories.content.put(data)
    repositories.link(name, digest)
    return digest


def described(digest: str, **extra: Any) -> dict[str, Any]:
    return {"mediaType": media_types.OCI_LAYER_GZIP, "digest": digest, "size": 1, **extra}


def manifest(config: str, *layers: str, **extra: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": described(config),
                "layers": [described(layer) for layer in layers], **extra}  # fmt: skip
    return json.dumps(document).encode()


def put_image(repositories: Repositories, name: str, tag: str, *parts: bytes) -> str:
    raw = manifest(*(blob(repositories, name, part) for part in parts))
    return repositories.put_manifest(name, tag, raw, media_types.OCI_MANIFEST)[0]


def test_a_restart_finds_everything(open_: Open) -> None:
    first = open_()
    digest = put_image(first, "team/box", "1", b"config", b"layer")
    first.put_manifest("team/box", "2", manifest(Digest.of(b"config"), subject=described(digest)), "")
    kept = first.kept()

    again = open_()

    assert again.names() == ["team/box"]
    assert again.kept() == kept and len(kept) == 4
    assert again.manifest("team/box", "1")[0] == digest
    assert again.get("team/box") == first.get("team/box")
    assert [record.subject for _, record in again.referrers("team/box", digest)] == [digest]


def test_what_is_not_there(repositories: Repositories) -> None:
    digest = put_image(repositories, "box", "1", b"config")
    with pytest.raises(faults.NameUnknown):
        repositories.get("other")
    with pytest.raises(faults.NameUnknown):
        repositories.manifest("other", "1")
    for wanted in ("2", Digest.of(b"none")):
        with pytest.raises(faults.ManifestUnknown):
            repositories.manifest("box", wanted)
        with pytest.raises(faults.ManifestUnknown):
            repositories.remove_manifest("box", wanted)
    with pytest.raises(faults.BlobUnknown):
        repositories.blob("box", digest)  # a manifest is no blob
    with pytest.raises(faults.BlobUnknown):
        repositories.remove_blob("box", Digest.of(b"none"))
    assert repositories.referrers("other", digest) == []


def test_a_repository_shows_its_own_blobs_alone(repositories: Repositories) -> None:
    digest = blob(repositories, "mine", b"secret")
    blob(repositories, "yours", b"other")
    with pytest.raises(faults.BlobUnknown):
        repositories.blob("yours", digest)
    assert repositories.blob("mine", digest) == 6


def test_mounting(repositories: Repositories) -> None:
    digest = blob(repositories, "source", b"data")
    assert not repositories.mount("target", "nowhere", digest)
    assert not repositories.mount("target", "source", Digest.of(b"none"))
    assert repositories.names() == ["source"]
    assert repositories.mount("target", "source", digest)
    assert repositories.mount("third", "", digest)
    assert repositories.blob("target", digest) == 4


@pytest.mark.parametrize(
    ("raw", "media_type", "fault"),
    [
        (b"{", "", faults.ManifestInvalid),
        (b"[]", "", faults.ManifestInvalid),
        (b'{"schemaVersion": 1}', "", faults.ManifestInvalid),
        (manifest(Digest.of(b"config")), media_types.DOCKER_MANIFEST, faults.ManifestInvalid),
        (manifest(Digest.of(b"config"), mediaType=None), "application/json", faults.ManifestInvalid),
        (manifest(Digest.of(b"config"), mediaType="text/plain"), "", faults.ManifestInvalid),
        (manifest("sha256:short"), "", faults.ManifestInvalid),
        (manifest(Digest.of(b"absent")), "", faults.ManifestBlobUnknown),
        (manifest(Digest.of(b"config"), Digest.of(b"absent")), "", faults.ManifestBlobUnknown),
    ],
)
def test_an_unsound_manifest_is_refused(repositories: Repositories, raw: bytes, media_type: str, fault: type[Exception]) -> None:
    blob(repositories, "box", b"config")
    with pytest.raises(fault):
        repositories.put_manifest("box", "1", raw, media_type)
    assert repositories.get("box").tags == {}


def test_a_manifest_is_not_taken_under_another_digest(repositories: Repositories) -> None:
    raw = manifest(blob(repositories, "box", b"config"))
    with pytest.raises(faults.DigestInvalid):
        repositories.put_manifest("box", Digest.of(b"other"), raw, "")
    digest, _ = repositories.put_manifest("box", Digest.of(raw), raw, "")
    assert repositories.manifest("box", digest)[0] == digest
    assert repositories.get("box").tags == {}


def test_an_index_needs_its_manifests(repositories: Repositories) -> None:
    def index(digest: str) -> bytes:
        return json.dumps({"schemaVersion": 2, "manifests": [described(digest)]}).encode()

    child = put_image(repositories, "box", "1", b"config")
    with pytest.raises(faults.ManifestBlobUnknown):
        repositories.put_manifest("box", "all", index(Digest.of(b"config")), media_types.OCI_INDEX)
    digest, _ = repositories.put_manifest("box", "all", index(child), media_types.OCI_INDEX)
    assert repositories.manifest("box", "all")[1].media_type == media_types.OCI_INDEX
    assert repositories.manifest("box", digest)[1].parts == [child]


def test_layers_with_addresses_of_their_own_need_not_be_here(repositories: Repositories) -> None:
    config = blob(repositories, "box", b"config")
    raw = manifest(config, layers=[described(Digest.of(b"elsewhere"), urls=["https://elsewhere.example/"])])
    repositories.put_manifest("box", "1", raw, "")


def test_referrers_say_what_they_are(repositories: Repositories) -> None:
    config = blob(repositories, "box", b"{}")
    subject = described(Digest.of(b"subject"))
    extras: list[dict[str, Any]] = [{"artifactType": "text/a", "annotations": {"k": "v"}}, {}, {"subject": described(config)}]
    for extra in extras:
        fields = {"subject": subject, **extra}
        raw = manifest(config, **fields)
        _, told = repositories.put_manifest("box", Digest.of(raw), raw, "")
        assert told == fields["subject"]["digest"]
    found = repositories.referrers("box", Digest.of(b"subject"))
    assert [(record.artifact_type, record.annotations) for _, record in found] == [
        ("text/a", {"k": "v"}),
        (media_types.OCI_LAYER_GZIP, None),
    ]


def test_a_removed_tag_leaves_the_manifest(repositories: Repositories) -> None:
    digest = put_image(repositories, "box", "1", b"config")
    repositories.remove_manifest("box", "1")
    assert repositories.get("box").tags == {}
    assert repositories.manifest("box", digest)[0] == digest


def test_a_removed_manifest_takes_its_tags_along(open_: Open) -> None:
    repositories = open_()
    digest = put_image(repositories, "box", "1", b"config")
    put_image(repositories, "box", "2", b"config")
    other = put_image(repositories, "box", "3", b"other")
    repositories.remove_manifest("box", digest)
    for found in (repositories, open_()):
        assert found.get("box").tags == {"3": other}
        assert digest not in found.content
        assert Digest.of(b"config") in found.content


def test_a_repository_goes_with_the_last_of_it(open_: Open) -> None:
    repositories = open_()
    digest = put_image(repositories, "box", "1", b"config")
    repositories.remove_manifest("box", digest)
    repositories.remove_blob("box", Digest.of(b"config"))
    assert repositories.names() == open_().names() == []
    assert list(repositories.content.walk()) == []


def test_what_another_repository_serves_stays(repositories: Repositories) -> None:
    digest = blob(repositories, "one", b"shared")
    repositories.mount("two", "one", digest)
    repositories.remove_blob("one", digest)
    assert repositories.blob("two", digest) == 6


def test_an_engine_on_the_same_store_is_asked_first(repositories: Repositories) -> None:
    told: list[str] = []
    repositories.unused = told.extend
    digest = blob(repositories, "box", b"shared with an image")
    repositories.remove_blob("box", digest)
    assert told == [digest]
    assert digest in repositories.content


def test_blobs_that_nothing_names_go_after_a_while(open_: Open, clock: Clock) -> None:
    repositories = open_()
    put_image(repositories, "box", "1", b"config", b"layer")
    left = blob(repositories, "box", b"of a push that broke off")
    alone = blob(repositories, "alone", b"too")
    clock.now += UNNAMED_SECONDS - 1
    repositories.sweep()
    assert {left, alone} <= repositories.kept()

    seen = blob(repositories, "box", b"just asked for")
    clock.now += UNNAMED_SECONDS / 2
    repositories.blob("box", seen)
    clock.now += UNNAMED_SECONDS - 1
    repositories.sweep()

    for found in (repositories, open_()):
        assert found.names() == ["box"]
        assert set(found.get("box").blobs) == {Digest.of(b"config"), Digest.of(b"layer"), seen}
        assert left not in found.content and alone not in found.content


def test_sweeping_often_costs_nothing(repositories: Repositories, clock: Clock) -> None:
    repositories.sweep()
    clock.now += UNNAMED_SECONDS * 2
    blob(repositories, "box", b"data")
    clock.now += UNNAMED_SECONDS * 2
    repositories.sweep()
    blob(repositories, "box", b"data")
    clock.now += 1
    repositories.get("box").blobs[Digest.of(b"data")] = 0
    repositories.sweep()
    assert repositories.names() == ["box"]
