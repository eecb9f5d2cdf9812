"""The engines compared: each with roots, a socket and a network namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench.api import Connection, Failed
from bench.registry import Registry

_SECONDS = 60.0


class Engine(ABC):
    """A daemon that serves the Engine API at `socket`; made by `start`, ended by `stop`."""

    name: ClassVar[str]
    push_query: ClassVar[str] = ""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.socket = directory / "engine.sock"
        (directory / "config").mkdir()
        (directory / "config/config.json").write_text("{}")
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(directory / "config")}
        self.registries: list[Registry] = []
        self.weight = 0
        """Its memory before it had many containers, in bytes."""
        self._process: subprocess.Popen[bytes] | None = None

    # --- what each is ---

    @abstractmethod
    def arguments(self) -> list[str]:
        """The daemon's command line."""

    @abstractmethod
    def command(self, *arguments: str) -> list[str]:
        """The engine's own command, as a user would give it."""

    # --- its life ---

    def start(self) -> None:
        log = (self.directory / "log").open("ab")
        # a namespace of its own: no engine's packets go through the rules of another
        inner = 'ip link set lo up && exec "$@"'
        arguments = ["unshare", "--net", "sh", "-c", inner, "sh", *self.arguments()]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        log.close()
        deadline = time.monotonic() + _SECONDS
        while True:
            with contextlib.suppress(OSError, Failed), self.connect() as connection:
                connection.request("GET", "/_ping")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name} did not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        for registry in self.registries:
            registry.stop()
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError, Failed):
                self.remove_all()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)

    def inside(self, *arguments: str) -> list[str]:
        """A command line that runs in the engine's own network."""
        assert self._process is not None
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *arguments]

    def run(self, *arguments: str) -> None:
        """Run the engine's own command; raises `Failed`."""
        done = subprocess.run(self.inside(*self.command(*arguments)), env=self.env, check=False, stdin=subprocess.DEVNULL,
                              capture_output=True)  # fmt: skip
        if done.returncode:
            raise Failed(f"{' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")

    def serve_registry(self, directory: Path, port: int) -> Registry:
        """Start a registry that this engine reaches at 127.0.0.1:`port`."""
        registry = Registry(directory, port, self.inside())
        registry.start()
        self.registries.append(registry)
        return registry

    # --- the API ---

    def connect(self) -> Connection:
        return Connection(self.socket)

    def version(self) -> str:
        with self.connect() as connection:
            return str(connection.json("GET", "/version")["Version"])

    def load(self, archive: bytes) -> None:
        with self.connect() as connection:
            connection.request("POST", "/images/load?quiet=1", archive)

    def create(self, connection: Connection, image: str, command: Sequence[str], host: dict[str, Any] | None = None) -> str:
        """Make a container: its id."""
        body = {"Image": image, "Cmd": list(command), "HostConfig": host or {}}
        return str(connection.json("POST", "/containers/create", body)["Id"])

    def remove_image(self, name: str) -> None:
        """Remove an image; nothing happens where there is none."""
        with self.connect() as connection, contextlib.suppress(Failed):
            connection.request("DELETE", f"/images/{name}?force=1")

    def remove_all(self) -> None:
        """Remove every container."""
        with self.connect() as connection:
            for container in connection.json("GET", "/containers/json?all=1"):
                connection.request("DELETE", f"/containers/{container['Id']}?force=1")

    def address(self, connection: Connection, container: str) -> str:
        """A running container's address on the default network."""
        settings = connection.json("GET", f"/containers/{container}/json")["NetworkSettings"]
        found = [settings.get("IPAddress") or "", *(each["IPAddress"] for each in (settings.get("Networks") or {}).values())]
        return str(next(address for address in found if address))

    # --- memory ---

    def pss(self) -> int:
        """Memory of every process that belongs to the engine and is no container, in bytes (proportional set size)."""
        assert self._process is not None
        own = os.readlink(f"/proc/{self._process.pid}/ns/net")
        foreign = {registry.pid for registry in self.registries}
        total = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in foreign:
                with contextlib.suppress(OSError):
                    if os.readlink(entry / "ns/net") == own:
                        found = re.search(r"^Pss: +(\d+) kB", (entry / "smaps_rollup").read_text(), re.MULTILINE)
                        total += int(found[1]) << 10 if found else 0
        return total


class Boxship(Engine):
    name = "boxship"

    def arguments(self) -> list[str]:
        return [sys.executable, "-m", "boxship.daemon", "-H", f"unix://{self.socket}", "--data-root", str(self.directory / "data"),
                "--exec-root", str(self.directory / "run")]  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        installed = Path(sys.executable).with_name("boxship")
        return [*([str(installed)] if installed.exists() else [sys.executable, "-m", "boxship"]), *arguments]


class Docker(Engine):
    name = "dockerd"

    def arguments(self) -> list[str]:
        return ["dockerd", "-H", f"unix://{self.socket}", "--data-root", str(self.directory / "data"), "--exec-root",
                str(self.directory / "run"), "--pidfile", str(self.directory / "pid"), "--log-level", "error"]  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        return ["docker", *arguments]


class Podman(Engine):
    name = "podman"
    push_query = "&tlsVerify=false"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        soft = 4096
        (directory / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={soft}:{soft}", "nproc={soft}:{soft}"]\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{directory}/networks"\n'
            '[engine]\nruntime = "crun"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (directory / "registries.conf").write_text(
            'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
        )
        (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.env["CONTAINERS_CONF"] = str(directory / "containers.conf")
        self.env["CONTAINERS_REGISTRIES_CONF"] = str(directory / "registries.conf")

    def arguments(self) -> list[str]:
        return self.command("system", "service", "--time", "0", f"unix://{self.socket}")

    def command(self, *arguments: str) -> list[str]:
        return ["podman", "--root", str(self.directory / "root"), "--runroot", str(self.directory / "run"), "--tmpdir",
                str(self.directory / "tmp"), "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", *arguments]  # fmt: skip


ENGINES: tuple[type[Engine], ...] = (Boxship, Docker, Podman)


def missing() -> list[str]:
    """The programs that the comparison needs and this host has not, with the packages that bring them."""
    needed = {"dockerd": "docker.io", "docker": "docker.io", "podman": "podman", "crun": "crun",
              "docker-registry": "docker-registry", "skopeo": "skopeo", "debootstrap": "debootstrap", "iperf3": "iperf3",
              "busybox": "busybox-static", "nsenter": "util-linux"}  # fmt: skip
    return [f"{program} ({package})" for program, package in needed.items() if shutil.which(program) is None]
