"""Documents in memory, journalled to SQLite.

Reads never touch the disk. Every change is applied to memory at once and written by the one writer thread in
the order of the changes; what is grouped by `transaction()` becomes durable together or not at all. Call
`await database.committed()` before telling a client that something has been done.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from boxship.errors import Internal
from boxship.oci.digest import encode_digest

T = TypeVar("T")

SCHEMA_VERSION = 1
_Change = tuple[str, str, bytes | None]
_Batch = tuple[list[_Change], "Future[None] | None"]


class Database:
    """One SQLite file with collections of documents; raises `Internal` where the file is from a newer version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._open_batch: list[_Change] | None = None
        self._enqueued = 0
        self._written = 0
        try:
            self._prepare()
        except sqlite3.Error as error:
            raise Internal(f"{path} cannot be used: {error}", hint="is it damaged, or on a full disk?") from error
        self._writer = threading.Thread(target=self._write, name="state-writer", daemon=True)
        self._writer.start()

    def _prepare(self) -> None:
        connection = self._connect()
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise Internal(f"{self._path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION})")
            connection.executescript(
                "CREATE TABLE IF NOT EXISTS documents (collection TEXT NOT NULL, key TEXT NOT NULL,"
                " body BLOB NOT NULL, PRIMARY KEY (collection, key)) WITHOUT ROWID;"
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )
        finally:
            connection.close()

    def collection(self, name: str, kind: type[T]) -> Collection[T]:
        """The documents of one kind (a msgspec structure), read into memory; raises `Internal` for a damaged one."""
        connection = self._connect()
        try:
            rows = connection.execute("SELECT key, body FROM documents WHERE collection = ?", (name,)).fetchall()
        except sqlite3.Error as error:
            raise Internal(f"{self._path} cannot be used: {error}", hint="is it damaged?") from error
        finally:
            connection.close()
        decoder = msgspec.json.Decoder(kind)
        documents: dict[str, T] = {}
        for key, body in rows:
            try:
                documents[key] = decoder.decode(body)
            except msgspec.MsgspecError as error:
                raise Internal(f"{self._path}: the entry {key!r} of {name} cannot be read: {error}") from error
        return Collection(self, name, documents)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group the changes made inside; they are journalled together. Must not be held across an `await`."""
        if self._open_batch is not None:
            yield
            return
        self._open_batch = []
        try:
            yield
        finally:
            batch, self._open_batch = self._open_batch, None
            self._enqueue(batch)

    async def committed(self) -> None:
        """Wait until every change made so far is journalled; raises `Internal` where that failed.

        What could not be written is kept, and tried again before whatever comes next: once a full disk has room,
        the journal is whole again.
        """
        if self._written < self._enqueued:
            future: Future[None] = Future()
            self._queue.put(([], future))
            await asyncio.wrap_future(future)

    def close(self) -> None:
        """Write what is queued, and close."""
        self._queue.put(None)
        self._writer.join()

    def record(self, collection: str, key: str, body: bytes | None) -> None:
        """Journal one change (no body: a removal). Called by the collections."""
        if self._open_batch is not None:
            self._open_batch.append((collection, key, body))
        else:
            self._enqueue([(collection, key, body)])

    def _enqueue(self, batch: list[_Change]) -> None:
        if batch:
            self._enqueued += 1
            self._queue.put((batch, None))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _write(self) -> None:
        connection = self._connect()
        pending: list[list[_Change]] = []
        while (item := self._queue.get()) is not None:
            batch, waiter = item
            pending += [batch] if batch else []
            failure: sqlite3.Error | None = None
            try:
                while pending:
                    _apply(connection, pending[0])
                    del pending[0]
                    self._written += 1
            except sqlite3.Error as error:
                failure = error
            if waiter is None or not waiter.set_running_or_notify_cancel():
                continue  # whoever waited may have gone
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(Internal(f"{self._path} could not be written: {failure}"))
        with contextlib.suppress(sqlite3.Error):
            for batch in pending:
                _apply(connection, batch)
        connection.close()


def _apply(connection: sqlite3.Connection, batch: list[_Change]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for collection, key, body in batch:
            if body is None:
                connection.execute("DELETE FROM documents WHERE collection = ? AND key = ?", (collection, key))
            else:
                connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (collection, key, body))
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


class Collection(Generic[T]):
    """Documents of one kind by key. What `get` returns is shared: replace a document, never change it."""

    def __init__(self, database: Database, name: str, documents: dict[str, T]) -> None:
        self._database = database
        self._name = name
        self._documents = documents

    def get(self, key: str) -> T | None:
        return self._documents.get(key)

    def put(self, key: str, document: T) -> None:
        self._documents[key] = document
        self._database.record(self._name, key, msgspec.json.encode(document, enc_hook=encode_digest))

    def delete(self, key: str) -> None:
        """Remove a document; nothing happens where there is none."""
        if self._documents.pop(key, None) is not None:
            self._database.record(self._name, key, None)

    @property
    def all(self) -> Mapping[str, T]:
        """A live view of every document by key."""
        return self._documents

    def __contains__(self, key: object) -> bool:
        return key in self._documents

    def __len__(self) -> int:
        return len(self._documents)
