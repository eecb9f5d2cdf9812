"""Signals by name."""

from __future__ import annotations

import signal

from boxship.errors import Invalid


def parse_signal(text: str) -> int:
    """A signal by name, with or without SIG, or by number; raises `Invalid` in Docker's words."""
    if text.isdecimal() and 0 < int(text) <= signal.NSIG:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    base, plus, offset = name.partition("+")
    found = getattr(signal, base, None)
    if isinstance(found, signal.Signals) and (not plus or (base == "SIGRTMIN" and offset.isdecimal())):
        return int(found) + int(offset or 0)
    raise Invalid(f"invalid signal: {text}")
