"""What a run has spent on its critic: reserved before each request, settled after it, in a file
that all ranks and restarts of the run share.

    a request may be sent if   spent + open reservations + its own reservation <= cap    for each cap

A request settles at what the server reports, or at its reservation where it answered and reported
no usage that can be. One that ended without an answer (a deadline, a cut connection, a killed
process, a 5xx) stays spent at its reservation, since it may be billed; a 4xx costs nothing but the
request. So a cap is passed only by a server that reports more than was reserved: tokens of a long
prompt template of its own, or an answer beyond max_tokens.

The journal beside it makes restarts exact. An answer read from the cache costs nothing, but where
it was paid for after the checkpoint a run continues from, that checkpoint's counts do not hold it:
it is *owed*, and its replay counts as it did the first time.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from critique_rl.critic.api.endpoint import Caps
from critique_rl.critic.api.sqlite_file import LOCK_SECONDS, opened, transaction
from critique_rl.critic.contract import CriticFailed
from critique_rl.types import Usage

SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY CHECK (id = 1), run TEXT, requests INTEGER, tokens INTEGER, usd REAL, open INTEGER);
CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, usage TEXT, owed INTEGER);
CREATE INDEX IF NOT EXISTS by_key ON journal (key, owed);
"""
ROUNDING = 1e-9
"""Dollars that sums of prices may be off by."""


class Ledger:
    """One open ledger."""

    def __init__(self, connection: sqlite3.Connection, caps: Caps):
        self._connection, self._caps = connection, caps

    # ---- money -----------------------------------------------------------------------------------

    def reserve(self, most: Usage) -> bool:
        """Take what a request may cost at most; False where it does not fit, and must not be sent."""
        tokens = most.prompt_tokens + most.completion_tokens
        with transaction(self._connection):
            spent = self.spent()
            caps = (
                (self._caps.max_requests, spent["requests"] + 1),
                (self._caps.max_tokens, spent["tokens"] + tokens),
            )
            fits = all(
                cap is None or after <= cap
                for cap, after in (*caps, (self._caps.max_cost, spent["usd"] + most.usd - ROUNDING))
            )
            if fits:
                self._add(requests=1, tokens=tokens, usd=most.usd, open=1)
        return fits

    def settle(self, most: Usage, usage: Usage) -> None:
        """Give back what a reserved request did not cost."""
        tokens = (
            usage.prompt_tokens
            + usage.completion_tokens
            - most.prompt_tokens
            - most.completion_tokens
        )
        with transaction(self._connection):
            self._add(tokens=tokens, usd=usage.usd - most.usd, open=-1)

    def spent(self) -> dict[str, Any]:
        """{"requests", "tokens", "usd", "open"} so far; "open" are those still out, or that ended
        without a report.
        """
        row = self._connection.execute("SELECT requests, tokens, usd, open FROM spent").fetchone()
        if not all(isinstance(count, int | float) for count in row):
            raise sqlite3.DatabaseError(f"its counts are {row}")
        return dict(zip(("requests", "tokens", "usd", "open"), row, strict=True))

    def _add(self, **amounts: float) -> None:
        self._connection.execute(
            f"UPDATE spent SET {', '.join(f'{name} = {name} + ?' for name in amounts)}",
            tuple(amounts.values()),
        )

    # ---- journal ---------------------------------------------------------------------------------

    def note(self, key: str, usage: Usage) -> None:
        """An answer was paid for. It stands in for one that is owed: that one was lost before it
        was cached, and is asked for again.
        """
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE journal SET owed = 0 WHERE key = ? AND owed = 1", (key,)
            )
            self._connection.execute(
                "INSERT INTO journal (key, usage, owed) VALUES (?, ?, 0)",
                (key, json.dumps(asdict(usage))),
            )

    def replay(self, key: str) -> Usage | None:
        """What an owed answer cost, once for each time it was paid; None where it is not owed, and
        costs nothing.
        """
        query = "UPDATE journal SET owed = 0 WHERE id = (SELECT min(id) FROM journal WHERE key = ? AND owed = 1) RETURNING usage"
        with transaction(self._connection):
            row = self._connection.execute(query, (key,)).fetchone()
        return Usage(**json.loads(row[0])) if row else None

    def position(self) -> dict[str, Any]:
        """Where the run is: for its checkpoint."""
        run, last = self._connection.execute(
            "SELECT run, (SELECT coalesce(max(id), 0) FROM journal) FROM spent"
        ).fetchone()
        return {"run": run, "journal": last}

    def rewind(self, position: dict[str, Any]) -> None:
        """Go on from a checkpoint's position; from the start where it has none, or is of another
        run, which this one branched from.
        """
        with transaction(self._connection):
            (run,) = self._connection.execute("SELECT run FROM spent").fetchone()
            last = position["journal"] if position.get("run") == run else 0
            self._connection.execute("UPDATE journal SET owed = id > ?", (last,))


def _is_emptied(path: Path) -> bool:
    """A new ledger is empty only while the process that makes it holds its lock."""
    if not path.exists() or path.stat().st_size:
        return False
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        return not path.stat().st_size and not Path(f"{path}-wal").exists()


@contextmanager
def open_ledger(path: Path, caps: Caps) -> Iterator[Ledger]:
    """The ledger in a file. CriticFailed where it cannot be read: what was spent is not known then,
    and a cap could not be kept.
    """
    try:
        if _is_emptied(path):
            raise sqlite3.DatabaseError("it is empty")
        with opened(path, SCHEMA, "FULL") as connection:
            connection.execute(
                "INSERT OR IGNORE INTO spent VALUES (1, ?, 0, 0, 0, 0)", (uuid.uuid4().hex,)
            )
            ledger = Ledger(connection, caps)
            ledger.spent()
            yield ledger
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise CriticFailed(
            f"{path} cannot be read ({error}), so what the critic has cost is not known; move it away to count from 0 again"
        ) from error
