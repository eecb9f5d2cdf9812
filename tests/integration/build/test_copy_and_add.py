"""COPY and ADD: what lands where, whose it is, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard
from tests.integration.build.conftest import Bench


@pytest.fixture
def context(bench: Bench) -> Bench:
    bench.write("a.txt", "hello\n")
    bench.write("b.txt", "b\n")
    bench.write("run.sh", "#!/bin/sh\n", 0o755)
    bench.write("dir/one", "1\n", 0o640)
    bench.write("dir/sub/two", "2\n")
    bench.write("sp ace/f g", "s\n")
    bench.write("b[1].md", "x\n")
    (bench.directory / "empty").mkdir()
    os.link(bench.directory / "dir/one", bench.directory / "dir/hard")
    for name, target in (("dir/link", "one"), ("to-a", "a.txt"), ("to-dir", "dir"), ("dangling", "x"), ("absolute", "/etc/passwd")):
        (bench.directory / name).symlink_to(target)
    return bench


FILE, EXECUTABLE, DIRECTORY = "f 0644 0:0", "f 0755 0:0", "d 0755 0:0"
DIR = {"hard": "f 0640 0:0", "link": "l 0777 0:0 -> one", "one": "h 0640 0:0 -> q/hard", "sub": DIRECTORY, "sub/two": FILE}

CASES: list[tuple[str, dict[str, str]]] = [
    ("COPY a.txt /q", {"q": FILE}),
    ("COPY a.txt /q/", {"q": DIRECTORY, "q/a.txt": FILE}),
    ("COPY a.txt /q/r/s", {"q": DIRECTORY, "q/r": DIRECTORY, "q/r/s": FILE}),
    ("COPY a.txt run.sh /q/", {"q": DIRECTORY, "q/a.txt": FILE, "q/run.sh": EXECUTABLE}),
    ("COPY *.txt /q/", {"q": DIRECTORY, "q/a.txt": FILE, "q/b.txt": FILE}),
    ("COPY [a-b].txt run.* /q/", {"q": DIRECTORY, "q/a.txt": FILE, "q/b.txt": FILE, "q/run.sh": EXECUTABLE}),
    ("COPY d*/on? /q/", {"q": DIRECTORY, "q/one": "f 0640 0:0"}),
    ("COPY b[[]1].md /q", {"q": FILE}),
    ('COPY ["sp ace/f g", "/q r/"]', {"q r": DIRECTORY, "q r/f g": FILE}),
    ("COPY dir /q", {"q": DIRECTORY, **{f"q/{name}": shown for name, shown in DIR.items()}}),
    ("COPY dir/ /q/", {"q": DIRECTORY, **{f"q/{name}": shown for name, shown in DIR.items()}}),
    ("COPY to-dir /q", {"q": DIRECTORY, **{f"q/{name}": shown for name, shown in DIR.items()}}),
    ("COPY empty /q/r", {"q": DIRECTORY, "q/r": DIRECTORY}),
    ("COPY to-a /q", {"q": FILE}),
    ("COPY to-a /q/", {"q": DIRECTORY, "q/to-a": FILE}),
    ("COPY /dir/../a.txt /q", {"q": FILE}),
    ("WORKDIR /q\nCOPY a.txt .\nCOPY a.txt r/\nCOPY a.txt ../q2", {
        "q": DIRECTORY, "q/a.txt": FILE, "q/r": DIRECTORY, "q/r/a.txt": FILE, "q2": FILE}),
    ("WORKDIR /q\nCOPY a.txt b.txt .", {"q": DIRECTORY, "q/a.txt": FILE, "q/b.txt": FILE}),
    ("ENV d=/q f=a\nCOPY $f.txt ${d}/", {"q": DIRECTORY, "q/a.txt": FILE}),
    ("RUN mkdir -m 700 /q\nCOPY a.txt /q", {"q": "d 0700 0:0", "q/a.txt": FILE}),
    ("RUN mkdir -m 700 /q && chown 3:4 /q && mkdir -m 711 /q/sub\nCOPY dir/sub /q/sub", {
        "q": "d 0700 3:4", "q/sub": "d 0711 0:0", "q/sub/two": FILE}),
    ("RUN mkdir /q && ln -s /tmp /q/sub\nCOPY dir /q", {"q": DIRECTORY, **{f"q/{name}": shown for name, shown in DIR.items()}}),
    ("RUN mkdir -p /q/one/x\nCOPY dir/one /q/two", {
        "q": DIRECTORY, "q/one": DIRECTORY, "q/one/x": DIRECTORY, "q/two": "f 0640 0:0"}),
    ("COPY --chown=1:2 a.txt /q/", {"q": "d 0755 1:2", "q/a.txt": "f 0644 1:2"}),
    ("COPY --chown=user a.txt /q", {"q": "f 0644 1000:1000"}),
    ("COPY --chown=user:extra a.txt /q", {"q": "f 0644 1000:2000"}),
    ("COPY --chown=0:extra a.txt /q", {"q": "f 0644 0:2000"}),
    ("COPY --chown=7 dir/sub /q", {"q": "d 0755 7:7", "q/two": "f 0644 7:7"}),
    ("ARG who=5\nCOPY --chown=$who:6 a.txt /q", {"q": "f 0644 5:6"}),
    ("COPY --chmod=4711 a.txt /q", {"q": "f 4711 0:0"}),
    ("COPY --chmod=700 dir/sub /q", {"q": DIRECTORY, "q/two": "f 0700 0:0"}),
    ("COPY --from=busybox /etc/passwd /home /q/", {"q": DIRECTORY, "q/passwd": FILE, "q/user": DIRECTORY}),
    ("USER user\nCOPY a.txt /q", {"q": FILE}),
    ("ADD a.txt /q", {"q": FILE}),
    ("ADD dir/sub /q", {"q": DIRECTORY, "q/two": FILE}),
]  # fmt: skip


def test_what_lands_where(context: Bench) -> None:
    wrong = []
    for text, expected in CASES:
        found = context.files(context.build(f"FROM busybox\n{text}\n"), "q")
        if found != expected:
            wrong.append((text, found, expected))
    assert wrong == []


REFUSED = [
    (
        "COPY nosuch /q",
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nosuch: file does not exist",
    ),
    ("ADD nosuch /q", "ADD failed: file not found in build context or excluded by .dockerignore: stat nosuch: file does not exist"),
    ("COPY nosuch* /q", "COPY failed: no source files were specified: nothing fits 'nosuch*'"),
    (
        "COPY dangling /q",
        "COPY failed: file not found in build context or excluded by .dockerignore: stat dangling: file does not exist",
    ),
    (
        "COPY absolute /q",
        "COPY failed: file not found in build context or excluded by .dockerignore: stat absolute: file does not exist",
    ),
    ("COPY ../x /q", "COPY failed: forbidden path outside the build context: ../x ()"),
    ("COPY dir/../../x /q", "COPY failed: forbidden path outside the build context: dir/../../x ()"),
    ("COPY --from=busybox nosuch /q", "COPY failed: stat nosuch: file does not exist"),
    ("COPY --from=7 a.txt /q", "invalid from flag value 7: index out of bounds"),
    ("COPY a.txt b.txt /q", "When using COPY with more than one source file, the destination must be a directory and end with a /"),
    ("COPY *.txt /q", "When using COPY with more than one source file, the destination must be a directory and end with a /"),
    ("COPY dir /etc/passwd", "'etc/passwd' is not a directory"),
    ("COPY a.txt /etc/passwd/x", "'etc/passwd' is not a directory"),
    ("COPY --chown=nosuch a.txt /q", "can't find uid for user nosuch: no such entry in /etc/passwd"),
    ("COPY --chown=0:nosuch a.txt /q", "can't find gid for group nosuch: no such entry in /etc/group"),
    ("COPY --chmod=999 a.txt /q", "invalid chmod parameter: '999': it should be octal, between 0 and 07777"),
    ("ADD https://example.org/x.git /q", "ADD of a git repository is not supported: https://example.org/x.git"),
    ("ADD http://127.0.0.1:9/ /q/", "ADD failed: cannot determine filename from url: http://127.0.0.1:9/"),
    ("ADD http://127.0.0.1:9/x /q/", "ADD failed: http://127.0.0.1:9/x: "),
]


def test_what_is_refused(context: Bench) -> None:
    before = context.layers()
    for text, message in REFUSED:
        last = context.fails(f"FROM busybox\nENV n=1\n{text}\n")
        assert message in last, (text, last)
        assert "line 3" in last
    assert context.layers() == before


def test_a_link_at_the_destination_is_followed_inside_the_image(context: Bench) -> None:
    image = context.build("FROM busybox\nRUN ln -s /etc/target /l && ln -s ../../../../etc /d\nCOPY a.txt /l\nCOPY b.txt /d/\n")
    assert context.run(image, "readlink /l; cat /etc/target /etc/b.txt") == "/etc/target\nhello\nb"
    assert not Path("/etc/target").exists()


def test_times_and_contents_are_the_same(context: Bench) -> None:
    os.utime(context.directory / "a.txt", (981_173_106, 981_173_106))
    image = context.build("FROM busybox\nCOPY a.txt /q\nCOPY --from=busybox /bin/busybox /b", "--no-cache")
    assert context.run(image, "stat -c %Y /q; cat /q; cmp /b /bin/busybox && echo same") == "981173106\nhello\nsame"


# --- archives ---


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, mode, owner in (
            ("d", tarfile.DIRTYPE, 0o750, 3),
            ("d/f", tarfile.REGTYPE, 0o4755, 4),
            ("l", tarfile.SYMTYPE, 0o777, 5),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = kind, mode, owner, owner
            entry.linkname = "d/f" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry)
    return out.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip


def test_an_archive_is_unpacked_whatever_its_name(bench: Bench) -> None:
    for name, compress in COMPRESSED.items():
        bench.write(f"{name}.data", compress(_tar()))
        image = bench.build(f"FROM busybox\nADD {name}.data /q\n", "--no-cache")
        assert bench.files(image, "q") == {
            "q": DIRECTORY, "q/d": "d 0750 3:3", "q/d/f": "f 4755 4:4", "q/l": "l 0777 5:5 -> d/f",
        }, name  # fmt: skip


def test_what_is_no_archive_is_copied(bench: Bench) -> None:
    bench.write("text.gz", gzip.compress(b"hello"))
    bench.write("broken.tar.gz", gzip.compress(_tar())[:30])
    bench.write("empty.tar", bytes(10240))
    bench.write("nothing.tar", b"")
    image = bench.build("FROM busybox\nADD text.gz broken.tar.gz empty.tar nothing.tar /q/\nCOPY text.gz /r\n")
    assert list(bench.files(image, "q")) == ["q", "q/broken.tar.gz", "q/empty.tar", "q/nothing.tar", "q/text.gz"]
    assert bench.run(image, "zcat /r") == "hello"


def test_copy_unpacks_nothing(bench: Bench) -> None:
    bench.write("x.tar", _tar())
    assert bench.files(bench.build("FROM busybox\nCOPY x.tar /q\n"), "q") == {"q": FILE}


def test_an_archive_cannot_leave_its_destination(bench: Bench) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    bench.write("x.tar", out.getvalue())
    assert "../escaped" in bench.fails("FROM busybox\nADD x.tar /q\n")


# --- URLs ---


class _Server(BaseHTTPRequestHandler):
    content = b"one"
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file%20name")
            self.end_headers()
            return
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("Last-Modified", "Sat, 03 Feb 2001 04:05:06 GMT")
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Server.content = b"one"
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_urls(bench: Bench, server: str) -> None:
    image = bench.build(
        f"FROM busybox\nADD {server}/file%20name?x=1 /q/\nADD {server}/ /r\nADD --chown=5:6 --chmod=640 {server}/moved /s\n"
    )
    assert bench.files(image, "q") == {"q": DIRECTORY, "q/file name": "f 0600 0:0"}
    assert (bench.files(image, "r")["r"], bench.files(image, "s/")) == ("f 0600 0:0", {})
    assert bench.files(image, "s")["s"] == "f 0640 5:6"
    assert bench.run(image, "cat /r; stat -c ' %Y' /r") == "one 981173106"


def test_an_archive_behind_a_url_is_not_unpacked(bench: Bench, server: str) -> None:
    _Server.content = gzip.compress(_tar())
    assert bench.files(bench.build(f"FROM busybox\nADD {server}/x.tar.gz /q\n"), "q") == {"q": "f 0600 0:0"}


def test_a_url_counts_by_its_content(bench: Bench, server: str) -> None:
    dockerfile = f"FROM busybox\nADD {server}/x /q\n"
    first = bench.build(dockerfile)
    assert bench.build(dockerfile) == first
    _Server.content = b"two"
    assert bench.build(dockerfile) != first


def test_a_url_that_is_not_there(bench: Bench, server: str) -> None:
    assert bench.fails(f"FROM busybox\nADD {server}/missing /q\n") == (
        f"dockerfile line 2: ADD failed: {server}/missing: 404 Not Found"
    )
