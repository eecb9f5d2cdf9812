"""The daemon's process: settings, isolation, the engine, signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxship.daemon import configuration
from boxship.daemon.configuration import Settings
from boxship.daemon.isolation import connect_keeper, hold, keep_passed_sockets, write_pid
from boxship.errors import BoxshipError, Denied
from boxship.runtime.client import KeeperClient
from boxship.runtime.protocol import Shutdown

if TYPE_CHECKING:
    from boxship.daemon.engine import Engine

log = logging.getLogger("boxship")

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR,
           "fatal": logging.CRITICAL}  # fmt: skip


def run() -> int:
    """`boxshipd`."""
    return main(sys.argv[1:])


def main(arguments: Sequence[str]) -> int:
    """Run until stopped; the exit code."""
    try:
        settings, file = configuration.parse(arguments)
        if os.geteuid() != 0:
            raise Denied("the daemon needs root")
        _log_to_stderr(settings)
        keep_passed_sockets()
        locks = [hold(settings.data_root)]
        if settings.exec_root != settings.data_root:
            locks.append(hold(settings.exec_root, 0o711))  # the socket in it is for a group
        client = connect_keeper(settings.exec_root)
        with _pidfile(settings.pidfile):
            try:
                asyncio.run(_serve(settings, file, client, arguments))
            except Exception:
                # a keeper that holds nothing ends with the start that failed; one that does refuses
                with contextlib.suppress(BoxshipError):
                    client.send(Shutdown())
                raise
        for lock in locks:
            os.close(lock)
    except BoxshipError as error:
        print(f"boxship daemon: {error}", file=sys.stderr)
        return 1
    return 0


def _log_to_stderr(settings: Settings) -> None:
    level = logging.DEBUG if settings.debug else _LEVELS[settings.log_level]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(max(level, logging.WARNING))
    logging.getLogger("httpcore").setLevel(max(level, logging.WARNING))
    logging.getLogger("asyncio").setLevel(max(level, logging.WARNING))


@contextlib.contextmanager
def _pidfile(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    lock = write_pid(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


async def _serve(settings: Settings, file: Path, client: KeeperClient, arguments: Sequence[str]) -> None:
    # imported only now: the keeper was started from a small process
    from boxship.daemon.engine import Engine

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    engine = Engine(settings, client)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(engine, file, arguments))
    engine.lost = stopping.set
    try:
        await engine.start()
    except Exception:
        # nothing of a start that failed stays; what ran before goes on
        await engine.stop(keep_containers=True)
        raise
    # what lives as long as the process need not be looked at by every collection
    gc.collect()
    gc.freeze()
    log.info("serving %s from %s (%s)", ", ".join(settings.hosts), settings.data_root, engine.snapshotter.name)
    await stopping.wait()
    log.info("stopping")
    await engine.stop(keep_containers=engine.settings.live_restore)


def _reload(engine: Engine, file: Path, arguments: Sequence[str]) -> None:
    try:
        engine.reload(configuration.reload(engine.settings, arguments))
    except BoxshipError as error:
        log.error("%s was not read again: %s", file, error)
        return
    logging.getLogger().setLevel(logging.DEBUG if engine.settings.debug else _LEVELS[engine.settings.log_level])
    log.info("%s was read again", file)
