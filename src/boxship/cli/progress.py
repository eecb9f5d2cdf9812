"""Pulls and pushes as they go: lines that change in a terminal, lines that follow each other elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO


def show_progress(messages: Iterable[dict[str, Any]], out: TextIO) -> list[dict[str, Any]]:
    """Print messages until they end; the `aux` values among them."""
    terminal = out.isatty()
    rows: dict[str, int] = {}
    aux: list[dict[str, Any]] = []
    for message in messages:
        if "aux" in message:
            aux.append(message["aux"])
        elif "stream" in message:
            out.write(message["stream"])
        elif "status" in message:
            _show(message, rows, out, terminal=terminal)
        out.flush()
    return aux


def _show(message: dict[str, Any], rows: dict[str, int], out: TextIO, *, terminal: bool) -> None:
    identity = message.get("id")
    text = f"{identity}: {message['status']}" if identity else str(message["status"])
    if not terminal:
        if not message.get("progress"):
            out.write(text + "\n")
        return
    if message.get("progress"):
        text += f" {message['progress']}"
    if not identity or "progressDetail" not in message:
        rows.clear()  # lines above stay as they are from here on
        out.write(text + "\n")
        return
    if identity not in rows:
        for other in rows:
            rows[other] += 1
        rows[identity] = 1
        out.write(text + "\n")
        return
    up = rows[identity]
    out.write(f"\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B")
