"""Removing trees that a stranger made: through descriptors, however deep they are."""

from __future__ import annotations

import contextlib
import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int | str, name: str = "") -> None:
    """Remove a file, or a directory and all below it; a missing one is no error. Raises `OSError`.

    `parent` is an open directory, or the path of what to remove. Directories are lifted to the top one before
    they are emptied: neither recursion nor a path grows with the depth, so a tree too deep to be named goes too.
    """
    descriptor: int | None = None
    if isinstance(parent, int):
        descriptor, target = parent, name
    else:
        target = parent
    try:
        os.unlink(target, dir_fd=descriptor)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    top = os.open(target, _DIRECTORY, dir_fd=descriptor)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(target, dir_fd=descriptor)


def _empty(top: int) -> None:
    token, lifted = secrets.token_hex(8), 0
    while names := os.listdir(top):
        for name in names:
            if _unlinked(top, name):
                continue
            directory = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                for below in os.listdir(directory):
                    if not _unlinked(directory, below):
                        lifted += 1
                        os.rename(below, f"{token}-{lifted}", src_dir_fd=directory, dst_dir_fd=top)
            finally:
                os.close(directory)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=top)


def _unlinked(directory: int, name: str) -> bool:
    """Whether it is gone; a directory is not."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True
