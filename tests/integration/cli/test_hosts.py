"""Which engine a command speaks to: over TLS, and one that is started in the background."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.cli.conftest import Boxship
from tests.integration.conftest import NewEngine
from tests.integration.registry.conftest import free_port
from tests.support.engine import Engine


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as DOCKER_CERT_PATH names it, and the server's files."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority")
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for prefix in ("", "server-"):
        openssl("req", *key, "-keyout", f"{prefix}key.pem", "-out", f"{prefix}request.pem", "-subj", f"/CN={prefix}name")
        openssl("x509", "-req", "-in", f"{prefix}request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-extfile", "extensions", "-out", f"{prefix}cert.pem")  # fmt: skip
    return directory


def test_tls_with_an_authority_of_ones_own(boxship: Boxship, new_engine: NewEngine, certificates: Path) -> None:
    host = f"tcp://127.0.0.1:{free_port()}"
    far = new_engine("-H", host, "--tlsverify", "--tlscacert", f"{certificates}/ca.pem", "--tlscert",
               f"{certificates}/server-cert.pem", "--tlskey", f"{certificates}/server-key.pem")  # fmt: skip
    env = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    # the end of a pipe, told to the engine, does not end what the engine has to say
    script = ("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo after")
    text = "0123456789abcdef\n" * 100_000
    assert boxship(*script, input=text, env=env).stdout == f"{text}after\n"
    assert far.out(*script, input="through\n", env=env) == "through\nafter"
    files = ("--tlscert", f"{certificates}/cert.pem", "--tlskey", f"{certificates}/key.pem")
    only = {"DOCKER_HOST": host}
    assert boxship("--tls", *files, "ps", "-q", env=only).stdout == ""
    strange = ("--tlsverify", "--tlscacert", "/etc/ssl/certs/ca-certificates.crt", *files)
    assert "certificate" in boxship(*strange, "ps", env=only, code=1).stderr
    assert boxship("ps", env=only, code=1).stderr.startswith("boxship: ")
    material = ",".join(f"{name}={certificates}/{name}.pem" for name in ("ca", "cert", "key"))
    boxship("context", "create", "far", "--docker", f"host={host},{material}", env={"DOCKER_HOST": ""})
    assert boxship("--context", "far", "images", "-q", env={"DOCKER_HOST": ""}).stdout != ""
    boxship("context", "rm", "far", env={"DOCKER_HOST": ""})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("-H", "unix:///nosuch.sock", "ps"),
            "Cannot connect to the Boxship daemon at unix:///nosuch.sock: no such file or directory",
        ),
        (("-H", "tcp://127.0.0.1:1", "ps"), "connection refused"),
        (("-H", "ssh://host", "ps"), "hosts reached through ssh are not supported"),
        (("-H", "pigeon://host", "ps"), "invalid host 'pigeon://host'"),
        (("--context", "nosuch", "ps"), 'context "nosuch" does not exist'),
        (("-H", "unix:///x", "--context", "y", "ps"), "cannot specify both --host and --context"),
    ],
)
def test_a_host_that_does_not_answer(boxship: Boxship, arguments: tuple[str, ...], words: str) -> None:
    assert words in boxship(*arguments, env={"DOCKER_HOST": ""}, code=1).stderr


def test_version_tells_of_itself_without_an_engine(boxship: Boxship) -> None:
    assert boxship("-H", "unix:///nosuch.sock", "version", code=1).stdout.startswith("Client:\n Version: ")


SCRIPT = """
set -eu
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
"$PYTHON" -m boxship version --format '{{.Server.Platform.Name}}'
pid=$("$PYTHON" -c '
import socket, struct
with socket.socket(socket.AF_UNIX) as s:
    s.connect("/run/boxship/boxship.sock")
    print(struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])')
trap 'kill -TERM "$pid"; while readlink /proc/$pid/exe >/dev/null; do sleep 0.05; done' EXIT
"$PYTHON" -m boxship ps -q
"""


def test_root_gets_a_daemon_in_the_background(engine: Engine) -> None:
    """In mount and network namespaces of its own, where the default socket is nobody's."""
    env = {name: value for name, value in engine.environment().items() if not name.startswith("DOCKER_")}
    env |= {"PYTHON": sys.executable, "DOCKER_CONFIG": "/nosuch"}
    done = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Boxship\n"
    assert done.stderr == "boxship: no daemon runs: starting one in the background (its log: /run/boxship/daemon.log)\n"
