"""Manifests, indexes and configurations: read from strangers, so refused by name where they are unsound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boxship.errors import Invalid
from boxship.oci import media_types
from boxship.oci.descriptor import MANIFEST_LIMIT, Descriptor, Index, Manifest, parse_manifest
from boxship.oci.digest import Digest
from boxship.oci.image_config import ImageConfig, RootFS, parse_image_config

DIGEST = Digest.of(b"x")


def descriptor(kind: str = media_types.OCI_LAYER_GZIP, **changes: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": str(DIGEST), "size": 1, **changes}


def manifest(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": descriptor(media_types.OCI_CONFIG),
                "layers": [descriptor()], **changes}  # fmt: skip
    return json.dumps(document).encode()


def test_a_manifest() -> None:
    found = parse_manifest(manifest(annotations={"a": "b"}, unknown={"field": 1}))
    assert isinstance(found, Manifest)
    assert found.config == Descriptor(media_types.OCI_CONFIG, DIGEST, 1)
    assert [layer.media_type for layer in found.layers] == [media_types.OCI_LAYER_GZIP]
    assert found.annotations == {"a": "b"}


@pytest.mark.parametrize("stated", [media_types.OCI_INDEX, media_types.DOCKER_INDEX, None])
def test_an_index_by_its_type_or_by_its_content(stated: str | None) -> None:
    entry = descriptor(media_types.OCI_MANIFEST, platform={"architecture": "arm64", "os": "linux", "variant": "v8"})
    raw = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    found = parse_manifest(raw, stated)
    assert isinstance(found, Index)
    assert str(found.manifests[0].platform) == "linux/arm64/v8"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"{", b"\xff\xfe", b"\x00" * 20, b"[" * 100_000, manifest(config=None), manifest(layers=None),
        manifest(layers=[descriptor(size=-1)]), manifest(layers=[descriptor(digest="sha256:abc")]),
        manifest(layers=[descriptor(size=1.5)]),
        manifest(layers=[descriptor(digest="../../etc/shadow")]), manifest(schemaVersion="2"), manifest(layers=["x"]),
        manifest() + b"x", b'{"schemaVersion": 2, "manifests": [{}]}',
    ],
)  # fmt: skip
def test_malformed_documents_are_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_manifest(raw)


def test_schema_1_is_refused_with_what_to_do() -> None:
    with pytest.raises(Invalid, match="schema version 1") as caught:
        parse_manifest(b'{"schemaVersion": 1, "name": "a", "fsLayers": []}')
    assert caught.value.hint is not None


def test_a_manifest_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(Invalid, match="larger than the limit"):
        parse_manifest(b" " * (MANIFEST_LIMIT + 1))


def test_a_configuration_comes_back_as_it_was_made() -> None:
    config = ImageConfig("arm", "linux", RootFS("layers", [DIGEST]), variant="v7", author="me")
    read = parse_image_config(config.encode())
    assert read == config
    assert str(read.platform) == "linux/arm/v7"


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"architecture":"a","os":"b","rootfs":{}}', b"\xff", b"{" * 9000])
def test_malformed_configurations_are_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_image_config(raw)
