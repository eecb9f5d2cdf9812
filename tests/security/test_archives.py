"""Tars from strangers: laid out where they must not escape, and read by what must not break."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from isal import isal_zlib

from boxship.errors import BoxshipError, Conflict, Invalid, NotFound
from boxship.snapshots.archive import apply_tar, write_tar
from boxship.snapshots.compression import Decompressor
from boxship.snapshots.erofs_image import build
from boxship.snapshots.tar import TarReader
from boxship.syscalls.files import RESOLVE_BENEATH, open_in_root
from boxship.syscalls.removal import remove_tree


def entry(name: str, letter: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = letter
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for made, content in entries:
            made.size = len(content)
            tar.addfile(made, io.BytesIO(content))
    out.seek(0)
    return out


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What an attack would reach."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    place = tmp_path / "root"
    (place / "target").mkdir(parents=True)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["secret"] and (outside / "secret").read_text() == "secret"


@pytest.mark.parametrize(
    "entries",
    [
        [(entry("../outside/x"), b"1")],
        [(entry("a/../../../outside/x"), b"1")],
        [(entry("/../../outside/x"), b"1")],
        [(entry("link", tarfile.SYMTYPE, linkname="../../outside"), b""), (entry("link/x"), b"1")],
        [(entry("link", tarfile.SYMTYPE, linkname="ABSOLUTE"), b""), (entry("link/x"), b"1")],
        [(entry("a", tarfile.SYMTYPE, linkname="b"), b""), (entry("b", tarfile.SYMTYPE, linkname="../../outside"), b""),
         (entry("a/x"), b"1")],
        [(entry("link", tarfile.SYMTYPE, linkname="ABSOLUTE/secret"), b""), (entry("link"), b"overwritten")],
        [(entry("hard", tarfile.LNKTYPE, linkname="../../outside/secret"), b""), (entry("hard"), b"overwritten")],
        [(entry("hard", tarfile.LNKTYPE, linkname="ABSOLUTE/secret"), b"")],
        [(entry("link", tarfile.SYMTYPE, linkname="../../outside"), b""),
         (entry("hard", tarfile.LNKTYPE, linkname="link/secret"), b"")],
        [(entry("d", tarfile.DIRTYPE), b""), (entry("d", tarfile.SYMTYPE, linkname="ABSOLUTE"), b""),
         (entry("d", tarfile.DIRTYPE), b""), (entry("d/x"), b"1")],
        [(entry("link", tarfile.SYMTYPE, linkname="ABSOLUTE"), b""), (entry("link", tarfile.DIRTYPE, mode=0o777), b"")],
    ],
)  # fmt: skip
def test_no_tar_reaches_outside_its_root(root: int, outside: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    for made, _ in entries:
        made.linkname = made.linkname.replace("ABSOLUTE", str(outside))
    before = outside.stat()
    try:
        apply_tar(root, "target", tar_of(*entries))
    except BoxshipError:
        pass
    assert untouched(outside)
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (outside / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["/link", "link", "/link/../target", "../../outside", "/a/../../../outside"])
def test_a_target_that_is_a_link_stays_in_the_root(root: int, outside: Path, target: str) -> None:
    os.symlink(str(outside), "link", dir_fd=root)
    try:
        apply_tar(root, target, tar_of((entry("x"), b"1")))
    except BoxshipError:
        pass
    assert untouched(outside)


def test_a_target_that_is_not_there(root: int) -> None:
    with pytest.raises(NotFound, match="missing"):
        apply_tar(root, "missing", tar_of((entry("x"), b"1")))
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    with pytest.raises(NotFound):
        apply_tar(root, "file", tar_of((entry("x"), b"1")))


def test_kinds_are_kept_where_that_is_asked(root: int) -> None:
    os.mkdir("target/dir", dir_fd=root)
    os.close(os.open("target/file", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    with pytest.raises(Conflict, match="cannot overwrite directory"):
        apply_tar(root, "target", tar_of((entry("dir"), b"1")), keep_kinds=True)
    with pytest.raises(Conflict, match="cannot overwrite non-directory"):
        apply_tar(root, "target", tar_of((entry("file", tarfile.DIRTYPE), b"")), keep_kinds=True)
    apply_tar(root, "target", tar_of((entry("dir"), b"1"), (entry("file", tarfile.DIRTYPE), b"")))
    assert stat.S_ISREG(os.stat("target/dir", dir_fd=root).st_mode)


def test_devices_and_owners_come_as_they_are(root: int) -> None:
    null = entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o622, uid=7, gid=8)
    suid = entry("suid", mode=0o6755, uid=1000, gid=1000)
    assert apply_tar(root, "target", tar_of((null, b""), (suid, b"123"))) == 3
    status = os.stat("target/null", dir_fd=root)
    assert (status.st_rdev, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (os.makedev(1, 3), 0o622, 7, 8)
    status = os.stat("target/suid", dir_fd=root)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o6755, 1000)


@pytest.mark.parametrize("data", [b"\x01" * 512, b"x" * 5000, tar_of((entry("a"), b"x" * 5000)).getvalue()[:2000]])
def test_what_is_no_tar_is_invalid(root: int, data: bytes) -> None:
    with pytest.raises(Invalid):
        apply_tar(root, "target", io.BytesIO(data))


def test_reading_out_follows_no_link_out_of_the_root(root: int, outside: Path) -> None:
    os.symlink(str(outside), "link", dir_fd=root)
    os.symlink(str(outside / "secret"), "file", dir_fd=root)
    os.symlink("../" * 20 + str(outside), "up", dir_fd=root)
    for path in ("link/secret", "up/secret", "link/", "../outside/secret", "/../outside/secret", "/proc/self/root"):
        with pytest.raises(NotFound):
            write_tar(root, path, io.BytesIO(), follow=True)
    out = io.BytesIO()
    write_tar(root, "/", out, rename="")
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert {made.name: made.type for made in tar.getmembers() if made.name} == {
            "link": tarfile.SYMTYPE, "file": tarfile.SYMTYPE, "up": tarfile.SYMTYPE, "target": tarfile.DIRTYPE,
        }  # fmt: skip
    assert b"secret\0" not in out.getvalue().replace(b"/secret\0", b"")


# --- openat2 ---


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "a/../../../etc/passwd", "abs/passwd", "up/etc/passwd"])
def test_every_path_resolves_in_the_root(root: int, path: str) -> None:
    os.mkdir("a", dir_fd=root)
    os.mkdir("etc", dir_fd=root)
    os.symlink("/etc", "abs", dir_fd=root)
    os.symlink("../../..", "up", dir_fd=root)
    with pytest.raises(FileNotFoundError):
        open_in_root(root, path, os.O_RDONLY)
    made = open_in_root(root, path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        assert os.fstat(made).st_ino == os.stat("etc/passwd", dir_fd=root).st_ino
        assert os.get_inheritable(made) is False
    finally:
        os.close(made)


def test_magic_links_are_refused(root: int, outside: Path) -> None:
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    held = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_in_root(proc, f"self/fd/{held}/secret", os.O_RDONLY)
        with pytest.raises(OSError, match="cross-device"):
            open_in_root(root, "../outside/secret", os.O_RDONLY, resolve=RESOLVE_BENEATH)
    finally:
        os.close(proc)
        os.close(held)


def test_removal_follows_no_link(root: int, outside: Path) -> None:
    os.mkdir("target/d", dir_fd=root)
    os.symlink(str(outside), "target/d/link", dir_fd=root)
    os.symlink(str(outside), "toplink", dir_fd=root)
    remove_tree(root, "toplink")
    remove_tree(root, "target")
    remove_tree(root, "absent")
    assert os.listdir(root) == []
    assert untouched(outside)


# --- bombs ---


def header(name: str, size: int, letter: bytes = b"0") -> bytes:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, letter
    return made.tobuf(format=tarfile.GNU_FORMAT)


@pytest.mark.parametrize("letter", [b"x", b"g", b"L", b"K"])
def test_a_header_extension_cannot_grow_without_measure(letter: bytes) -> None:
    with pytest.raises(Invalid, match="larger than the limit"):
        TarReader().feed(header("h", 1 << 30, letter))


@pytest.mark.parametrize("size", [1 << 62, (1 << 88) - 1])
def test_a_file_that_claims_to_be_huge_costs_nothing(size: int) -> None:
    reader = TarReader()
    made = bytearray(header("huge", 0))
    made[124:136] = b"\x80" + size.to_bytes(11, "big")
    made[148:156] = b"        "
    made[148:156] = f"{sum(made):06o}\0 ".encode()
    reader.feed(bytes(made))
    reader.feed(bytes(10_000))
    with pytest.raises(Invalid, match="cut short"):
        reader.finish()


def sparse(name: str, real: int, *pairs: tuple[int, int]) -> bytes:
    """A pax 1.0 sparse file with as many data bytes as its pairs say."""
    body = "".join(f"{number}\n" for number in [len(pairs), *(n for pair in pairs for n in pair)]).encode()
    body += b"\0" * (-len(body) % 512)
    stored = sum(length for _, length in pairs)
    made = tarfile.TarInfo(name)
    made.size = len(body) + stored
    made.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(real),
    }
    return made.tobuf(format=tarfile.PAX_FORMAT) + body + bytes(stored + (-stored % 512))


@pytest.mark.parametrize(
    "files",
    [
        [(1 << 40, (512, 512))], [(1 << 40, (513, 511))], [(1 << 62, (0, 512))], [(1 << 62, ((1 << 62) - 512, 512))],
        [(1 << 30, (1, 1))] * 300, [(1 << 44, (1, 1), (1 << 43, 3))] * 20, [((1 << 63) - 1, (7, 9))],
    ],
)  # fmt: skip
def test_sparse_files_cost_what_they_hold_and_not_what_they_claim(files: list[tuple[Any, ...]]) -> None:
    data = b"".join(sparse(f"f{number}", real, *pairs) for number, (real, *pairs) in enumerate(files))
    tracemalloc.start()
    began = time.process_time()
    try:
        reader = TarReader()
        reader.feed(data)
        image = build(reader.finish(), len(data), lambda offset, length: data[offset : offset + length])
        assert len(image) < 80 << 20
    except Invalid as error:
        assert "sparse" in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 300 << 20
    assert time.process_time() - began < 20


def test_a_map_of_many_lines_is_read_in_a_time_that_grows_with_it() -> None:
    pairs = [(number * 2, 1) for number in range(60_000)]
    data = sparse("many", 200_000, *pairs)
    began = time.process_time()
    reader = TarReader()
    for start in range(0, len(data), 512):
        reader.feed(data[start : start + 512])
    assert len(reader.finish().root.children[b"many"].extents) == 60_000  # type: ignore[index]
    assert time.process_time() - began < 5


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_bomb_goes_by_in_pieces(kind: str) -> None:
    size = 1 << 30
    if kind == "gzip":
        compressor = isal_zlib.compressobj(level=1, wbits=31)
        chunk = bytes(1 << 24)
        bomb = b"".join(compressor.compress(chunk) for _ in range(size >> 24)) + compressor.flush()
    else:
        made = zstandard.ZstdCompressor(level=3).compressobj()
        chunk = bytes(1 << 24)
        bomb = b"".join(made.compress(chunk) for _ in range(size >> 24)) + made.flush()
    assert len(bomb) < size // 200
    decompressor = Decompressor()
    total = largest = 0
    for piece in decompressor.feed(bomb):
        total += len(piece)
        largest = max(largest, len(piece))
    assert decompressor.finish() == b""
    assert total == size
    assert largest <= 128 << 20
