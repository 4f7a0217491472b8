"""The circuit breaker of an endpoint: no conversation is sent while the endpoint is down.

    closed      every conversation is sent
    open        after `circuit_failures` failed conversations in a row, none for `circuit_seconds`
    half-open   then one conversation probes: an answer closes the circuit, a failure opens it again

The state is a row of the limits' file, so all ranks of a run on one machine share it, and so is
their clock (`limits`).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time

from critique_rl.critic.api.endpoint import Endpoint

SCHEMA = """
CREATE TABLE IF NOT EXISTS circuit (
    id INTEGER PRIMARY KEY CHECK (id = 1), failures INTEGER, closed REAL, probed REAL
);
INSERT OR IGNORE INTO circuit VALUES (1, 0, 0, 0);
"""
"""failures: failed conversations in a row. closed: when an open circuit becomes half-open. probed:
when the running probe ends at the latest, 0 if none runs.
"""
POLL_SECONDS = 0.02
"""Between two looks at a probe's outcome, which another process may write."""


class CircuitBreaker:
    """The circuit breaker of one process.

    Args:
        connection: the limits' file, opened with `SCHEMA`.
        endpoint: has `circuit_failures`, `circuit_seconds` and `deadline`.
    """

    def __init__(self, connection: sqlite3.Connection, endpoint: Endpoint) -> None:
        self._connection = connection
        self._endpoint = endpoint

    async def admit(self) -> bool:
        """Whether a conversation may be sent. Half-open, the first one is admitted as a probe, and
        the others wait for its outcome.
        """
        while True:
            failures, closed, probed = self._connection.execute(
                "SELECT failures, closed, probed FROM circuit"
            ).fetchone()
            if failures < self._endpoint.circuit_failures:
                return True
            now = time.monotonic()
            if now < closed:
                return False
            if self._begin_probe(probed, now):
                return True
            await asyncio.sleep(POLL_SECONDS)

    def _begin_probe(self, probed: float, now: float) -> bool:
        """Become the probe, unless another one runs or began since `probed` was read."""
        # A probe writes the latest time at which it can still run. One that died with its process
        # is given up after that.
        until = now + self._endpoint.deadline
        changed = self._connection.execute(
            "UPDATE circuit SET probed = ? WHERE probed = ? AND probed <= ?", (until, probed, now)
        )
        return changed.rowcount > 0

    def report(self, alive: bool | None) -> None:
        """Record the outcome of an admitted conversation.

        Args:
            alive: True if the server answered, False if it was down, None if neither is known.
        """
        if alive is None:
            # An inconclusive probe frees its place for the next one.
            self._connection.execute("UPDATE circuit SET probed = 0 WHERE probed > 0")
        elif alive:
            self._connection.execute(
                "UPDATE circuit SET failures = 0, closed = 0, probed = 0 WHERE failures > 0"
            )
        else:
            until = time.monotonic() + self._endpoint.circuit_seconds
            self._connection.execute(
                "UPDATE circuit SET failures = failures + 1, probed = 0, "
                "closed = CASE WHEN failures + 1 >= ? THEN ? ELSE closed END",
                (self._endpoint.circuit_failures, until),
            )
