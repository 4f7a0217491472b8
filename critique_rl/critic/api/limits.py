"""How fast a run may call its critic, over all of its ranks on one machine: calls at a time,
requests and tokens a minute, and none while it is down.

Slots are file locks, which the kernel releases when a process dies. Rates are spread evenly, each
call taking the next free moment (GCRA, ITU-T I.371): a window of any minute then holds one request
more than the rate at most. The circuit breaker is closed, open, or half-open, where one call
probes. Clocks are wall time, which ranks share.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from critique_rl.critic.api.circuit_breaker import POLL_SECONDS, CircuitBreaker
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.sqlite_file import opened, transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS pace (name TEXT PRIMARY KEY, free REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS circuit (id INTEGER PRIMARY KEY CHECK (id = 1), failures INTEGER, closed REAL, probed REAL);
INSERT OR IGNORE INTO pace VALUES ('requests', 0), ('tokens', 0);
INSERT OR IGNORE INTO circuit VALUES (1, 0, 0, 0);
"""


class Limits:
    """The open limits of one process."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, endpoint: Endpoint):
        self._connection, self._folder, self._endpoint = connection, folder, endpoint
        self.breaker = CircuitBreaker(connection, endpoint)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the `concurrency` slots of the run."""
        lock = await self._slot()
        try:
            yield
        finally:
            lock.release()

    async def _slot(self) -> FileLock:
        while True:
            for number in range(self._endpoint.concurrency):
                lock = FileLock(self._folder / f"slot{number}.lock")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                return lock
            await asyncio.sleep(POLL_SECONDS)

    async def pace(self, tokens: int, seconds: float) -> bool:
        """Wait for the moment that the rates leave free; False at once, and nothing taken, where
        that is more than `seconds` away.
        """
        wait = self._take(tokens, seconds)
        if wait is None:
            return False
        await asyncio.sleep(wait)
        return True

    def _take(self, tokens: int, seconds: float) -> float | None:
        rates = {
            "requests": (self._endpoint.requests_per_minute, 1),
            "tokens": (self._endpoint.tokens_per_minute, tokens),
        }
        rates = {
            name: 60 * amount / rate for name, (rate, amount) in rates.items() if rate is not None
        }
        if not rates:
            return 0.0
        with transaction(self._connection):
            now, free = time.time(), dict(self._connection.execute("SELECT name, free FROM pace"))
            start = max(now, *(free[name] for name in rates))
            if start - now > seconds:
                return None
            for name, length in rates.items():
                self._connection.execute(
                    "UPDATE pace SET free = ? WHERE name = ?", (max(now, free[name]) + length, name)
                )
        return start - now

    def give_back(self, tokens: int) -> None:
        """Tokens that were reserved and not used."""
        if self._endpoint.tokens_per_minute is not None:
            self._connection.execute(
                "UPDATE pace SET free = free - ? WHERE name = 'tokens'",
                (60 * tokens / self._endpoint.tokens_per_minute,),
            )


@contextmanager
def open_limits(folder: Path, endpoint: Endpoint) -> Iterator[Limits]:
    """The limits that keep their state in a folder. A damaged file is started anew: it holds no
    more than the last minute.
    """
    path = folder / "limits.sqlite"
    try:
        with opened(path, SCHEMA):
            pass
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
    with opened(path, SCHEMA) as connection:
        yield Limits(connection, folder, endpoint)
