"""Where this host's apt fetches its packages from."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_SOURCES = Path("/etc/apt")
_SIGNED_BY = re.compile(r"\bsigned-by\s*[:=]\s*(/[^\s\],]+)", re.IGNORECASE)


class Mirror(NamedTuple):
    """A mirror of Debian, and the file with the keys that sign it; empty where apt's sources name none."""

    url: str
    keyring: str


def mirror_of(suite: str) -> Mirror | None:
    """The first of apt's sources that has a suite's main component; None where none has it, or there is no apt."""
    tool = shutil.which("apt-get")
    if tool is None:
        return None
    # prints what it would fetch, and fetches nothing (apt-get(8)); needs no lists of packages to be here
    command = [tool, "update", "--print-uris"]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    for line in found.stdout.splitlines():
        url, separator, _ = line.removeprefix("'").partition(f"/dists/{suite}/main/binary-")
        if separator and url.startswith(("http://", "https://", "file:")):
            return Mirror(url, _keyring(url))
    return None


def _keyring(url: str) -> str:
    """Of a source: in a line of a `.list`, or in a stanza of a `.sources` (sources.list(5))."""
    directory = _SOURCES / "sources.list.d"
    for path in (_SOURCES / "sources.list", *sorted(directory.glob("*.list")), *sorted(directory.glob("*.sources"))):
        try:
            lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        except OSError:
            continue
        parts = re.split(r"\n\s*\n", "\n".join(lines)) if path.suffix == ".sources" else lines
        for part in parts:
            if url in part and (match := _SIGNED_BY.search(part)):
                return match[1]
    return ""
