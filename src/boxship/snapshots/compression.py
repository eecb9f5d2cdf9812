"""Compressed streams: recognised by their first bytes, handled piece by piece."""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from boxship.errors import Invalid

_CHUNK = 1 << 20
_ZSTD_WINDOW = 1 << 27
"""The largest zstd window accepted, in bytes (128 MiB, as `zstd --long` produces)."""

_STEPS = {"gzip": 1 << 16, "zstd": 1 << 12, "bzip2": 1 << 16, "xz": 1 << 16}
"""How many compressed bytes are taken at a time."""

_ISAL_ERROR = cast(type[Exception], isal_zlib.error)
"""isal's own: an `Exception` of no other kind, whatever its stubs say."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)


def detect(head: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz`, or `none`, from the first six bytes."""
    if head[:1] and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame at the beginning (RFC 8878, section 3.1.2)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


class _Engine(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


class Decompressor:
    """Bytes in, bytes out; the kind is recognised from the first of them. Raises `Invalid` for a broken stream.

    A stranger's stream may expand without measure (a zstd block 32,000-fold), so what is fed is taken in steps
    small enough that no piece that comes out is larger than 128 MiB.
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._kind = ""
        self._engine: _Engine | None = None
        self._fresh = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes of the next bytes, piece by piece; all of it must be taken."""
        if self._head is not None:
            self._head += data
            if len(self._head) < 6:
                return
            data, self._head = self._head, None
            self._kind = detect(data)
            self._engine = self._new_engine()
        if self._engine is None:
            yield data
            return
        step = _STEPS[self._kind]
        for start in range(0, len(data), step):
            yield from self._decompress(data[start : start + step] if len(data) > step else data)

    def finish(self) -> bytes:
        """What is left; raises `Invalid` where the stream is cut short."""
        if self._head is not None:
            left, self._head = self._head, None
            self._kind = detect(left)
            if self._kind != "none":
                raise Invalid(f"{self._kind} stream is cut short")
            return left
        if self._engine is not None and not self._engine.eof and not self._fresh:
            raise Invalid(f"{self._kind} stream is cut short")
        return b""

    def _new_engine(self) -> _Engine | None:
        self._fresh = True
        match self._kind:
            case "gzip":
                return cast(_Engine, isal_zlib.decompressobj(31))
            case "zstd":
                return cast(_Engine, zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj())
            case "bzip2":
                return cast(_Engine, bz2.BZ2Decompressor())
            case "xz":
                return cast(_Engine, lzma.LZMADecompressor(memlimit=1 << 30))
        return None

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                assert self._engine is not None
                if self._engine.eof and not self._fresh:
                    data = data.lstrip(b"\0")  # padding behind the last member
                    if not data:
                        return
                    self._engine = self._new_engine()
                    assert self._engine is not None
                self._fresh = False
                if isinstance(self._engine, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
                    yield self._engine.decompress(data, _CHUNK)
                    while not self._engine.eof and not self._engine.needs_input:
                        yield self._engine.decompress(b"", _CHUNK)
                else:
                    yield self._engine.decompress(data)
                data = self._engine.unused_data if self._engine.eof else b""
        except (_ISAL_ERROR, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
            raise Invalid(f"broken {self._kind} stream: {error}") from error


class _Reader(io.RawIOBase):
    def __init__(self, source: BinaryIO, *, owned: bool) -> None:
        self._source = source
        self._owned = owned
        self._decompressor = Decompressor()
        self._pieces: Iterator[bytes] = iter(())
        self._pending = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if self._owned:
            self._source.close()
        super().close()

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast(bytearray, buffer)).cast("B")
        while not self._pending and not self._ended:
            piece = next(self._pieces, None)
            if piece is not None:
                self._pending = memoryview(piece)
            elif data := self._source.read(_CHUNK):
                self._pieces = self._decompressor.feed(data)
            else:
                self._pending = memoryview(self._decompressor.finish())
                self._ended = True
        count = min(len(target), len(self._pending))
        target[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count


def decompressed(stream: BinaryIO, *, owned: bool = False) -> BinaryIO:
    """A reader of what `stream` holds, whatever its compression. Reading raises `Invalid` for a broken one.

    A stream that is `owned` is closed with the reader.
    """
    return cast(BinaryIO, io.BufferedReader(_Reader(stream, owned=owned), _CHUNK))


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def gzip_compressor() -> Compressor:
    """gzip at isal's level 1, without a time stamp: equal bytes in give equal bytes out."""
    return cast(Compressor, isal_zlib.compressobj(level=1, wbits=31))
