"""Every kind of file survives a build, with both storage drivers."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.build.conftest import Bench
from tests.support.engine import Engine, running_engine


@pytest.fixture(scope="module", params=["erofs", "overlay2"])
def driven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp(request.param)
    with running_engine(root / "engine", "--storage-driver", request.param) as engine:
        (root / "context").mkdir()
        yield Bench(engine, root / "context")


def tar_of_layer(bench: Bench, image: str, number: int) -> dict[str, tarfile.TarInfo]:
    """The entries of one layer, as `docker save` gives it."""
    saved = subprocess.run(["docker", "save", image], env=bench.engine.environment(), capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.loads(_read(archive, "manifest.json"))
        layer = _read(archive, manifest[0]["Layers"][number])
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return {entry.name: entry for entry in tar}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_kinds_of_files(driven: Bench) -> None:
    image = driven.build(
        "FROM busybox\n"
        "RUN mkdir /k && cd /k && echo 1 > file && ln file hard && ln -s file soft && mkfifo -m 640 fifo && mknod -m 600 null c 1 3"
        " && mkdir -m 1777 sticky && chown 12:34 file && chmod 6755 file && touch -d '2001-02-03 04:05:06' sticky/old\n"
        "RUN cd /k && cat file hard soft\n",
        "--no-cache",
    )
    assert driven.run(image, "cd /k && cat file soft | tr '\\n' ' '; stat -c '%a %u:%g %h %F' file hard soft fifo null sticky") == (
        "1 1 6755 12:34 2 regular file\n6755 12:34 2 regular file\n777 0:0 1 symbolic link\n640 0:0 1 fifo\n"
        "600 0:0 1 character special file\n1777 0:0 2 directory"
    )
    assert driven.run(image, "stat -c %t:%T /k/null; date -u -r /k/sticky/old +%s") == "1:3\n981173106"


def test_a_hard_link_stays_one_file(driven: Bench) -> None:
    image = driven.build("FROM busybox\nRUN echo 1 > /a && ln /a /b\nRUN cat /b\n", "--no-cache")
    assert driven.run(image, "stat -c %i /a /b | uniq | wc -l; cat /b") == "1\n1"


def test_what_is_removed_is_gone(driven: Bench) -> None:
    image = driven.build(
        "FROM busybox\nRUN mkdir -p /d/e /f && touch /d/1 /d/2 /d/e/3 /f/x\n"
        "RUN rm /d/1 && rm -r /d/e && rm -r /f && mkdir /f && touch /f/y\n",
        "--no-cache",
    )  # fmt: skip
    assert driven.run(image, "find /d /f | sort") == "/d\n/d/2\n/f\n/f/y"
    layer = tar_of_layer(driven, image, -1)
    assert {"d/.wh.1", "d/.wh.e", "f/.wh..wh..opq", "f/y"} <= set(layer)
    again = driven.build("FROM busybox\nCOPY --from=" + image.removeprefix("sha256:")[:20] + " /d /f /x/\n", "--no-cache")
    assert driven.run(again, "find /x | sort") == "/x\n/x/2\n/x/y"


def test_extended_attributes(driven: Bench) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    path = driven.write("privileged", "x", 0o755)
    subprocess.run(["setfattr", "-n", "security.capability", "-v", "0x" + capability.hex(), str(path)], check=True)
    subprocess.run(["setfattr", "-n", "user.note", "-v", "kept", str(path)], check=True)
    image = driven.build(
        "FROM busybox AS one\nCOPY privileged /p\nRUN cp -p /p /q; chmod 700 /p\nFROM busybox\nCOPY --from=one /p /r/\n",
        "--no-cache",
    )
    headers = tar_of_layer(driven, image, -1)["r/p"].pax_headers
    assert headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability


def test_long_names_and_a_large_file(driven: Bench) -> None:
    long = "d" * 200 + "/" + "é" * 100
    image = driven.build(
        f"FROM busybox\nRUN mkdir /{'d' * 200} && echo 1 > /{long} && dd if=/dev/zero of=/large bs=1M count=20 2>/dev/null\n"
        f"RUN cat /{long} && mv /large /moved\nCOPY --from=busybox /bin /b\n",
        "--no-cache",
    )  # fmt: skip
    assert driven.run(image, f"cat /{long}; stat -c %s /moved; ls /large 2>/dev/null | wc -l") == f"1\n{20 << 20}\n0"


def test_a_full_disk_is_an_error(new_engine: Callable[..., Engine], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], check=True)
    try:
        with running_engine(disk / "engine") as engine:
            (tmp_path / "context").mkdir()
            bench = Bench(engine, tmp_path / "context")
            done = bench.run_build(
                "FROM busybox\nRUN dd if=/dev/zero of=/x bs=1M count=30\nRUN dd if=/dev/zero of=/y bs=1M count=30\n", check=False
            )
            assert done.returncode != 0
            assert "o space left on device" in done.stdout + done.stderr
            bench.build("FROM busybox\nRUN echo small > /x\n")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
