"""SQLite files that several processes write at once and that a SIGKILL leaves whole: WAL, short
transactions, locks that wait a bounded time.

WAL needs a local disk: processes on several machines must not share such a file over a network file
system.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_SECONDS = 5.0
"""How long a writer waits for another one, whose transactions take milliseconds."""


@contextmanager
def opened(path: Path, schema: str, synchronous: str = "NORMAL") -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode with the tables of `schema`. sqlite3.OperationalError where
    it is locked or the disk is full, another sqlite3.DatabaseError where the file is no database.

    "NORMAL" survives a killed process, "FULL" a power cut too.
    """
    connection = _connect(path, schema, synchronous)
    try:
        yield connection
    finally:
        connection.close()


def _connect(path: Path, schema: str, synchronous: str) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    try:
        # Processes that make a file WAL at the same moment get "locked" at once, without waiting.
        lock.acquire()
    except Timeout as error:
        raise sqlite3.OperationalError(f"{path} is locked") from error
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    finally:
        lock.release()
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and alone: others that want to write wait."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back and raises
        yield
