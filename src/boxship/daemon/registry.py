"""`python -m boxship.daemon.registry`: a registry by itself, without an engine."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from boxship.api.registry.app import RegistryAPI
from boxship.content.store import ContentStore
from boxship.daemon.isolation import hold
from boxship.daemon.listeners import listen_registry
from boxship.errors import BoxshipError
from boxship.http.server import Server
from boxship.registry.repositories import Repositories
from boxship.state.database import Database


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped; the exit code."""
    parser = argparse.ArgumentParser(prog="boxship registry serve", description="Serve a registry (push and pull).")
    parser.add_argument("--listen", default="127.0.0.1:5000", metavar="HOST:PORT", help="where (default 127.0.0.1:5000)")
    parser.add_argument("--root", type=Path, default=Path("/var/lib/boxship-registry"), metavar="DIR",
                        help="where images are kept (default /var/lib/boxship-registry)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        lock = hold(options.root)
        asyncio.run(_serve(options.root, options.listen))
        os.close(lock)
    except BoxshipError as error:
        print(f"boxship registry serve: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(root: Path, address: str) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    database = Database(root / "state.db")
    api = RegistryAPI(Repositories(ContentStore(root / "content"), database))
    server = Server(api.handle)
    try:
        port = await listen_registry(server, address)
        print(f"serving a registry on {address.rpartition(':')[0]}:{port} from {root}", file=sys.stderr, flush=True)
        await stopping.wait()
    finally:
        await server.close()
        api.close()
        database.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
