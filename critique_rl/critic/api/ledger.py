"""The spending of a run on its critic, in a file that all its ranks and restarts share.

A request is reserved before it is sent. It may be sent if, for each cap,

    spent + open reservations + its own reservation <= cap

After an answer the reservation is replaced by the reported usage; if that is missing or impossible,
the reservation stands. A request that ended without an answer (a deadline, a cut connection, a
killed process, a 408, a 5xx) may be billed, so its reservation stands too; any other 4xx costs no
tokens, unless it reports some.

A cap is therefore exceeded only by a server that bills more than was reserved: tokens of its own
long prompt template, or an answer beyond max_tokens. The largest such excess is added to all open
and all later reservations. What was out together at that moment is all that a cap can be exceeded
by; the first request of a ledger therefore goes alone (`first_answer`).

The file has no write-ahead log that could be lost. A count of its changes stands beside it
(`change_count`): an older copy of the file is refused.

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

from critique_rl.critic.api.billing.change_count import ChangeCount
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
CREATE TABLE IF NOT EXISTS billing (
    id INTEGER PRIMARY KEY CHECK (id = 1), reports INTEGER, excess_tokens INTEGER, excess_usd REAL,
    changes INTEGER
);
"""
"""billing: answers with a report, the largest excess of a bill over its reservation, and changes of
this file. Ledgers of earlier builds lack this table.
"""
ROUNDING = 1e-9
"""US dollars by which a sum of prices may be off."""


class Ledger:
    """The ledger of one process.

    Args:
        connection: its file, opened with `SCHEMA`.
        caps: what the run may spend.
        change_count: the count beside the file.
    """

    def __init__(
        self, connection: sqlite3.Connection, caps: Caps, change_count: ChangeCount
    ) -> None:
        self._connection = connection
        self._caps = caps
        self._change_count = change_count

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction that is counted beside the file."""
        with transaction(self._connection):
            yield
            (changes,) = self._connection.execute(
                "UPDATE billing SET changes = changes + 1 RETURNING changes"
            ).fetchone()
        # After the commit: killed in between, the count is behind and not ahead.
        self._change_count.write(changes)

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
        with self._change():
            spent = self.spent()
            _, excess_tokens, excess_usd = self._billing()
            most_tokens = spent["tokens"] + tokens + excess_tokens
            most_usd = spent["usd"] + most.usd + excess_usd
            fits = (
                _fits(spent["requests"] + 1, self._caps.max_requests)
                and _fits(most_tokens, self._caps.max_tokens)
                and _fits(most_usd - ROUNDING, self._caps.max_cost)
            )
            if fits:
                self._add(requests=1, tokens=tokens, usd=most.usd, open=1)
        return fits

    def settle(self, most: Usage, usage: Usage) -> bool:
        """Replace a reservation by what the request cost.

        Args:
            most: what was reserved.
            usage: what it cost. An excess over `most` raises all reservations from now on.

        Returns:
            True if this is the first excess of the ledger.
        """
        reserved = most.prompt_tokens + most.completion_tokens
        used = usage.prompt_tokens + usage.completion_tokens
        excess = used - reserved
        excess_usd = usage.usd - most.usd
        with self._change():
            before = self._billing()
            self._add(tokens=excess, usd=excess_usd, open=-1)
            # What costs nothing was refused, and says nothing about bills.
            self._connection.execute(
                "UPDATE billing SET reports = reports + ?, "
                "excess_tokens = max(excess_tokens, ?), excess_usd = max(excess_usd, ?)",
                (used > 0, excess, excess_usd),
            )
        was_over = before[1] > 0 or before[2] > ROUNDING
        return not was_over and (excess > 0 or excess_usd > ROUNDING)

    @property
    def has_report(self) -> bool:
        """Whether any request was billed yet."""
        return self._billing()[0] > 0

    def _billing(self) -> tuple[int, int, float]:
        """Answers with a report, and the largest excess in tokens and in US dollars.

        Raises:
            sqlite3.DatabaseError: one of them is no number.
        """
        row: tuple[int, int, float] | None = self._connection.execute(
            "SELECT reports, excess_tokens, excess_usd FROM billing"
        ).fetchone()
        if row is None or not all(isinstance(count, int | float) for count in row):
            raise sqlite3.DatabaseError(f"its counts of bills are {row}")
        return row

    def spent(self) -> dict[str, Any]:
        """Totals so far, open reservations included.

        Returns:
            "requests", "tokens", "usd", and "open": requests still out, or that ended without a
            report. Each open one counts at its reservation and the largest excess so far.

        Raises:
            sqlite3.DatabaseError: a total is no number.
        """
        row = self._connection.execute("SELECT requests, tokens, usd, open FROM spent").fetchone()
        # A damaged row must not begin again at 0: the caps would be spent twice.
        if row is None or not all(isinstance(count, int | float) for count in row):
            raise sqlite3.DatabaseError(f"its counts are {row}")
        requests, tokens, usd, still_open = row
        _, excess_tokens, excess_usd = self._billing()
        return {
            "requests": requests,
            "tokens": tokens + still_open * excess_tokens,
            "usd": usd + still_open * excess_usd,
            "open": still_open,
        }

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
        with self._change():
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
        with self._change():
            row = self._connection.execute(query, (key,)).fetchone()
        if row:
            return Usage(**json.loads(row[0]))
        return None

    def position(self) -> dict[str, Any]:
        """The journal's last entry, and those before it that are owed, for a checkpoint."""
        run, last = self._connection.execute(
            "SELECT run, (SELECT coalesce(max(id), 0) FROM journal) FROM spent"
        ).fetchone()
        position = {"run": run, "journal": last}
        query = "SELECT id FROM journal WHERE owed = 1 ORDER BY id"
        owed = []
        for (number,) in self._connection.execute(query):
            owed.append(number)
        # Of a batch that an earlier process asked about, and that is not counted yet.
        if owed:
            position["owed"] = owed
        return position

    def rewind(self, position: dict[str, Any]) -> None:
        """Go back to a checkpoint: what was owed then, and all answers paid for after it, are owed.

        Args:
            position: from `position`; {} for the start of the run.
        """
        with self._change():
            (run,) = self._connection.execute("SELECT run FROM spent").fetchone()
            # A run that branched off has a journal of its own: the position of the run that it
            # branched from says nothing about it.
            is_same = position.get("run") == run
            last = position["journal"] if is_same else 0
            self._connection.execute("UPDATE journal SET owed = id > ?", (last,))
            owed = position.get("owed", ()) if is_same else ()
            for number in owed:
                self._connection.execute("UPDATE journal SET owed = 1 WHERE id = ?", (number,))


def _fits(total: float, cap: float | None) -> bool:
    return cap is None or total <= cap


def _was_emptied(path: Path, count: int | None) -> bool:
    if not path.exists() or path.stat().st_size:
        return False
    # The count is made before the ledger: where it is 0, a process was killed in between.
    if count == 0:
        return False
    # A new ledger is empty too, but only while the process that makes it holds its lock.
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        return not path.stat().st_size and not Path(f"{path}-wal").exists()


@contextmanager
def open_ledger(path: Path, caps: Caps) -> Iterator[Ledger]:
    """Open the ledger in a file.

    Raises:
        CriticFailed: the file cannot be read, or is older than the count beside it. The spending is
            then unknown and no cap can be kept.
        sqlite3.OperationalError: the file is locked or the disk is full.
    """
    change_count = ChangeCount(path.with_name(f"{path.name}.count"))
    try:
        # Read before the ledger, which others may change in between.
        count = change_count.read()
        if count is None and not path.exists():
            change_count.write(0)
        if _was_emptied(path, count):
            raise sqlite3.DatabaseError("it is empty")
        # "FULL": what was paid must be on the disk also after a power cut. "DELETE": all of it is
        # in this one file, and ranks on several machines may share it.
        with open_database(path, SCHEMA, "FULL", "DELETE") as connection:
            connection.execute(
                "INSERT OR IGNORE INTO spent VALUES (1, ?, 0, 0, 0, 0)", (uuid.uuid4().hex,)
            )
            connection.execute("INSERT OR IGNORE INTO billing VALUES (1, 0, 0, 0, 0)")
            _check_age(connection, count)
            ledger = Ledger(connection, caps, change_count)
            ledger.spent()
            yield ledger
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise CriticFailed(
            f"{path} cannot be read ({error}), so what the critic has cost is not known; "
            "move it away to count from 0 again, together with the file "
            f"{change_count.path.name} beside it"
        ) from error
    finally:
        change_count.close()


def _check_age(connection: sqlite3.Connection, count: int | None) -> None:
    """Raises sqlite3.DatabaseError for a ledger with fewer changes than were counted beside it."""
    (changes,) = connection.execute("SELECT changes FROM billing").fetchone()
    if count is not None and changes < count:
        raise sqlite3.DatabaseError(
            f"it has {changes} changes of {count}: it is an older copy, or was lost"
        )
