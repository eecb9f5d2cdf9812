"""Contexts from elsewhere: a git repository, a tar or a Dockerfile behind a URL."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
from pathlib import Path

import httpx

from boxship.build.context import Context
from boxship.errors import BoxshipError, Invalid, Unavailable
from boxship.snapshots.archive import apply_tar
from boxship.snapshots.compression import decompressed

_GIT = re.compile(r"(?:git://|git@|github\.com/|(?:https?|ssh)://.*\.git(?:#|$)|file://.*\.git(?:#|$)).*")
_CLONE_SECONDS = 600


def is_git(remote: str) -> bool:
    return _GIT.fullmatch(remote) is not None or ".git#" in remote


async def fetch(remote: str, directory: Path) -> tuple[Context, str | None]:
    """The context, and the Dockerfile's text where that was all there is; raises `Invalid`, `Unavailable`."""
    directory.mkdir(parents=True)
    if is_git(remote):
        return Context(await _clone(remote, directory)), None
    if not remote.startswith(("http://", "https://")):
        raise Invalid(f"unable to prepare context: {remote!r} is neither a git repository nor a URL")
    data = await _download(remote)
    try:
        await asyncio.to_thread(_unpack, data, directory)
    except BoxshipError:
        try:
            return Context(directory), data.decode()
        except UnicodeDecodeError:
            raise Invalid(f"{remote} is neither a tar nor a Dockerfile") from None
    return Context(directory), None


def _unpack(data: bytes, directory: Path) -> None:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        apply_tar(root, "/", decompressed(io.BytesIO(data)))
    finally:
        os.close(root)


async def _download(url: str) -> bytes:
    try:
        async with httpx.AsyncClient(follow_redirects=True, timeout=60) as client:
            response = await client.get(url)
    except httpx.HTTPError as error:
        raise Unavailable(f"failed to fetch the context {url}: {error}") from error
    if response.status_code >= 400:
        raise Invalid(f"failed to fetch the context {url}: {response.status_code} {response.reason_phrase}")
    return response.content


async def _clone(remote: str, directory: Path) -> Path:
    """Fetch `url#ref:subdirectory` with the system's git: the directory of the context."""
    url, _, fragment = remote.partition("#")
    reference, _, below = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if reference.startswith("-") or url.startswith("-"):
        raise Invalid(f"invalid git reference {reference!r}")
    git = shutil.which("git")
    if git is None:
        raise Invalid("building from a git repository needs git on the engine's host", hint="apt-get install git")
    await _git(git, directory, "init", "--quiet")
    await _git(git, directory, "fetch", "--quiet", "--depth", "1", "--", url, reference or "HEAD")
    await _git(git, directory, "checkout", "--quiet", "FETCH_HEAD")
    shutil.rmtree(directory / ".git", ignore_errors=True)
    found = (directory / below.lstrip("/")).resolve()
    if not found.is_relative_to(directory.resolve()) or not found.is_dir():
        raise Invalid(f"{below!r} is no directory of {url}")
    return found


async def _git(git: str, directory: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        git, "-C", str(directory), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CLONE_SECONDS):
            _, errors = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        words = errors.decode(errors="replace").strip().splitlines()
        raise Invalid(f"git {arguments[0]} failed: {words[-1] if words else process.returncode}")
