"""The daemon started in the background, where root calls and none listens on the default socket."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click

from boxship.errors import Unavailable

_START_SECONDS = 20.0
_OTHER_SECONDS = 5.0
"""How long to wait for a daemon that somebody else has started at the same moment."""


def ensure_daemon(path: str) -> None:
    """Return once somebody listens on the socket, or at once where that is not ours to change; raises `Unavailable`."""
    if os.geteuid() != 0 or _listening(path):
        return
    import subprocess

    log = Path(path).parent / "daemon.log"
    click.echo(f"boxship: no daemon runs: starting one in the background (its log: {log})", err=True)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "boxship.daemon"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            cwd="/",
        )  # fmt: skip
    deadline = time.monotonic() + _START_SECONDS
    ended = False
    while time.monotonic() < deadline:
        if _listening(path):
            return
        if not ended and process.poll() is not None:
            ended = True
            deadline = min(deadline, time.monotonic() + _OTHER_SECONDS)
            if "is in use by the daemon" not in _last_line(log):
                raise Unavailable(f"the daemon did not start: {_last_line(log)}", hint=f"see {log}")
        time.sleep(0.01)
    raise Unavailable(f"the daemon does not listen on {path} yet", hint=f"see {log}")


def _listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
