"""A wall clock that is an hour off, or jumps while calls run, changes nothing."""

from __future__ import annotations

import ast
import datetime
import itertools
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import serving
from waiting import SECONDS

import critique_rl
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.limits import open_limits
from critique_rl.critic.chat import ApiChat

pytestmark = pytest.mark.processes
ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m", requests_per_minute=6.0, circuit_failures=1)
WALL_CLOCKS = ("time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime")


def test_no_module_reads_the_wall_clock():
    readers = []
    for path in Path(critique_rl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_read = isinstance(node, ast.Attribute) and node.attr in WALL_CLOCKS
            owner = node.value.id if is_read and isinstance(node.value, ast.Name) else ""
            if owner in ("time", "datetime", "date"):
                readers.append(f"{path.name} {node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                readers.append(f"{path.name} imports from time")
    # The name of a damaged cache that is moved aside.
    assert readers == ["cache.py time_ns"]


@pytest.fixture(params=[-3600, "jumping"])
def wall_clock(request, monkeypatch):
    """A wall clock that is off by so many seconds, or by an hour more and less in turn."""
    true_time = time.time
    turns = itertools.cycle((3600, -3600, 0))

    def shift() -> float:
        return next(turns) if request.param == "jumping" else request.param

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=shift())

    monkeypatch.setattr(time, "time", lambda: true_time() + shift())
    monkeypatch.setattr(datetime, "datetime", Shifted)
    assert request.param == "jumping" or abs(time.time() - true_time()) > 3000


def test_waits_rates_and_circuit_go_by_another_clock(wall_clock, tmp_path, monkeypatch):
    monkeypatch.setattr("critique_rl.critic.api.retry.MAX_WAIT_SECONDS", 0.1)
    with serving() as server:
        endpoint = Endpoint(
            server.url, "m", requests_per_minute=6000, circuit_failures=2, circuit_seconds=300
        )

        def ask(*contents: str, **changes) -> list[tuple[str, str, bool]]:
            questions = [[{"role": "user", "content": content}] for content in contents]
            replies = ApiChat(replace(endpoint, **changes), tmp_path).answer(questions)
            return [(r.status, r.reason, r.usage.seconds < SECONDS) for r in replies]

        # Healed after the second that the server's own clock asks for.
        assert ask("retry-date:1 a", "ok b") == [("ok", "", True)] * 2
        down = ask("503 c", "503 d", attempts=1)
        assert [reply[1] for reply in down] == ["http 503: down"] * 2
        # The circuit is open now, and closes once its seconds are over.
        assert ask("ok e") == [("skipped", "circuit open", True)]
        with sqlite3.connect(tmp_path / "limits.sqlite") as file:
            file.execute("UPDATE circuit SET closed = closed - 300")
        assert ask("ok f") == [("ok", "", True)]


def test_moments_of_wall_time_or_of_an_earlier_start_of_the_machine_are_forgotten(
    tmp_path, monkeypatch
):
    hour = 3600.0

    def leave(latest: float | None, moment: float) -> None:
        with sqlite3.connect(tmp_path / "limits.sqlite") as file:
            file.execute("DELETE FROM clock")
            if latest is not None:
                file.execute("INSERT INTO clock VALUES (1, ?)", (latest,))
            file.execute("UPDATE pace SET free = ?", (moment,))
            file.execute("UPDATE circuit SET failures = 9, closed = ?", (moment,))

    def wait() -> float | None:
        with open_limits(tmp_path, ENDPOINT) as opened:
            return opened.take_moment(1, 60.0)

    assert wait() == 0.0
    assert 0 < wait() <= 10  # 60 / 6
    leave(None, time.time())  # as an earlier version left it
    assert wait() == 0.0
    leave(time.monotonic() + 9 * hour, time.monotonic() + 9 * hour)  # the machine started again
    assert wait() == 0.0
    leave(time.monotonic(), time.monotonic() + 30)
    assert 20 < wait() <= 30
