"""The embedded store: one SQLite file in WAL mode; one thread writes, and groups what waits into a commit.

A change is acknowledged when its commit has returned. With `synchronous=NORMAL` a WAL commit is in the
operating system's hands: it survives the end of the process by any signal. A power cut may take the last
commits, never the file's consistency.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from carpool.cache.entry import Record
from carpool.cache.store import Listener
from carpool.errors import StartError

_APPLICATION_ID = 0x43505243
_SCHEMA_VERSION = 2
_SCHEMA = "CREATE TABLE entries (exact BLOB PRIMARY KEY, created REAL NOT NULL, record BLOB NOT NULL)"
_PUT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"
_DELETE = "DELETE FROM entries WHERE exact = ?"
_LOAD = "SELECT exact, record FROM entries ORDER BY created"
_MAX_GROUP = 512

_log = logging.getLogger(__name__)

_Future = asyncio.Future[None]
_Change = tuple[str, list[tuple[Any, ...]], _Future]


class _Unusable(Exception):
    """The file is damaged or of another version."""


class SqliteStore:
    """See `store.Store`. `embedder` names the model whose vectors are written; others' are not read."""

    def __init__(self, path: Path, embedder: str) -> None:
        self._path = path
        self._embedder = embedder
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def load(self, listener: Listener) -> Sequence[Record]:  # noqa: ARG002  # its file is one process's
        """Open the file and read it. A damaged one is moved aside and a new one begun."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Sequence[Record]] = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(loop, loaded), name="cache-writer", daemon=True
        )
        self._thread.start()
        return await loaded

    def put(self, record: Record) -> _Future:
        """Queue a row for the writer."""
        entry = record.entry
        row = (entry.exact, entry.created, record.encode(self._embedder))
        return self._queue(_PUT, [row])

    def delete(self, keys: Sequence[bytes]) -> _Future:
        """Queue a deletion for the writer."""
        return self._queue(_DELETE, [(key,) for key in keys])

    async def close(self) -> None:
        """Commit what is queued and close the file."""
        if self._thread is not None:
            self._changes.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _queue(self, statement: str, rows: list[tuple[Any, ...]]) -> _Future:
        future: _Future = asyncio.get_running_loop().create_future()
        self._changes.put((statement, rows, future))
        return future

    # From here on: the writer thread, which alone has the connection.

    def _run(self, loop: asyncio.AbstractEventLoop, loaded: "asyncio.Future[Sequence[Record]]") -> None:
        try:
            connection, records = self._open()
        except Exception as error:  # handed to whoever awaits load()
            _tell(loop, _reject, loaded, error)
            return
        _tell(loop, _resolve, loaded, records)
        del records
        with contextlib.closing(connection):
            while group := self._next_group():
                failure = _commit(connection, group)
                for _, _, future in group:
                    if failure is None:
                        _tell(loop, _resolve, future, None)
                    else:
                        _tell(loop, _reject, future, OSError(f"{self._path} cannot be written: {failure}"))

    def _next_group(self) -> list[_Change]:
        """What waits now, at least one change; empty when the store closes."""
        group: list[_Change] = []
        change = self._changes.get()
        while change is not None:
            group.append(change)
            if len(group) == _MAX_GROUP or self._changes.empty():
                return group
            change = self._changes.get()
        if group:
            self._changes.put(None)  # commit these first, close on the next turn
        return group

    def _open(self) -> tuple[sqlite3.Connection, list[Record]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._open_file()
            except _Unusable as reason:
                aside = self._path.with_name(f"{self._path.name}.unusable-{time.time_ns()}")
                _log.error("cache: %s %s; moved to %s, starting empty", self._path, reason, aside.name)
                self._path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
                return self._open_file()
        except (OSError, sqlite3.Error, _Unusable) as error:
            raise StartError(f"cache.path: {self._path} cannot be used: {error}") from error

    def _open_file(self) -> tuple[sqlite3.Connection, list[Record]]:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # questions and answers are private
        connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
        try:
            try:
                _prepare(connection, self._path)
                return connection, self._read(connection)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise _Unusable(f"is damaged ({error})") from error
                raise
        except BaseException:
            connection.close()
            raise

    def _read(self, connection: sqlite3.Connection) -> list[Record]:
        records, bad = [], []
        for exact, data in connection.execute(_LOAD):
            try:
                records.append(Record.decode(exact, data, self._embedder))
            except (TypeError, ValueError, msgspec.DecodeError):
                bad.append((exact,))
        if bad:
            connection.executemany(_DELETE, bad)
            _log.error("cache: dropped %d unreadable entries of %s", len(bad), self._path)
        return records


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours and sound, and give a new one its table."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION_ID:
        raise StartError(f"cache.path: {path} is the database of another application")
    if tables and version != _SCHEMA_VERSION:
        raise _Unusable(f"has schema version {version}, not {_SCHEMA_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _Unusable(f"is damaged ({' '.join(verdict.split())})")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    if not tables:
        connection.executescript(
            f"BEGIN; {_SCHEMA}; PRAGMA application_id={_APPLICATION_ID};"
            f" PRAGMA user_version={_SCHEMA_VERSION}; COMMIT"
        )


def _commit(connection: sqlite3.Connection, group: list[_Change]) -> sqlite3.Error | None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows, _ in group:
            connection.executemany(statement, rows)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            connection.rollback()
        return error
    return None


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(call, *args)


def _resolve(future: "asyncio.Future[Any]", value: object) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
