"""One daemon for all tests that need nothing special of theirs, clean for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.engine import Engine, running_engine


@pytest.fixture(scope="session")
def shared_engine(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The daemon that all tests share; containers, networks, volumes and images of a test go after it."""
    images = shared_engine.images()
    yield shared_engine
    shared_engine.clean(images)


NewEngine = Callable[..., Engine]


@pytest.fixture
def new_engine(tmp_path: Path) -> Iterator[NewEngine]:
    """Starts a daemon with the flags given; it ends after the test."""
    with ExitStack() as stack:
        count = 0

        def start(*flags: str, busybox: bool = True, directory: Path | None = None) -> Engine:
            nonlocal count
            count += 1
            return stack.enter_context(running_engine(directory or tmp_path / f"e{count}", *flags, busybox=busybox))

        yield start
