"""Blobs by digest, in files.

<root>/blobs/sha256/<hex>     what is complete: written, verified, synced, then renamed here
<root>/ingest/<key>/data      what is on its way; kept when a transfer breaks, so that it can go on
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from boxship.errors import Invalid, NotFound, from_os_error
from boxship.oci.descriptor import MANIFEST_LIMIT
from boxship.oci.digest import Digest

STALE_SECONDS = 7 * 24 * 3600
"""An unfinished ingest older than this is dropped when the store is opened."""

_CHUNK = 1 << 20


class ContentStore:
    """The blobs below `root`. A digest that is here has been verified."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._ingests = root / "ingest"
        for algorithm in ("sha256", "sha512"):
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True)
        self._ingests.mkdir(parents=True, exist_ok=True)
        self._drop_stale()

    def _drop_stale(self) -> None:
        for ingest in self._ingests.iterdir():
            if time.time() - ingest.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(ingest, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be; raises `Invalid` for what is no digest."""
        parsed = Digest(digest)
        return self._blobs / parsed.algorithm / parsed.hex

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and self.path(digest).exists()

    def size(self, digest: str) -> int:
        """The blob's size in bytes; raises `NotFound`."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not here") from None

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; raises `NotFound`."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not here") from None

    def read(self, digest: str, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob whole; raises `NotFound`, and `Invalid` beyond `limit` bytes."""
        with self.open(digest) as blob:
            data = blob.read(limit + 1)
        if len(data) > limit:
            raise Invalid(f"blob {digest} is larger than the limit of {limit} bytes")
        return data

    def put(self, data: bytes, expected: str | None = None) -> Digest:
        """Keep a small blob; raises `Invalid` where it is not `expected`."""
        digest = Digest.of(data)
        if expected is not None and digest != expected:
            raise Invalid(f"digest mismatch: expected {expected}, got {digest}")
        if digest not in self:
            with self.ingest(f"put-{digest.hex}-{os.getpid()}-{time.monotonic_ns()}") as ingest:
                ingest.write(data)
                ingest.commit()
        return digest

    def ingest(self, key: str, *, expected: str | None = None, size: int | None = None) -> Ingest:
        """Begin to write a blob, or go on where the ingest of that key broke off."""
        directory = self._ingests / hashlib.sha256(key.encode()).hexdigest()[:32]
        return Ingest(self, directory, Digest(expected) if expected else None, size)

    def delete(self, digest: str) -> int:
        """Remove a blob; the bytes freed, 0 where it was not here."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def walk(self) -> Iterator[tuple[Digest, int]]:
        """Every blob with its size."""
        for algorithm in self._blobs.iterdir():
            for blob in algorithm.iterdir():
                yield Digest.from_hex(blob.name, algorithm.name), blob.stat().st_size


class Ingest:
    """A blob on its way. As a context manager it keeps what was written for a resume, unless aborted."""

    def __init__(self, store: ContentStore, directory: Path, expected: Digest | None, size: int | None) -> None:
        self._store = store
        self._directory = directory
        self._expected = expected
        self._size = size
        self._hash = hashlib.new(expected.algorithm if expected else "sha256")
        try:
            directory.mkdir(exist_ok=True)
            self._file = (directory / "data").open("a+b", buffering=0)
        except OSError as error:
            raise from_os_error(error, "starting to write a blob") from error
        self.offset = self._rehash()

    def _rehash(self) -> int:
        self._file.seek(0)
        offset = 0
        while chunk := self._file.read(_CHUNK):
            self._hash.update(chunk)
            offset += len(chunk)
        return offset

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append; raises `Invalid` beyond the expected size, `Unavailable` where the disk is full."""
        if self._size is not None and self.offset + len(data) > self._size:
            raise Invalid(f"blob is larger than the {self._size} bytes its descriptor states")
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise from_os_error(error, "writing a blob") from error
        self._hash.update(data)
        self.offset += len(data)

    def expect(self, digest: Digest) -> None:
        """State the digest before the commit, where it was not known at the beginning."""
        self._expected = digest
        if digest.algorithm != self._hash.name:
            self._hash = hashlib.new(digest.algorithm)
            self.offset = self._rehash()

    def restart(self) -> None:
        """Forget what an earlier attempt left: for a source that cannot be asked for the rest alone."""
        if self.offset:
            self._file.truncate(0)
            self._hash = hashlib.new(self._hash.name)
            self.offset = 0

    def written(self) -> Iterator[bytes]:
        """What is there so far, in pieces."""
        with (self._directory / "data").open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def commit(self) -> Digest:
        """Sync, verify and make visible; raises `Invalid` (and drops the data) where it is not as expected."""
        digest = Digest.from_hex(self._hash.hexdigest(), self._hash.name)
        if self._size is not None and self.offset != self._size:
            self.abort()
            raise Invalid(f"blob has {self.offset} bytes, its descriptor states {self._size}")
        if self._expected is not None and digest != self._expected:
            self.abort()
            raise Invalid(f"digest mismatch: expected {self._expected}, got {digest}")
        try:
            os.fsync(self._file.fileno())
            (self._directory / "data").rename(self._store.path(digest))
        except OSError as error:
            raise from_os_error(error, "committing a blob") from error
        shutil.rmtree(self._directory, ignore_errors=True)
        return digest

    def abort(self) -> None:
        """Drop what was written."""
        shutil.rmtree(self._directory, ignore_errors=True)
