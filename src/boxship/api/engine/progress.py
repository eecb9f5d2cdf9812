"""Long work told as it goes: JSON messages, one a line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from boxship.errors import BoxshipError

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


async def stream(work: Callable[[Emit], Awaitable[object]]) -> AsyncIterator[bytes]:
    """Run `work` and yield what it emits; its error is the last message. Ends it where the client goes."""
    queue: asyncio.Queue[Message | None] = asyncio.Queue()

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
            code = getattr(error, "code", None)
            detail: Message = {"message": str(error)}
            if code is not None:
                detail["code"] = code
            queue.put_nowait({"errorDetail": detail, "error": str(error)})
        except Exception:
            log.exception("streamed work failed")
            queue.put_nowait({"errorDetail": {"message": "internal error"}, "error": "internal error"})
        finally:
            queue.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        while (message := await queue.get()) is not None:
            lines = [json.dumps(message)]
            while not queue.empty():
                following = queue.get_nowait()
                if following is None:
                    queue.put_nowait(None)
                    break
                lines.append(json.dumps(following))
            yield ("\r\n".join(lines) + "\r\n").encode()
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
