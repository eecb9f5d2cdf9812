"""`python -m bench`: compare, as root, and print the table."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import images, registry, report, sandbox
from bench.api import Failed
from bench.engines import ENGINES, Engine, missing
from bench.works import PULLED, PUSHED, Work, works


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if os.geteuid() != 0:
        print("bench: containers need root", file=sys.stderr)
        return 1
    if lacking := missing():
        print(f"bench: not installed: {', '.join(lacking)}", file=sys.stderr)
        return 1
    directory = sandbox.inside()
    if directory is None:
        images.make()
        return sandbox.run(arguments)
    sandbox.enter()
    archives = images.make()
    chosen = [work for work in works(archives) if not options.names or work.name in options.names]
    text, complete = _compare(directory, archives, chosen, options.rounds, options.engines)
    print(f"\n{text}")
    if options.write and complete:
        report.write(text)
    return 0 if complete else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    known = [work.name for work in works(dict.fromkeys(images.NAMES, Path(os.devnull)))]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare Boxship with dockerd and podman.")
    parser.add_argument("names", nargs="*", help=f"which works: {', '.join(known)} (default: all)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="the same as a name by itself")
    parser.add_argument("--rounds", type=int, default=10, help="how often everything is done (default: 10)")
    parser.add_argument("--engines", default="boxship,dockerd,podman", help="which engines, separated by commas")
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    options = parser.parse_args(arguments)
    options.names += options.only
    options.engines = options.engines.split(",")
    for name in options.names:
        if name not in known:
            parser.error(f"no work is named {name!r}: {', '.join(known)}")
    for name in options.engines:
        if name not in {kind.name for kind in ENGINES}:
            parser.error(f"no engine is named {name!r}")
    return options


def _compare(directory: Path, archives: dict[str, Path], chosen: list[Work], rounds: int, names: list[str]) -> tuple[str, bool]:
    """The report, and whether every work could be done."""
    engines = [kind(directory / kind.name) for kind in ENGINES if kind.name in names]
    results = report.Results()
    failed = False
    with contextlib.ExitStack() as stack:
        seeded = directory / "registry"
        if any(work.name == "pull" for work in chosen):
            registry.seed({"debian": archives["debian"]}, seeded)
        for engine in engines:
            stack.callback(engine.stop)
            engine.start()
            for name in ("busybox", "iperf"):
                engine.load(archives[name].read_bytes())
            if seeded.exists():
                engine.serve_registry(Path(shutil.copytree(seeded, engine.directory / "pulled")), PULLED)
            engine.serve_registry(engine.directory / "pushed", PUSHED)
        for work in chosen:
            print(f"{work.name} ", end="", file=sys.stderr, flush=True)
            try:
                _measure(work, engines, rounds, results)
            except (Failed, AssertionError, OSError, subprocess.CalledProcessError) as error:
                print(f" failed: {error}", file=sys.stderr)
                failed = True
                for engine in engines:
                    engine.remove_all()
            print(file=sys.stderr)
        versions = {engine.name: engine.version() for engine in engines}
    described = "; ".join(f"{name} image: {images.facts(archives[name])}" for name in ("debian", "python"))
    return f"{report.conditions(versions, rounds, described)}\n{results.table()}", not failed


def _measure(work: Work, engines: list[Engine], rounds: int, results: report.Results) -> None:
    """Do a work in rounds, each engine in its turn, another one first each time; once before for warmth."""
    peers = {line.peer for line in work.lines}
    for number in range(-1, rounds):
        for engine in (*engines[number % len(engines) :], *engines[: number % len(engines)]):
            # a peer that no line is held against is measured too, but not at such length
            if number >= 0 and number % 3 and engine.name not in {*peers, "boxship"}:
                continue
            for _ in range(work.repeat if number >= 0 else 1):
                values = work.run(engine)
                if number >= 0:
                    for line, value in zip(work.lines, values, strict=True):
                        results.add(line, engine.name, value)
        print(".", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
