"""Every verb of docker's, and its output beside the docker command's."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.cli.conftest import Boxship
from tests.support.engine import Engine, wait_until

GROUPS = {
    "container": "attach commit cp create diff exec export inspect kill logs ls pause port prune rename restart rm run start stats "
    "stop top unpause update wait",
    "image": "build history import inspect load ls prune pull push rm save tag",
    "network": "connect create disconnect inspect ls prune rm",
    "volume": "create inspect ls prune rm update",
    "system": "df dial-stdio events info prune",
    "builder": "build prune",
    "context": "create export import inspect ls rm show update use",
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_verb_of_the_reference_is_there(boxship: Boxship, group: str) -> None:
    shown = boxship(group, "--help").stdout
    for verb in GROUPS[group].split():
        assert boxship(group, verb, "--help").stdout.startswith(f"Usage: boxship {group} {verb}")
        assert f"  {verb} " in shown or verb in ("update", "export", "import", "dial-stdio")


@pytest.mark.parametrize("verb", ["buildx", "compose", "swarm", "search", "plugin"])
def test_what_we_have_not_says_so(boxship: Boxship, verb: str) -> None:
    assert "not supported" in boxship(verb, code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",), ("ps", "-aq", "--no-trunc"), ("ps", "--format", "{{.Names}} {{.Image}} {{.Status}}"),
        ("ps", "--format", "table {{.ID}}\t{{.Ports}}"), ("images",), ("images", "-q"), ("network", "ls"),
        ("network", "ls", "--format", "table {{.Name}}\t{{.IPv6}}"), ("volume", "ls"), ("volume", "ls", "-q"),
        ("port", "cc"), ("inspect", "-f", "{{.State.Status}} {{json .Config.Cmd}}", "cc"), ("history", "busybox"),
        ("top", "cc"), ("diff", "cc"), ("logs", "cc"), ("network", "inspect", "-f", "{{.Name}}", "bridge"),
        ("system", "df"), ("system", "df", "-v"), ("system", "df", "--format", "{{.Type}} {{.Reclaimable}}"),
    ],
)  # fmt: skip
def test_the_same_output_as_docker(boxship: Boxship, engine: Engine, arguments: tuple[str, ...]) -> None:
    engine.docker("volume", "create", "data")
    engine.docker("run", "-di", "--name", "cc", "-p", "127.0.0.1::80", "-v", "data:/d", "busybox", "sh", "-c", "echo hi; read line")
    wait_until(lambda: engine.out("logs", "cc") == "hi", "it has begun")
    # times are told in seconds, which pass
    wait_until(lambda: boxship(*arguments).stdout.rstrip() == engine.out(*arguments).rstrip(), "the outputs agree")


def test_copies_both_ways(boxship: Boxship, tmp_path: Path) -> None:
    boxship("create", "--name", "cc", "busybox", "true")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_text("text")
    boxship("cp", str(tmp_path / "in"), "cc:/root/")
    boxship("cp", "cc:/root/in", str(tmp_path / "out"))
    assert (tmp_path / "out" / "deep" / "file").read_text() == "text"


def test_builds_a_directory_without_what_is_ignored(boxship: Boxship, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nCOPY . /c\nRUN test -f /c/kept && test ! -e /c/lost -a ! -e /c/Dockerfile\n"
    )
    (tmp_path / ".dockerignore").write_text("lost\nDockerfile\n")
    (tmp_path / "kept").touch()
    (tmp_path / "lost").touch()
    boxship("build", "-q", "-t", "built", str(tmp_path))
    boxship("build", "-q", "-f", "-", str(tmp_path), input="FROM busybox\nCOPY . /c\nRUN test -f /c/kept -a ! -e /c/lost\n")
    boxship("build", "-q", "-", input="FROM busybox\nRUN true\n")
    boxship("rmi", "built")


def test_contexts_are_the_docker_commands(boxship: Boxship, engine: Engine) -> None:
    boxship("context", "create", "mine", "--docker", f"host={engine.host}")
    without = {"DOCKER_HOST": ""}
    assert "mine" in engine.out("context", "ls", "--format", "{{.Name}}")
    assert boxship("--context", "mine", "ps", "-q", env=without).stdout == ""
    boxship("context", "rm", "mine")
