"""What requests may ask for beyond what the docker command asks: served, or refused by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.support.engine import Engine, busybox_tar, wait_until


@pytest.fixture
def site() -> Iterator[str]:
    """A web site that has one tar."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/root.tar"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(busybox_tar()) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(busybox_tar())

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_import_from_a_url(engine: Engine, site: str) -> None:
    done = engine.docker("import", "--change", "ENV A=b", f"{site}/root.tar", "fetched:one")
    assert f"Downloading from {site}/root.tar" in done.stdout
    assert engine.out("run", "--rm", "fetched:one", "/bin/sh", "-c", "echo $A") == "b"
    assert engine.out("history", "--format", "{{.Comment}}", "fetched:one") == f"Imported from {site}/root.tar"
    engine.docker("rmi", "fetched:one")
    missing = engine.docker("import", f"{site}/none", check=False)
    assert "404" in missing.stderr
    refused = engine.docker("import", "http://127.0.0.1:1/x", check=False)
    assert "failed to download http://127.0.0.1:1/x" in refused.stderr
    assert engine.api("POST", "/images/create?fromSrc=ftp://x/y")[0] == 400


def test_a_body_must_be_json_and_say_so(engine: Engine) -> None:
    status, answer = engine.api("POST", "/networks/create", b'{"Name":"x"}', {"Content-Type": "text/plain"})
    assert (status, answer["message"]) == (400, "unsupported Content-Type header (text/plain): must be 'application/json'")
    status, answer = engine.api("POST", "/networks/create", b'{"Name":', {"Content-Type": "application/json; charset=utf-8"})
    assert status == 400
    assert answer["message"].startswith("invalid JSON")


def test_a_field_that_is_null_was_not_given(engine: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "User": None, "HostConfig": {"Memory": None, "NetworkMode": None}}
    status, made = engine.api("POST", "/containers/create", body)
    assert status == 201, made
    status, answer = engine.api("POST", "/containers/create", {**body, "User": 7})
    assert status == 400
    assert "User" in answer["message"]


def test_what_names_no_image_is_told_so(engine: Engine) -> None:
    assert engine.api("GET", "/images/get") == (400, {"message": "no image is named (query parameter names)"})
    assert engine.api("POST", "/images/create")[0] == 400
    status, answer = engine.api("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", headers={"X-Registry-Auth": "bnVsbA=="})
    assert status == 500
    assert "connection refused" in answer["message"]
    status, answer = engine.api("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", headers={"X-Registry-Auth": "e30x"})
    assert status == 400
    assert "invalid X-Registry-Auth header" in answer["message"]


def test_a_push_of_another_platform_is_refused(engine: Engine) -> None:
    status, answer = engine.api("POST", '/images/busybox/push?tag=latest&platform={"os":"linux","architecture":"s390x"}')
    assert status == 404
    assert "does not provide the specified platform (linux/s390x)" in answer["message"]


def test_a_network_tells_how_many_addresses_are_left(engine: Engine) -> None:
    engine.docker("network", "create", "--subnet", "10.212.3.0/24", "--ip-range", "10.212.3.128/28", "counted")
    before = engine.api("GET", "/networks/counted")[1]["Status"]["IPAM"]["Subnets"]["10.212.3.0/24"]
    assert before["DynamicIPsAvailable"] == 16
    engine.docker("run", "-d", "--network", "counted", "busybox", "sleep", "1000")
    after = engine.api("GET", "/networks/counted")[1]["Status"]["IPAM"]["Subnets"]["10.212.3.0/24"]
    assert after == {"IPsInUse": before["IPsInUse"] + 1, "DynamicIPsAvailable": 15}
    assert "Status" not in engine.api("GET", "/v1.51/networks/counted")[1]


def test_a_umask_holds_for_the_container_and_its_execs(engine: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "umask; sleep 1000"], "HostConfig": {"Umask": 0o027}}
    container = engine.api("POST", "/containers/create?name=masked", body)[1]["Id"]
    engine.docker("start", container)
    assert engine.out("exec", container, "sh", "-c", "umask") == "0027"
    wait_until(lambda: engine.out("logs", container) == "0027", "the container's own umask")
    assert engine.inspect(container)["HostConfig"]["Umask"] == 0o027
    assert "Umask" not in engine.api("GET", f"/v1.55/containers/{container}/json")[1]["HostConfig"]
    assert engine.api("POST", "/containers/create", {**body, "HostConfig": {"Umask": 0o1000}})[0] == 400
    older = engine.api("POST", "/v1.55/containers/create", body)[1]["Id"]
    assert "Umask" not in engine.inspect(older)["HostConfig"]


def test_events_since_after_until_are_refused(engine: Engine) -> None:
    status, answer = engine.api("GET", "/events?since=20&until=10")
    assert status == 400
    assert answer["message"] == "`since` time (20) cannot be after `until` time (10)"
