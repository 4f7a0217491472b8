"""Answers by the content of their question: what was asked once is not asked again, so a continued
run reads the critiques that the killed one read.

    key = sha256 of canonical JSON of everything that decides an answer: address, model, rendered messages, sampling settings, number of the sample

The first answer written to a key stays, so processes that asked at once agree. A row that cannot be
read is a miss and is counted; a file that cannot be read is moved aside (one that a user named and
that never was a cache is refused before, by `Endpoint`). Only answers with text are kept, JSON and
no pickle, so a file from elsewhere can hold wrong words but run nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.sqlite_file import LOCK_SECONDS, opened
from critique_rl.critic.contract import Reply
from critique_rl.types import Message

SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, value TEXT, checksum TEXT) WITHOUT ROWID"


def key_of(endpoint: Endpoint, messages: Sequence[Message], sample: int) -> str:
    """The key of answer number `sample` to a conversation."""
    asked = {
        "base_url": endpoint.base_url,
        "sample": sample,
        "length_retry_factor": endpoint.length_retry_factor,
        **endpoint.request(messages, sample),
    }
    return _digest(json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Cache:
    """One open cache. `bad` counts answers that could not be read, `unsaved` those that could not
    be written.
    """

    def __init__(self, connection: sqlite3.Connection):
        self._connection, self.bad, self.unsaved = connection, 0, 0

    def get(self, key: str) -> Reply | None:
        """The answer, without usage: it was paid for before. None for a miss; a damaged row is one,
        and is dropped.
        """
        try:
            row = self._connection.execute(
                "SELECT value, checksum FROM replies WHERE key = ?", (key,)
            ).fetchone()
            reply = None if row is None else _reply(key, *row)
            if row is not None and reply is None:
                self.bad += 1
                self._connection.execute(
                    "DELETE FROM replies WHERE key = ? AND checksum IS ?", (key, row[1])
                )
            return reply
        except sqlite3.DatabaseError:
            self.bad += 1
            return None

    def put(self, key: str, reply: Reply) -> Reply:
        """Keep an answer. Returns the one that is kept, which is another process's where that was
        first, with this one's usage.
        """
        value = json.dumps({"text": reply.text, "reason": reply.reason})
        try:
            self._connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, value, _digest(key + value))
            )
            kept = self.get(key)
        except sqlite3.DatabaseError:
            kept = None
        self.unsaved += kept is None
        return reply if kept is None else replace(kept, usage=reply.usage)


def _reply(key: str, value: object, checksum: object) -> Reply | None:
    """The answer of a row; None for one that is damaged."""
    if not isinstance(value, str) or _digest(key + value) != checksum:
        return None
    fields = json.loads(value)
    return Reply(fields["text"], reason=fields["reason"])


@contextmanager
def open_cache(path: Path) -> Iterator[Cache]:
    """The cache in a file. One that is no database or a damaged one is moved aside; that, and what
    could not be read, is said on stderr.
    """
    if not _is_sound(path, "SELECT count(*) FROM sqlite_master"):
        _move_aside(path)
    with opened(path, SCHEMA) as connection:
        cache = Cache(connection)
        yield cache
    if cache.bad or cache.unsaved:
        print(
            f"{path}: {cache.bad} answers could not be read, {cache.unsaved} not be kept; what is missing is asked for again",
            file=sys.stderr,
        )
        if not _is_sound(path, "PRAGMA quick_check(1)"):
            _move_aside(path)


def _is_sound(path: Path, check: str) -> bool:
    try:
        with opened(path, SCHEMA) as connection:
            return connection.execute(check).fetchone()[0] in ("ok", 1)
    except sqlite3.OperationalError:
        return True  # locked or full, which says nothing about the file
    except sqlite3.DatabaseError:
        return False


def _move_aside(path: Path) -> None:
    """Once, where several processes met the same damage."""
    with FileLock(f"{path}.aside.lock", timeout=LOCK_SECONDS):
        if _is_sound(path, "PRAGMA quick_check(1)"):
            return
        target = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(target)
        for tail in ("-wal", "-shm"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
    print(
        f"{path} is damaged; it was moved to {target}, and answers are asked for again",
        file=sys.stderr,
    )
