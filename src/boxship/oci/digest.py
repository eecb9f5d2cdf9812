"""Content digests (OCI image-spec, descriptor.md, section "Digests")."""

from __future__ import annotations

import hashlib
import re

from boxship.errors import Invalid

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Digest(str):
    """A digest such as `sha256:9f86…`; the constructor raises `Invalid` for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not _DIGEST.fullmatch(text):
            raise Invalid(f"invalid digest {text[:140]!r}", hint="expected sha256:<64 hex digits>")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The SHA-256 digest of `data`."""
        return cls.from_hex(hashlib.sha256(data).hexdigest())

    @classmethod
    def from_hex(cls, hex_digits: str, algorithm: str = "sha256") -> Digest:
        return cls(f"{algorithm}:{hex_digits}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits, as the docker command prints an id."""
        return self.hex[:12]


def encode_digest(value: object) -> str:
    """For encoders that know `str` but not its subclass; raises `NotImplementedError` for anything else."""
    if isinstance(value, Digest):
        return str.__str__(value)
    raise NotImplementedError(f"a {type(value).__name__} cannot be encoded")
