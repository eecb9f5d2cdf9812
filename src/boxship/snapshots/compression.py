"""Compressed streams: recognised by their first bytes, handled piece by piece."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from boxship.errors import Invalid

_CHUNK = 1 << 20
_ZSTD_WINDOW = 1 << 27
"""The largest zstd window accepted, in bytes (128 MiB, as `zstd --long` produces)."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)


def detect(head: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz`, or `none`, from the first six bytes."""
    if head[:1] == b"\x28" or head[:3] == b"\x50\x2a\x4d":
        return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else "none"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


class _Engine(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


class Decompressor:
    """Bytes in, bytes out; the kind is recognised from the first of them. Raises `Invalid` for a broken stream."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._kind = ""
        self._engine: _Engine | None = None

    def feed(self, data: bytes) -> bytes:
        if self._head is not None:
            self._head += data
            if len(self._head) < 6:
                return b""
            data, self._head = self._head, None
            self._kind = detect(data)
            self._engine = self._new_engine()
        return self._decompress(data)

    def finish(self) -> bytes:
        """What is left; raises `Invalid` where the stream is cut short."""
        if self._head is not None:
            left, self._head = self._head, None
            return left
        if self._engine is not None and not self._at_end():
            raise Invalid(f"{self._kind} stream is cut short")
        return b""

    def _at_end(self) -> bool:
        return bool(getattr(self._engine, "eof", True)) or self._fresh

    _fresh = True

    def _new_engine(self) -> _Engine | None:
        self._fresh = True
        match self._kind:
            case "gzip":
                return cast(_Engine, isal_zlib.decompressobj(31))
            case "zstd":
                return cast(_Engine, zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj())
            case "bzip2":
                return bz2.BZ2Decompressor()
            case "xz":
                return lzma.LZMADecompressor(memlimit=1 << 30)
        return None

    def _decompress(self, data: bytes) -> bytes:
        if self._engine is None:
            return data
        out = []
        try:
            while data:
                if not self._fresh and getattr(self._engine, "eof", False):
                    if not data.strip(b"\0"):
                        break  # padding behind the last member
                    self._engine = self._new_engine()
                assert self._engine is not None
                self._fresh = False
                out.append(self._engine.decompress(data))
                data = getattr(self._engine, "unused_data", b"") if getattr(self._engine, "eof", False) else b""
        except (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
            raise Invalid(f"broken {self._kind} stream: {error}") from error
        return out[0] if len(out) == 1 else b"".join(out)


class _Reader(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._decompressor = Decompressor()
        self._pending = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast(bytearray, buffer)).cast("B")
        while not self._pending and not self._ended:
            data = self._source.read(_CHUNK)
            if data:
                self._pending = memoryview(self._decompressor.feed(data))
            else:
                self._pending = memoryview(self._decompressor.finish())
                self._ended = True
        count = min(len(target), len(self._pending))
        target[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count


def decompressed(stream: BinaryIO) -> BinaryIO:
    """A reader of what `stream` holds, whatever its compression. Reading raises `Invalid` for a broken one."""
    return cast(BinaryIO, io.BufferedReader(_Reader(stream), _CHUNK))


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def gzip_compressor() -> Compressor:
    """gzip at isal's level 1, without a time stamp: equal bytes in give equal bytes out."""
    return cast(Compressor, isal_zlib.compressobj(level=1, wbits=31))
