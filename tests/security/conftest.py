from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest
from tests.support.engine import Engine, running_engine
from tests.support.runtime import Runtime, runtime


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with runtime(tmp_path_factory.mktemp("k")) as made:
        yield made


@pytest.fixture(scope="module")
def attacked(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("attacked")) as engine:
        yield engine


@pytest.fixture
def engine(attacked: Engine) -> Iterator[Engine]:
    """A daemon for the attacks of one module."""
    yield attacked
    attacked.clean()


@pytest.fixture
def new_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Starts a daemon with the flags given; it ends after the test."""
    with ExitStack() as stack:

        def start(*flags: str, busybox: bool = True) -> Engine:
            return stack.enter_context(running_engine(tmp_path / "engine", *flags, busybox=busybox))

        yield start


@dataclass(frozen=True)
class Outside:
    """A directory of the host: what an attack would read from, or write to."""

    place: Path
    token: str

    @property
    def secret(self) -> Path:
        return self.place / "secret"

    def untouched(self) -> bool:
        return [path.name for path in self.place.iterdir()] == ["secret"] and self.secret.read_text() == self.token


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    made = Outside(tmp_path / "outside", token_hex(16))
    made.place.mkdir()
    made.secret.write_text(made.token)
    return made


@dataclass(frozen=True)
class Python:
    """This interpreter as the attacker's tool."""

    options: Sequence[str]
    """Of `docker run`: they bind what the interpreter needs, read-only."""
    command: Sequence[str]
    """What a program's text comes after."""


@pytest.fixture(scope="session")
def python() -> Python:
    places = {path: None for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.isdir(path)}
    options = [option for place in places for option in ("-v", f"{place}:{place}:ro")]
    return Python(options, (os.path.realpath(sys.executable), "-I", "-c"))
