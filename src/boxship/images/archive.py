"""An archive of images as it streams by: layers go straight into the stores, documents are kept to be read.

It is not known yet which image a layer belongs to: the documents that tell may come anywhere in the archive.
They are small; what is neither layer nor document is passed over.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from boxship.errors import Invalid
from boxship.images.store import Images
from boxship.oci import media_types
from boxship.oci.descriptor import MANIFEST_LIMIT, Descriptor
from boxship.snapshots.compression import Decompressor, decompressed, detect

Progress = Callable[[dict[str, object]], None]

BLOB = re.compile(r"blobs/(sha256)/([0-9a-f]{64})")
_CHUNK = 1 << 20
_REPORT_EVERY = 8 << 20
_DOCUMENTS_LIMIT = 64 << 20
"""How many bytes of documents an archive may hold: manifests and configurations of hundreds of images."""

_ENTRIES_LIMIT = 100_000
_LINKS = 8
"""How many symbolic links are followed, one after the other."""

_MEDIA_TYPES = {"gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD}
_attempts = itertools.count()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer taken in: its diff id, and its blob where it came in a compression that registries know."""

    diff_id: str
    blob: Descriptor | None


@dataclass(slots=True)
class Contents:
    """What an archive holds, by normalised path."""

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    blobs: list[str] = field(default_factory=list)
    """What was put into the content store for it."""

    def _resolve(self, path: str) -> str:
        path = posixpath.normpath(path)
        for _ in range(_LINKS):
            if path not in self.links:
                break
            path = self.links[path]
        return path

    def document(self, path: str) -> bytes:
        """Raises `Invalid` where there is none."""
        found = self.documents.get(self._resolve(path))
        if found is None:
            raise Invalid(f"the archive names {path}, but does not hold it")
        return found

    def layer(self, path: str) -> Layer:
        """Raises `Invalid` where there is none."""
        found = self.layers.get(self._resolve(path))
        if found is None:
            raise Invalid(f"the archive names the layer {path}, but does not hold it")
        return found


def read(images: Images, source: BinaryIO, contents: Contents, pin: Callable[[str], None], progress: Progress) -> None:
    """Read an archive to its end, on a thread of its own; what was taken in stands in `contents`, also on failure.

    `pin` is called with every digest that must not be collected meanwhile. Raises `Invalid`, and `Unavailable`
    where the disk is full.
    """
    reader = _Reader(images, contents, pin, progress)
    head = source.read(6)
    stream = cast(BinaryIO, _Forward(source, head))
    if detect(head) != "none":
        stream = cast(BinaryIO, _Forward(decompressed(stream)))
    try:
        with tarfile.TarFile(fileobj=stream, mode="r", errorlevel=1) as tar:
            for count, entry in enumerate(tar):
                if count > _ENTRIES_LIMIT:
                    raise Invalid(f"the archive has more than {_ENTRIES_LIMIT} entries: it is no archive of images")
                reader.take(entry, stream)
                tar.members = []  # type: ignore[attr-defined]  # of a stream, none is asked for twice
    except (tarfile.TarError, UnicodeDecodeError, OverflowError) as error:
        raise Invalid(f"the archive is no tar of images: {error}") from error


class _Forward:
    """A stream as tarfile wants it: with positions, of which only later ones can be gone to."""

    def __init__(self, source: BinaryIO, head: bytes = b"") -> None:
        self._source = source
        self._head = head
        self._position = 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            data += self._source.read(size - len(data))
        else:
            data = self._source.read(size)
        self._position += len(data)
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise tarfile.ReadError("entries overlap")
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                raise tarfile.ReadError("unexpected end of data")
        return position


class _Reader:
    """Takes one entry after the other."""

    def __init__(self, images: Images, contents: Contents, pin: Callable[[str], None], progress: Progress) -> None:
        self._images = images
        self._contents = contents
        self._pin = pin
        self._progress = progress
        self._documents = 0

    def take(self, entry: tarfile.TarInfo, source: BinaryIO) -> None:
        path = posixpath.normpath(entry.name)
        if entry.issym():
            self._contents.links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.linkname))
        elif entry.islnk():
            self._contents.links[path] = posixpath.normpath(entry.linkname)
        elif entry.isreg() and entry.sparse is None:
            self._file(path, _File(source, entry.size))

    def _file(self, path: str, file: _File) -> None:
        size = file.left
        head = file.read(_CHUNK)
        if not _is_layer(head):
            self._document(path, head, file)
            return
        named = BLOB.fullmatch(path)
        expected = f"sha256:{named[2]}" if named else None
        if expected is not None:
            self._pin(expected)
            if self._images.snapshotter.has_layer(expected):
                self._contents.layers[path] = Layer(expected, None)
                return
        short = (named[2] if named else path.partition("/")[0])[:12]

        def report() -> None:
            detail = {"current": size - file.left, "total": size}
            self._progress({"status": "Loading layer", "progressDetail": detail, "id": short})

        compression = detect(head[:6])
        data = _Reported(head, file, report)
        layer = self._plain(data, expected) if compression == "none" else self._compressed(data, compression, expected)
        self._pin(layer.diff_id)
        self._contents.layers[path] = layer

    def _document(self, path: str, head: bytes, file: _File) -> None:
        if len(head) + file.left > MANIFEST_LIMIT:
            return
        data = head + file.read(file.left)
        self._documents += len(data)
        if self._documents > _DOCUMENTS_LIMIT:
            raise Invalid(f"the archive holds more than {_DOCUMENTS_LIMIT >> 20} MiB of documents")
        self._contents.documents[path] = data

    def _plain(self, data: _Reported, expected: str | None) -> Layer:
        with self._images.snapshotter.writer(keep=True) as writer:
            while part := data.next():
                writer.write(part)
            return Layer(writer.commit(expected), None)

    def _compressed(self, data: _Reported, compression: str, expected: str | None) -> Layer:
        media_type = _MEDIA_TYPES.get(compression)
        decompressor = Decompressor()
        with self._images.snapshotter.writer(keep=media_type is None) as writer:
            # no attempt goes on where another broke off: an archive cannot be asked for the rest alone
            ingest = self._images.content.ingest(f"load-{os.getpid()}-{next(_attempts)}", expected=expected)
            try:
                while part := data.next():
                    ingest.write(part)
                    for piece in decompressor.feed(part):
                        writer.write(piece)
                writer.write(decompressor.finish())
                if media_type is None:
                    # bzip2 and xz are unknown to registries: the tar is kept instead
                    ingest.abort()
                    return Layer(writer.commit(), None)
                size, digest = ingest.offset, ingest.commit()
                self._pin(digest)
                self._contents.blobs.append(digest)
                return Layer(writer.commit(), Descriptor(media_type, digest, size))
            except BaseException:
                ingest.abort()
                raise
            finally:
                ingest.__exit__(None, None, None)


class _File:
    """The contents of one entry, which begin where the source stands."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source = source
        self.left = size

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises `Invalid` where the archive ends before."""
        wanted = min(size, self.left)
        data = self._source.read(wanted) if wanted else b""
        if len(data) < wanted:
            raise Invalid("the archive is cut short")
        self.left -= wanted
        return data


class _Reported:
    """A file's pieces, of whose passing is told now and then."""

    def __init__(self, head: bytes, file: _File, report: Callable[[], None]) -> None:
        self._head = head
        self._file = file
        self._report = report
        self._reported = file.left + len(head)

    def next(self) -> bytes:
        if self._head:
            data, self._head = self._head, b""
        else:
            data = self._file.read(_CHUNK)
        if data and (not self._file.left or self._reported - self._file.left >= _REPORT_EVERY):
            self._reported = self._file.left
            self._report()
        return data


def _is_layer(head: bytes) -> bool:
    """Whether a file begins as a tar or as a compressed stream does; an empty tar is zeros alone."""
    return detect(head[:6]) != "none" or head[257:262] == b"ustar" or (len(head) >= tarfile.BLOCKSIZE and _old_tar(head))


def _old_tar(head: bytes) -> bool:
    block = head[: tarfile.BLOCKSIZE]
    if not any(head):
        return True
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + sum(block[156:]) + 8 * 0x20
