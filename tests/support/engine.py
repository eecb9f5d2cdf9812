"""A daemon of its own, spoken to by the docker command as it is installed, and over the plain socket."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

SECONDS = 30.0
"""How long anything that a test waits for may take."""

DOCKER = shutil.which("docker") or "docker"


@functools.cache
def busybox_tar() -> bytes:
    """A root with busybox, its applets and two users."""
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "home", "home/user", "root", "tmp", "var", "var/www"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "busybox", 0o777
                tar.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User:/home/user:/bin/sh\n"),
            ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


@dataclass
class Engine:
    """One daemon below one directory."""

    directory: Path
    flags: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()
    """What the daemon's command starts with."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "boxship.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data_root(self) -> Path:
        return self.directory / "data"

    @property
    def exec_root(self) -> Path:
        return self.directory / "run"

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text()

    # --- its life ---

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        arguments = [*self.wrapper, sys.executable, "-m", "boxship.daemon", "-H", self.host, "--data-root", str(self.data_root),
                     "--exec-root", str(self.exec_root), *self.flags]  # fmt: skip
        with (self.directory / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.api("GET", "/_ping")[0] == 200:
                    return
            assert self.process.poll() is None, f"the daemon did not start: {self.log()}"
            time.sleep(0.02)
        raise AssertionError(f"the daemon does not answer: {self.log()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the daemon and wait for its end: its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(SECONDS)
        self.process = None
        return code

    def kill(self) -> None:
        """End the daemon as a crash does; the keeper and the containers go on."""
        self.stop(signal.SIGKILL)

    # --- speaking to it ---

    def docker(
        self, *arguments: str, check: bool = True, input: str | bytes | None = None, env: dict[str, str] | None = None,
        timeout: float = SECONDS, docker: str = DOCKER,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run the docker command against this daemon."""
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run([docker, *arguments], input=data, stdin=subprocess.DEVNULL if data is None else None,
                              capture_output=True, timeout=timeout, env=self.environment(env), check=False)  # fmt: skip
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check:
            assert result.returncode == 0, f"{' '.join(arguments)}: {result.returncode}: {result.stdout}{result.stderr}"
        return result

    def out(self, *arguments: str, **options: Any) -> str:
        """What the docker command prints, without the last newline."""
        return self.docker(*arguments, **options).stdout.rstrip("\n")

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """The environment in which docker and boxship reach this daemon, and nothing of the user's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        return {**kept, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.directory / "config"), "DOCKER_BUILDKIT": "0",
                **self.env, **(extra or {})}  # fmt: skip

    def api(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One request on a connection of its own: the status, and the body, read as JSON where it is."""
        connection = _UnixConnection(str(self.socket))
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            fields = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**fields, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if content and (response.getheader("Content-Type") or "").startswith("application/json"):
            lines = content.splitlines()
            return response.status, json.loads(content) if len(lines) == 1 else [json.loads(line) for line in lines if line]
        return response.status, content

    def inspect(self, name: str) -> dict[str, Any]:
        status, found = self.api("GET", f"/containers/{name}/json")
        assert status == 200, found
        assert isinstance(found, dict)
        return found

    # --- what tests need again and again ---

    @contextlib.contextmanager
    def waiting(self, name: str, condition: str = "not-running") -> Iterator[Callable[[], Any]]:
        """A request that waits for a container from now on; the callable gives the exit code that it was told."""
        connection = _UnixConnection(str(self.socket))
        try:
            connection.request("POST", f"/containers/{name}/wait?condition={condition}")
            response = connection.getresponse()
            assert response.status == 200
            yield lambda: json.loads(response.read())["StatusCode"]
        finally:
            connection.close()

    def events(self, name: str, *actions: str) -> list[dict[str, Any]]:
        """The events of a container so far, of the actions given or of all."""
        filters = {"container": [self.inspect(name)["Id"]], **({"event": list(actions)} if actions else {})}
        query = urlencode({"since": "1", "until": f"{time.time():.9f}", "filters": json.dumps(filters)})
        status, content = self.api("GET", f"/events?{query}")
        assert status == 200, content
        return [content] if isinstance(content, dict) else list(content or [])

    def add_busybox(self) -> None:
        self.docker("import", "--change", 'CMD ["sh"]', "--change", "ENV PATH=/bin", "-", "busybox", input=busybox_tar())
        # the first container makes what every later one finds: the daemon's control group
        self.docker("run", "--rm", "busybox", "true")

    def images(self) -> set[str]:
        """Every image, by its names and by its id."""
        found = self.api("GET", "/images/json?all=1")[1]
        return {name for image in found for name in (image["Id"], *(image["RepoTags"] or []), *(image["RepoDigests"] or []))}

    def clean(self, images: set[str] | None = None) -> None:
        """Remove every container, network and volume, and with `images` every image that is not of those."""
        for container in self.api("GET", "/containers/json?all=1")[1]:
            self.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for network in self.api("GET", "/networks")[1]:
            if network["Name"] not in ("bridge", "host", "none"):
                self.api("DELETE", f"/networks/{network['Id']}")
        for volume in self.api("GET", "/volumes")[1]["Volumes"] or []:
            self.api("DELETE", f"/volumes/{volume['Name']}?force=1")
        if images is not None:
            # names first: an id cannot be removed while an image of that test stands on it
            for name in sorted(self.images() - images, key=lambda name: name.startswith("sha256:")):
                self.api("DELETE", f"/images/{name}?force=1")


@contextlib.contextmanager
def running_engine(directory: Path, *flags: str, busybox: bool = True, wrapper: Sequence[str] = ()) -> Iterator[Engine]:
    """A daemon for as long as the context lasts; its containers go with it."""
    directory.mkdir(parents=True, exist_ok=True)
    engine = Engine(directory, flags, wrapper=wrapper)
    engine.start()
    try:
        if busybox:
            engine.add_busybox()
        yield engine
    finally:
        if engine.process is None:
            engine.start()
        engine.clean()
        engine.stop()


def wait_until(condition: Any, what: str, seconds: float = SECONDS) -> Any:
    """Wait until `condition()` is true: what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def running(pid: int) -> bool:
    """Whether a process lives: one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
