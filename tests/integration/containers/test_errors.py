"""What goes wrong, in Docker's words and with its codes."""

from __future__ import annotations

import pytest
from tests.support.engine import Engine


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("no-such-command", 127, 'exec: "no-such-command": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ],
)
@pytest.mark.parametrize("init", ["--init=false", "--init=true"])
def test_what_cannot_be_executed(engine: Engine, command: str, code: int, message: str, init: str) -> None:
    done = engine.docker("run", "--name", "it", init, "busybox", command, check=False)
    assert done.returncode == code
    if init == "--init=false" or code != 126:
        assert message in done.stderr
    assert engine.inspect("it")["State"]["ExitCode"] == code


def test_name_conflict(engine: Engine) -> None:
    identity = engine.out("create", "--name", "it", "busybox")
    status, answer = engine.api("POST", "/containers/create?name=it", {"Image": "busybox"})
    assert (status, answer["message"]) == (
        409,
        f'Conflict. The container name "/it" is already in use by container "{identity}".'
        " You have to remove (or rename) that container to be able to reuse that name.",
    )


@pytest.mark.parametrize(
    "verb", ["start", "stop", "kill", "restart", "pause", "unpause", "wait", "attach", "exec", "rename?name=x1", "update"]
)
def test_no_such_container(engine: Engine, verb: str) -> None:
    body = {"Cmd": ["true"]} if verb == "exec" else {}
    assert engine.api("POST", f"/containers/nobody/{verb}", body) == (404, {"message": "No such container: nobody"})


@pytest.mark.parametrize("path", ["json", "logs?stdout=1", "top", "stats?stream=0", "changes", "export", "archive?path=/"])
def test_no_such_container_to_read(engine: Engine, path: str) -> None:
    assert engine.api("GET", f"/containers/nobody/{path}") == (404, {"message": "No such container: nobody"})


def test_bad_requests(engine: Engine) -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"Image": 3}'):
        status, answer = engine.api("POST", "/containers/create", body)
        assert (status, "message" in answer) == (400, True), body
    assert engine.api("POST", "/containers/create", {"Image": "nothing-like-it"})[0] == 404
    assert engine.api("POST", "/containers/create?name=-x", {"Image": "busybox"})[0] == 400
    engine.docker("create", "--name", "it", "busybox")
    assert engine.api("POST", "/containers/it/kill?signal=WHAT")[0] == 400
    assert engine.api("POST", "/containers/it/wait?condition=never")[0] == 400
    assert engine.api("GET", "/containers/it/logs")[0] == 400


def test_starting_twice(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    assert engine.api("POST", "/containers/it/start")[0] == 304
