"""Debian's docker-registry on loopback, in the network of the engine that speaks to it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


class Registry:
    """One registry over a directory; `prefix` is the command line that leads into its network."""

    def __init__(self, directory: Path, port: int, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.port = port
        self._prefix = list(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Raises `TimeoutError` where it does not say that it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = self.directory.with_name(f"{self.directory.name}-{self.port}.yml")
        settings.write_text(
            f"version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.directory}}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}', secret: bench}}\n"
        )
        log = settings.with_suffix(".log")
        with log.open("wb") as file:
            self._process = subprocess.Popen([*self._prefix, "docker-registry", "serve", str(settings)],
                                             stdin=subprocess.DEVNULL, stdout=file, stderr=file)  # fmt: skip
        deadline = time.monotonic() + 30
        while "listening on" not in log.read_text():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"the registry does not listen: {log.read_text()[-500:]}")
            time.sleep(0.02)

    def empty(self) -> None:
        """Forget everything that was pushed."""
        shutil.rmtree(self.directory / "docker", ignore_errors=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


def seed(archives: dict[str, Path], directory: Path) -> None:
    """Fill a registry's directory with docker archives, by the names they get."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registry = Registry(directory, port)
    registry.start()
    try:
        for name, archive in archives.items():
            target = f"docker://127.0.0.1:{port}/{name}:latest"
            subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false",
                            f"docker-archive:{archive}", target], check=True)  # fmt: skip
    finally:
        registry.stop()
