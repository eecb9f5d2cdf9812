"""The same Dockerfile built here and by buildah: the configuration and the files are the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.integration.build.conftest import Bench, listing

pytestmark = pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")

DOCKERFILES = {
    "configuration": """
FROM base
ARG version=1.2
ENV VERSION=$version PATH=/opt/bin:$PATH
LABEL org.example.version=${version} "org.example.name"="a b"
EXPOSE 80 53/udp
WORKDIR /srv
USER user:extra
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $VERSION"]
""",
    "files": """
FROM base
RUN mkdir -p /srv/data && cd /srv/data && echo made > made && chown 5:6 made && chmod 4711 made && ln -s made link
COPY run.sh *.txt /srv/
COPY --chown=user:extra dir /srv/dir
ADD archive.tar.gz /srv/unpacked/
RUN rm /etc/group && mkdir /srv/dir/new && touch /srv/dir/one
WORKDIR /srv/work
COPY dir/one .
""",
    "stages": """
ARG from=base
FROM ${from} AS build
ARG what=thing
RUN mkdir /out && echo $what > /out/$what && touch -d 2001-02-03 /out/old
FROM scratch AS empty
COPY --from=build /out /data
FROM base
COPY --from=empty /data/ /data/
COPY --from=build --chown=7:8 /out/thing /other
""",
}  # fmt: skip


@pytest.mark.parametrize("name", DOCKERFILES)
def test_buildah_makes_the_same(bench: Bench, tmp_path: Path, name: str) -> None:
    buildah = _Buildah(tmp_path / "buildah")
    bench.write("run.sh", "#!/bin/sh\n", 0o755)
    bench.write("a.txt", "a")
    bench.write("b.txt", "b", 0o600)
    bench.write("dir/one", "1", 0o640)
    bench.write("dir/sub/two", "2")
    (bench.directory / "dir/link").symlink_to("one")
    subprocess.run(
        ["tar", "--numeric-owner", "--owner=9", "--group=10", "-czf", "archive.tar.gz", "dir"], cwd=bench.directory, check=True
    )
    bench.engine.docker("tag", "busybox", "base")
    bench.engine.docker("save", "-o", str(tmp_path / "base.tar"), "base")
    try:
        buildah("pull", "-q", f"docker-archive:{tmp_path}/base.tar")
        image = bench.build(DOCKERFILES[name], "-t", "ours")
        buildah("bud", "-q", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never", "-t", "theirs",
                str(bench.directory))  # fmt: skip
        assert _configuration(bench.config(image)) == _configuration(
            json.loads(buildah("inspect", "--type", "image", "theirs"))["Docker"]["config"]
        )
        buildah("push", "-q", "theirs", f"docker-archive:{tmp_path}/theirs.tar:theirs:latest")
        bench.engine.docker("load", "-i", str(tmp_path / "theirs.tar"))
        assert _files(bench, image) == _files(bench, "theirs:latest")
    finally:
        buildah.remove()


class _Buildah:
    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, *arguments: str) -> str:
        storage = ["--storage-driver", "vfs", "--root", str(self._root / "root"), "--runroot", str(self._root / "run")]
        done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False,
                              env={**os.environ, "TMPDIR": str(self._root.parent), "BUILDAH_LAYERS": "false"})  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def _configuration(config: dict[str, Any]) -> dict[str, Any]:
    labels = {name: value for name, value in (config.get("Labels") or {}).items() if name != "io.buildah.version"}
    whole = {**config, "Labels": labels, "Env": sorted(config.get("Env") or [])}
    return {
        name: value for name, value in whole.items() if value not in (None, "", [], {}, False) and name not in ("Hostname", "Image")
    }


def _files(bench: Bench, image: str) -> dict[str, str]:
    ours = ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "dev", "proc", "sys", "run")
    return {
        name: shown
        for name, shown in listing(bench.saved(image)).items()
        if name not in ours and not name.startswith(("dev/", "bin/"))
    }
