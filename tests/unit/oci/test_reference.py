"""References are read and shown as the docker command does."""

from __future__ import annotations

import pytest

from boxship.errors import Invalid
from boxship.oci.digest import Digest
from boxship.oci.reference import Reference

HEX = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "familiar"),
    [
        ("debian", "docker.io", "library/debian", "debian"),
        ("library/debian", "docker.io", "library/debian", "debian"),
        ("docker.io/debian", "docker.io", "library/debian", "debian"),
        ("docker.io/library/debian", "docker.io", "library/debian", "debian"),
        ("index.docker.io/debian", "docker.io", "library/debian", "debian"),
        ("index.docker.io/docker/docker", "docker.io", "docker/docker", "docker/docker"),
        ("library/foo/bar", "docker.io", "library/foo/bar", "library/foo/bar"),
        ("foo/foo/bar", "docker.io", "foo/foo/bar", "foo/foo/bar"),
        ("foo__bar", "docker.io", "library/foo__bar", "foo__bar"),
        ("foo.bar-baz--qux", "docker.io", "library/foo.bar-baz--qux", "foo.bar-baz--qux"),
        ("192.168.0.1", "docker.io", "library/192.168.0.1", "192.168.0.1"),
        ("localhost/debian", "localhost", "debian", "localhost/debian"),
        ("localhost", "docker.io", "library/localhost", "localhost"),
        ("127.0.0.1:5000/debian", "127.0.0.1:5000", "debian", "127.0.0.1:5000/debian"),
        ("127.0.0.1:5000/library/debian", "127.0.0.1:5000", "library/debian", "127.0.0.1:5000/library/debian"),
        ("ghcr.io/a/b/c", "ghcr.io", "a/b/c", "ghcr.io/a/b/c"),
        ("Uppercase/lowercase", "Uppercase", "lowercase", "Uppercase/lowercase"),
        ("[fc00::1]:5000/docker", "[fc00::1]:5000", "docker", "[fc00::1]:5000/docker"),
    ],
)
def test_names_are_normalised(text: str, registry: str, repository: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository) == (registry, repository)
    assert reference.tag is None
    assert reference.digest is None
    assert reference.familiar_name == familiar
    assert Reference.parse(reference.name) == reference
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(
    ("text", "tag", "digest", "shown"),
    [
        ("busybox:1.36", "1.36", None, "docker.io/library/busybox:1.36"),
        ("192.168.0.1:80", "80", None, "docker.io/library/192.168.0.1:80"),
        ("host:5000/a:5000", "5000", None, "host:5000/a:5000"),
        (f"busybox@{SHA}", None, SHA, f"docker.io/library/busybox@{SHA}"),
        (f"busybox:1.36@{SHA}", "1.36", SHA, f"docker.io/library/busybox:1.36@{SHA}"),
        ("a:_x", "_x", None, "docker.io/library/a:_x"),
        ("a:" + "t" * 128, "t" * 128, None, "docker.io/library/a:" + "t" * 128),
    ],
)
def test_tags_and_digests(text: str, tag: str | None, digest: str | None, shown: str) -> None:
    reference = Reference.parse(text)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert str(reference) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "@", "/", "a/", "/a", "a//b", ":tag", "a:", "a@", "a@sha256:abc", "a:b:c", "https://github.com/docker/docker",
        "-docker", "-docker/docker", "-docker.io/docker/docker", "docker///docker", "docker.io/docker///docker", "a..b", "a___b",
        "a_-b", "a.", ".a", "a/b.", "fc00::1:5000/debian", "[fe80::1%eth0]:5000/debian", "[fc00::1]", "a:" + "t" * 129,
        "a:.tag", "a:-tag", "a b", "a\n", "a:b\n", "ümlaut", "r/" + "a" * 256, HEX, f"busybox@{SHA}@{SHA}", "docker.io/",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Reference.parse(text)


def test_the_refusals_have_dockers_words() -> None:
    with pytest.raises(Invalid, match="repository name must be lowercase"):
        Reference.parse("docker/Docker")
    with pytest.raises(Invalid, match="invalid reference format"):
        Reference.parse("UPPER:tag with spaces")
    with pytest.raises(Invalid, match="cannot specify 64-byte hexadecimal strings"):
        Reference.parse(HEX)
    with pytest.raises(Invalid, match="must not be more than 255 characters"):
        Reference.parse("r/" + "/".join(["a" * 100] * 3))


def test_a_name_of_64_hex_digits_needs_its_registry() -> None:
    assert Reference.parse(f"docker.io/{HEX}").repository == f"library/{HEX}"


def test_the_default_tag_comes_only_where_nothing_else_stands() -> None:
    assert str(Reference.parse("a").with_default_tag()) == "docker.io/library/a:latest"
    assert str(Reference.parse("a:1").with_default_tag()) == "docker.io/library/a:1"
    assert str(Reference.parse(f"a@{SHA}").with_default_tag()) == f"docker.io/library/a@{SHA}"


def test_tag_and_digest_replace_one_another() -> None:
    reference = Reference.parse(f"a:1@{SHA}")
    assert str(reference.with_tag("2")) == "docker.io/library/a:2"
    assert str(reference.with_digest(Digest(SHA))) == f"docker.io/library/a@{SHA}"
