"""Pull and push through the docker command: Debian's registry, and our own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest
from tests.integration.clients.test_images import build, listed
from tests.integration.conftest import NewEngine
from tests.integration.registry.conftest import (  # noqa: F401 - fixtures among them
    Authority,
    Ours,
    _peer,
    authority,
    free_port,
    needs_peer,
    new_ours,
    ours,
    start_peer,
)
from tests.integration.registry.pictures import Putter, digest, large_layer, picture, tar_of
from tests.support.engine import DOCKER, Engine, running_engine, wait_until

from boxship.http.message import Handler, Request, Response

pytestmark = needs_peer


@pytest.fixture(scope="module")
def _own(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("registries"), "--registry-listen", f"127.0.0.1:{free_port()}") as engine:
        yield engine


@pytest.fixture
def own(_own: Engine) -> Iterator[Engine]:
    """A daemon with a registry of its own, whose images but busybox go after each test."""
    yield _own
    _own.clean()
    remove_all(_own)


def remove_all(engine: Engine) -> None:
    for image in engine.api("GET", "/images/json")[1]:
        for name in [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]:
            if name != "busybox:latest":
                engine.docker("rmi", name, check=False)
    engine.docker("image", "prune", "-f")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    line = subprocess.run(["htpasswd", "-Bbn", "alice", "wonderland"], check=True, capture_output=True).stdout
    (directory / "htpasswd").write_bytes(line)
    with start_peer(directory, auth={"htpasswd": {"realm": "tea party", "path": str(directory / "htpasswd")}}) as host:
        yield host


@pytest.fixture(params=["peer", "ours"])
def registry(request: pytest.FixtureRequest, own: Engine, _peer: str) -> str:  # noqa: F811
    """Debian's registry, and the daemon's own."""
    return _peer if request.param == "peer" else own.flags[1]


# --- there and back ---


def test_push_and_pull_tell_their_progress(own: Engine, registry: str) -> None:
    name = f"{registry}/progress:v1"
    build(own, "RUN echo pushed >/file", name)
    image = own.out("images", "-q", "--no-trunc", name)
    first = own.out("push", name).splitlines()
    assert first[0] == f"The push refers to repository [{registry}/progress]"
    assert [line.partition(": ")[2] for line in first[1:-1]].count("Preparing") == 2
    assert first[-1].startswith("v1: digest: sha256:")
    assert own.out("push", name).count("Layer already exists") == 2

    by_digest = own.out("image", "inspect", "-f", "{{index .RepoDigests 0}}", name)
    assert by_digest.split("@")[1] in first[-1]
    own.docker("rmi", name)
    own.docker("builder", "prune", "-af")
    told = own.out("pull", name).splitlines()
    assert told[0] == "v1: Pulling from progress"
    assert sum("Already exists" in line for line in told) == 1
    assert sum("Pull complete" in line for line in told) == 1
    assert told[-3:] == [f"Digest: {by_digest.split('@')[1]}", f"Status: Downloaded newer image for {name}", name]
    assert f"Status: Image is up to date for {name}" in own.out("pull", name)
    assert own.out("images", "-q", "--no-trunc", name) == image
    assert own.out("run", "--rm", name, "cat", "/file") == "pushed"


def test_an_image_is_pulled_and_removed_by_its_digest(own: Engine, registry: str) -> None:
    name = f"{registry}/digested:v1"
    build(own, "LABEL of=digest", name)
    own.docker("push", name)
    by_digest = own.out("image", "inspect", "-f", "{{index .RepoDigests 0}}", name)
    image = own.out("images", "-q", "--no-trunc", name)
    removed = own.out("rmi", name).splitlines()
    assert removed == [f"Untagged: {name}", f"Untagged: {by_digest}", f"Deleted: {image}"]
    assert own.out("pull", "-q", by_digest) == by_digest
    assert own.out("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", f"{registry}/digested") == (
        f"{registry}/digested <none> {by_digest.split('@')[1]}"
    )
    assert own.out("run", "--rm", by_digest, "echo", "here") == "here"
    assert own.out("rmi", by_digest).splitlines() == [f"Untagged: {by_digest}", f"Deleted: {image}"]


def test_every_tag_of_a_repository(own: Engine, registry: str) -> None:
    for tag in ("a", "b", "c"):
        build(own, f"LABEL of={tag}", f"{registry}/many:{tag}")
    assert own.out("push", "-a", f"{registry}/many").count("digest: sha256:") == 3
    own.docker("rmi", *(f"{registry}/many:{tag}" for tag in "abc"))
    assert own.out("pull", "-a", f"{registry}/many").count("Digest: sha256:") == 3
    assert listed(own, f"{registry}/many") == [f"{registry}/many:{tag}" for tag in "abc"]
    moved = own.docker("push", f"{registry}/many", check=False)
    assert f"An image does not exist locally with the tag: {registry}/many" in moved.stderr


def test_run_pulls_what_is_not_here(own: Engine, registry: str) -> None:
    name = f"{registry}/missing:v1"
    own.docker("tag", "busybox", name)
    own.docker("push", name)
    own.docker("rmi", name)
    done = own.docker("run", "--rm", name, "echo", "here")
    assert done.stdout == "here\n"
    assert f"Unable to find image '{name}' locally" in done.stderr
    assert "Status: Downloaded newer image" in done.stderr
    assert own.docker("run", "--rm", "--pull", "never", f"{registry}/missing:v2", check=False).returncode == 125
    assert "Status: Image is up to date" in own.docker("run", "--rm", "--pull", "always", name, "true").stderr


async def test_the_platform_is_chosen_from_an_index(own: Engine, registry: str) -> None:
    putter = Putter(f"http://{registry}")
    images = {arch: picture(tar_of(arch=arch.encode()), architecture=arch) for arch in ("amd64", "arm64", "s390x")}
    top = await putter.index("indexed", "v1", *images.values())
    await putter.http.aclose()
    name = f"{registry}/indexed:v1"

    def check() -> None:
        for platform, image in images.items():
            assert f"Digest: {top}" in own.out("pull", "--platform", f"linux/{platform}", name)
            assert own.out("image", "inspect", "-f", "{{.Id}} {{.Architecture}}", name) == f"{image.id} {platform}"
        missing = own.docker("pull", "--platform", "linux/riscv64", name, check=False)
        assert missing.returncode == 1
        assert "no matching manifest for linux/riscv64" in missing.stderr
        seen = json.loads(own.out("manifest", "inspect", "--insecure", name))
        assert [entry["platform"]["architecture"] for entry in seen["manifests"]] == list(images)

    await asyncio.to_thread(check)


# --- who asks ---


def test_login_opens_a_guarded_registry(own: Engine, guarded: str) -> None:
    name = f"{guarded}/secret:v1"
    own.docker("tag", "busybox", name)
    for verb in ("push", "pull"):
        refused = own.docker(verb, name, check=False)
        assert refused.returncode == 1
        assert "no basic auth credentials" in refused.stderr or "unauthorized: authentication required" in refused.stderr
    wrong = own.docker("login", "-u", "alice", "--password-stdin", guarded, input="looking-glass", check=False)
    assert wrong.returncode == 1
    assert "401" in wrong.stderr or "unauthorized" in wrong.stderr
    assert "Login Succeeded" in own.out("login", "-u", "alice", "--password-stdin", guarded, input="wonderland")
    own.docker("push", name)
    own.docker("rmi", name)
    own.docker("pull", name)
    build(own, "LABEL of=login", f"{guarded}/derived:v1")
    own.docker("rmi", name)
    assert own.out("build", "-q", "-", input=f"FROM {name}\nLABEL a=b\n").startswith("sha256:")
    own.docker("logout", guarded)
    assert own.docker("pull", name, check=False).returncode == 1


@pytest.fixture
def mutual(authority: Authority, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    """A registry that speaks TLS with those whose certificate is of a private authority."""
    tls: dict[str, Any] = {"certificate": str(authority.certificate), "key": str(authority.key), "clientcas": [str(authority.ca)]}
    with start_peer(tmp_path / "mutual", http={"tls": tls}) as host:
        yield host


def test_certificates_are_taken_from_certs_d(own: Engine, mutual: str, authority: Authority) -> None:  # noqa: F811
    name, directory = f"{mutual}/sealed:v1", Path("/etc/docker/certs.d") / mutual
    own.docker("tag", "busybox", name)
    refused = own.docker("push", name, check=False)
    assert refused.returncode == 1
    assert f'Get "http://{mutual}/v2/": ' in refused.stderr
    made = next(parent for parent in (directory, *directory.parents) if parent.parent.exists())
    directory.mkdir(parents=True)
    try:
        shutil.copy(authority.ca, directory / "ca.crt")
        for suffix, source in (("cert", "client.crt"), ("key", "client.key")):
            shutil.copy(authority.directory / source, directory / f"client.{suffix}")
        own.docker("push", name)
        own.docker("rmi", name)
        own.docker("pull", name)
    finally:
        shutil.rmtree(made)


def test_a_mirror_stands_for_docker_hub(own: Engine, _peer: str, new_engine: NewEngine) -> None:  # noqa: F811
    build(own, "LABEL of=mirror", f"{_peer}/library/mirrored:latest", f"{_peer}/team/mirrored:v1")
    image = own.out("images", "-q", "--no-trunc", f"{_peer}/team/mirrored:v1")
    for name in ("library/mirrored", "team/mirrored:v1"):
        own.docker("push", f"{_peer}/{name}")
    engine = new_engine(
        "--registry-mirror", f"http://{_peer}", "--insecure-registry", "10.0.0.0/8", "--insecure-registry", "registry.test:5000",
        "--log-driver", "local", busybox=False,
    )  # fmt: skip
    for name in ("mirrored:latest", "team/mirrored:v1"):
        assert f"Status: Downloaded newer image for {name}" in engine.out("pull", name)
        assert engine.out("images", "-q", "--no-trunc", name) == image
    shown = [line.strip() for line in engine.out("info").splitlines()]
    assert {"10.0.0.0/8", "registry.test:5000", "127.0.0.0/8", "Logging Driver: local"} <= set(shown)
    assert any(line.startswith(f"http://{_peer}") for line in shown)


# --- what goes wrong ---


def test_errors_are_in_docker_s_words(own: Engine, registry: str) -> None:
    own.docker("tag", "busybox", f"{registry}/words:v1")
    own.docker("push", f"{registry}/words:v1")
    own.docker("tag", "busybox", "127.0.0.1:1/x:v1")
    for arguments, message in (
        (("pull", f"{registry}/words:v2"), f"manifest for {registry}/words:v2 not found: manifest unknown"),
        (("pull", f"{registry}/words@sha256:{'0' * 64}"), f"manifest for {registry}/words@sha256:{'0' * 64} not found"),
        (("pull", "127.0.0.1:1/x"), 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'),
        (("push", "127.0.0.1:1/x:v1"), "dial tcp 127.0.0.1:1: connect: connection refused"),
        (("pull", "no-such-host.invalid/x"), "lookup no-such-host.invalid: no such host"),
        (("push", f"{registry}/nobody:v1"), f"An image does not exist locally with the tag: {registry}/nobody"),
        (("pull", f"{registry}/Upper"), "invalid reference format"),
    ):
        done = own.docker(*arguments, check=False)
        assert done.returncode == 1, arguments
        assert message in done.stderr, arguments


async def test_four_clients_fetch_each_blob_once(own: Engine, ours: Ours) -> None:  # noqa: F811
    image = picture(tar_of(a=b"a" * 50_000), large_layer())
    await ours.putter.image("shared", "v1", image)
    ours.asked.clear()

    async def pull() -> int:
        process = await asyncio.create_subprocess_exec(
            DOCKER, "pull", "-q", f"{ours.host}/shared:v1", env=own.environment(), stdout=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    assert await asyncio.gather(*(pull() for _ in range(4))) == [0, 0, 0, 0]
    for blob in image.blobs:
        assert ours.count("GET", digest(blob)) == 1


async def test_a_pull_whose_daemon_was_killed_goes_on(ours: Ours, tmp_path: Path) -> None:  # noqa: F811
    image = picture(large_layer(8 << 20))
    await ours.putter.image("cut", "v1", image)
    (blob,) = image.blobs
    half, stalled, go_on = 4_000_000, asyncio.Event(), asyncio.Event()

    async def answering(request: Request, handle: Handler) -> Response | None:
        if digest(blob) not in request.path or request.method != "GET" or request.headers.get("Range"):
            return None

        async def part() -> AsyncIterator[bytes]:
            yield blob[:half]
            stalled.set()
            await go_on.wait()

        return Response(200, part(), {"Content-Length": str(len(blob))})

    ours.answering = answering

    def held(engine: Engine) -> int:
        return sum(path.stat().st_size for path in (engine.data_root / "content" / "ingest").glob("*/data"))

    with running_engine(tmp_path / "killed", busybox=False) as engine:
        process = await asyncio.create_subprocess_exec(
            DOCKER, "pull", f"{ours.host}/cut:v1", env=engine.environment(), stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await stalled.wait()
        await asyncio.to_thread(wait_until, lambda: held(engine) > half // 2, "bytes of the layer on the disk")
        engine.kill()
        assert await process.wait() != 0
        go_on.set()
        await asyncio.to_thread(engine.start)
        assert await asyncio.to_thread(engine.out, "images", "-aq") == ""
        kept = held(engine)
        ours.asked.clear()
        await asyncio.to_thread(engine.docker, "pull", f"{ours.host}/cut:v1")
        (ranges,) = [ranges for method, path, ranges in ours.asked if method == "GET" and digest(blob) in path]
        assert ranges == f"bytes={kept}-"
        assert await asyncio.to_thread(engine.out, "images", "-q", "--no-trunc") == image.id
        await asyncio.to_thread(engine.docker, "rmi", image.id)
    with contextlib.suppress(ConnectionError):
        await ours.putter.http.aclose()


# --- other clients ---


def test_docker_py_pushes_and_pulls(own: Engine, registry: str) -> None:
    client = docker.DockerClient(base_url=own.host, timeout=30)
    try:
        client.images.get("busybox").tag(f"{registry}/py", "v1")
        pushed = list(client.images.push(f"{registry}/py", tag="v1", stream=True, decode=True))
        assert pushed[-1]["aux"]["Tag"] == "v1"
        client.images.remove(f"{registry}/py:v1")
        image = client.images.pull(f"{registry}/py", tag="v1")
        assert sorted(image.tags) == sorted(["busybox:latest", f"{registry}/py:v1"])
        data = client.images.get_registry_data(f"{registry}/py:v1")
        assert data.id == pushed[-1]["aux"]["Digest"]
        assert data.has_platform("linux/amd64")
        assert [i.tags for i in client.images.pull(f"{registry}/py", all_tags=True)] == [image.tags]
        with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
            client.images.pull(f"{registry}/py", tag="v2")
        told = list(client.images.push(f"{registry}/nobody", stream=True, decode=True))
        assert told[-1]["error"] == f"An image does not exist locally with the tag: {registry}/nobody"
        with pytest.raises(docker.errors.APIError, match="connection refused"):
            client.login("alice", "wonderland", registry="127.0.0.1:1")
    finally:
        client.close()


@pytest.mark.skipif(not Path("/usr/bin/docker").exists(), reason="the docker command of 20.10 is not installed")
def test_the_docker_command_of_20_10(own: Engine, registry: str, tmp_path: Path) -> None:
    def out(*arguments: str, **options: Any) -> str:
        return own.out(*arguments, docker="/usr/bin/docker", **options)

    name = f"{registry}/older:v1"
    out("build", "-q", "-t", name, "-", input="FROM busybox\nRUN echo text >/file\n")
    out("push", name)
    out("save", "-o", str(tmp_path / "saved.tar"), name)
    out("rmi", name)
    assert f"Loaded image: {name}" in out("load", "-i", str(tmp_path / "saved.tar"))
    out("rmi", name)
    assert f"Status: Downloaded newer image for {name}" in out("pull", name)
    assert out("run", "--rm", name, "cat", "/file") == "text"
    assert out("images", "--format", "{{.Repository}}:{{.Tag}}", f"{registry}/older") == name
    assert out("history", "--format", "{{.CreatedBy}}", name).startswith("/bin/sh -c echo text >/file")
    assert "Images" in out("system", "df", "-v")
