"""The `boxship` command, also as `python -m boxship`: quick to start and to end."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script: the command line's exit code becomes the process's."""
    gc.set_threshold(100_000)  # most commands are over before there is garbage; a tenth of their time went into looking for it
    from boxship.cli.main import LOST_OUTPUT, run

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or LOST_OUTPUT
    os._exit(code)  # nothing of ours waits for the interpreter's end, which takes as long as a request


if __name__ == "__main__":
    main()
