"""A layer on its way: its tar goes to a file, through the hash and through the reader, beside whoever feeds it."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from boxship.errors import Invalid, from_os_error
from boxship.oci.digest import Digest
from boxship.snapshots.tar import TarReader
from boxship.snapshots.tree import Tree
from boxship.syscalls.files import start_writeback

TAR = "layer.tar"

_BATCH = 1 << 18
"""How many bytes are worth handing to another thread."""

_AHEAD = 8
"""How many batches may wait there."""

_WRITEBACK = 8 << 20
"""How many bytes are gathered in the page cache before the disk is set to work on them."""

_LARGE = 8 << 20
"""More bytes than this at once, which only a decompression bomb gives, do not wait: memory stays bounded."""


class Layers(Protocol):
    """Where a finished layer goes to."""

    def has_layer(self, diff_id: str) -> bool: ...
    def lay(self, directory: Path, tree: Tree, tar: BinaryIO, size: int) -> None: ...
    def adopt(self, directory: Path, diff_id: str) -> None: ...
    def drop(self, directory: Path) -> None: ...


class Writer:
    """Takes the bytes of a tar and makes a layer of them in `directory`, which is its own."""

    def __init__(self, layers: Layers, directory: Path, *, keep: bool) -> None:
        self._layers = layers
        self._directory = directory
        self._keep = keep
        self._file = (directory / TAR).open("w+b", buffering=0)
        self._hash = hashlib.sha256()
        self._reader = TarReader()
        self._size = 0
        self._flushed = 0
        self._done = False
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._beside = _Beside(self._store)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._done:
            self.abort()

    def write(self, data: bytes) -> int:
        """Take the next bytes; raises what was wrong with them or with earlier ones: `Invalid`, `Unavailable`."""
        self._pieces.append(data)
        self._gathered += len(data)
        if self._gathered >= _LARGE:
            self._beside.finish()
            self._store(self._batch())
        elif self._gathered >= _BATCH:
            self._beside.take(self._batch())
        return len(data)

    def _batch(self) -> bytes:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _store(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise from_os_error(error, "writing a layer") from error
        self._hash.update(data)
        self._size += len(data)
        if self._keep and self._size - self._flushed >= _WRITEBACK:
            start_writeback(self._file.fileno(), self._flushed, self._size - self._flushed)
            self._flushed = self._size

    def commit(self, expected: str | None = None) -> Digest:
        """Verify, sync and make visible; raises `Invalid`, `Unavailable`."""
        self._beside.finish()
        self._store(self._batch())
        diff_id = Digest.from_hex(self._hash.hexdigest())
        if expected is not None and diff_id != expected:
            self.abort()
            raise Invalid(f"layer is not what its image states: expected diff id {expected}, got {diff_id}")
        self._done = True
        try:
            if self._layers.has_layer(diff_id):
                self._layers.drop(self._directory)
                return diff_id
            tree = self._reader.finish()
            self._layers.lay(self._directory, tree, self._file, self._size)
            with (self._directory / "size").open("w") as file:
                file.write(str(self._size))
                file.flush()
                os.fsync(file.fileno())
            if self._keep:
                os.fsync(self._file.fileno())
            else:
                (self._directory / TAR).unlink()
        except OSError as error:
            self._layers.drop(self._directory)
            raise from_os_error(error, "committing a layer") from error
        except BaseException:
            self._layers.drop(self._directory)
            raise
        finally:
            self._file.close()
        self._layers.adopt(self._directory, diff_id)
        return diff_id

    def abort(self) -> None:
        self._done = True
        self._beside.abandon()
        self._file.close()
        self._layers.drop(self._directory)


class _Beside:
    """Calls a function with one piece after the other on a thread, which is started by the first."""

    def __init__(self, consume: Callable[[bytes], None]) -> None:
        self._consume = consume
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def take(self, data: bytes) -> None:
        """Raises what the function raised for an earlier piece."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="layer-writer", daemon=True)
            self._thread.start()
        self._raise()
        self._queue.put(data)

    def _work(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._consume(data)
                except BaseException as error:
                    self._failure = error

    def finish(self) -> None:
        """Wait until everything has been taken; raises what the function raised."""
        self.abandon()
        self._raise()

    def abandon(self) -> None:
        """End the thread, whatever has failed."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
