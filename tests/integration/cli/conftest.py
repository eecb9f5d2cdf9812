"""The command `boxship` against the shared daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest
from tests.support.engine import SECONDS, Engine

from boxship.cli.main import run as run_here

_JOINING = {"run", "exec", "attach", "start", "stats"}

Boxship = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def boxship(engine: Engine, capfd: pytest.CaptureFixture[str]) -> Boxship:
    """Runs a command: what it printed, and its exit code, which has to be 0 unless another is expected.

    It runs in this process; with `input`, or where it holds connections to its end, in one of its own.
    """

    def run(
        *arguments: str, code: int = 0, input: str | bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = engine.environment(env)
        if input is None and not _JOINING.intersection(arguments[:2]):
            with mock.patch.dict(os.environ, environment, clear=True):
                capfd.readouterr()
                found = run_here(arguments)
                out, err = capfd.readouterr()
            result = subprocess.CompletedProcess(arguments, found, out, err)
        else:
            data = input.encode() if isinstance(input, str) else input or b""
            done = subprocess.run([sys.executable, "-m", "boxship", *arguments], input=data, capture_output=True, timeout=SECONDS,
                                  env=environment, check=False)  # fmt: skip
            result = subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(errors="replace"),
                                                 done.stderr.decode(errors="replace"))  # fmt: skip
        assert result.returncode == code, f"{arguments}: {result.returncode}: {result.stdout}{result.stderr}"
        return result

    return run
