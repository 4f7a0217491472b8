"""None is called while the endpoint is down."""

from __future__ import annotations

import asyncio
import sqlite3
import time

from critique_rl.critic.api.endpoint import Endpoint

POLL_SECONDS = 0.02
"""Between looks for a slot or a probe's outcome that another process holds."""


class CircuitBreaker:
    """Closed, open, or half-open, where one call probes."""

    def __init__(self, connection: sqlite3.Connection, endpoint: Endpoint):
        self._connection, self._endpoint = connection, endpoint

    async def admitted(self) -> bool:
        """False while the circuit is open. Half-open the first is admitted as a probe, and the
        others wait for what becomes of it.
        """
        while True:
            failures, closed, probed = self._connection.execute(
                "SELECT failures, closed, probed FROM circuit"
            ).fetchone()
            if failures < self._endpoint.circuit_failures:
                return True
            now = time.time()
            if now < closed:
                return False
            # A probe that died with its process is given up after the time it could have taken.
            probe = (now + self._endpoint.deadline, probed, now)
            if self._connection.execute(
                "UPDATE circuit SET probed = ? WHERE probed = ? AND probed <= ?", probe
            ).rowcount:
                return True
            await asyncio.sleep(POLL_SECONDS)

    def report(self, alive: bool | None) -> None:
        """What became of an admitted conversation: the server answered, was down, or (None) neither
        is known.
        """
        if alive is None:
            self._connection.execute("UPDATE circuit SET probed = 0 WHERE probed > 0")
        elif alive:
            self._connection.execute(
                "UPDATE circuit SET failures = 0, closed = 0, probed = 0 WHERE failures > 0"
            )
        else:
            until = time.time() + self._endpoint.circuit_seconds
            change = "failures = failures + 1, probed = 0, closed = CASE WHEN failures + 1 >= ? THEN ? ELSE closed END"
            self._connection.execute(
                f"UPDATE circuit SET {change}", (self._endpoint.circuit_failures, until)
            )
