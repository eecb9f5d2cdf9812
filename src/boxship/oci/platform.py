"""Platforms of images (OCI image-spec, image-index.md) and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from boxship.errors import Invalid

_MACHINES = {
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", None),
    "ppc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "riscv64": ("riscv64", None),
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operating system and a processor, such as linux/arm/v7."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)

    @classmethod
    def host(cls) -> Platform:
        """The platform of the running kernel."""
        machine = os.uname().machine
        architecture, variant = _MACHINES.get(machine, (machine, None))
        return cls(architecture, "linux", variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/arch[/variant]`, `arch` or `os`; raises `Invalid`."""
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(part.replace(".", "").replace("_", "").replace("-", "").isalnum() for part in parts):
            raise Invalid(f"invalid platform {text!r}", hint="expected os/arch or os/arch/variant, as in linux/amd64")
        if len(parts) == 1:
            if parts[0] in ("linux", "windows", "freebsd", "darwin"):
                return cls(cls.host().architecture, parts[0])
            parts.insert(0, "linux")
        architecture = _ALIASES.get(parts[1], parts[1])
        variant = parts[2] if len(parts) == 3 else {"arm64": "v8", "arm": "v7"}.get(architecture)
        return cls(architecture, parts[0], variant)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether an image of this platform can stand where `wanted` was asked for."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        default = {"arm64": "v8", "arm": "v7"}.get(self.architecture)
        return (self.variant or default) == (wanted.variant or default) or (
            self.architecture == "arm" and (self.variant or "v7") <= (wanted.variant or "v7")
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def choose(wanted: Platform, offered: list[Platform | None]) -> int | None:
    """The index of the best of `offered` for `wanted`: the exact one, else the highest variant that runs."""
    rank: Callable[[int], tuple[bool, str]] = lambda i: (  # noqa: E731
        offered[i] == wanted,
        (offered[i] or wanted).variant or "",
    )
    fitting = [i for i, platform in enumerate(offered) if platform is not None and platform.satisfies(wanted)]
    return max(fitting, key=rank) if fitting else None
