"""Contexts from elsewhere: a git repository, a tar or a Dockerfile behind a URL."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import httpx

from boxship.build.context import Context, is_tar, text_of, unpack
from boxship.errors import Invalid, Unavailable, from_os_error
from boxship.registry.threads import begin, settled

_GIT = re.compile(r"(?:git://|git@|github\.com/).*|(?:https?|ssh)://[^#]*\.git(?:#.*)?")
_CLONE_SECONDS = 600
_GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
}


def is_git(remote: str) -> bool:
    return _GIT.fullmatch(remote) is not None


async def fetch(remote: str, directory: Path) -> tuple[Context, str | None]:
    """The context, and the Dockerfile's text where that was all there is; raises `Invalid`, `Unavailable`."""
    directory.mkdir(parents=True)
    if is_git(remote):
        return Context(await _clone(remote, directory)), None
    if not remote.startswith(("http://", "https://")):
        raise Invalid(f"unable to prepare context: {remote!r} is neither a git repository nor a URL")
    path = directory.with_name("remote")
    await _download(remote, path)
    text = await settled(begin(_unpacked, path, directory, remote))
    return Context(directory), text


def _unpacked(path: Path, directory: Path, url: str) -> str | None:
    with path.open("rb") as file:
        if is_tar(file):
            file.seek(0)
            unpack(file, directory)
            return None
        file.seek(0)
        try:
            return text_of(file, url)
        except UnicodeDecodeError:
            raise Invalid(f"{url} is neither a tar nor a Dockerfile") from None


async def _download(url: str, path: Path) -> None:
    try:
        async with httpx.AsyncClient(follow_redirects=True, timeout=60) as client, client.stream("GET", url) as response:
            if response.status_code >= 400:
                raise Invalid(f"failed to fetch the context {url}: {response.status_code} {response.reason_phrase}")
            with path.open("wb") as file:
                async for chunk in response.aiter_bytes():
                    file.write(chunk)
    except httpx.InvalidURL as error:
        raise Invalid(f"failed to fetch the context {url}: {error}") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"failed to fetch the context {url}: {error}") from error
    except OSError as error:
        raise from_os_error(error, "fetching the context") from error


async def _clone(remote: str, directory: Path) -> Path:
    """Fetch `url#ref:subdirectory` with the system's git: the directory of the context."""
    url, _, fragment = remote.partition("#")
    reference, _, below = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if reference.startswith("-"):
        raise Invalid(f"invalid git reference {reference!r}")
    git = shutil.which("git")
    if git is None:
        raise Invalid("building from a git repository needs git on the engine's host", hint="apt-get install git")
    await _git(git, directory, "init", "--quiet")
    wanted = ("--", url, reference or "HEAD")
    try:
        await _git(git, directory, "fetch", "--quiet", "--depth", "1", *wanted)
    except Invalid:  # plain files behind HTTP have no shallow history
        await _git(git, directory, "fetch", "--quiet", *wanted)
    await _git(git, directory, "checkout", "--quiet", "FETCH_HEAD")
    if (directory / ".gitmodules").is_file():
        await _git(git, directory, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    shutil.rmtree(directory / ".git", ignore_errors=True)
    found = (directory / below.lstrip("/")).resolve()
    if not found.is_relative_to(directory.resolve()) or not found.is_dir():
        raise Invalid(f"{below!r} is no directory of {url}")
    return found


async def _git(git: str, directory: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        git, "-C", str(directory), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **_GIT_ENVIRONMENT},
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CLONE_SECONDS):
            _, errors = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"git {arguments[0]} took longer than {_CLONE_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = errors.decode(errors="replace").strip().splitlines()
        raise Invalid(f"git {arguments[0]} failed: {words[-1] if words else process.returncode}")
