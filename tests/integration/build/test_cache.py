"""When a step is taken from the cache, as Docker's classic builder decides it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.build.conftest import Bench
from tests.support.engine import Engine

DOCKERFILE = """FROM busybox
ARG a=1
RUN date +%s%N > /first
COPY file dir /copied/
RUN date +%s%N > /second
"""


@pytest.fixture
def context(bench: Bench) -> Bench:
    bench.write("file", os.urandom(8).hex())  # nobody has built this before
    bench.write("dir/inner", "1")
    return bench


def cached(bench: Bench, *flags: str, dockerfile: str | None = None) -> list[bool]:
    """Which steps of a build came from the cache."""
    output = bench.output(dockerfile, *flags)
    return [" ---> Using cache" in step for step in output.split("\nStep ")[2:]]


NOTHING, ALL = [False] * 4, [True] * 4


def test_a_second_build_does_nothing(context: Bench) -> None:
    context.output(DOCKERFILE, "-t", "first", "--no-cache")
    assert cached(context, "-t", "second") == ALL
    assert context.image("first")["Id"] == context.image("second")["Id"]


def _rewrite(context: Bench) -> None:
    """The same files, made anew."""
    for name in ("file", "dir/inner"):
        path = context.directory / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, (1, 1))


def _rename(context: Bench) -> None:
    (context.directory / "dir/inner").rename(context.directory / "dir/other")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda context: None, [True, True, True, True]),
        (_rewrite, [True, True, True, True]),
        (lambda context: context.write("unrelated"), [True, True, True, True]),
        (lambda context: context.write("file", "changed"), [True, True, False, False]),
        (lambda context: context.write("dir/new"), [True, True, False, False]),
        (lambda context: (context.directory / "file").chmod(0o600), [True, True, False, False]),
        (_rename, [True, True, False, False]),
        (lambda context: context.write("Dockerfile", DOCKERFILE + "\n# comment\n"), [True, True, True, True]),
        (lambda context: context.write("Dockerfile", DOCKERFILE.replace("/second", "/third")), [True, True, True, False]),
        (lambda context: context.write("Dockerfile", DOCKERFILE.replace("/copied", "/other")), [True, True, False, False]),
        (lambda context: context.write("Dockerfile", DOCKERFILE.replace("a=1", "a=2")), NOTHING),
        (lambda context: context.write("Dockerfile", DOCKERFILE.replace("COPY", "COPY --chown=5")), [True, True, False, False]),
        (lambda context: context.write("Dockerfile", DOCKERFILE.replace("COPY", "COPY --chmod=700")), [True, True, False, False]),
    ],
)  # fmt: skip
def test_what_counts(context: Bench, change: Callable[[Bench], object], expected: list[bool]) -> None:
    context.output(DOCKERFILE, "--no-cache")
    change(context)
    assert cached(context) == expected


def test_an_argument_counts_from_where_it_is_declared(context: Bench) -> None:
    dockerfile = "FROM busybox\nRUN echo before\nARG a\nRUN echo after\n"
    context.output(dockerfile, "--no-cache", "--build-arg", "a=1")
    assert cached(context, "--build-arg", "a=1") == ALL[:3]
    assert cached(context, "--build-arg", "a=2") == [True, True, False]
    assert cached(context, "--build-arg", "a=1", "--build-arg", "HTTP_PROXY=x") == ALL[:3]


def test_without_the_cache(context: Bench) -> None:
    first = context.build(DOCKERFILE)
    assert cached(context, "--no-cache") == NOTHING
    assert context.build(None) != first  # what was made last counts from now on
    assert cached(context) == ALL


def test_another_base_counts(context: Bench) -> None:
    context.output(DOCKERFILE, "--no-cache")
    context.build("FROM busybox\nENV other=base\n", "-t", "base")
    assert cached(context, dockerfile=DOCKERFILE.replace("busybox", "base")) == NOTHING


def test_a_base_by_digest_is_the_same(context: Bench) -> None:
    context.output(DOCKERFILE, "--no-cache")
    assert cached(context, dockerfile=DOCKERFILE.replace("busybox", context.image("busybox")["Id"])) == ALL


def test_stages_share_the_cache(context: Bench) -> None:
    context.output("FROM busybox AS one\nRUN echo 1 > /x\nFROM busybox\nCOPY --from=one /x /y\n", "--no-cache")
    assert context.output(None).count(" ---> Using cache") == 2


def test_copies_from_a_stage_count_by_content(context: Bench) -> None:
    dockerfile = "FROM busybox AS one\nRUN echo {} > /unrelated; echo 1 > /x\nFROM busybox\nCOPY --from=one /x /y\n"
    context.output(dockerfile.format("a"), "--no-cache")
    assert context.output(dockerfile.format("b")).count(" ---> Using cache") == 1


def test_an_image_given_as_cache(context: Bench) -> None:
    context.build(DOCKERFILE, "--no-cache", "-t", "source")
    context.engine.docker("builder", "prune", "-af")
    assert cached(context, "--cache-from", "source") == ALL
    context.engine.docker("builder", "prune", "-af")
    assert cached(context) == NOTHING


def test_the_cache_outlives_its_images_and_a_pruning_ends_it(context: Bench) -> None:
    context.engine.docker("builder", "prune", "-af")
    before = context.layers()
    context.build(DOCKERFILE, "--no-cache", "-t", "gone")
    context.engine.docker("rmi", "gone")
    assert cached(context, "-t", "gone") == ALL
    context.engine.docker("rmi", "gone")
    assert context.layers() > before
    freed = context.engine.out("builder", "prune", "-af")
    assert "Total reclaimed space: " in freed
    assert not freed.endswith(" 0B")
    assert context.layers() == before


def test_the_cache_outlives_the_daemon(new_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = new_engine()
    bench = Bench(engine, tmp_path / "context")
    bench.directory.mkdir()
    bench.write("file", "1")
    bench.write("dir/inner", "1")
    first = bench.build(DOCKERFILE)
    engine.stop()
    engine.start()
    assert cached(bench) == ALL
    engine.kill()
    engine.start()
    assert bench.build(None) == first
