"""What a snapshotter does: layers made mountable, writable snapshots over them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Literal, Protocol

from boxship.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class RootMount:
    """How the runtime mounts a root: overlay over `lower` (top first), or `upper` alone where there is none."""

    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a snapshot did to one path of its layers."""

    path: str
    kind: Literal["modified", "added", "deleted"]


class LayerWriter(Protocol):
    """Takes an uncompressed tar as it comes; leaving the context without a commit drops it."""

    def write(self, data: bytes) -> int:
        """Raises `Invalid` for what is no sound tar."""
        ...

    def commit(self, expected: str | None = None) -> Digest:
        """Make the layer visible under the digest of its tar; raises `Invalid` where it is not `expected`."""
        ...

    def abort(self) -> None: ...
    def __enter__(self) -> LayerWriter: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Snapshotter(Protocol):
    """Layers by diff id, independent of what is below them; snapshots by key."""

    name: str

    def has_layer(self, diff_id: str) -> bool: ...

    def writer(self, *, keep: bool = True) -> LayerWriter:
        """Begin a layer. With `keep` its exact tar can be read back by `open_layer`, whatever the driver."""
        ...

    def open_layer(self, diff_id: str) -> BinaryIO:
        """The layer's exact tar; raises `NotFound` where it was not kept."""
        ...

    def layer_size(self, diff_id: str) -> int:
        """Bytes of the layer's tar."""
        ...

    def remove_layer(self, diff_id: str) -> None: ...

    def layers(self, *, older_than: float = 0.0) -> list[Digest]:
        """Every layer here that was written at least so many seconds ago."""
        ...

    def prepare(self, key: str, layers: Sequence[str]) -> None:
        """Make a writable snapshot over layers, lowest first; raises `NotFound`, `AlreadyExists`."""
        ...

    def root(self, key: str) -> RootMount: ...

    def mounted(self, key: str) -> AbstractContextManager[int]:
        """The snapshot's root as a directory descriptor, for reading and writing; attached nowhere."""
        ...

    def viewed(self, layers: Sequence[str]) -> AbstractContextManager[int]:
        """Layers, read-only, as a directory descriptor; attached nowhere."""
        ...

    def changes(self, key: str) -> list[Change]: ...

    def unchanged(self, key: str) -> bool:
        """Whether there is no change at all."""
        ...

    def write_diff(self, key: str, writer: LayerWriter) -> None:
        """Write the tar of what the snapshot changes."""
        ...

    def usage(self, key: str) -> int:
        """Bytes on disk of what the snapshot adds."""
        ...

    def exists(self, key: str) -> bool: ...

    def keys(self) -> list[str]: ...

    def remove(self, key: str) -> None: ...

    def close(self) -> None:
        """Let every mount go."""
        ...
