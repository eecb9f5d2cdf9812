"""The options of `docker build`."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from urllib.parse import urlencode

import docker as docker_py  # type: ignore[import-untyped]
import pytest
from tests.integration.build.conftest import DOCKERS, Bench

TAR = {"Content-Type": "application/x-tar"}


@pytest.mark.parametrize("docker", DOCKERS)
def test_the_id_goes_to_a_file(bench: Bench, tmp_path: Path, docker: str) -> None:
    for quiet in ([], ["-q"]):
        path = tmp_path / f"id{len(quiet)}"
        bench.output("FROM busybox\nENV a=1", "--iidfile", str(path), "-t", "named", *quiet, docker=docker)
        assert path.read_text().strip() == bench.image("named")["Id"]


@pytest.mark.parametrize("docker", DOCKERS)
def test_quiet(bench: Bench, docker: str) -> None:
    assert bench.output("FROM busybox\nRUN echo hidden\n", "-q", "-t", "quiet", docker=docker) == bench.image("quiet")["Id"] + "\n"


def test_quiet_tells_everything_of_a_failure(bench: Bench) -> None:
    done = bench.run_build("FROM busybox\nRUN echo shown; exit 5\n", "-q", check=False)
    assert done.returncode == 5
    assert "Step 2/2 : RUN echo shown; exit 5\n" in done.stderr
    assert "\nshown\n" in done.stderr


def test_labels(bench: Bench) -> None:
    image = bench.build("FROM busybox\nLABEL a=1 b=2\n", "--label", "b=3", "--label", "c=d e")
    assert bench.config(image)["Labels"] == {"a": "1", "b": "3", "c": "d e"}


def test_labels_alone(bench: Bench) -> None:
    assert bench.config(bench.build("FROM busybox\n", "--label", "a=1"))["Labels"] == {"a": "1"}


def test_a_name_is_given_to_the_last_build(bench: Bench) -> None:
    first = bench.build("FROM busybox\nENV n=1\n", "-t", "again")
    second = bench.build("FROM busybox\nENV n=2\n", "-t", "again")
    assert bench.image("again")["Id"] == second
    assert bench.image(first)["RepoTags"] == []


def test_a_bad_name(bench: Bench) -> None:
    status, body = bench.engine.api("POST", "/build?t=UPPER", _context("FROM busybox\n"), TAR)
    assert (status, body["message"].startswith("invalid reference format")) == (400, True)


def test_limits(bench: Bench) -> None:
    image = bench.build(
        "FROM busybox\nRUN (ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'; grep foo /etc/hosts;"
        " cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/cpu/cpu.shares"
        " /sys/fs/cgroup/cpu.weight) > /x 2>/dev/null; true",
        "--no-cache", "--ulimit", "nofile=77:88", "--shm-size", "8m", "--add-host", "foo:1.2.3.4", "--memory", "100m",
        "--cpu-shares", "512",
    )  # fmt: skip
    limits = bench.run(image, "cat /x").split("\n")
    assert limits[:4] == ["77", "8192", "1.2.3.4\tfoo", str(100 << 20)]
    assert limits[4] in ("512", "20")  # v1 shares, v2 weight


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--memory", "8m", "--memory-swap", "7m"], "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (["--network", "nosuch"], "network nosuch not found"),
        (["--security-opt", "seccomp=unconfined"], "--security-opt is not supported for builds"),
        (["--isolation", "hyperv"], 'Unsupported isolation: "hyperv"'),
        (["--cpuset-cpus", "4096"], "Requested CPUs are not available - requested 4096"),
    ],
)
def test_what_is_refused(bench: Bench, flags: list[str], message: str) -> None:
    assert message in bench.fails("FROM busybox\nRUN true\n", "--no-cache", *flags)


def test_squashing_is_refused_by_name(bench: Bench) -> None:
    status, body = bench.engine.api("POST", "/build?squash=1", b"", TAR)
    assert status >= 400
    assert body == {"message": "--squash is not supported"}


def test_buildkit_is_refused_by_name(bench: Bench) -> None:
    status, body = bench.engine.api("POST", "/build?version=2", b"", TAR)
    assert status >= 400
    assert "BuildKit" in body["message"]


@pytest.mark.parametrize(("network", "links"), [("none", "lo"), ("default", "eth0 lo"), ("bridge", "eth0 lo")])
def test_networks(bench: Bench, network: str, links: str) -> None:
    image = bench.build(f"FROM busybox\nRUN ls /sys/class/net > /x; echo {network}\n", "--no-cache", "--network", network)
    assert sorted(bench.run(image, "cat /x").split()) == links.split()


def test_a_network_of_ones_own(bench: Bench) -> None:
    bench.engine.docker("network", "create", "own")
    bench.engine.docker("run", "-d", "--name", "web", "--network", "own", "busybox", "httpd", "-f", "-h", "/etc")
    image = bench.build("FROM busybox\nRUN wget -qO /x http://web/passwd\n", "--no-cache", "--network", "own")
    assert bench.run(image, "head -1 /x") == "root:x:0:0:root:/root:/bin/sh"
    bench.engine.docker("rm", "-f", "web")
    bench.engine.docker("network", "rm", "own")  # nothing of the build is in it any more


def test_the_network_of_a_container_and_of_the_host(bench: Bench) -> None:
    bench.engine.docker("run", "-d", "--name", "web", "--network", "none", "busybox", "httpd", "-f", "-h", "/etc")
    image = bench.build("FROM busybox\nRUN wget -qO /x http://127.0.0.1/group\n", "--no-cache", "--network", "container:web")
    assert bench.run(image, "head -1 /x") == "root:x:0:"
    image = bench.build("FROM busybox\nRUN readlink /proc/self/ns/net > /x\n", "--no-cache", "--network", "host")
    assert bench.run(image, "cat /x") == str(Path("/proc/self/ns/net").readlink())


def test_another_platform(bench: Bench) -> None:
    bench.write("a")
    image = bench.build("FROM scratch\nCOPY a /\n", "--platform", "linux/arm64")
    assert (bench.image(image)["Architecture"], bench.image(image)["Variant"]) == ("arm64", "v8")


@pytest.mark.parametrize("flag", ["--rm=false", "--force-rm"])
def test_no_container_of_a_build_is_ever_left(bench: Bench, flag: str) -> None:
    bench.output("FROM busybox\nRUN echo 1\n", "--no-cache", flag)
    bench.fails("FROM busybox\nRUN exit 3\n", "--no-cache", flag, code=3)
    assert bench.engine.out("ps", "-aq") == ""


def test_the_messages(bench: Bench) -> None:
    """What a program sees on the socket: the id comes as `aux`."""
    query = urlencode({"dockerfile": "Dockerfile", "t": "messages", "networkmode": "none"})
    status, messages = bench.engine.api("POST", f"/v1.41/build?{query}", _context("FROM busybox\nENV x=1\n"), TAR)
    assert status == 200
    identity = bench.image("messages")["Id"]
    assert [message for message in messages if "aux" in message] == [{"aux": {"ID": identity}}]
    assert "".join(message.get("stream", "") for message in messages).startswith("Step 1/2 : FROM busybox\n ---> ")


def test_a_failure_among_the_messages(bench: Bench) -> None:
    status, messages = bench.engine.api("POST", "/build?networkmode=none", _context("FROM busybox\nRUN exit 9\n"), TAR)
    assert status == 200
    message = "The command '/bin/sh -c exit 9' returned a non-zero code: 9"
    assert messages[-1] == {"errorDetail": {"code": 9, "message": message}, "error": message}


def test_docker_py(bench: Bench) -> None:
    bench.write("Dockerfile", "FROM busybox\nARG a\nRUN echo $a > /x\n")
    client = docker_py.DockerClient(bench.engine.host)
    try:
        image, log = client.images.build(path=str(bench.directory), tag="py", buildargs={"a": "1"}, network_mode="none", rm=True)
        assert image.tags == ["py:latest"]
        assert any("Successfully built" in str(line.get("stream")) for line in log)
        with pytest.raises(docker_py.errors.BuildError, match="returned a non-zero code: 4"):
            bench.write("Dockerfile", "FROM busybox\nRUN exit 4\n")
            client.images.build(path=str(bench.directory))
        with pytest.raises(docker_py.errors.APIError, match="unknown instruction: FOO"):
            bench.write("Dockerfile", "FROM busybox\nFOO\n")
            client.images.build(path=str(bench.directory))
    finally:
        client.close()


def _context(dockerfile: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile.encode()))
    return out.getvalue()


def test_events_tell_of_the_name(bench: Bench) -> None:
    start = time.time()
    image = bench.build("FROM busybox\nENV told=1\n", "-t", "told")
    times = ("--since", f"{start:.6f}", "--until", f"{time.time():.6f}")
    events = bench.engine.out("events", *times, "--filter", "event=tag", "--format", "{{json .}}")
    assert any(json.loads(line)["Actor"]["ID"] == image for line in events.splitlines())
