"""How fast a run may call its critic, over all of its ranks on one machine.

Concurrent calls: slots are file locks, which the kernel releases when a process dies. Requests and
tokens per minute: each call takes the next free moment (GCRA, ITU-T I.371). Any minute then holds
one request more than the rate at most. The circuit breaker keeps its state in the same file.

The clock is `time.monotonic`: all processes of a machine share it, and nobody can set it. It starts
anew with the machine, so moments of an earlier start are forgotten.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from critique_rl.critic.api import circuit_breaker
from critique_rl.critic.api.circuit_breaker import CircuitBreaker
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.sqlite_file import open_database, transaction

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS pace (name TEXT PRIMARY KEY, free REAL) WITHOUT ROWID;
INSERT OR IGNORE INTO pace VALUES ('requests', 0), ('tokens', 0);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), latest REAL);
"""
    + circuit_breaker.SCHEMA
)
"""free: the moment from which the rate has room again. latest: the latest moment at which the file
was opened. An earlier version kept no such row, and wall time in the others.
"""
POLL_SECONDS = 0.02
"""Between two looks for a slot that another process may free."""


class Limits:
    """The limits of one process.

    Args:
        connection: the limits' file, opened with `SCHEMA`.
        folder: holds the locks of the slots.
        endpoint: has `concurrency` and the rates.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path, endpoint: Endpoint) -> None:
        self._connection = connection
        self._folder = folder
        self._endpoint = endpoint
        self.circuit_breaker = CircuitBreaker(connection, endpoint)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the run's `concurrency` slots; wait until one is free."""
        lock = await self._acquire_slot()
        try:
            yield
        finally:
            lock.release()

    async def _acquire_slot(self) -> FileLock:
        while True:
            for number in range(self._endpoint.concurrency):
                lock = FileLock(self._folder / f"slot{number}.lock")
                try:
                    # A blocking wait would stop the event loop, and with it every other call.
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                return lock
            await asyncio.sleep(POLL_SECONDS)

    def first_turn(self) -> FileLock | None:
        """The right to send the run's first request; None while another request has it."""
        lock = FileLock(self._folder / "first.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    async def pace(self, tokens: int, seconds: float) -> bool:
        """Wait for the next moment that the rates leave free.

        Args:
            tokens: tokens that the request may take at most.
            seconds: the longest wait.

        Returns:
            False if that moment is further away: at once, and nothing is taken.
        """
        wait = self.take_moment(tokens, seconds)
        if wait is None:
            return False
        await asyncio.sleep(wait)
        return True

    def take_moment(self, tokens: int, seconds: float) -> float | None:
        """Take the next free moment.

        Returns:
            Seconds until then; None if they are more than `seconds`, and nothing is taken.
        """
        intervals = self._intervals(tokens)
        if not intervals:
            return 0.0
        with transaction(self._connection):
            now = time.monotonic()
            free = dict(self._connection.execute("SELECT name, free FROM pace"))
            start: float = max(now, *(free[name] for name in intervals))
            if start - now > seconds:
                return None
            for name, interval in intervals.items():
                # From `now` at least: a rate does not save up the time in which nothing was sent.
                self._connection.execute(
                    "UPDATE pace SET free = ? WHERE name = ?",
                    (max(now, free[name]) + interval, name),
                )
        return start - now

    def _intervals(self, tokens: int) -> dict[str, float]:
        """Rate -> seconds for which one request uses it up, for the rates that are bounded."""
        intervals = {}
        if self._endpoint.requests_per_minute is not None:
            intervals["requests"] = 60 / self._endpoint.requests_per_minute
        if self._endpoint.tokens_per_minute is not None:
            intervals["tokens"] = 60 * tokens / self._endpoint.tokens_per_minute
        return intervals

    def give_back(self, tokens: int) -> None:
        """Return tokens that a request took and did not use (fewer than 0: it used more)."""
        if self._endpoint.tokens_per_minute is None:
            return
        self._connection.execute(
            "UPDATE pace SET free = free - ? WHERE name = 'tokens'",
            (60 * tokens / self._endpoint.tokens_per_minute,),
        )


@contextmanager
def open_limits(folder: Path, endpoint: Endpoint) -> Iterator[Limits]:
    """Open the limits whose state a folder keeps.

    Raises:
        sqlite3.OperationalError: their file is locked or the disk is full.
    """
    path = folder / "limits.sqlite"
    try:
        with open_database(path, SCHEMA):
            pass
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        # A damaged file may go: it holds no more than the last minute.
        path.unlink(missing_ok=True)
    with open_database(path, SCHEMA) as connection:
        _forget_other_clock(connection)
        yield Limits(connection, folder, endpoint)


def _forget_other_clock(connection: sqlite3.Connection) -> None:
    """Forget the moments of another clock: of an earlier start of the machine, or wall time."""
    with transaction(connection):
        now = time.monotonic()
        row = connection.execute("SELECT latest FROM clock").fetchone()
        if row is None or not isinstance(row[0], float) or row[0] > now:
            connection.execute("UPDATE pace SET free = 0")
            connection.execute("UPDATE circuit SET failures = 0, closed = 0, probed = 0")
        connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?)", (now,))
