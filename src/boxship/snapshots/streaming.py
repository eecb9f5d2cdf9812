"""Between asynchronous streams and functions that read or write files, through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import BinaryIO, TypeVar

T = TypeVar("T")

_PIPE = 1 << 20


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # beyond the user's share of pipe memory: a small one does too
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    return reader, writer


async def piped(produce: Callable[[BinaryIO], None]) -> AsyncGenerator[bytes, None]:
    """What a function writes on a thread of its own, as it writes it."""
    reader, writer = _pipe()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with open(writer, "wb", buffering=1 << 16) as out:
                produce(out)
        except BrokenPipeError:
            pass  # nobody reads any more
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="archive", daemon=True)
    thread.start()
    try:
        while data := await asyncio.to_thread(os.read, reader, _PIPE):
            yield data
    finally:
        os.close(reader)
        thread.join()
    if failure:
        raise failure[0]


async def fed(stream: AsyncIterator[bytes], consume: Callable[[BinaryIO], T]) -> T:
    """Give a stream to a function that reads a file, on a thread: its result. Raises what it raises."""
    reader, writer = _pipe()
    os.set_blocking(writer, False)

    def run() -> T:
        with open(reader, "rb", buffering=_PIPE) as source:
            result = consume(source)
            while source.read(_PIPE):
                pass
        return result

    task = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        async for data in stream:
            try:
                await _write(writer, data)
            except BrokenPipeError:
                break
    finally:
        os.close(writer)
        await asyncio.wait([task])
    return await task


async def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while True:
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(descriptor, view) :]
        if not view:
            return
        await _writable(descriptor)


async def _writable(descriptor: int) -> None:
    """Until a pipe has room, or nobody reads it any more."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
