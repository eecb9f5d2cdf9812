"""Where a build's files come from: a directory, standard input, a tar, a git repository, a URL; and what they hide."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.integration.build.conftest import DOCKERS, Bench
from tests.integration.registry.conftest import free_port, needs_peer, start_peer

TAR = {"Content-Type": "application/x-tar"}


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_dockerfile_from_standard_input(bench: Bench, docker: str) -> None:
    bench.engine.docker("build", "-t", "piped", "-", input="FROM busybox\nENV from=stdin\n", docker=docker)
    assert bench.config("piped")["Env"][-1] == "from=stdin"


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_dockerfile_from_standard_input_and_a_directory(bench: Bench, docker: str) -> None:
    bench.write("file", "content")
    image = bench.build(None, "-f", "-", input="FROM busybox\nCOPY file /x\n", docker=docker)
    assert bench.run(image, "cat /x") == "content"


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_dockerfile_outside_the_context(bench: Bench, tmp_path: Path, docker: str) -> None:
    bench.write("file", "content")
    (tmp_path / "Elsewhere").write_text("FROM busybox\nCOPY . /x\n")
    image = bench.build(None, "-f", str(tmp_path / "Elsewhere"), docker=docker)
    assert list(bench.files(image, "x")) == ["x", "x/file"]


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_dockerfile_in_a_subdirectory(bench: Bench, docker: str) -> None:
    bench.write("sub/Special", "FROM busybox\nCOPY file /x\n")
    bench.write("file", "content")
    assert bench.run(bench.build(None, "-f", str(bench.directory / "sub/Special"), docker=docker), "cat /x") == "content"


def test_a_tar_from_standard_input(bench: Bench) -> None:
    tar = tar_of(("made/Dockerfile", "FROM busybox\nCOPY made/file /x\n"), ("made/file", "content"))
    for data in (tar, gzip.compress(tar)):
        bench.engine.docker("build", "-t", "piped", "-f", "made/Dockerfile", "-", input=data)
        assert bench.run("piped", "cat /x") == "content"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 400, "malformed tar: empty file"),
        (b"no tar at all" * 100, 400, "malformed tar"),
        (gzip.compress(b"x" * 512 * 3)[:-10], 400, "malformed tar"),
    ],
)
def test_what_is_no_context(bench: Bench, data: bytes, status: int, message: str) -> None:
    answer, body = bench.engine.api("POST", "/build", data, TAR)
    assert answer == status
    assert message in body["message"]


def test_a_context_that_leaves_its_directory(bench: Bench) -> None:
    for name in ("../../escaped", "/../escaped", "x/../../../escaped"):
        status, body = bench.engine.api("POST", "/build", tar_of((name, "x")), TAR)
        assert (status, "leaves the directory" in body["message"]) == (400, True)


def test_a_dockerfile_that_is_a_link_out_of_the_context(bench: Bench) -> None:
    (bench.directory / "Dockerfile").symlink_to("/etc/passwd")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(bench.directory / "Dockerfile", "Dockerfile")
    status, body = bench.engine.api("POST", "/build", out.getvalue(), TAR)
    assert (status, body["message"]) == (400, "Cannot locate specified Dockerfile: Dockerfile")


def test_no_dockerfile(bench: Bench) -> None:
    status, body = bench.engine.api("POST", "/build?dockerfile=Other", tar_of(("x", "")), TAR)
    assert (status, body["message"]) == (400, "Cannot locate specified Dockerfile: Other")


# --- .dockerignore ---


def _files(bench: Bench) -> list[str]:
    image = bench.build("FROM busybox\nCOPY . /x\n")
    return [name[2:] for name in bench.files(image, "x/")]


@pytest.fixture
def tree(bench: Bench) -> Bench:
    for name in ("a.txt", "b.md", "README.md", "d/a.txt", "d/b.md", "d/e/c.md", "node/deep/x"):
        bench.write(name)
    return bench


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        (
            "",
            [
                "Dockerfile",
                "README.md",
                "a.txt",
                "b.md",
                "d",
                "d/a.txt",
                "d/b.md",
                "d/e",
                "d/e/c.md",
                "node",
                "node/deep",
                "node/deep/x",
            ],
        ),
        ("*.md\nDockerfile\n.dockerignore\nnode", ["a.txt", "d", "d/a.txt", "d/b.md", "d/e", "d/e/c.md"]),
        ("**/*.md\n!README.md\nDockerfile\n.docker*\nno*", ["README.md", "a.txt", "d", "d/a.txt", "d/e"]),
        ("# all\n*\n!d/e\n!README.md\n", ["README.md", "d", "d/e", "d/e/c.md"]),
        ("*\n!*.md\nb.md", ["README.md"]),
    ],
)
def test_ignored_files(tree: Bench, rules: str, seen: list[str]) -> None:
    tree.write(".dockerignore", rules)
    assert sorted(set(_files(tree)) - {".dockerignore"}) == seen


def test_the_engine_ignores_what_a_client_sent_all_the_same(bench: Bench) -> None:
    tar = tar_of(
        (".dockerignore", "secret\nd\n!d/seen\n"),
        ("Dockerfile", "FROM busybox\nCOPY . /x\n"),
        ("secret", "s"),
        ("d/hidden", ""),
        ("d/seen", ""),
    )
    bench.engine.api("POST", "/build?t=ignoring", tar, TAR)
    assert list(bench.files("ignoring", "x/")) == ["x/.dockerignore", "x/Dockerfile", "x/d", "x/d/seen"]


def test_a_dockerfile_with_rules_of_its_own(bench: Bench) -> None:
    bench.write("a")
    bench.write("b")
    bench.write("Special", "FROM busybox\nCOPY a b* /x/\n")
    bench.write("Special.dockerignore", "a\n")
    assert "stat a: file does not exist" in bench.fails(None, "-f", str(bench.directory / "Special"))


def test_an_ignored_file_is_missing(tree: Bench) -> None:
    tree.write(".dockerignore", "a.txt\nd\n")
    for source in ("a.txt", "d", "d/a.txt", "*.txt"):
        assert "COPY failed: " in tree.fails(f"FROM busybox\nCOPY {source} /x/\n")


# --- from elsewhere ---


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and the URL where it is served."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    directory = tmp_path / "served"
    directory.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield directory, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def remote(bench: Bench, url: str, **query: str) -> tuple[int, Any]:
    """`POST /build` with a remote context, which the docker command fetches itself and other clients leave to the engine."""
    return bench.engine.api("POST", f"/build?{urlencode({'remote': url, 't': 'remote', 'networkmode': 'none', **query})}")


def test_a_tar_behind_a_url(bench: Bench, files: tuple[Path, str]) -> None:
    directory, url = files
    tar = tar_of(("Dockerfile", "FROM busybox\nCOPY file /x\n"), ("file", "from afar"))
    (directory / "context.tar.gz").write_bytes(gzip.compress(tar))
    status, messages = remote(bench, f"{url}/context.tar.gz")
    assert (status, "error" in messages[-1]) == (200, False), messages
    assert bench.run("remote", "cat /x") == "from afar"


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_tar_behind_a_url_through_the_command(bench: Bench, files: tuple[Path, str], docker: str) -> None:
    directory, url = files
    (directory / "context.tar").write_bytes(tar_of(("Dockerfile", "FROM busybox\nENV a=afar\n")))
    bench.engine.docker("build", "-t", "remote", f"{url}/context.tar", docker=docker)
    assert bench.config("remote")["Env"][-1] == "a=afar"


def test_a_dockerfile_behind_a_url(bench: Bench, files: tuple[Path, str]) -> None:
    directory, url = files
    (directory / "Dockerfile").write_text("FROM busybox\nENV a=remote\n")
    assert remote(bench, f"{url}/Dockerfile")[0] == 200
    assert bench.config("remote")["Env"][-1] == "a=remote"


def test_urls_that_give_no_context(bench: Bench, files: tuple[Path, str]) -> None:
    directory, url = files
    (directory / "binary").write_bytes(b"\xff\xfe\x00" * 100)
    assert remote(bench, f"{url}/missing") == (400, {"message": f"failed to fetch the context {url}/missing: 404 File not found"})
    assert remote(bench, f"{url}/binary") == (400, {"message": f"{url}/binary is neither a tar nor a Dockerfile"})
    for bad in ("file:///etc", "/etc", "ftp://127.0.0.1/x", "ext::sh -c true .git#x"):
        status, body = remote(bench, bad)
        assert (status, "is neither a git repository nor a URL" in body["message"]) == (400, True), body


def git(directory: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    return subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A repository with a branch, a tag and a subdirectory, and the URL where git's own daemon serves it."""
    path = tmp_path / "repositories/project.git"
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    (path / "sub").mkdir()
    for number, place in ((1, path), (2, path / "sub")):
        (place / "Dockerfile").write_text(f"FROM busybox\nCOPY . /x\nENV n={number}\n")
    git(path, "add", ".")
    git(path, "commit", "-qm", "first")
    git(path, "tag", "v1")
    git(path, "checkout", "-qb", "side")
    (path / "Dockerfile").write_text("FROM busybox\nENV n=side\n")
    git(path, "commit", "-qam", "second")
    git(path, "checkout", "-q", "main")
    git(path, "update-server-info")
    port = free_port()
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all",
         f"--base-path={tmp_path}/repositories"],
        env={"PATH": os.environ["PATH"], "HOME": "/"},
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _await_port(port)
        yield path, f"git://127.0.0.1:{port}/project.git"
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(10)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise AssertionError("git's daemon does not answer")


def test_a_git_repository(bench: Bench, repository: tuple[Path, str]) -> None:
    path, url = repository
    commit = git(path, "rev-parse", "side")
    for fragment, expected in (
        ("", "1"), ("#main", "1"), ("#v1", "1"), ("#side", "side"), (f"#{commit}", "side"),
        ("#:sub", "2"), ("#v1:sub", "2"), ("#:/sub/", "2"),
    ):  # fmt: skip
        status, messages = remote(bench, url + fragment)
        assert (status, "error" in messages[-1]) == (200, False), messages
        assert bench.config("remote")["Env"][-1] == f"n={expected}", fragment
    assert remote(bench, url)[0] == 200
    assert list(bench.files("remote", "x/")) == ["x/Dockerfile", "x/sub", "x/sub/Dockerfile"]  # and nothing of git's


@pytest.mark.parametrize("docker", DOCKERS)
def test_a_git_repository_through_the_command(bench: Bench, repository: tuple[Path, str], docker: str) -> None:
    bench.engine.docker("build", "-t", "remote", f"{repository[1]}#side", docker=docker)
    assert bench.config("remote")["Env"][-1] == "n=side"


def test_a_git_repository_of_plain_files(bench: Bench, repository: tuple[Path, str], files: tuple[Path, str]) -> None:
    directory, url = files
    git(repository[0], "clone", "-q", "--bare", str(repository[0]), str(directory / "plain.git"))
    git(directory / "plain.git", "update-server-info")
    status, messages = remote(bench, f"{url}/plain.git#side")
    assert (status, "error" in messages[-1]) == (200, False), messages
    assert bench.config("remote")["Env"][-1] == "n=side"


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("#nosuch", "git fetch failed: "),
        ("#:nosuch", "'nosuch' is no directory of "),
        ("#:../..", "'../..' is no directory of "),
        ("#:Dockerfile", "'Dockerfile' is no directory of "),
        ("#--upload-pack=touch", "invalid git reference '--upload-pack=touch'"),
    ],
)
def test_git_contexts_that_are_refused(bench: Bench, repository: tuple[Path, str], fragment: str, message: str) -> None:
    status, body = remote(bench, repository[1] + fragment)
    assert (status, message in body["message"]) == (400, True), body


def test_nothing_of_a_context_is_left(bench: Bench, files: tuple[Path, str], repository: tuple[Path, str]) -> None:
    remote(bench, repository[1])
    remote(bench, f"{files[1]}/missing")
    bench.write("file")
    bench.build("FROM busybox\nCOPY . /x\nADD file /y/\n", "--no-cache")
    bench.fails("FROM busybox\nCOPY nosuch /x\n")
    assert list((bench.engine.data_root / "build").iterdir()) == []


# --- base images from registries ---


@needs_peer
def test_bases_are_pulled_with_the_credentials_of_the_client(bench: Bench, tmp_path: Path) -> None:
    directory = tmp_path / "registry"
    directory.mkdir()
    line = subprocess.run(["htpasswd", "-Bbn", "alice", "wonderland"], check=True, capture_output=True).stdout
    (directory / "htpasswd").write_bytes(line)
    with start_peer(directory, auth={"htpasswd": {"realm": "r", "path": str(directory / "htpasswd")}}) as host:
        engine, base = bench.engine, f"{host}/base:1"
        engine.docker("tag", "busybox", base)
        configuration = {"DOCKER_CONFIG": str(tmp_path / "config")}
        engine.docker("login", "-u", "alice", "--password-stdin", host, input="wonderland", env=configuration)
        engine.docker("push", "-q", base, env=configuration)
        engine.docker("rmi", base)
        dockerfile = f"FROM {base}\nRUN echo 1\nCOPY --from={base} /etc/passwd /x\n"
        assert "pull access denied" in bench.fails(dockerfile)
        for flags in ([], ["--pull"]):
            output = bench.output(dockerfile, *flags, env=configuration)
            assert "1: Pulling from base\n" in output
            assert "Status: " in output
        digest = bench.image(base)["RepoDigests"][0]
        engine.docker("rmi", "-f", base)
        bench.build(f"FROM {digest}\nENV a=1\n", env=configuration)
        engine.docker("rmi", "-f", digest)


def tar_of(*files: tuple[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content.encode()))
    return out.getvalue()
