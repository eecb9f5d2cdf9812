"""An EROFS image that holds only metadata and points into a tar (kernel: filesystems/erofs, `erofs_fs.h`).

    1024  superblock, 128 bytes
    1152  the device table: one slot of 128 bytes, the tar
    1536  inodes, each with its xattrs and chunk index behind it
    …     blocks of directories and symbolic links

The block is 512 bytes, the tar's own, so every file of a tar begins on a block.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from boxship.errors import Invalid
from boxship.snapshots.tree import Node, Tree

_BLOCK: Final = 512
_BLOCK_BITS: Final = 9
_MAGIC: Final = 0xE0F5E1E2
_INCOMPATIBLE: Final = 0x4 | 0x8  # chunked files, device table
_META_BLOCK: Final = 2
_FIRST_INODE: Final = 1536
_SLOT: Final = 32
_LAYOUT_PLAIN: Final = 0 << 1 | 1
_LAYOUT_CHUNKED: Final = 4 << 1 | 1
_CHUNK_INDEXES: Final = 0x20
_MAX_CHUNK_BITS: Final = 31
_HOLE: Final = 0xFFFFFFFF
_TAR_DEVICE: Final = 1
_MAX_INDEX: Final = 1 << 20
"""The most chunks of one file; beyond it, the parts of a sparse file are copied in larger chunks."""
_COPY_LIMIT: Final = 1 << 27
"""The most bytes of one layer that are copied because they cannot be pointed to."""
_INDEX_LIMIT: Final = 1 << 23
"""The most chunks of one layer."""
_XATTR_LIMIT: Final = 1 << 17
"""The most bytes of one file's extended attributes: twice what Linux allows a file on most filesystems."""

_INODE = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBx")
_CHUNK = struct.Struct("<HHI")

_FILE_TYPES: Final = {
    stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}  # fmt: skip
_XATTR_PREFIXES: Final = (
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("user.", 1),
    ("trusted.", 4),
    ("security.", 6),
)


def build(tree: Tree, tar_size: int, read_tar: Callable[[int, int], bytes]) -> bytes:
    """The image of a layer; `read_tar(offset, length)` is asked only for data that cannot be pointed to."""
    return _Image(tar_size, read_tar).build(tree)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a file's data is: chunks of 512 << `bits` bytes, each (device, block); the device 0 is the image itself."""

    bits: int
    chunks: list[tuple[int, int]]


class _Image:
    def __init__(self, tar_size: int, read_tar: Callable[[int, int], bytes]) -> None:
        self._tar_blocks = (tar_size + _BLOCK - 1) // _BLOCK
        self._read_tar = read_tar
        self._nids: dict[int, int] = {}
        self._cursor = _FIRST_INODE
        self._plans: dict[int, tuple[bytes, _Layout | None]] = {}
        self._blocks: list[bytes] = []
        self._block_count = 0
        self._copied = 0
        self._indexed = 0

    def build(self, tree: Tree) -> bytes:
        order: list[Node] = []
        parents: dict[int, Node] = {}
        self._allot(tree.root, order)
        pending = [tree.root]
        while pending:
            node = pending.pop()
            for child in (node.children or {}).values():
                if child.is_directory:
                    parents[id(child)] = node
                    pending.append(child)
                    node.links += 1
                if id(child) not in self._nids:
                    self._allot(child, order)
        first_block = (self._cursor + _BLOCK - 1) // _BLOCK
        metadata = bytearray(first_block * _BLOCK)
        for number, node in enumerate(order, start=1):
            offset = _META_BLOCK * _BLOCK + self._nids[id(node)] * _SLOT
            inode = self._inode(node, number, first_block, parents.get(id(node), tree.root))
            metadata[offset : offset + len(inode)] = inode
        self._superblock(metadata, len(order), first_block + self._block_count)
        return bytes(metadata) + b"".join(self._blocks)

    def _allot(self, node: Node, order: list[Node]) -> None:
        xattrs = _encode_xattrs(node.xattrs) if node.xattrs else b""
        layout = self._layout(node) if stat.S_ISREG(node.mode) and node.size else None
        self._plans[id(node)] = (xattrs, layout)
        self._nids[id(node)] = (self._cursor - _META_BLOCK * _BLOCK) // _SLOT
        length = _INODE.size + len(xattrs)
        if layout is not None:
            length = (length + 7) // 8 * 8 + len(layout.chunks) * _CHUNK.size
        self._cursor += (length + 63) // 64 * 64
        order.append(node)

    def _layout(self, node: Node) -> _Layout:
        extents = node.extents
        whole = max(0, (node.size - 1).bit_length() - _BLOCK_BITS)
        if len(extents) == 1 and extents[0][0] == 0 and extents[0][2] == node.size:
            return _Layout(min(whole, _MAX_CHUNK_BITS), [(_TAR_DEVICE, extents[0][1] // _BLOCK)])
        bits = _common_bits(node) if extents else min(whole, _MAX_CHUNK_BITS)
        if bits is not None and node.size >> (_BLOCK_BITS + bits) < _MAX_INDEX:
            chunks = self._holes(node, bits)
            size = _BLOCK << bits
            for offset, position, length in extents:
                for step in range(0, length, size):
                    chunks[(offset + step) // size] = (_TAR_DEVICE, (position + step) // _BLOCK)
            return _Layout(bits, chunks)
        return self._copied_layout(node, max(3, whole - 16))

    def _holes(self, node: Node, bits: int) -> list[tuple[int, int]]:
        count = (node.size - 1 >> (_BLOCK_BITS + bits)) + 1
        self._indexed += count
        if self._indexed > _INDEX_LIMIT:
            raise Invalid("layer has sparse files that are too large together")
        return [(0, _HOLE)] * count

    def _copied_layout(self, node: Node, bits: int) -> _Layout:
        """For a sparse file whose parts are not on block boundaries: the chunks that hold data are copied."""
        size = _BLOCK << bits
        chunks = self._holes(node, bits)
        touched = sorted({
            number for offset, _, length in node.extents for number in range(offset // size, (offset + length - 1) // size + 1)
        })  # fmt: skip
        first = 0
        for number in touched:
            start = number * size
            length = min(size, node.size - start)
            self._copied += length
            if self._copied > _COPY_LIMIT:
                raise Invalid("layer has too much data in sparse files whose parts are not on block boundaries")
            data = bytearray(length)
            while node.extents[first][0] + node.extents[first][2] <= start:
                first += 1
            for index in range(first, len(node.extents)):
                offset, position, extent = node.extents[index]
                if offset >= start + length:
                    break
                begin, end = max(offset, start), min(offset + extent, start + length)
                data[begin - start : end - start] = self._read_tar(position + begin - offset, end - begin)
            chunks[number] = (0, self._append(bytes(data)))
        return _Layout(bits, chunks)

    def _inode(self, node: Node, number: int, first_block: int, parent: Node) -> bytes:
        xattrs, data = self._plans[id(node)]
        layout, detail, size = _LAYOUT_PLAIN, 0, node.size
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFDIR:
            content = self._directory(node, parent)
            size, detail = len(content), first_block + self._append(content)
        elif kind == stat.S_IFLNK:
            detail = first_block + self._append(node.target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            major, minor = os.major(node.device), os.minor(node.device)
            detail = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
        elif data is not None:
            layout, detail = _LAYOUT_CHUNKED, data.bits | _CHUNK_INDEXES
        count = (len(xattrs) - 12) // 4 + 1 if xattrs else 0
        inode = _INODE.pack(
            layout, count, node.mode & 0xFFFF, 0, size, detail, number & 0xFFFFFFFF, node.uid, node.gid,
            node.mtime & 0xFFFFFFFFFFFFFFFF, node.mtime_nsec, node.links,
        )  # fmt: skip
        if data is None:
            return inode + xattrs
        head = inode + xattrs
        index = b"".join(
            _CHUNK.pack(0, device, block if device or block == _HOLE else first_block + block) for device, block in data.chunks
        )
        return head + b"\0" * (-len(head) % 8) + index

    def _append(self, content: bytes) -> int:
        start = self._block_count
        self._blocks.append(content + b"\0" * (-len(content) % _BLOCK))
        self._block_count += (len(content) + _BLOCK - 1) // _BLOCK
        return start

    def _directory(self, node: Node, parent: Node) -> bytes:
        """Directory blocks: entries by name, then the names; none crosses a block."""
        nids = self._nids
        entries = [(b".", nids[id(node)], 2), (b"..", nids[id(parent)], 2)]
        assert node.children is not None
        entries += [(name, nids[id(child)], _FILE_TYPES[stat.S_IFMT(child.mode)]) for name, child in node.children.items()]
        entries.sort()
        blocks: list[bytes] = []
        group: list[tuple[bytes, int, int]] = []
        used = 0
        for entry in entries:
            need = _DIRENT.size + len(entry[0])
            if used + need > _BLOCK:
                blocks.append(_directory_block(group).ljust(_BLOCK, b"\0"))
                group, used = [], 0
            group.append(entry)
            used += need
        blocks.append(_directory_block(group))
        return b"".join(blocks)

    def _superblock(self, metadata: bytearray, inodes: int, blocks: int) -> None:
        struct.pack_into(
            "<IIIBBHQQIIII16s16sIHHHBBIQ", metadata, 1024,
            _MAGIC, 0, 0, _BLOCK_BITS, 0, (_FIRST_INODE - _META_BLOCK * _BLOCK) // _SLOT, inodes, 0, 0, blocks,
            _META_BLOCK, 0, b"", b"", _INCOMPATIBLE, 0, 1, 1152 // 128, 0, 0, 0, 0,
        )  # fmt: skip
        struct.pack_into("<64sII", metadata, 1152, b"", self._tar_blocks, 0)


def _common_bits(node: Node) -> int | None:
    """The largest chunk that every extent is made of, in bits above the block; None where none is."""
    combined = 0
    for offset, position, length in node.extents:
        if position % _BLOCK:
            return None
        last = offset + length == node.size
        combined |= offset | (0 if last else length)
    if combined % _BLOCK:
        return None
    combined //= _BLOCK
    bits = (combined & -combined).bit_length() - 1 if combined else 0
    return min(bits, 12)


def _directory_block(entries: list[tuple[bytes, int, int]]) -> bytes:
    offset = _DIRENT.size * len(entries)
    head = bytearray()
    for name, nid, kind in entries:
        head += _DIRENT.pack(nid, offset, kind)
        offset += len(name)
    return bytes(head) + b"".join(name for name, _, _ in entries)


def _encode_xattrs(xattrs: dict[str, bytes]) -> bytes:
    body = bytearray(12)
    for name, value in sorted(xattrs.items()):
        found = next(((prefix, index) for prefix, index in _XATTR_PREFIXES if name.startswith(prefix)), None)
        if found is None:
            continue  # no filesystem of Linux stores a name outside these
        prefix, index = found
        suffix = name[len(prefix) :].encode("utf-8", "surrogateescape")
        if len(suffix) > 255 or len(value) > 0xFFFF:
            raise Invalid(f"layer has an extended attribute that is too large: {name[:80]}")
        entry = struct.pack("<BBH", len(suffix), index, len(value)) + suffix + value
        body += entry + b"\0" * (-len(entry) % 4)
    if len(body) > _XATTR_LIMIT:
        raise Invalid(f"layer has a file with {len(body)} bytes of extended attributes, the limit is {_XATTR_LIMIT}")
    return bytes(body) if len(body) > 12 else b""
