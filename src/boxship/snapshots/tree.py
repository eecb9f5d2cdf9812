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
_MAX_LINKS = 40
"""How many symbolic links a name may lead through, as in the kernel."""


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
                _inherit(self.root, node)
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
                _inherit(existing, node)
            elif node.is_directory and _is_whiteout(existing):
                node.xattrs[OPAQUE_XATTR] = b"y"  # what is below was taken away, then made anew
            elif not existing.is_directory:
                existing.links -= 1
        parent.children[name] = node

    def _mark(self, parent: Node, name: bytes, node: Node) -> None:
        assert parent.children is not None
        if name == b".wh..wh..opq":
            parent.xattrs[OPAQUE_XATTR] = b"y"
        elif not name.startswith(b".wh..wh."):
            hidden = name[4:]
            if hidden in (b"", b".", b".."):
                raise Invalid(f"layer has a whiteout of no name: {_show(name)}")
            existing = parent.children.get(hidden)
            if existing is None:
                parent.children[hidden] = Node(stat.S_IFCHR, mtime=node.mtime, mtime_nsec=node.mtime_nsec)
            elif existing.is_directory:
                existing.xattrs[OPAQUE_XATTR] = b"y"

    def link(self, path: bytes, target: bytes) -> None:
        """Place a hard link; raises `Invalid` where its target is not in the layer."""
        parts = split(path)
        if not parts:
            raise Invalid(f"hard link {_show(path)} has no name")
        if parts[-1].startswith(b".wh."):
            self._mark(self._directory(parts[:-1]), parts[-1], Node(stat.S_IFREG))
            return
        found = self.find(target)
        if found is None or found.is_directory:
            raise Invalid(f"hard link {_show(path)} names {_show(target)}, which is no file of the layer")
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
        """The node of that name, whose parents may be symbolic links of the layer."""
        parts = split(path)
        if not parts:
            return self.root
        parent = self._resolve(parts[:-1], make=False)
        return parent.children.get(parts[-1]) if parent is not None and parent.children is not None else None

    def _directory(self, parts: list[bytes]) -> Node:
        """The directory of that name, made where it is missing; a file in its place is replaced."""
        node = self._resolve(parts, make=True)
        assert node is not None
        return node

    def _resolve(self, parts: list[bytes], *, make: bool) -> Node | None:
        """Walk as a kernel would that has the layer as its root: through links, and never above the root."""
        trail = [self.root]
        pending = list(reversed(parts))
        links = 0
        while pending:
            part = pending.pop()
            if part == b"..":
                trail = trail[:-1] or [self.root]
                continue
            children = trail[-1].children
            assert children is not None
            child = children.get(part)
            if child is not None and stat.S_ISLNK(child.mode):
                links += 1
                if links > _MAX_LINKS:
                    raise Invalid(f"layer names {_show(b'/'.join(parts))}, which leads through too many symbolic links")
                if child.target.startswith(b"/"):
                    trail = [self.root]
                pending += [step for step in reversed(child.target.split(b"/")) if step and step != b"."]
                continue
            if child is None or not child.is_directory:
                if not make:
                    return None
                made = directory()
                if child is not None and _is_whiteout(child):
                    made.xattrs[OPAQUE_XATTR] = b"y"
                child = children[part] = made
            trail.append(child)
        return trail[-1]

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


def _inherit(before: Node, node: Node) -> None:
    """A directory named again keeps what is in it, and what it hides."""
    node.children = before.children
    if OPAQUE_XATTR in before.xattrs:
        node.xattrs.setdefault(OPAQUE_XATTR, before.xattrs[OPAQUE_XATTR])


def _is_whiteout(node: Node) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == 0


def split(path: bytes) -> list[bytes]:
    """The components of a tar name; `..` is refused, a leading `/` or `./` is nothing."""
    if b"\0" in path:
        raise Invalid(f"layer has a name with a zero byte in it: {_show(path)}")
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
