"""Reading a tar as it streams by: headers become a `Tree`, contents are only located, never copied.

Formats: POSIX.1-2001 (pax), ustar, GNU (long names, base-256 numbers, sparse 0.0 to 1.0 and the old form).
"""

from __future__ import annotations

import os
import stat
import zlib
from typing import Final

from boxship.errors import Invalid
from boxship.snapshots.tree import Node, Tree, directory

BLOCK: Final = 512
_EXTENSION_LIMIT: Final = 8 << 20
"""The largest pax header or long name, in bytes."""

_XATTR: Final = "SCHILY.xattr."
_KINDS: Final = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}


class TarReader:
    """Fed with the bytes of a tar, in pieces of any size; `finish` gives the tree. Raises `Invalid`."""

    def __init__(self) -> None:
        self.tree = Tree()
        self._buffer = bytearray()
        self._position = 0  # of the buffer's first byte in the tar
        self._skip = 0
        self._pax: dict[str, bytes] = {}
        self._global: dict[str, bytes] = {}
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._wanted: tuple[int, bytes] | None = None  # the size and type of an extension being gathered
        self._sparse: _OldSparse | None = None
        self._sparse_map: _SparseMap | None = None
        self._ended = False
        self._entries = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._skip >= len(data) and not self._buffer:
            self._skip -= len(data)
            self._position += len(data)
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._padded_need():
                return
            data = bytes(self._buffer)
        start = self._consume(data)  # as a rule where it stands, without a copy
        self._buffer = bytearray(data[start:])
        self._position += start

    def _padded_need(self) -> int:
        """How many bytes the next header or extension takes up."""
        return _padded(self._wanted[0]) if self._wanted else BLOCK

    def _consume(self, buffer: bytes) -> int:
        """Read what is whole; how far."""
        start = 0
        while True:
            if self._skip:
                step = min(self._skip, len(buffer) - start)
                self._skip -= step
                start += step
                if self._skip:
                    break
            padded = self._padded_need()
            if len(buffer) - start < padded:
                break
            chunk = buffer[start : start + (self._wanted[0] if self._wanted else BLOCK)]
            start += padded
            self._take(chunk, self._position + start)
        return start

    def _take(self, chunk: bytes, after: int) -> None:
        if self._wanted is not None:
            (_, kind), self._wanted = self._wanted, None
            self._extension(kind, chunk)
        elif self._sparse is not None:
            self._old_sparse(chunk, after)
        elif self._sparse_map is not None:
            self._sparse_map.feed(chunk)
            if self._sparse_map.complete:
                mapped, self._sparse_map = self._sparse_map, None
                self._place(mapped.name, mapped.node, mapped.extents(after))
                self._skip = mapped.remaining
        elif self._ended or chunk.count(0) == BLOCK:
            self._ended = True
        else:
            self._header(chunk, after)

    def finish(self) -> Tree:
        """The tree, once everything has been fed; raises `Invalid` where the tar is cut short."""
        if self._skip or self._wanted or self._sparse or self._sparse_map or (self._buffer and not self._ended):
            raise Invalid("layer is cut short: the tar ends in the middle of an entry")
        return self.tree

    def _extension(self, kind: bytes, data: bytes) -> None:
        if kind == b"L":
            self._long_name = _text(data)
        elif kind == b"K":
            self._long_link = _text(data)
        elif kind == b"g":
            self._global.update(_pax_records(data)[0])
        else:
            self._pax, self._pax_list = _pax_records(data)

    _pax_list: list[tuple[str, bytes]] = []

    def _header(self, header: bytes, after: int) -> None:
        if not _sound(header):
            raise Invalid("layer is no sound tar: a header's checksum is wrong")
        kind = header[156:157]
        size = _number(header[124:136])
        if size < 0:
            raise Invalid("layer is no sound tar: an entry has a negative size")
        if kind in (b"L", b"K", b"x", b"g", b"X"):
            if size > _EXTENSION_LIMIT:
                raise Invalid(f"tar header extension of {size} bytes is larger than the limit of {_EXTENSION_LIMIT}")
            if size:
                self._wanted = (size, b"x" if kind == b"X" else kind)
            return
        self._entries += 1
        pax = {**self._global, **self._pax} if self._global else self._pax
        pax_list, self._pax, self._pax_list = self._pax_list, {}, []
        name, link = self._long_name, self._long_link
        self._long_name = self._long_link = None
        if name is None:
            name = _text(header[:100])
            if header[257:263] == b"ustar\0" and header[345:500].strip(b"\0"):
                name = _text(header[345:500]) + b"/" + name
        link = link if link is not None else _text(header[157:257])
        name = pax.get("path", name)
        link = pax.get("linkpath", link)
        if "size" in pax:
            size = _decimal(pax["size"], "size")
        node = self._node(header, kind, name, pax)
        data_kind = kind in (b"0", b"\0", b"7", b"S") and not node.is_directory
        if kind == b"1":
            self.tree.link(name, link)
            return
        if kind == b"2":
            node.target = link
            node.size = len(link)
            if len(link) >= 4096:
                raise Invalid("layer has a symbolic link of 4096 bytes or more")
            if not link or b"\0" in link:
                raise Invalid("layer has a symbolic link that is empty or has a zero byte in it")
            self._place(name, node, ())
            return
        if not data_kind:
            self._skip = _padded(size) if kind not in (b"3", b"4", b"5", b"6") else 0
            self._place(name, node, ())
            return
        self._contents(header, kind, name, node, size, after, pax, pax_list)

    def _contents(
        self, header: bytes, kind: bytes, name: bytes, node: Node, size: int, after: int,
        pax: dict[str, bytes], pax_list: list[tuple[str, bytes]],
    ) -> None:  # fmt: skip
        if kind == b"S":
            real = _number(header[483:495])
            self._sparse = _OldSparse(name, node, size, real, _sparse_pairs(header[386:482]))
            if not header[482]:
                self._finish_old_sparse(after)
        elif "GNU.sparse.major" in pax:
            node.size = _decimal(pax.get("GNU.sparse.realsize", b"0"), "GNU.sparse.realsize")
            self._sparse_map = _SparseMap(pax.get("GNU.sparse.name", name), node, size)
        elif "GNU.sparse.map" in pax or "GNU.sparse.numblocks" in pax:
            node.size = _decimal(pax.get("GNU.sparse.size", b"0"), "GNU.sparse.size")
            if "GNU.sparse.map" in pax:
                flat = [_decimal(part, "GNU.sparse.map") for part in pax["GNU.sparse.map"].split(b",") if part]
            else:
                flat = [_decimal(value, key) for key, value in pax_list if key in ("GNU.sparse.offset", "GNU.sparse.numbytes")]
            pairs = list(zip(flat[::2], flat[1::2], strict=False))
            self._place(pax.get("GNU.sparse.name", name), node, _locate(pairs, after, node.size, size))
            self._skip = _padded(size)
        else:
            node.size = size
            self._place(name, node, ((0, after, size),) if size else ())
            self._skip = _padded(size)

    def _node(self, header: bytes, kind: bytes, name: bytes, pax: dict[str, bytes]) -> Node:
        permissions = _number(header[100:108]) & 0o7777
        if kind == b"5" or (kind in (b"0", b"\0") and name.endswith(b"/")):
            node = directory(permissions)
        elif kind == b"2":
            node = Node(stat.S_IFLNK | 0o777)
        elif kind in _KINDS:
            node = Node(_KINDS[kind] | permissions)
            if kind != b"6":
                node.device = _device(_number(header[329:337]), _number(header[337:345]))
        elif kind in (b"0", b"\0", b"7", b"S", b"1"):
            node = Node(stat.S_IFREG | permissions)
        else:
            raise Invalid(f"layer has an entry of the unknown type {kind!r}: {name[:100]!r}")
        node.uid = _decimal(pax["uid"], "uid") if "uid" in pax else _number(header[108:116])
        node.gid = _decimal(pax["gid"], "gid") if "gid" in pax else _number(header[116:124])
        if not 0 <= node.uid < 1 << 32 or not 0 <= node.gid < 1 << 32:
            raise Invalid(f"layer has an owner out of range: {node.uid}:{node.gid}")
        node.mtime, node.mtime_nsec = _time(pax["mtime"]) if "mtime" in pax else (_number(header[136:148]), 0)
        if not -(1 << 63) <= node.mtime < 1 << 63:
            raise Invalid(f"layer has a time out of range: {node.mtime}")
        for key, value in pax.items():
            if key.startswith(_XATTR):
                xattr = key[len(_XATTR) :]
                if not xattr.startswith("trusted.overlay."):
                    node.xattrs[xattr] = value
        return node

    def _place(self, name: bytes, node: Node, extents: tuple[tuple[int, int, int], ...]) -> None:
        node.extents = extents
        self.tree.add(name, node)

    def _old_sparse(self, block: bytes, after: int) -> None:
        assert self._sparse is not None
        self._sparse.pairs += _sparse_pairs(block[:504])
        if not block[504]:
            self._finish_old_sparse(after)

    def _finish_old_sparse(self, after: int) -> None:
        assert self._sparse is not None
        sparse, self._sparse = self._sparse, None
        sparse.node.size = sparse.real_size
        self._place(sparse.name, sparse.node, _locate(sparse.pairs, after, sparse.real_size, sparse.stored))
        self._skip = _padded(sparse.stored)


class _OldSparse:
    def __init__(self, name: bytes, node: Node, stored: int, real_size: int, pairs: list[tuple[int, int]]) -> None:
        self.name, self.node, self.stored, self.real_size, self.pairs = name, node, stored, real_size, pairs


class _SparseMap:
    """The map at the head of a pax 1.0 sparse file's data: a count, then offset and length, one number a line."""

    def __init__(self, name: bytes, node: Node, stored: int) -> None:
        self.name, self.node = name, node
        self._stored = stored
        self._text = bytearray()
        self._lines = 0
        self._wanted = 0
        self._used = 0

    def feed(self, block: bytes) -> None:
        self._text += block
        self._used += BLOCK
        self._lines += block.count(b"\n")
        if self._used > min(self._stored + BLOCK, _EXTENSION_LIMIT):
            raise Invalid("layer has a sparse file with a malformed map")
        if self._lines and not self._wanted:
            self._wanted = 1 + 2 * _decimal(bytes(self._text.partition(b"\n")[0]), "sparse map")

    @property
    def complete(self) -> bool:
        return bool(self._wanted) and self._lines >= self._wanted

    @property
    def remaining(self) -> int:
        return _padded(max(0, self._stored - self._used))

    def extents(self, after: int) -> tuple[tuple[int, int, int], ...]:
        lines = bytes(self._text).split(b"\n")
        count = _decimal(lines[0], "sparse map")
        numbers = [_decimal(line, "sparse map") for line in lines[1 : 1 + 2 * count]]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        return _locate(pairs, after, self.node.size, max(0, self._stored - self._used))


def _locate(pairs: list[tuple[int, int]], start: int, size: int, stored: int) -> tuple[tuple[int, int, int], ...]:
    if size >= 1 << 63:
        raise Invalid("layer has a sparse file that is larger than any file can be")
    extents, position, end = [], start, 0
    for offset, length in pairs:
        if offset < end or offset + length > size or position - start + length > stored:
            raise Invalid("layer has a sparse file whose map is inconsistent")
        if length:
            extents.append((offset, position, length))
        position += length
        end = offset + length
    return tuple(extents)


def _sparse_pairs(data: bytes) -> list[tuple[int, int]]:
    pairs = []
    for start in range(0, len(data) - 23, 24):
        if not data[start]:
            break
        pairs.append((_number(data[start : start + 12]), _number(data[start + 12 : start + 24])))
    return pairs


def _pax_records(data: bytes) -> tuple[dict[str, bytes], list[tuple[str, bytes]]]:
    records: list[tuple[str, bytes]] = []
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 12)
        length = _decimal(data[position:space], "pax record") if space > 0 else 0
        record = data[space + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if length < 5 or not equals or record[-1:] != b"\n" or position + length > len(data):
            raise Invalid("layer is no sound tar: a pax record is malformed")
        records.append((key.decode("utf-8", "surrogateescape"), value[:-1]))
        position += length
    return {key: value for key, value in records if value or key.startswith(_XATTR)}, records


def _sound(header: bytes) -> bool:
    """Whether the checksum is right: the sum of all bytes with its own field as spaces, unsigned or (old tars) signed."""
    stated = _number(header[148:156])
    summed = header[:148] + b"        " + header[156:]
    # a hundred times faster than `sum`: the low half of an Adler-32 is 1 + the sum of all bytes, modulo 65521 (RFC 1950)
    low = (zlib.adler32(summed) & 0xFFFF) - 1
    if stated in (low, low + 65521):
        return True
    return stated == sum(summed) - 256 * sum(byte > 127 for byte in summed)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """A header's number: octal digits, or base-256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (len(field) * 8 - 1)) - 1)
        return value - (1 << (len(field) * 8 - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        raise Invalid(f"layer is no sound tar: {text[:20]!r} is no octal number") from None


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise Invalid(f"layer is no sound tar: {text[:20]!r} is no number ({what})")
    return int(text)


def _device(major: int, minor: int) -> int:
    if not 0 <= major < 1 << 12 or not 0 <= minor < 1 << 20:
        raise Invalid(f"layer has a device out of range: {major}:{minor}")
    return os.makedev(major, minor)


def _time(text: bytes) -> tuple[int, int]:
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole.lstrip(b"-") or b"0", "mtime")
    nanoseconds = _decimal((fraction + b"0" * 9)[:9], "mtime") if fraction else 0
    if negative:
        seconds, nanoseconds = (-seconds - 1, 10**9 - nanoseconds) if nanoseconds else (-seconds, 0)
    return seconds, nanoseconds


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK
