from __future__ import annotations

import hashlib

import msgspec
import pytest

from boxship.errors import Invalid
from boxship.oci.digest import Digest, encode_digest

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()


def test_a_digest_is_its_text() -> None:
    digest = Digest.of(b"")
    assert digest == EMPTY
    assert digest.algorithm == "sha256"
    assert digest.hex == EMPTY[7:]
    assert digest.short == EMPTY[7:19]
    assert {EMPTY: 1}[digest] == 1


def test_sha512_is_known() -> None:
    hex_digits = hashlib.sha512(b"x").hexdigest()
    assert Digest.from_hex(hex_digits, "sha512") == f"sha512:{hex_digits}"


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), "md5:" + "0" * 32, f"{EMPTY}\n", "sha512:" + "0" * 64,
     "sha256:" + "g" * 64, "../../etc/passwd", f"sha256:../{'0' * 61}"],
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Digest(text)


def test_digests_are_encoded_as_strings() -> None:
    assert msgspec.json.encode({"d": Digest.of(b"")}, enc_hook=encode_digest) == f'{{"d":"{EMPTY}"}}'.encode()
    with pytest.raises(NotImplementedError):
        encode_digest(object())
