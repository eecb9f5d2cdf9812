"""The configuration of an image (OCI image-spec, config.md, with Docker's additions).

The raw bytes of a configuration are kept in the content store, and its digest is the image's id; these
structures are for reading it and for writing a new one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from boxship.errors import Invalid
from boxship.oci.digest import encode_digest
from boxship.oci.platform import Platform


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """How to see whether a container does its work; durations are nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ExecutionConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """What a container of the image runs with unless told otherwise."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the image's making; `empty_layer` steps added no layer."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The layers by the digests of their uncompressed tars, lowest first."""

    type: str
    diff_ids: list[str]


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image's configuration document."""

    architecture: str
    os: str
    rootfs: RootFS
    created: str | None = None
    author: str = ""
    config: ExecutionConfig | None = None
    history: list[History] | None = None
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    docker_version: str = ""

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant or None)

    def encode(self) -> bytes:
        """The bytes of a new configuration: what they hash to is the image's id."""
        return msgspec.json.encode(self, enc_hook=encode_digest)


def parse_image_config(raw: bytes) -> ImageConfig:
    """Read a configuration document; raises `Invalid`."""
    try:
        return msgspec.json.decode(raw, type=ImageConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"malformed image configuration: {error}") from error
