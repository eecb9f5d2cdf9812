"""Contexts on disk, built by the docker command."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import Engine

DOCKERS = [path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if Path(path).exists()]


@dataclass
class Bench:
    """A directory that is a context, and the daemon that builds it."""

    engine: Engine
    directory: Path

    def write(self, name: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def run_build(self, dockerfile: str | None, *flags: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`docker build` of the directory; the Dockerfile given is written there first."""
        if dockerfile is not None:
            self.write("Dockerfile", dockerfile)
        return self.engine.docker("build", "--network", "none", *flags, str(self.directory), **options)

    def build(self, dockerfile: str | None, *flags: str, **options: Any) -> str:
        """The same, quietly: the image's id."""
        return self.run_build(dockerfile, "-q", *flags, **options).stdout.strip()

    def output(self, dockerfile: str | None, *flags: str, **options: Any) -> str:
        return self.run_build(dockerfile, *flags, **options).stdout

    def fails(self, dockerfile: str | None, *flags: str, code: int = 1, **options: Any) -> str:
        """A build that fails with that exit code: the last line of what it said."""
        done = self.run_build(dockerfile, *flags, check=False, **options)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr.rstrip().rpartition("\n")[2]

    def run(self, image: str, script: str) -> str:
        return self.engine.out("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script)

    def image(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.engine.out("image", "inspect", name))
        return found[0]

    def config(self, name: str) -> dict[str, Any]:
        """The image's configuration without what says nothing."""
        return {key: value for key, value in self.image(name)["Config"].items() if value not in (None, "", [], {}, False)}

    def files(self, image: str, below: str = "") -> dict[str, str]:
        """What is below a directory of an image: `kind mode uid:gid [-> target]` by path."""
        return {name: shown for name, shown in listing(self.saved(image)).items() if name.startswith(below)}

    def saved(self, image: str) -> bytes:
        """The tar of all files of an image."""
        container = self.engine.out("create", "--network", "none", image, "x")
        try:
            return subprocess.run(
                ["docker", "export", container], env=self.engine.environment(), capture_output=True, check=True
            ).stdout  # fmt: skip
        finally:
            self.engine.docker("rm", container)

    def layers(self) -> set[str]:
        return {path.name for path in self.engine.data_root.glob("**/layers/*") if len(path.name) == 64}


def listing(tar: bytes) -> dict[str, str]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for entry in archive:
            kind = "d" if entry.isdir() else "l" if entry.issym() else "h" if entry.islnk() else entry.type.decode()
            kind = "f" if entry.isfile() else kind
            target = f" -> {entry.linkname}" if entry.linkname else ""
            found[entry.name.strip("/")] = f"{kind} {entry.mode & 0o7777:04o} {entry.uid}:{entry.gid}{target}"
    return found


@pytest.fixture
def bench(engine: Engine, tmp_path: Path) -> Bench:
    directory = tmp_path / "context"
    directory.mkdir()
    return Bench(engine, directory)
