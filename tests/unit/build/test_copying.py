"""Files copied between trees, and the checksum that tells whether they changed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boxship.build.files import Target, Tree, copy
from boxship.errors import Conflict, Invalid
from boxship.oci.ignore import Patterns
from boxship.syscalls.removal import remove_tree

Open = Callable[[Path], int]


@pytest.fixture
def opened() -> Iterator[Open]:
    descriptors: list[int] = []

    def open_(path: Path) -> int:
        descriptors.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        return descriptors[-1]

    yield open_
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "dir/sub").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b")
    (root / "dir/one").write_text("1")
    (root / "dir/sub/two").write_text("2")
    (root / "dir/link").symlink_to("one")
    (root / "to-a").symlink_to("/a.txt")
    (root / "to-dir").symlink_to("dir")
    (root / "dangling").symlink_to("nowhere")
    return root


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    path.mkdir()
    return path


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.txt", ["a.txt"]),
        ("/a.txt", ["a.txt"]),
        ("./dir/../a.txt", ["a.txt"]),
        ("../../a.txt", ["a.txt"]),
        (".", ["."]),
        ("/", ["."]),
        ("dir", ["dir"]),
        ("dir/", ["dir"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[a]*", ["a.txt"]),
        ("*/one", ["dir/one"]),
        ("to-dir/o*", ["to-dir/one"]),
        ("d*/s*/t*", ["dir/sub/two"]),
        ("to-a", ["to-a"]),
    ],
)
def test_sources(source: Path, opened: Open, pattern: str, found: list[str]) -> None:
    assert Tree(opened(source)).find(pattern) == found


@pytest.mark.parametrize("pattern", ["nosuch", "a.txt/x", "dangling", "dang*", "*.nosuch", "nosuch/*", "dir/sub/two/*"])
def test_sources_that_are_not_there(source: Path, opened: Open, pattern: str) -> None:
    with pytest.raises(Invalid, match=r"does not exist|no source files were specified"):
        Tree(opened(source)).find(pattern)


def test_a_source_cannot_leave_its_tree(tmp_path: Path, source: Path, opened: Open) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "out").symlink_to("../secret")
    (source / "up").symlink_to("..")
    for pattern in ("../secret", "out", "up/secret", "up/secre*"):
        with pytest.raises(Invalid):
            Tree(opened(source)).find(pattern)


def test_ignored_files_are_not_there(source: Path, made: Path, opened: Open) -> None:
    tree = Tree(opened(source), Patterns("*.txt\ndir\n!dir/sub/two"))
    with pytest.raises(Invalid):
        tree.find("a.txt")
    with pytest.raises(Invalid):
        tree.find("*.txt")
    assert tree.find("dir") == ["dir"]  # something in it is let in
    copy(tree, ["."], Target(opened(made)), "/", into_directory=True)
    assert names(made) == ["dangling", "dir", "dir/sub", "dir/sub/two", "to-a", "to-dir"]


def test_an_ignored_directory_is_not_there(source: Path, made: Path, opened: Open) -> None:
    tree = Tree(opened(source), Patterns("dir\n!a.txt"))
    with pytest.raises(Invalid):
        tree.find("dir")
    copy(tree, ["."], Target(opened(made)), "/", into_directory=True)
    assert "dir" not in names(made)


def test_a_copy_is_the_same_in_everything(source: Path, made: Path, opened: Open) -> None:
    os.chown(source / "dir/one", 11, 12)
    os.chmod(source / "dir/one", 0o4751)
    os.chmod(source / "dir/sub", 0o2700)
    os.link(source / "dir/one", source / "dir/sub/hard")
    os.mkfifo(source / "dir/fifo", 0o640)
    os.mknod(source / "dir/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(source / "dir/one", "user.name", b"\0value")
    os.utime(source / "dir/one", ns=(0, 1_000_000_001))
    os.utime(source / "dir/sub", ns=(0, 2_000_000_002))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "dir/socket"))
    copy(Tree(opened(source)), ["dir"], Target(opened(made)), "/x", into_directory=False)
    assert names(made / "x") == ["fifo", "link", "null", "one", "sub", "sub/hard", "sub/two"]
    for name in names(made / "x"):
        was, now = (source / "dir" / name).lstat(), (made / "x" / name).lstat()
        assert (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns, now.st_rdev) == (
            was.st_mode, was.st_uid, was.st_gid, was.st_mtime_ns, was.st_rdev,
        ), name  # fmt: skip
    assert os.readlink(made / "x/link") == "one"
    assert (made / "x/one").samefile(made / "x/sub/hard")
    assert os.getxattr(made / "x/one", "user.name") == b"\0value"


def test_owner_and_mode_given(source: Path, made: Path, opened: Open) -> None:
    copy(Tree(opened(source), owner=(0, 0)), ["dir", "a.txt"], Target(opened(made), (5, 6), 0o750), "/x", into_directory=True)
    for name in ("x", "x/one", "x/sub", "x/sub/two", "x/link", "x/a.txt"):
        status = (made / name).lstat()
        assert (status.st_uid, status.st_gid) == (5, 6), name
        if name not in ("x", "x/link"):
            assert stat.S_IMODE(status.st_mode) == 0o750, name


def test_a_destination_that_is_a_link_stays_one(source: Path, made: Path, opened: Open) -> None:
    (made / "real").mkdir()
    (made / "real/file").write_text("old")
    (made / "link").symlink_to("/real/file")
    (made / "directory").symlink_to("real")
    copy(Tree(opened(source)), ["a.txt"], Target(opened(made)), "/link", into_directory=False)
    copy(Tree(opened(source)), ["b.txt"], Target(opened(made)), "/directory", into_directory=False)
    assert os.readlink(made / "link") == "/real/file"
    assert (made / "real/file").read_text() == "a"
    assert (made / "real/b.txt").read_text() == "b"


def test_a_destination_cannot_leave_its_tree(tmp_path: Path, source: Path, made: Path, opened: Open) -> None:
    (tmp_path / "victim").write_text("untouched")
    (made / "out").symlink_to("../victim")
    (made / "up").symlink_to("..")
    (made / "loop").symlink_to("loop")
    target = Target(opened(made))
    copy(Tree(opened(source)), ["a.txt"], target, "/out", into_directory=False)
    copy(Tree(opened(source)), ["a.txt"], target, "/up/new", into_directory=False)
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "new").exists()
    assert (made / "victim").read_text() == (made / "new").read_text() == "a"
    with pytest.raises((Conflict, OSError)):
        copy(Tree(opened(source)), ["a.txt"], target, "/loop", into_directory=False)


def test_links_below_a_destination_are_replaced(tmp_path: Path, source: Path, made: Path, opened: Open) -> None:
    (tmp_path / "outside").mkdir()
    (made / "sub").symlink_to("../outside")
    (made / "one").symlink_to("../outside/one")
    copy(Tree(opened(source)), ["dir"], Target(opened(made)), "/", into_directory=False)
    assert not list((tmp_path / "outside").iterdir())
    assert (made / "sub/two").read_text() == "2"


def test_a_file_in_the_way_of_a_directory(source: Path, made: Path, opened: Open) -> None:
    (made / "x").write_text("file")
    with pytest.raises(Conflict, match="'x' is not a directory"):
        copy(Tree(opened(source)), ["dir"], Target(opened(made)), "/x", into_directory=False)


def test_directories_deeper_than_the_stack(tmp_path: Path, made: Path, opened: Open) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    subprocess.run(["mkdir", "-p", "/".join(["d"] * 1500)], cwd=deep, check=True)
    tree = Tree(opened(deep))
    try:
        copy(tree, ["."], Target(opened(made)), "/", into_directory=True)
        assert Tree(opened(made)).checksum(["."]) == tree.checksum(["."])
    finally:
        remove_tree(str(deep))
        remove_tree(str(made))


# --- the checksum ---


def test_times_do_not_count(source: Path, opened: Open) -> None:
    tree = Tree(opened(source))
    before = tree.checksum(["dir"])
    os.utime(source / "dir/one", (1, 1))
    os.utime(source / "dir", (1, 1))
    assert tree.checksum(["dir"]) == before


def _rename(source: Path) -> None:
    (source / "dir/one").rename(source / "dir/uno")


def _move(source: Path) -> None:
    (source / "dir/one").rename(source / "dir/sub/one")


def _relink(source: Path) -> None:
    (source / "dir/link").unlink()
    (source / "dir/link").symlink_to("sub")


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "dir/one").write_text("x"),
        lambda source: (source / "dir/one").chmod(0o600),
        lambda source: os.chown(source / "dir/sub/two", 1, 0),
        lambda source: (source / "dir/new").touch(),
        lambda source: (source / "dir/empty").mkdir(),
        lambda source: (source / "dir/sub/two").unlink(),
        lambda source: (source / "dir/sub").chmod(0o700),
        _rename, _move, _relink,
    ],
)  # fmt: skip
def test_everything_else_counts(source: Path, opened: Open, change: Callable[[Path], object]) -> None:
    tree = Tree(opened(source))
    before = tree.checksum(["dir"])
    change(source)
    assert tree.checksum(["dir"]) != before


def test_owners_that_are_not_copied_do_not_count(source: Path, opened: Open) -> None:
    tree = Tree(opened(source), owner=(0, 0))
    before = tree.checksum(["a.txt", "dir"])
    os.chown(source / "a.txt", 1, 2)
    os.chown(source / "dir/one", 1, 2)
    assert tree.checksum(["a.txt", "dir"]) == before


def test_ignored_files_do_not_count(source: Path, opened: Open) -> None:
    tree = Tree(opened(source), Patterns("dir/sub"))
    before = tree.checksum(["dir"])
    (source / "dir/sub/two").write_text("changed")
    assert tree.checksum(["dir"]) == before


def test_a_link_counts_as_what_it_leads_to(source: Path, opened: Open) -> None:
    tree = Tree(opened(source))
    before = tree.checksum(["to-a"])
    (source / "a.txt").write_text("changed")
    assert tree.checksum(["to-a"]) != before
