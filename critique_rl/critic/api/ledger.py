"""The spending of a run on its critic, in a file that all its ranks and restarts share.

A request is reserved before it is sent. It may be sent if, for each cap,

    spent + open reservations + its own reservation <= cap

After an answer the reservation is replaced by the reported usage; if that is missing or impossible,
the reservation stands. A request that ended without an answer (a deadline, a cut connection, a
killed process, a 5xx) may be billed, so its reservation stands too; a 4xx costs no tokens. A cap is
therefore exceeded only by a server that reports more than was reserved: tokens of its own long
prompt template, or an answer beyond max_tokens.

The journal in the same file makes restarts exact. An answer read from the cache costs nothing. But
if it was paid for after the checkpoint from which a run continues, that checkpoint's counts lack
it: the answer is *owed*, and its replay counts as it did the first time.
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
from critique_rl.critic.api.sqlite_file import LOCK_SECONDS, open_database, transaction
from critique_rl.critic.contract import CriticFailed
from critique_rl.types import Usage

SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    id INTEGER PRIMARY KEY CHECK (id = 1), run TEXT, requests INTEGER, tokens INTEGER, usd REAL,
    open INTEGER
);
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, usage TEXT, owed INTEGER
);
CREATE INDEX IF NOT EXISTS by_key ON journal (key, owed);
"""
ROUNDING = 1e-9
"""US dollars by which a sum of prices may be off."""


class Ledger:
    """The ledger of one process.

    Args:
        connection: its file, opened with `SCHEMA`.
        caps: what the run may spend.
    """

    def __init__(self, connection: sqlite3.Connection, caps: Caps) -> None:
        self._connection = connection
        self._caps = caps

    # ---- spending --------------------------------------------------------------------------------

    def reserve(self, most: Usage) -> bool:
        """Reserve what a request may cost.

        Args:
            most: the most that it may cost, from `Endpoint.max_usage`.

        Returns:
            False if it does not fit the caps: nothing is reserved, and it must not be sent.
        """
        tokens = most.prompt_tokens + most.completion_tokens
        # Check and reservation are one transaction: two ranks cannot both take the last room.
        with transaction(self._connection):
            spent = self.spent()
            fits = (
                _fits(spent["requests"] + 1, self._caps.max_requests)
                and _fits(spent["tokens"] + tokens, self._caps.max_tokens)
                and _fits(spent["usd"] + most.usd - ROUNDING, self._caps.max_cost)
            )
            if fits:
                self._add(requests=1, tokens=tokens, usd=most.usd, open=1)
        return fits

    def settle(self, most: Usage, usage: Usage) -> None:
        """Replace a reservation by what the request cost.

        Args:
            most: what was reserved.
            usage: what it cost.
        """
        reserved = most.prompt_tokens + most.completion_tokens
        used = usage.prompt_tokens + usage.completion_tokens
        with transaction(self._connection):
            self._add(tokens=used - reserved, usd=usage.usd - most.usd, open=-1)

    def spent(self) -> dict[str, Any]:
        """Totals so far, open reservations included.

        Returns:
            "requests", "tokens", "usd", and "open": requests still out, or that ended without a
            report.

        Raises:
            sqlite3.DatabaseError: a total is no number.
        """
        row = self._connection.execute("SELECT requests, tokens, usd, open FROM spent").fetchone()
        # A damaged row must not begin again at 0: the caps would be spent twice.
        if not all(isinstance(count, int | float) for count in row):
            raise sqlite3.DatabaseError(f"its counts are {row}")
        return dict(zip(("requests", "tokens", "usd", "open"), row, strict=True))

    def _add(self, **amounts: float) -> None:
        changes = ", ".join(f"{name} = {name} + ?" for name in amounts)
        self._connection.execute(f"UPDATE spent SET {changes}", tuple(amounts.values()))

    # ---- journal ---------------------------------------------------------------------------------

    def record_answer(self, key: str, usage: Usage) -> None:
        """Record an answer that was paid for.

        Args:
            key: its key in the cache.
            usage: what it cost.
        """
        with transaction(self._connection):
            # An owed answer that is paid for again was lost before it was cached. It must not be
            # counted twice, so the new record stands in for the owed one.
            self._connection.execute(
                "UPDATE journal SET owed = 0 WHERE key = ? AND owed = 1", (key,)
            )
            self._connection.execute(
                "INSERT INTO journal (key, usage, owed) VALUES (?, ?, 0)",
                (key, json.dumps(asdict(usage))),
            )

    def replay(self, key: str) -> Usage | None:
        """The cost of an owed answer, once per time it was paid for; None if it is not owed."""
        query = (
            "UPDATE journal SET owed = 0 WHERE id = "
            "(SELECT min(id) FROM journal WHERE key = ? AND owed = 1) RETURNING usage"
        )
        with transaction(self._connection):
            row = self._connection.execute(query, (key,)).fetchone()
        if row:
            return Usage(**json.loads(row[0]))
        return None

    def position(self) -> dict[str, Any]:
        """The journal's last entry, for a checkpoint."""
        run, last = self._connection.execute(
            "SELECT run, (SELECT coalesce(max(id), 0) FROM journal) FROM spent"
        ).fetchone()
        return {"run": run, "journal": last}

    def rewind(self, position: dict[str, Any]) -> None:
        """Go back to a checkpoint: all answers paid for after it are owed.

        Args:
            position: from `position`; {} for the start of the run.
        """
        with transaction(self._connection):
            (run,) = self._connection.execute("SELECT run FROM spent").fetchone()
            # A run that branched off has a journal of its own: the position of the run that it
            # branched from says nothing about it.
            last = position["journal"] if position.get("run") == run else 0
            self._connection.execute("UPDATE journal SET owed = id > ?", (last,))


def _fits(total: float, cap: float | None) -> bool:
    return cap is None or total <= cap


def _was_emptied(path: Path) -> bool:
    if not path.exists() or path.stat().st_size:
        return False
    # A new ledger is empty too, but only while the process that makes it holds its lock.
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        return not path.stat().st_size and not Path(f"{path}-wal").exists()


@contextmanager
def open_ledger(path: Path, caps: Caps) -> Iterator[Ledger]:
    """Open the ledger in a file.

    Raises:
        CriticFailed: the file cannot be read. The spending is then unknown and no cap can be kept.
        sqlite3.OperationalError: the file is locked or the disk is full.
    """
    try:
        if _was_emptied(path):
            raise sqlite3.DatabaseError("it is empty")
        # "FULL": what was paid must be on the disk also after a power cut.
        with open_database(path, SCHEMA, "FULL") as connection:
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
            f"{path} cannot be read ({error}), so what the critic has cost is not known; "
            "move it away to count from 0 again"
        ) from error
