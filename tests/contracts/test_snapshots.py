"""What every snapshot driver owes: a layer reads as GNU tar reads it, and what a snapshot changes comes back as a layer."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import AlreadyExists, BoxshipError, Invalid, NotFound
from boxship.oci.digest import Digest
from boxship.snapshots.contract import Change, Snapshotter
from boxship.snapshots.overlay import OverlaySnapshotter

Listing = dict[str, tuple[Any, ...]]
Look = Callable[[int], Listing]

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
LONG = "n" * 200
DEEP = "/".join(["d" * 60] * 6)


def tar_of(*entries: tuple[str, Any]) -> bytes:
    """A tar of (name, content): bytes a file, None a directory, a TarInfo itself, otherwise a link's target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            elif isinstance(content, bytes):
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def kind(letter: bytes, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type = letter
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


def lay(snapshotter: Snapshotter, data: bytes, *, keep: bool = True, step: int = 7001) -> Digest:
    with snapshotter.writer(keep=keep) as writer:
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
        return writer.commit()


def shown(snapshotter: Snapshotter, *layers: str, look: Look) -> Listing:
    with snapshotter.viewed(layers) as root:
        return look(root)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with everything a layer can hold."""
    root = tmp_path / "source"
    root.mkdir()
    (root / "empty").touch()
    (root / "small").write_bytes(b"hello")
    (root / "block").write_bytes(b"b" * 512)
    (root / "large").write_bytes(os.urandom(300_000))
    (root / "setuid").write_bytes(b"x")
    os.chown(root / "setuid", 1000, 1001)
    (root / "setuid").chmod(0o6755)
    (root / "high-owner").touch()
    os.chown(root / "high-owner", 4_000_000_000, 3_000_000_000)
    (root / "link").symlink_to("small")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("../" * 30 + "x" * 120)
    (root / "hard").hardlink_to(root / "small")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / LONG).write_bytes(b"long name")
    (root / DEEP).mkdir(parents=True)
    (root / DEEP / "leaf").write_bytes(b"deep")
    (root / DEEP / "other").hardlink_to(root / DEEP / "leaf")
    (root / "ünï\udcff").write_bytes(b"not utf-8")
    with (root / "sparse").open("wb") as file:
        for offset in (0, 1 << 20, 5 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
        file.truncate((9 << 20) + 17)
    with (root / "hole").open("wb") as file:
        file.truncate(3 << 20)
    many = root / "many"
    many.mkdir()
    for number in range(700):
        (many / f"entry-{number:05}-{'x' * (number % 40)}").touch()
    os.setxattr(root / "small", "user.note", b"\x00binary\n=\xff")
    os.setxattr(root / "large", "security.capability", CAPABILITY)
    os.setxattr(root / "sticky", "user.on-directory", b"1")
    os.setxattr(root / "absolute", "trusted.on-link", b"2", follow_symlinks=False)
    os.setxattr(root / "null", "trusted.on-device", b"3")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + number * 1_000_000_007), follow_symlinks=False)
    os.utime(root / "fifo", ns=(0, -5_000_000_000))
    return root


def archived(source: Path, archive: Path, *options: str) -> bytes:
    subprocess.run(["tar", "-c", "-f", archive, *options, "-C", source, "."], check=True, timeout=60)
    return archive.read_bytes()


@pytest.mark.parametrize("options", [("--format=pax", "--xattrs", "--xattrs-include=*"), ("--format=gnu",)])
@pytest.mark.parametrize("sparse", ["", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"])
def test_a_layer_reads_as_gnu_tar_reads_it(
    snapshotter: OverlaySnapshotter, source: Path, tmp_path: Path, options: tuple[str, ...], sparse: str, listing: Look,
    by_tar: Callable[[Path, Path], Listing],
) -> None:  # fmt: skip
    data = archived(source, tmp_path / "a.tar", *options, *(("--sparse", sparse) if sparse else ()))
    layer = lay(snapshotter, data)
    assert shown(snapshotter, layer, look=listing) == by_tar(tmp_path / "a.tar", tmp_path / "extracted")


def test_the_tar_comes_back_bit_for_bit(snapshotter: OverlaySnapshotter, source: Path, tmp_path: Path) -> None:
    data = archived(source, tmp_path / "a.tar", "--format=pax", "--xattrs")
    layer = lay(snapshotter, data, step=513)
    with snapshotter.open_layer(layer) as file:
        assert file.read() == data
    assert layer == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert snapshotter.layer_size(layer) == len(data)


@pytest.mark.parametrize("step", [1, 511, 512, 513, 10_240, 1 << 20])
def test_pieces_of_any_size_make_the_same_layer(snapshotter: OverlaySnapshotter, step: int, listing: Look) -> None:
    data = tar_of(("a", b"x" * 1000), ("b", None), ("b/" + "c" * 150, b"y"))
    found = shown(snapshotter, lay(snapshotter, data, step=step), look=listing)
    assert sorted(found) == ["a", "b", "b/" + "c" * 150]
    assert found["a"][8] == hashlib.sha256(b"x" * 1000).hexdigest()


def test_whiteouts_hide_what_is_below_alone(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    lower = lay(snapshotter, tar_of(("gone", b"1"), ("kept", b"2"), ("dir", None), ("dir/gone", b"3"), ("dir/kept", b"4")))
    upper = lay(snapshotter, tar_of((".wh.gone", b""), ("dir/.wh.gone", b""), (".wh.never", b""), (".wh..wh.plnk", b"")))
    assert sorted(shown(snapshotter, lower, upper, look=listing)) == ["dir", "dir/kept", "kept"]
    assert sorted(shown(snapshotter, upper, look=listing)) == ["dir"]


@pytest.mark.parametrize("marker_first", [True, False])
def test_an_opaque_directory_hides_all_that_is_below_it(snapshotter: OverlaySnapshotter, marker_first: bool, listing: Look) -> None:
    lower = lay(snapshotter, tar_of(("dir", None), ("dir/old", b"1"), ("dir/sub", None), ("dir/sub/old", b"2")))
    entries: list[tuple[str, Any]] = [("dir", None), ("dir/new", b"3")]
    entries.insert(1 if marker_first else 2, ("dir/.wh..wh..opq", b""))
    upper = lay(snapshotter, tar_of(*entries))
    assert sorted(shown(snapshotter, lower, upper, look=listing)) == ["dir", "dir/new"]


@pytest.mark.parametrize("order", [(".wh.dir", "dir"), ("dir", ".wh.dir")])
def test_a_directory_taken_away_and_made_anew_shows_nothing_old(
    snapshotter: OverlaySnapshotter, order: tuple[str, str], listing: Look
) -> None:
    lower = lay(snapshotter, tar_of(("dir", None), ("dir/old", b"1")))
    entries = [(name, b"" if name.startswith(".wh.") else None) for name in order]
    upper = lay(snapshotter, tar_of(*entries, ("dir/new", b"2")))
    assert sorted(shown(snapshotter, lower, upper, look=listing)) == ["dir", "dir/new"]


def test_a_file_replaces_a_directory_below_and_the_other_way(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    lower = lay(snapshotter, tar_of(("a", None), ("a/x", b"1"), ("b", b"2")))
    upper = lay(snapshotter, tar_of(("a", b"file"), ("b", None), ("b/y", b"3")))
    assert sorted(shown(snapshotter, lower, upper, look=listing)) == ["a", "b", "b/y"]


def test_a_later_entry_of_a_layer_replaces_an_earlier_one(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    data = tar_of(
        ("a", b"one"), ("b", b"first"), ("b", None), ("b/c", b"1"), ("a", b"two!"), ("d", None), ("d/e", b"2"), ("d", None)
    )
    found = shown(snapshotter, lay(snapshotter, data), look=listing)
    assert sorted(found) == ["a", "b", "b/c", "d", "d/e"]
    assert found["a"][4] == 4


def test_names_lead_through_the_links_of_their_layer_as_in_tar(
    snapshotter: OverlaySnapshotter, tmp_path: Path, listing: Look, by_tar: Callable[[Path, Path], Listing]
) -> None:
    data = tar_of(("usr", None), ("usr/lib", None), ("lib", "usr/lib"), ("lib/a", b"1"), ("hard", kind(b"1", linkname="lib/a")))
    (tmp_path / "a.tar").write_bytes(data)
    found = shown(snapshotter, lay(snapshotter, data), look=listing)
    assert sorted(found) == ["hard", "lib", "usr", "usr/lib", "usr/lib/a"]
    assert {name: entry[4:] for name, entry in found.items()} == {
        name: entry[4:] for name, entry in by_tar(tmp_path / "a.tar", tmp_path / "out").items()
    }


def test_links_of_a_layer_never_lead_out_of_it(snapshotter: OverlaySnapshotter, tmp_path: Path, listing: Look) -> None:
    data = tar_of(("up", "../../../../.."), ("abs", str(tmp_path)), ("up/etc/x", b"1"), ("abs/y", b"2"))
    found = shown(snapshotter, lay(snapshotter, data), look=listing)
    assert "etc/x" in found
    assert str(tmp_path / "y")[1:] in found
    assert not (tmp_path / "y").exists()
    with pytest.raises(Invalid, match="too many symbolic links"):
        lay(snapshotter, tar_of(("a", "b"), ("b", "a"), ("a/x", b"")))


@pytest.mark.parametrize(
    "entries",
    [
        [("../x", b"")], [("a/../../x", b"")], [("a", b""), ("b", kind(b"1", linkname="../../etc/passwd"))],
        [("b", kind(b"1", linkname="missing"))], [("d", None), ("b", kind(b"1", linkname="d"))], [("x" * 256, b"")],
        [("s", kind(b"2", linkname=""))], [("s", kind(b"2", linkname="t" * 4096))], [("q", kind(b"Q"))],
        [(".wh.", b"")], [(".wh..", b"")], [(".wh...", b"")], [("d", kind(b"3", devmajor=1 << 20, devminor=1))],
    ],
)  # fmt: skip
def test_unsound_layers_are_refused_and_leave_nothing(snapshotter: OverlaySnapshotter, entries: list[tuple[str, Any]]) -> None:
    with pytest.raises(Invalid):
        lay(snapshotter, tar_of(*entries))
    assert snapshotter.layers() == []


@pytest.mark.parametrize("cut", [1, 300, 512, 700, 1024, 1500])
def test_a_tar_cut_short_is_refused(snapshotter: OverlaySnapshotter, cut: int) -> None:
    data = tar_of(("file", b"x" * 2000))
    with pytest.raises(Invalid):
        lay(snapshotter, data[:cut])


def test_an_empty_tar_is_an_empty_layer(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    assert shown(snapshotter, lay(snapshotter, bytes(1024)), look=listing) == {}
    assert shown(snapshotter, lay(snapshotter, b""), look=listing) == {}


def test_no_layers_at_all_are_an_empty_view(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    assert shown(snapshotter, look=listing) == {}


def test_a_layer_that_is_not_what_was_expected_is_refused(snapshotter: OverlaySnapshotter) -> None:
    data = tar_of(("a", b""))
    with pytest.raises(Invalid, match="expected diff id"), snapshotter.writer() as writer:
        writer.write(data)
        writer.commit(Digest.of(b"other"))
    assert snapshotter.layers() == []
    with snapshotter.writer() as writer:
        writer.write(data)
        assert writer.commit(Digest.of(data)) == Digest.of(data)
    assert snapshotter.layers() == [Digest.of(data)]


def test_the_same_layer_twice_is_one(snapshotter: OverlaySnapshotter) -> None:
    data = tar_of(("a", b"x"))
    assert lay(snapshotter, data) == lay(snapshotter, data)
    assert len(snapshotter.layers()) == 1


def test_what_is_not_here_is_not_found(snapshotter: OverlaySnapshotter) -> None:
    absent = Digest.of(b"absent")
    assert not snapshotter.has_layer(absent)
    for call in (
        lambda: snapshotter.open_layer(absent), lambda: snapshotter.layer_size(absent),
        lambda: snapshotter.prepare("k", [absent]), lambda: snapshotter.root("k"), lambda: snapshotter.usage("k"),
        lambda: snapshotter.changes("k"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            call()
    snapshotter.remove_layer(absent)
    snapshotter.remove("k")
    assert not snapshotter.exists("k")
    assert snapshotter.keys() == []


def test_a_view_cannot_be_written(snapshotter: OverlaySnapshotter) -> None:
    layer = lay(snapshotter, tar_of(("dir", None)))
    with snapshotter.viewed([layer]) as root:
        with pytest.raises(OSError, match="Read-only file system"):
            os.mkdir("dir/new", dir_fd=root)


# --- snapshots ---


def change(root: int) -> None:
    """Alter a snapshot in every way there is."""
    at = f"/proc/self/fd/{root}"
    Path(at, "added").write_bytes(b"new")
    Path(at, "dir/added").write_bytes(b"new")
    Path(at, "dir/modified").write_bytes(b"changed")
    Path(at, "dir/deleted").unlink()
    shutil.rmtree(f"{at}/gone")
    shutil.rmtree(f"{at}/anew")
    Path(at, "anew").mkdir()
    Path(at, "anew/inside").write_bytes(b"1")
    Path(at, "link").symlink_to("dir")
    Path(at, "hard").hardlink_to(Path(at, "added"))
    os.mkfifo(f"{at}/fifo")
    os.mknod(f"{at}/device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.setxattr(f"{at}/dir/added", "security.capability", CAPABILITY)
    os.setxattr(f"{at}/dir/added", "user.binary", bytes(range(256)))
    os.setxattr(f"{at}/link", "trusted.on-link", b"x", follow_symlinks=False)
    os.chmod(f"{at}/kept", 0o4711)
    shutil.move(f"{at}/moved", f"{at}/moved-here")


BASE = [("dir", None), ("dir/modified", b"1"), ("dir/deleted", b"2"), ("dir/same", b"3"), ("gone", None), ("gone/x", b"4"),
        ("anew", None), ("anew/old", b"5"), ("kept", b"6"), ("moved", None), ("moved/deep", b"7")]  # fmt: skip


def test_what_a_snapshot_changes_comes_back_as_a_layer(snapshotter: OverlaySnapshotter, listing: Look) -> None:
    base = lay(snapshotter, tar_of(*BASE))
    snapshotter.prepare("key", [base])
    with snapshotter.mounted("key") as root:
        change(root)
        os.utime("dir", ns=(0, 1_600_000_000_000_000_001), dir_fd=root)
        expected = listing(root)
    with snapshotter.writer() as writer:
        snapshotter.write_diff("key", writer)
        diff = writer.commit()
    found = shown(snapshotter, base, diff, look=listing)
    skeleton = {name for name in expected if name.split("/")[0] in ("dev", "proc", "sys", "etc", ".dockerenv")}
    assert found == {name: entry for name, entry in expected.items() if name not in skeleton}


def test_the_same_changes_make_the_same_layer(snapshotter: OverlaySnapshotter) -> None:
    base = lay(snapshotter, tar_of(*BASE))
    digests = []
    for key in ("one", "two"):
        snapshotter.prepare(key, [base])
        with snapshotter.mounted(key) as root:
            change(root)
            for directory, directories, files in os.walk(f"/proc/self/fd/{root}/."):
                for name in (*directories, *files):
                    os.utime(os.path.join(directory, name), ns=(0, 0), follow_symlinks=False)
            os.utime(".", ns=(0, 0), dir_fd=root)
        with snapshotter.writer() as writer:
            snapshotter.write_diff(key, writer)
            digests.append(writer.commit())
    assert digests[0] == digests[1]


def test_changes_are_told_as_docker_diff_tells_them(snapshotter: OverlaySnapshotter) -> None:
    base = lay(snapshotter, tar_of(*BASE))
    snapshotter.prepare("key", [base])
    assert snapshotter.changes("key") == []
    with snapshotter.mounted("key") as root:
        change(root)
    assert snapshotter.changes("key") == [
        Change(path, what)  # type: ignore[arg-type]
        for path, what in (
            ("/added", "added"), ("/anew", "modified"), ("/anew/inside", "added"), ("/device", "added"), ("/dir", "modified"),
            ("/dir/added", "added"), ("/dir/deleted", "deleted"), ("/dir/modified", "modified"), ("/fifo", "added"),
            ("/gone", "deleted"), ("/hard", "added"), ("/kept", "modified"), ("/link", "added"), ("/moved", "deleted"),
            ("/moved-here", "added"), ("/moved-here/deep", "added"),
        )
    ]  # fmt: skip


def test_usage_counts_what_is_on_the_disk_once(snapshotter: OverlaySnapshotter) -> None:
    base = lay(snapshotter, tar_of(("big", b"x" * 500_000)))
    snapshotter.prepare("key", [base])
    assert snapshotter.usage("key") == 0
    with snapshotter.mounted("key") as root:
        at = Path(f"/proc/self/fd/{root}")
        (at / "one").write_bytes(b"y" * 10_000)
        (at / "two").hardlink_to(at / "one")
        with (at / "sparse").open("wb") as file:
            file.truncate(1 << 30)
    assert snapshotter.usage("key") == 10_000


def test_snapshots_do_not_see_one_another(snapshotter: OverlaySnapshotter) -> None:
    base = lay(snapshotter, tar_of(("a", b"1")))
    snapshotter.prepare("one", [base])
    snapshotter.prepare("two", [base])
    with pytest.raises(AlreadyExists):
        snapshotter.prepare("one", [base])
    with snapshotter.mounted("one") as root:
        Path(f"/proc/self/fd/{root}/a").write_bytes(b"changed")
    with snapshotter.mounted("two") as root:
        assert Path(f"/proc/self/fd/{root}/a").read_bytes() == b"1"
    with snapshotter.viewed([base]) as root:
        assert Path(f"/proc/self/fd/{root}/a").read_bytes() == b"1"
    assert sorted(snapshotter.keys()) == ["one", "two"]
    snapshotter.remove("one")
    assert snapshotter.keys() == ["two"]


def test_the_engines_mount_points_are_no_change_of_the_container(snapshotter: OverlaySnapshotter) -> None:
    snapshotter.prepare("key", [lay(snapshotter, tar_of(("a", b"1")))])
    with snapshotter.mounted("key") as root:
        assert {"proc", "sys", "dev", "etc"} <= set(os.listdir(root))
    assert snapshotter.changes("key") == []


def test_a_hundred_layers_stack(snapshotter: OverlaySnapshotter) -> None:
    layers = [lay(snapshotter, tar_of((f"file-{number}", b"x"), ("last", str(number).encode()))) for number in range(100)]
    snapshotter.prepare("key", layers)
    with snapshotter.mounted("key") as root:
        assert Path(f"/proc/self/fd/{root}/last").read_bytes() == b"99"
        assert sum(name.startswith("file-") for name in os.listdir(root)) == 100


# --- after a crash, and away ---


def test_everything_is_there_after_a_restart(driver: Callable[[], OverlaySnapshotter], listing: Look) -> None:
    before = driver()
    base = lay(before, tar_of(*BASE))
    before.prepare("key", [base])
    with before.mounted("key") as root:
        Path(f"/proc/self/fd/{root}/new").write_bytes(b"n")
    again = driver()
    assert again.has_layer(base)
    assert again.keys() == ["key"]
    with again.mounted("key") as root:
        assert "new" in listing(root)


def test_what_a_crash_left_half_done_goes_at_the_next_start(driver: Callable[[], OverlaySnapshotter], tmp_path: Path) -> None:
    before = driver()
    writer = before.writer()
    writer.write(tar_of(("a", b"x")))
    unfinished = [path for path in (tmp_path / "snapshots" / "layers").iterdir() if path.name.startswith("new-")]
    assert len(unfinished) == 1
    trash = tmp_path / "snapshots" / "trash"
    (trash / "left").mkdir()
    (trash / "left" / "file").touch()
    again = driver()
    assert again.layers() == []
    eventually(lambda: not list(trash.iterdir()) and not unfinished[0].exists())
    writer.abort()


def test_a_layer_removed_is_gone_and_can_come_again(snapshotter: OverlaySnapshotter, tmp_path: Path, listing: Look) -> None:
    data = tar_of(("a", b"1"))
    layer = lay(snapshotter, data)
    assert list(shown(snapshotter, layer, look=listing)) == ["a"]
    snapshotter.remove_layer(layer)
    assert not snapshotter.has_layer(layer)
    with pytest.raises(BoxshipError):
        snapshotter.prepare("key", [layer])
    eventually(lambda: not list((tmp_path / "snapshots" / "trash").iterdir()))
    lay(snapshotter, data)
    assert list(shown(snapshotter, layer, look=listing)) == ["a"]


def test_a_layer_mounted_before_a_restart_is_let_go_with_it(
    driver: Callable[[], OverlaySnapshotter], tmp_path: Path, listing: Look
) -> None:
    before = driver()
    layer = lay(before, tar_of(("a", b"1")))
    shown(before, layer, look=listing)
    driver().remove_layer(layer)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_a_tree_too_deep_to_name_goes_all_the_same(driver: Callable[[], OverlaySnapshotter], tmp_path: Path) -> None:
    snapshotter = driver()
    snapshotter.prepare("key", [lay(snapshotter, tar_of(("a", b"1")))])
    with snapshotter.mounted("key") as root:
        here = os.dup(root)
        for _ in range(3000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    with pytest.raises(OSError, match="File name too long"):
        snapshotter.changes("key")
    snapshotter.remove("key")
    eventually(lambda: not list((tmp_path / "snapshots" / "trash").iterdir()))
    assert driver().keys() == []


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
