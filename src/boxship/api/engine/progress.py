"""Long work told as it goes: JSON messages, one a line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from boxship.errors import BoxshipError, Internal
from boxship.http.message import Request, Response, json_response

log = logging.getLogger(__name__)

Message = dict[str, object]
Emit = Callable[[Message], None]

_BACKLOG = 1024


def bar(current: int, total: int) -> str:
    """`[=====>     ]  1.2MB/3.4MB`, as clients of old show it."""
    if total <= 0:
        return size(current)
    filled = min(50, 50 * current // total)
    drawn = "=" * filled + (">" if filled < 50 else "")
    return f"[{drawn:<50}] {size(current):>8}/{size(total)}"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}GB"


def pruned(request: Request, version: tuple[int, int], removed: Sequence[str], report: Mapping[str, object]) -> Response:
    """The answer to a prune: its report, or since 1.56 (`stream`) a line for each thing removed and the report at the end."""
    if version < (1, 56) or not request.query.flag("stream"):
        return json_response(report)
    lines: list[Message] = [{"id": identity, "status": "Deleted"} for identity in removed]
    lines.append({"aux": report})
    return Response(200, b"".join(json.dumps(line).encode() + b"\n" for line in lines), {"Content-Type": "application/jsonl"})


async def streamed(work: Callable[[Emit], Awaitable[object]]) -> Response:
    """The response that tells what `work` emits as it goes; it ends where the client goes.

    A failure before the first message is raised, and gets its own status; a later one is the last message.
    """
    queue: asyncio.Queue[Message | BoxshipError | None] = asyncio.Queue()

    def emit(message: Message) -> None:
        detail = message.get("progressDetail")
        if isinstance(detail, dict) and detail.get("total"):
            if queue.qsize() > _BACKLOG:
                return  # a slow reader misses intermediate figures, never a change of status
            message = {**message, "progress": bar(int(detail["current"]), int(detail["total"]))}
        queue.put_nowait(message)

    async def run() -> None:
        try:
            await work(emit)
        except BoxshipError as error:
            queue.put_nowait(error)
        except Exception:
            log.exception("streamed work failed")
            queue.put_nowait(Internal("internal error"))
        finally:
            queue.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        first = await queue.get()
    except asyncio.CancelledError:
        await _end(task)
        raise
    if isinstance(first, BoxshipError):
        raise first
    return Response(200, _lines(first, queue, task), {"Content-Type": "application/json"})


async def _lines(
    message: Message | BoxshipError | None, queue: asyncio.Queue[Message | BoxshipError | None], task: asyncio.Task[None]
) -> AsyncIterator[bytes]:
    try:
        while message is not None:
            lines = [_line(message)]
            while not queue.empty():
                message = queue.get_nowait()
                if message is None:
                    break
                lines.append(_line(message))
            yield b"".join(lines)
            if message is not None:
                message = await queue.get()
    finally:
        await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _line(message: Message | BoxshipError) -> bytes:
    if isinstance(message, BoxshipError):
        detail: Message = {"message": str(message)}
        code = getattr(message, "code", None)
        if code is not None:
            detail["code"] = code
        message = {"errorDetail": detail, "error": str(message)}
    return json.dumps(message).encode() + b"\r\n"
