"""The daemon killed in the middle of a pull: the next pull asks for the rest alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.integration.conftest import NewEngine
from tests.support.engine import wait_until
from tests.support.leftovers import check_nothing_left

SIZE = 6 << 20


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """One image with one layer, which stalls in the middle when it is asked for the first time."""

    def __init__(self) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("file")
            entry.size = SIZE
            tar.addfile(entry, io.BytesIO(os.urandom(SIZE)))
        self.layer = out.getvalue()
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/file"]},
                             "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]}}).encode()  # fmt: skip
        kind = "application/vnd.oci.image"
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar", "digest": digest(self.layer), "size": len(self.layer)}],
        }).encode()  # fmt: skip
        self.blobs = {digest(config): config, digest(self.layer): self.layer}
        self.ranges: list[str] = []
        self.go_on = threading.Event()


@contextmanager
def served(registry: Registry) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, name = self.path.rpartition("/")
            if "/manifests/" in self.path:
                self.answer(200, registry.manifest, {"Docker-Content-Digest": digest(registry.manifest)})
            elif name in registry.blobs:
                self.blob(registry.blobs[name])
            else:
                self.answer(200, b"{}")

        do_HEAD = do_GET

        def blob(self, data: bytes) -> None:
            if data is not registry.layer:
                self.answer(200, data)
                return
            asked = self.headers.get("Range", "")
            registry.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
            fields = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if asked else {}
            self.answer(206 if asked else 200, data[first:], fields, stall=not asked)

        def answer(self, status: int, data: bytes, fields: dict[str, str] | None = None, *, stall: bool = False) -> None:
            self.send_response(status)
            kind = "application/vnd.oci.image.manifest.v1+json" if data == registry.manifest else "application/octet-stream"
            for field, value in {"Content-Length": str(len(data)), "Content-Type": kind, **(fields or {})}.items():
                self.send_header(field, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            half = len(data) // 2 if stall else len(data)
            self.wfile.write(data[:half])
            if stall:
                self.wfile.flush()
                registry.go_on.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        registry.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_pull_that_was_killed_goes_on_where_it_was(new_engine: NewEngine) -> None:
    engine = new_engine(busybox=False)
    registry = Registry()
    with served(registry) as host:
        pull = threading.Thread(target=engine.docker, args=("pull", f"{host}/big:1"), kwargs={"check": False})
        pull.start()

        def fetched() -> int:
            return sum(file.stat().st_size for file in engine.data_root.glob("content/ingest/*/data"))

        wait_until(lambda: fetched() >= SIZE // 4, "some of it is here")
        engine.kill()
        pull.join()
        engine.start()
        assert engine.out("images", "-aq") == ""
        engine.docker("pull", f"{host}/big:1")
    first, again = registry.ranges
    assert first == ""
    assert int(again.removeprefix("bytes=").rstrip("-")) >= SIZE // 4
    assert engine.out("image", "inspect", "-f", "{{index .RootFS.Layers 0}}", f"{host}/big:1") == digest(registry.layer)
    check_nothing_left(engine)
