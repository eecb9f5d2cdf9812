"""`boxship daemon install`: the daemon as a service of systemd (systemd.service(5))."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from boxship.daemon import configuration
from boxship.errors import AlreadyExists, BoxshipError, from_os_error

UNIT = "boxship.service"
DEFAULT_DIRECTORY = Path("/etc/systemd/system")


def unit(arguments: Sequence[str] = ()) -> str:
    """The unit that runs this installation's daemon with these flags; raises `Invalid`, `Unsupported` for wrong ones."""
    configuration.parse(arguments)
    command = " ".join(_quoted(word) for word in (sys.executable, "-m", "boxship.daemon", *arguments))
    return (Path(__file__).parent / UNIT).read_text().replace("@COMMAND@", command)


def install(directory: Path, arguments: Sequence[str] = (), *, force: bool = False) -> Path:
    """Write the unit: its path. Raises `AlreadyExists` where another one stands there, unless forced."""
    text = unit(arguments)
    path = directory / UNIT
    try:
        if path.exists() and not force and path.read_text() != text:
            raise AlreadyExists(f"{path} exists already and differs", hint="replace it with --force")
        temporary = directory / f".{UNIT}.{os.getpid()}"
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise from_os_error(error, "installing the service") from error
    return path


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads one: `%` begins a specifier, `$` a variable."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word or any(each in word for each in " \t'\"\\;") else word


def main(arguments: Sequence[str]) -> int:
    """Install the service; the exit code."""
    parser = argparse.ArgumentParser(
        prog="boxship daemon install", allow_abbrev=False,
        description="Write a unit of systemd that runs the daemon. Further options are the daemon's own.",
    )  # fmt: skip
    parser.add_argument("--unit-directory", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR",
                        help=f"where units are (default {DEFAULT_DIRECTORY})")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace a unit that differs")
    parser.add_argument("--print", action="store_true", dest="shown", help="print the unit instead of writing it")
    options, passed_on = parser.parse_known_args(arguments)
    try:
        if options.shown:
            print(unit(passed_on), end="")
            return 0
        path = install(options.unit_directory, passed_on, force=options.force)
    except BoxshipError as error:
        print(f"boxship daemon install: {error}", file=sys.stderr)
        return 1
    print(f"{path} is written; start it with: systemctl daemon-reload && systemctl enable --now boxship")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
