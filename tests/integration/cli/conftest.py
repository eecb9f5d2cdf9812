"""The command `boxship` against the shared daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.support.engine import SECONDS, Engine

Boxship = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def boxship(engine: Engine) -> Boxship:
    """Runs a command: what it printed, and its exit code, which has to be 0 unless another is expected."""

    def run(
        *arguments: str, code: int = 0, input: str | bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run([sys.executable, "-m", "boxship", *arguments], input=data, capture_output=True, timeout=SECONDS,
                              env=engine.environment(env), check=False)  # fmt: skip
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.returncode == code, f"{arguments}: {result.returncode}: {result.stdout}{result.stderr}"
        return result

    return run
