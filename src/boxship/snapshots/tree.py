"""The files of one layer as a tree: what its tar says, before any of it touches a filesystem.

A later entry replaces an earlier one, missing parents are made, names cannot leave the root: whoever lays the
tree out, as an EROFS index or as directories, needs to resolve no path.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from boxship.errors import Invalid

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
MAX_NAME = 255


@dataclass(slots=True)
class Node:
    """A file of any kind. `extents` are (offset in the file, offset in the tar, length), in order."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_nsec: int = 0
    size: int = 0
    device: int = 0
    target: bytes = b""
    extents: tuple[tuple[int, int, int], ...] = ()
    xattrs: dict[str, bytes] = field(default_factory=dict)
    children: dict[bytes, Node] | None = None
    links: int = 1

    @property
    def is_directory(self) -> bool:
        return self.children is not None


def directory(mode: int = 0o755) -> Node:
    return Node(stat.S_IFDIR | mode, children={}, links=2)


class Tree:
    """A layer's root directory, filled entry by entry."""

    def __init__(self) -> None:
        self.root = directory()

    def add(self, path: bytes, node: Node) -> None:
        """Place a node; raises `Invalid` for a name that leaves the root or is too long."""
        parts = split(path)
        if not parts:
            if node.is_directory:
                node.children = self.root.children
                self.root = node
            return
        parent = self._directory(parts[:-1])
        name = parts[-1]
        assert parent.children is not None
        if name.startswith(b".wh."):
            self._mark(parent, name, node)
            return
        existing = parent.children.get(name)
        if existing is not None:
            if existing.is_directory and node.is_directory:
                node.children = existing.children
                if OPAQUE_XATTR in existing.xattrs:
                    node.xattrs.setdefault(OPAQUE_XATTR, b"y")
            elif not existing.is_directory:
                existing.links -= 1
        parent.children[name] = node

    def _mark(self, parent: Node, name: bytes, node: Node) -> None:
        assert parent.children is not None
        if name == b".wh..wh..opq":
            parent.xattrs[OPAQUE_XATTR] = b"y"
        elif not name.startswith(b".wh..wh."):
            whiteout = Node(stat.S_IFCHR, mtime=node.mtime, mtime_nsec=node.mtime_nsec)
            parent.children.setdefault(name[4:], whiteout)

    def link(self, path: bytes, target: bytes) -> None:
        """Place a hard link; raises `Invalid` where its target is not in the layer."""
        found = self.find(target)
        if found is None or found.is_directory:
            raise Invalid(f"hard link {_show(path)} names {_show(target)}, which is no file of the layer")
        parts = split(path)
        if not parts:
            raise Invalid(f"hard link {_show(path)} has no name")
        parent = self._directory(parts[:-1])
        assert parent.children is not None
        existing = parent.children.get(parts[-1])
        if existing is found:
            return
        if existing is not None and not existing.is_directory:
            existing.links -= 1
        found.links += 1
        parent.children[parts[-1]] = found

    def find(self, path: bytes) -> Node | None:
        node = self.root
        for part in split(path):
            child = node.children.get(part) if node.children is not None else None
            if child is None:
                return None
            node = child
        return node

    def _directory(self, parts: list[bytes]) -> Node:
        node = self.root
        for part in parts:
            assert node.children is not None
            child = node.children.get(part)
            if child is None or not child.is_directory:
                child = directory()
                node.children[part] = child
            node = child
        return node

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every node below the root with its path, parents first, names in byte order; a linked one each time."""
        pending: list[tuple[bytes, Node]] = [(b"", self.root)]
        while pending:
            path, node = pending.pop()
            if path:
                yield path, node
            if node.children:
                below = path + b"/" if path else b""
                pending.extend((below + name, node.children[name]) for name in sorted(node.children, reverse=True))


def split(path: bytes) -> list[bytes]:
    """The components of a tar name; `..` is refused, a leading `/` or `./` is nothing."""
    parts = [part for part in path.split(b"/") if part and part != b"."]
    for part in parts:
        if part == b"..":
            raise Invalid(f"layer names {_show(path)}, which leaves the root")
        if len(part) > MAX_NAME:
            raise Invalid(f"layer has a name of {len(part)} bytes, the limit is {MAX_NAME}: {_show(part)}")
    if len(parts) > 4096:
        raise Invalid("layer has a path of more than 4096 components")
    return parts


def _show(path: bytes) -> str:
    return repr(path[:100].decode(errors="replace"))
