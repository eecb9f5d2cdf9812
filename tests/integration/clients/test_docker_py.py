"""docker-py, as its users write it."""

from __future__ import annotations

import gc
import io
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest
from docker.utils.socket import frames_iter  # type: ignore[import-untyped]
from tests.support.engine import Engine, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""docker-py leaves the connections of its streams to the garbage collector."""


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    found = docker.DockerClient(base_url=engine.host, timeout=30)
    yield found
    found.close()
    gc.collect()


@pytest.fixture
def sleeper(client: Any) -> Any:
    return client.containers.run("busybox", ["sleep", "1000"], name="sleeper", detach=True, init=True, stop_signal="SIGKILL")


@contextmanager
def closed(opened: Any) -> Iterator[Any]:
    """What docker-py gives as a socket: the response below keeps the connection."""
    try:
        yield opened
    finally:
        opened._response.close()
        opened.close()


def _tar(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def _files(chunks: Any) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


# --- the engine ---


def test_it_negotiates_a_version_and_says_what_it_is(engine: Engine, client: Any) -> None:
    negotiated = docker.DockerClient(base_url=engine.host, version="auto")
    assert tuple(map(int, negotiated.api.api_version.split("."))) >= (1, 41)
    assert negotiated.ping()
    assert negotiated.version()["Platform"]["Name"] == "Boxship"
    assert negotiated.info()["OSType"] == "linux"
    assert set(negotiated.df()) == {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    negotiated.close()
    older = docker.DockerClient(base_url=engine.host, version="1.41")
    assert {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"} <= set(older.df())
    older.close()


def test_events_come_as_they_happen_and_again_when_asked_for(client: Any) -> None:
    stream = client.events(decode=True, filters={"type": "container", "container": "told"})
    container = client.containers.run("busybox", ["true"], name="told", detach=True)
    container.wait()
    seen = []
    for event in stream:
        seen.append(event["Action"])
        if event["Action"] == "die":
            assert event["Actor"]["ID"] == container.id
            assert event["Actor"]["Attributes"]["exitCode"] == "0"
            break
    stream.close()
    assert seen == ["create", "start", "die"]
    again = client.events(decode=True, filters={"container": "told"}, since=0, until=event["time"] + 1)
    assert [event["Action"] for event in again if event["Type"] == "container"][:3] == seen


# --- containers ---


def test_run_gives_what_was_printed_and_takes_the_container_away(client: Any) -> None:
    assert client.containers.run("busybox", ["echo", "here"], remove=True) == b"here\n"
    assert client.containers.list(all=True) == []


def test_run_raises_what_went_wrong(client: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"no\n"
    with pytest.raises(docker.errors.APIError) as missing:
        client.containers.run("busybox", ["/nothing"])
    assert missing.value.status_code == 400
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nobody")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nothing-of-this-name")


def test_run_passes_its_options(client: Any) -> None:
    client.volumes.create("kept")
    container = client.containers.run(
        "busybox", ["sh", "-c", "umask; id -u; pwd; echo $COLOUR; cat /etc/hostname; touch /kept/file; grep other /etc/hosts"],
        environment={"COLOUR": "blue"}, user="1000:0", working_dir="/tmp", hostname="host", labels={"a": "b"},
        volumes={"kept": {"bind": "/kept", "mode": "rw"}}, tmpfs={"/scratch": "size=1m"}, mem_limit="64m", nano_cpus=500_000_000,
        extra_hosts={"other": "10.9.8.7"}, cap_drop=["ALL"], ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
        detach=True,
    )  # fmt: skip
    status = container.wait()
    printed = container.logs().decode().splitlines()
    assert printed[1:5] == ["1000", "/tmp", "blue", "host"], printed
    assert status["StatusCode"] == 0, printed
    assert "10.9.8.7" in printed[-1]
    settings = container.attrs["HostConfig"]
    assert (settings["Memory"], settings["NanoCpus"], settings["CapDrop"]) == (64 << 20, 500_000_000, ["ALL"])
    assert container.labels["a"] == "b"


def test_containers_are_listed_with_filters(client: Any, sleeper: Any) -> None:
    stopped = client.containers.create("busybox", ["true"], labels={"part": "two"})
    assert [c.id for c in client.containers.list()] == [sleeper.id]
    assert {c.id for c in client.containers.list(all=True)} == {sleeper.id, stopped.id}
    assert [c.id for c in client.containers.list(all=True, filters={"label": "part=two"})] == [stopped.id]
    assert [c.id for c in client.containers.list(filters={"status": "running", "name": "sleep"})] == [sleeper.id]
    assert client.containers.get("sleeper").status == "running"
    assert client.containers.get("sleeper").image.tags == ["busybox:latest"]


def test_logs_are_followed_and_cut(client: Any) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo one; echo two >&2; read x; echo three"], detach=True, stdin_open=True
    )
    wait_until(lambda: container.logs() == b"one\ntwo\n" or container.logs() == b"two\none\n", "two lines")
    assert container.logs(stderr=False) == b"one\n"
    assert container.logs(stdout=False) == b"two\n"
    stream = container.logs(stream=True, follow=True, stderr=False)
    assert next(stream) == b"one\n"
    with closed(container.attach_socket(params={"stdin": 1, "stream": 1})) as given:
        given._sock.sendall(b"\n")
        assert next(stream) == b"three\n"
        assert list(stream) == []
    assert container.logs(tail=1, stderr=False) == b"three\n"
    assert container.logs(timestamps=True, tail=1).split()[0].endswith(b"Z")


def test_attach_tells_what_is_printed(client: Any) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"])
    stream = container.attach(stream=True, demux=True)
    container.start()
    both = list(stream)
    assert b"".join(out for out, _ in both if out) == b"out\n"
    assert b"".join(err for _, err in both if err) == b"err\n"
    assert container.attach(logs=True, stream=False) in (b"out\nerr\n", b"err\nout\n")


def test_a_socket_is_attached_both_ways(client: Any) -> None:
    made = client.api.create_container("busybox", ["cat"], stdin_open=True, host_config=client.api.create_host_config())
    with closed(client.api.attach_socket(made, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})) as attached:
        client.api.start(made)
        attached._sock.sendall(b"there and back\n")
        attached._sock.shutdown(socket.SHUT_WR)
        assert list(frames_iter(attached, tty=False)) == [(1, b"there and back\n")]
    assert client.api.wait(made)["StatusCode"] == 0


def test_exec_in_all_its_forms(client: Any, sleeper: Any) -> None:
    code, printed = sleeper.exec_run(["sh", "-c", "echo $A; id -u; exit 4"], environment={"A": "b"}, user="1000")
    assert (code, printed) == (4, b"b\n1000\n")
    code, (out, err) = sleeper.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (code, out, err) == (0, b"out\n", b"err\n")
    streamed = sleeper.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True)
    assert streamed.exit_code is None
    assert b"".join(streamed.output) == b"1\n2\n"
    with closed(sleeper.exec_run(["cat"], stdin=True, socket=True).output) as opened:
        opened._sock.sendall(b"typed\n")
        opened._sock.shutdown(socket.SHUT_WR)
        assert list(frames_iter(opened, tty=False)) == [(1, b"typed\n")]
    assert sleeper.exec_run(["pwd"], workdir="/tmp", tty=True).output == b"/tmp\r\n"
    assert sleeper.exec_run(["/nothing"]).exit_code == 127
    made = client.api.exec_create(sleeper.id, ["true"])
    client.api.exec_start(made, detach=True)
    assert wait_until(lambda: not client.api.exec_inspect(made)["Running"], "the end of the exec")
    assert client.api.exec_inspect(made)["ExitCode"] == 0


def test_files_go_in_and_out(client: Any, sleeper: Any) -> None:
    assert sleeper.put_archive("/tmp", _tar(given="text"))
    assert sleeper.exec_run(["cat", "/tmp/given"]).output == b"text"
    chunks, stat = sleeper.get_archive("/tmp/given")
    assert (stat["name"], stat["size"]) == ("given", 4)
    assert _files(chunks) == {"given": b"text"}
    assert {"Path": "/tmp/given", "Kind": 1} in sleeper.diff()
    with pytest.raises(docker.errors.NotFound):
        sleeper.get_archive("/tmp/none")
    assert "etc/passwd" in _files(sleeper.export())


def test_stats_and_top(client: Any, sleeper: Any) -> None:
    once = sleeper.stats(stream=False)
    assert once["pids_stats"]["current"] >= 1
    assert once["memory_stats"]["usage"] > 0
    stream = sleeper.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert first["read"] < second["read"]
    assert second["precpu_stats"]["cpu_usage"]["total_usage"] == first["cpu_stats"]["cpu_usage"]["total_usage"]
    stream.close()
    top = sleeper.top()
    assert any("sleep" in " ".join(process) for process in top["Processes"])


def test_the_life_of_a_container(client: Any, sleeper: Any) -> None:
    sleeper.pause()
    sleeper.reload()
    assert sleeper.status == "paused"
    sleeper.unpause()
    sleeper.rename("renamed")
    sleeper.update(mem_limit="80m", memswap_limit="80m", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    sleeper.restart(timeout=1)
    sleeper.reload()
    assert (sleeper.name, sleeper.status, sleeper.attrs["HostConfig"]["Memory"]) == ("renamed", "running", 80 << 20)
    sleeper.update(restart_policy={"Name": "no"})
    waited: list[Any] = []
    waiting = threading.Thread(target=lambda: waited.append(sleeper.wait(timeout=30)))
    waiting.start()
    sleeper.kill("KILL")
    waiting.join(30)
    assert waited[0]["StatusCode"] == 137
    with pytest.raises(docker.errors.APIError) as conflict:
        sleeper.kill()
    assert conflict.value.status_code == 409
    sleeper.start()
    sleeper.stop(timeout=1)
    with pytest.raises(docker.errors.APIError):
        client.containers.create("busybox", name="renamed")
    sleeper.remove(v=True)
    assert client.containers.list(all=True) == []


def test_a_container_becomes_an_image(client: Any) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo text >/file"], detach=True)
    container.wait()
    image = container.commit(
        "committed", "one", message="a change", author="somebody", changes=["ENV A=b"], conf={"Cmd": ["cat", "/file"]}
    )
    try:
        assert image.tags == ["committed:one"]
        assert "A=b" in image.attrs["Config"]["Env"]
        assert image.history()[0]["Comment"] == "a change"
        assert client.containers.run("committed:one", remove=True) == b"text\n"
    finally:
        client.images.remove("committed:one")


def test_prune_takes_the_stopped_ones(client: Any, sleeper: Any) -> None:
    stopped = client.containers.create("busybox", ["true"], labels={"keep": "no"})
    assert client.containers.prune(filters={"label": "keep=yes"})["ContainersDeleted"] is None
    assert client.containers.prune(filters={"label": "keep=no"})["ContainersDeleted"] == [stopped.id]
    assert [c.id for c in client.containers.list(all=True)] == [sleeper.id]


# --- images ---


def test_images_are_built_tagged_saved_loaded_and_removed(client: Any) -> None:
    dockerfile = b"FROM busybox\nARG WHO\nLABEL of=py\nRUN echo hello $WHO >/greeting\nCMD cat /greeting\n"
    image, told = client.images.build(fileobj=io.BytesIO(dockerfile), tag="py:built", buildargs={"WHO": "you"}, rm=True)
    assert any("Successfully built" in line.get("stream", "") for line in told)
    assert client.containers.run("py:built", remove=True) == b"hello you\n"
    assert image.tag("py", "again")
    image.reload()
    assert sorted(image.tags) == ["py:again", "py:built"]
    assert [i.id for i in client.images.list(name="py")] == [image.id]
    assert [i.id for i in client.images.list(filters={"label": "of=py"})] == [image.id]
    saved = b"".join(image.save(named="py:built"))
    client.images.remove("py:again")
    client.images.remove(image.id)
    assert client.images.list(name="py") == []
    (loaded,) = client.images.load(saved)
    assert (loaded.id, loaded.tags) == (image.id, ["py:built"])
    client.images.remove("py:built")
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 7"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 7\n"), rm=True)
    with pytest.raises(docker.errors.APIError):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nBOGUS\n"))


def test_dangling_images_are_pruned(client: Any) -> None:
    image, _ = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nLABEL of=prune\n"))
    assert image.id in [i.id for i in client.images.list(filters={"dangling": True})]
    pruned = client.images.prune(filters={"dangling": True, "label": "of=prune"})
    assert {"Deleted": image.id} in pruned["ImagesDeleted"]
    assert "SpaceReclaimed" in client.images.prune_builds()


def test_a_tar_is_imported(client: Any) -> None:
    told = client.api.import_image_from_data(_tar(file="text"), repository="imported", tag="one", changes=["CMD x"])
    identity = json.loads(told.strip().splitlines()[-1])["status"]
    image = client.images.get("imported:one")
    assert image.id == identity
    assert image.attrs["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    client.images.remove(identity)


# --- networks and volumes ---


def test_networks(client: Any, sleeper: Any) -> None:
    pool = docker.types.IPAMPool(subnet="10.211.7.0/24", gateway="10.211.7.1")
    network = client.networks.create("pynet", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"of": "py"})
    network.connect(sleeper, aliases=["other-name"], ipv4_address="10.211.7.9")
    network.reload()
    assert [c.id for c in network.containers] == [sleeper.id]
    peer = client.containers.run("busybox", ["nslookup", "other-name"], network="pynet", detach=True)
    assert peer.wait()["StatusCode"] == 0
    assert b"10.211.7.9" in peer.logs()
    with pytest.raises(docker.errors.APIError) as used:
        network.remove()
    assert used.value.status_code == 403
    peer.remove()
    network.disconnect(sleeper)
    assert [n.name for n in client.networks.list(names=["pynet"])] == ["pynet"]
    assert client.networks.prune(filters={"label": "of=py"})["NetworksDeleted"] == ["pynet"]
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("pynet")


def test_volumes(client: Any) -> None:
    volume = client.volumes.create("pyvol", labels={"of": "py"})
    client.containers.run("busybox", ["sh", "-c", "echo kept >/v/file"], volumes=["pyvol:/v"], remove=True)
    assert (
        client.containers.run("busybox", ["cat", "/v/file"], volumes={"pyvol": {"bind": "/v", "mode": "ro"}}, remove=True)
        == b"kept\n"
    )
    assert [v.name for v in client.volumes.list(filters={"label": "of=py"})] == ["pyvol"]
    assert client.volumes.get("pyvol").attrs["Mountpoint"] == volume.attrs["Mountpoint"]
    user = client.containers.create("busybox", volumes=["pyvol:/v"])
    with pytest.raises(docker.errors.APIError) as used:
        volume.remove()
    assert used.value.status_code == 409
    user.remove()
    volume.remove()
    anonymous = client.volumes.create()
    assert client.volumes.prune()["VolumesDeleted"] == [anonymous.name]
