"""The daemon as a process: what it takes, and what it refuses in words that help."""

from __future__ import annotations

import grp
import json
import signal
import socket
import stat
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
from tests.integration.conftest import NewEngine
from tests.support.engine import Engine, running, wait_until


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
        (["--bip", "10.9.0.0/16"], "leaves no address"),
        (["--bip", "10.9.0.1"], "leaves no address"),
        (["--cgroup-parent", "/../up"], "invalid --cgroup-parent"),
        (["--group", "nosuchgroup"], "group nosuchgroup"),
        (["--default-address-pool", "base=10.0.0.0"], "invalid default address pool"),
        (["--log-level", "loud"], "invalid log level"),
        (["--nosuchflag"], "unrecognized arguments: --nosuchflag"),
        (["-H", "fd://"], "there are none"),
        (["--registry-listen", "127.0.0.1:99999"], "a port is at most 65535"),
        (["--registry-listen", "5000"], "invalid address of the registry"),
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
        engine.docker(
            "run", "-d", "--name", name, "--stop-timeout", "1", "--restart", policy, "-t", "busybox", "sh", "-c", "sleep 100 & wait"
        )
    engine.docker("stop", "-t", "0", "stopped")
    pid = engine.inspect("plain")["State"]["Pid"]
    assert engine.stop() == 0
    assert not running(pid)
    engine.start()
    wait_until(lambda: engine.inspect("always")["State"]["Running"], "it starts with the daemon")
    assert not engine.inspect("plain")["State"]["Running"]
    assert not engine.inspect("stopped")["State"]["Running"]


def test_the_socket_and_the_pidfile(tmp_path: Path, new_engine: NewEngine) -> None:
    pidfile = tmp_path / "pids" / "boxship.pid"
    group = next(each for each in grp.getgrall() if each.gr_gid != 0)
    engine = new_engine("--pidfile", str(pidfile), "--group", group.gr_name, busybox=False)
    assert engine.process is not None
    status = engine.socket.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o660, 0, group.gr_gid)
    assert pidfile.read_text() == f"{engine.process.pid}\n"
    assert f"{pidfile} is in use by the daemon with pid {engine.process.pid}" in refused(tmp_path, "--pidfile", str(pidfile))
    words = refused(tmp_path, "-H", engine.host)
    assert f"cannot listen on {engine.socket}: another process listens there" in words
    assert engine.api("GET", "/_ping")[0] == 200
    assert pidfile.read_text() == f"{engine.process.pid}\n"
    engine.kill()
    assert engine.socket.exists()
    engine.start()  # over the socket and the pidfile of the one that was killed
    assert engine.stop() == 0
    assert not pidfile.exists()
    assert not engine.socket.exists()
    (tmp_path / "x.sock").write_text("precious")
    assert "is not a socket" in refused(tmp_path)
    assert (tmp_path / "x.sock").read_text() == "precious"


def test_live_restore(tmp_path: Path, new_engine: NewEngine) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"live-restore": True}))
    engine = new_engine("--config-file", str(file))
    engine.docker("run", "-d", "--name", "on", "--stop-timeout", "1", "-p", "127.0.0.1::80", "busybox", "httpd", "-f", "-h", "/etc")
    port, pid = engine.out("port", "on", "80"), engine.inspect("on")["State"]["Pid"]
    assert engine.api("GET", "/info")[1]["LiveRestoreEnabled"] is True
    assert engine.stop() == 0
    assert running(pid)
    engine.start()
    state = engine.inspect("on")["State"]
    assert (state["Running"], state["Pid"]) == (True, pid)
    with urllib.request.urlopen(f"http://{port}/passwd", timeout=10) as answer:
        assert b"root:" in answer.read()
    file.write_text("{}")
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not engine.api("GET", "/info")[1]["LiveRestoreEnabled"], "the file is read again")
    assert engine.stop() == 0
    assert not running(pid)


def test_a_flag_outlasts_reading_the_file_again(tmp_path: Path, new_engine: NewEngine) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"insecure-registries": ["a.example"]}))
    engine = new_engine("--config-file", str(file), "--label", "a=1", busybox=False)
    file.write_text(json.dumps({"insecure-registries": ["b.example"]}))
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)

    def insecure() -> bool:
        return "b.example" in engine.api("GET", "/info")[1]["RegistryConfig"]["IndexConfigs"]

    wait_until(insecure, "the file is read again")
    assert engine.api("GET", "/info")[1]["Labels"] == ["a=1"]


def test_a_container_that_does_not_stop_is_killed_with_the_daemon(new_engine: NewEngine) -> None:
    engine = new_engine("--shutdown-timeout", "1")
    engine.docker("run", "-d", "--name", "deaf", "--stop-timeout", "1000", "--restart", "unless-stopped", "busybox", "sh", "-c",
                  "trap '' TERM; while :; do sleep 1; done")  # fmt: skip
    pid = engine.inspect("deaf")["State"]["Pid"]
    assert engine.stop() == 0
    assert not running(pid)
    engine.start()
    wait_until(lambda: engine.inspect("deaf")["State"]["Running"], "it starts with the daemon")


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_a_data_root_stays_with_its_storage_driver(tmp_path: Path, new_engine: NewEngine, driver: str) -> None:
    engine = new_engine("--storage-driver", driver)
    assert engine.out("run", "--rm", "busybox", "echo", "works") == "works"
    engine.stop()
    other = "overlay2" if driver == "erofs" else "erofs"
    words = refused(tmp_path, "--data-root", str(engine.data_root), "--storage-driver", other)
    assert f"{engine.data_root} holds images of the storage driver {driver}, not {other}" in words
    engine.flags = ()
    engine.start()
    assert engine.api("GET", "/info")[1]["Driver"] == driver
    assert engine.out("run", "--rm", "busybox", "echo", "works") == "works"


def test_sockets_passed_by_an_activator(tmp_path: Path, new_engine: NewEngine) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/passed.sock")
    listener.listen()
    # what systemd does: descriptor 3, and the variables with the pid that it will have
    shell = 'exec 3<&$0; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    listener.set_inheritable(True)
    directory = tmp_path / "activated"
    directory.mkdir()
    arguments = ["bash", "-c", shell, str(listener.fileno()), sys.executable, "-m", "boxship.daemon", "-H", "fd://",
                 "--data-root", str(directory / "data"), "--exec-root", str(directory / "run")]  # fmt: skip
    with (directory / "daemon.log").open("wb") as log:
        process = subprocess.Popen(arguments, pass_fds=[listener.fileno()], stdout=log, stderr=log)
    listener.close()
    try:
        client = Engine(directory)
        done = client.docker("version", "--format", "{{.Server.Version}}", env={"DOCKER_HOST": f"unix://{tmp_path}/passed.sock"})
        assert done.stdout.strip()
    finally:
        process.terminate()
        assert process.wait(30) == 0, (directory / "daemon.log").read_text()
    assert (tmp_path / "passed.sock").exists()  # it is the activator's


def test_flags_that_shape_the_engine(tmp_path: Path, new_engine: NewEngine) -> None:
    engine = new_engine(
        "--bip", "10.241.7.1/24", "--default-address-pool", "base=10.242.0.0/16,size=28", "--registry-mirror",
        "http://127.0.0.1:9", "--insecure-registry", "plain.example:5000", "--cgroup-parent", "boxship-own/inner",
        "--log-driver", "local", "--no-new-privileges",
    )  # fmt: skip
    engine.docker("run", "-d", "--name", "one", "busybox", "sleep", "100")
    one = engine.inspect("one")
    assert one["NetworkSettings"]["Networks"]["bridge"]["Gateway"] == "10.241.7.1"
    assert one["HostConfig"]["LogConfig"]["Type"] == "local"
    assert f"/boxship-own/inner/{one['Id']}" in Path(f"/proc/{one['State']['Pid']}/cgroup").read_text()
    assert "NoNewPrivs:\t1" in engine.out("exec", "one", "grep", "NoNewPrivs", "/proc/1/status")
    engine.docker("network", "create", "net")
    subnet = engine.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "net")
    assert subnet == "10.242.0.0/28"
    registries = engine.api("GET", "/info")[1]["RegistryConfig"]
    assert registries["Mirrors"] == ["http://127.0.0.1:9"]
    assert registries["IndexConfigs"]["plain.example:5000"]["Secure"] is False
    engine.clean()
    for group in [*Path("/sys/fs/cgroup").glob("**/boxship-own/inner"), *Path("/sys/fs/cgroup").glob("**/boxship-own")]:
        group.rmdir()  # a parent that was asked for is not the daemon's to remove


def test_the_command_boxshipd() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["boxshipd"].partition(":")
    program = f"import sys; from {module} import {function}; sys.exit({function}())"
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True)
    assert "--data-root" in done.stdout
