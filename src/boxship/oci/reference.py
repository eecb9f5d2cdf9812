"""Image references, normalised as Docker does: `busybox` is `docker.io/library/busybox:latest`.

Grammar: distribution's reference package (`[domain/]path[:tag][@digest]`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from boxship.errors import Invalid
from boxship.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"

_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a registry, with a tag, a digest, both or neither."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read and normalise a reference, without adding a tag; raises `Invalid`."""
        rest, at, digest_text = text.partition("@")
        digest = Digest(digest_text) if at else None
        if _HEX64.fullmatch(text):
            raise Invalid(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        slash = rest.rfind("/")
        colon = rest.rfind(":")
        tag: str | None = None
        if colon > slash:
            rest, tag = rest[:colon], rest[colon + 1 :]
            if not _TAG.fullmatch(tag):
                raise Invalid(f"invalid reference format: tag {tag[:140]!r} of {text[:300]!r}")
        registry, repository = _split_registry(rest)
        if not _DOMAIN.fullmatch(registry) or not _PATH.fullmatch(repository):
            lowered = "repository name must be lowercase" if _PATH.fullmatch(repository.lower()) else None
            detail = f": {lowered}" if lowered and repository != repository.lower() else f": {text[:300]!r}"
            raise Invalid(f"invalid reference format{detail}")
        if len(repository) > 255:
            raise Invalid("repository name must not be more than 255 characters")
        return cls(registry, repository, tag, digest)

    def with_default_tag(self) -> Reference:
        """The same with `latest`, where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str | None) -> Reference:
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        return replace(self, tag=None, digest=digest)

    @property
    def name(self) -> str:
        """Registry and repository in full: `docker.io/library/busybox`."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: `busybox`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return self.repository.removeprefix(_OFFICIAL) if self.repository.count("/") == 1 else self.repository

    @property
    def familiar(self) -> str:
        """The reference as Docker shows it: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def _split_registry(rest: str) -> tuple[str, str]:
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, remainder
    else:
        registry, repository = DEFAULT_REGISTRY, rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository
