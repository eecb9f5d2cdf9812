"""How a start fails: the stage that failed, and the words that Docker's users know."""

from __future__ import annotations

import os


class StartFailure(Exception):
    """Raised in the child of a start; `stage` is one of cgroup, namespace, mount, user, limit, workdir, exec."""

    def __init__(self, stage: str, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.stage = stage
        self.message = message
        self.errno = errno


def describe(error: OSError) -> str:
    """An `OSError` in lower case with its file: `no such file or directory: /x`."""
    text = (error.strerror or os.strerror(error.errno or 0)).lower()
    return f"{text}: {error.filename}" if error.filename else text
