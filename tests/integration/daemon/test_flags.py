"""The daemon as a process: what it takes, and what it refuses in words that help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.conftest import NewEngine
from tests.support.engine import Engine, wait_until


def refused(tmp_path: Path, *flags: str, roots: bool = True) -> str:
    """What a daemon says that does not start."""
    own = ["-H", f"unix://{tmp_path}/x.sock", "--data-root", f"{tmp_path}/d", "--exec-root", f"{tmp_path}/r"] if roots else []
    done = subprocess.run([sys.executable, "-m", "boxship.daemon", *own, *flags], capture_output=True, text=True, timeout=20,
                          check=False)  # fmt: skip
    assert done.returncode == 1, done
    return done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-H", "tcp://127.0.0.1:2375"], "needs --tlsverify, --tlscacert, --tlscert, --tlskey"),
        (["-H", "http://127.0.0.1"], "invalid bind address"),
        (["--default-runtime", "kata"], "--default-runtime kata is not supported"),
        (["--add-runtime", "x=/bin/x"], "--add-runtime is not supported"),
        (["--storage-driver", "zfs"], "unknown storage driver 'zfs'"),
        (["--bip", "nonsense"], "invalid --bip"),
        (["--default-address-pool", "base=10.0.0.0"], "invalid default address pool"),
        (["--log-level", "loud"], "invalid log level"),
        (["--nosuchflag"], "unrecognized arguments: --nosuchflag"),
        (["-H", "fd://"], "there are none"),
    ],
)
def test_what_it_refuses(tmp_path: Path, flags: list[str], words: str) -> None:
    assert words in refused(tmp_path, *flags)


def test_the_configuration_file(tmp_path: Path, new_engine: NewEngine) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"nosuchkey": 1}))
    assert "nosuchkey" in refused(tmp_path, "--config-file", str(file))
    file.write_text(json.dumps({"debug": "yes"}))
    assert "debug: expected true or false" in refused(tmp_path, "--config-file", str(file))
    file.write_text(json.dumps({"log-level": "info"}))
    both = refused(tmp_path, "--config-file", str(file), "--log-level", "debug")
    assert "specified both as a flag and in the configuration file: log-level: (from flag: debug, from file: info)" in both
    assert "no such file" in refused(tmp_path, "--config-file", f"{tmp_path}/absent")
    file.write_text(json.dumps({"labels": ["a=1"]}))
    engine = new_engine("--config-file", str(file), busybox=False)
    assert engine.api("GET", "/info")[1]["Labels"] == ["a=1"]
    file.write_text(json.dumps({"labels": ["a=2"], "debug": True}))
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: engine.api("GET", "/info")[1]["Labels"] == ["a=2"], "the file is read again")
    assert engine.api("GET", "/info")[1]["Debug"] is True


def test_a_root_in_use_is_refused_with_the_pid(tmp_path: Path, new_engine: NewEngine) -> None:
    engine = new_engine(busybox=False)
    assert engine.process is not None
    words = refused(tmp_path, "--data-root", str(engine.data_root))
    assert f"is in use by the daemon with pid {engine.process.pid}" in words
    assert f"{engine.exec_root} is in use" in refused(tmp_path, "--exec-root", str(engine.exec_root))


def test_tls_asks_for_a_certificate(tmp_path: Path, new_engine: NewEngine) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-extfile", "ext", "-out", f"{name}.pem")  # fmt: skip
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = new_engine("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem",
                        "--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server.key", busybox=False)  # fmt: skip
    where = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}"}
    known = ["--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem"]
    mine = ["--tlscert", f"{tmp_path}/client.pem", "--tlskey", f"{tmp_path}/client.key"]
    assert engine.out(*known, *mine, "info", "--format", "{{.Driver}}", env=where) in ("erofs", "overlay2")
    assert engine.docker(*known, "version", env=where, check=False).returncode != 0
    assert engine.docker("version", env=where, check=False).returncode != 0


def test_two_daemons_side_by_side(new_engine: NewEngine) -> None:
    first, second = new_engine(), new_engine()
    for engine in (first, second):
        engine.docker("run", "-d", "--name", "same", "busybox", "sleep", "100")
    first.docker("rm", "-f", "same")
    assert second.inspect("same")["State"]["Running"]


def test_a_start_that_fails_late_leaves_nothing(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {where}" in refused(tmp_path, "--registry-listen", where)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boxship.daemon.install", "--unit-directory", str(tmp_path), "--data-root", "/srv/box %x"]
    subprocess.run(command, check=True, capture_output=True)
    text = (tmp_path / "boxship.service").read_text()
    assert f'ExecStart={sys.executable} -m boxship.daemon --data-root "/srv/box %%x"' in text
    assert "KillMode=process" in text
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(tmp_path / "boxship.service")], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert "boxship.service" not in done.stderr, done.stderr


def test_stopping_it_stops_the_containers(new_engine: NewEngine) -> None:
    engine: Engine = new_engine()
    for name, policy in (("plain", "no"), ("always", "always"), ("stopped", "unless-stopped")):
        engine.docker("run", "-d", "--name", name, "--restart", policy, "-t", "busybox", "sh", "-c", "sleep 100 & wait")
    engine.docker("stop", "-t", "0", "stopped")
    pid = engine.inspect("plain")["State"]["Pid"]
    assert engine.stop() == 0
    assert not os.path.exists(f"/proc/{pid}")
    engine.start()
    wait_until(lambda: engine.inspect("always")["State"]["Running"], "it starts with the daemon")
    assert not engine.inspect("plain")["State"]["Running"]
    assert not engine.inspect("stopped")["State"]["Running"]
