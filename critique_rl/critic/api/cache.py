"""Answers by the content of their question: a question asked once is not asked again.

A continued run therefore reads the critiques that the killed one read.

    key = sha256 of canonical JSON of everything that decides an answer:
          address, model, rendered messages, sampling settings, number of the sample

The first answer written to a key stays, so processes that asked at once agree. A row that cannot be
read is a miss and is counted. A file that cannot be read is moved aside; `Endpoint` refuses a named
file that never was a cache. Entries are JSON, no pickle: a file from elsewhere may hold wrong words
but runs nothing. Prompts are kept as hashes only.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from critique_rl.config.terminal import say
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.scoring.question import Question, request_body
from critique_rl.critic.api.scoring.tokens import Scoring
from critique_rl.critic.api.sqlite_file import LOCK_SECONDS, open_database
from critique_rl.critic.contract import Reply

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, value TEXT, checksum TEXT) WITHOUT ROWID
"""
QUICK_CHECK = "SELECT count(*) FROM sqlite_master"
"""Reads the file's first page only; `SCHEMA` makes it answer 1."""
THOROUGH_CHECK = "PRAGMA quick_check(1)"
"""Reads every page, and answers "ok"."""


def cache_key(endpoint: Endpoint, asked: Question, sample: int) -> str:
    """The key of an answer: a hash of everything that decides it.

    Args:
        endpoint: its address and sampling settings count, its deadlines and caps do not.
        asked: the conversation, or the text to score.
        sample: number of the answer among those to the same question.
    """
    question = {
        "base_url": endpoint.base_url,
        "sample": sample,
        "length_retry_factor": endpoint.length_retry_factor,
    }
    question.update(request_body(endpoint, asked, sample))
    if isinstance(asked, Scoring):
        # The answer that is kept holds the log-probs from there on.
        question["start"] = asked.start
    if endpoint.strict_model:
        # An answer of another model, kept before this was set, is none.
        question["strict_model"] = True
    canonical = json.dumps(question, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _digest(canonical)


def _digest(text: str) -> str:
    # Model text may hold half surrogates, which plain UTF-8 refuses.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Cache:
    """The cache of one process.

    Args:
        connection: its file, opened with `SCHEMA`.

    Attributes:
        unread: answers that could not be read.
        unsaved: answers that could not be written.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.unread = 0
        self.unsaved = 0

    def get(self, key: str) -> Reply | None:
        """The answer, without usage: an earlier call paid for it. None for a miss."""
        try:
            row = self._connection.execute(
                "SELECT value, checksum FROM replies WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            value, checksum = row
            reply = _read_row(key, value, checksum)
            if reply is None:
                self.unread += 1
                # The damaged row goes, or `put` could never replace it. The checksum spares a good
                # row that another process has written meanwhile.
                self._connection.execute(
                    "DELETE FROM replies WHERE key = ? AND checksum IS ?", (key, checksum)
                )
            return reply
        except sqlite3.DatabaseError:
            # A cache that fails costs a request, never the step.
            self.unread += 1
            return None

    def put(self, key: str, reply: Reply) -> Reply:
        """Keep an answer.

        Returns:
            The answer that the cache holds: another process's if that was first, with the usage of
            `reply`.
        """
        fields = {"text": reply.text, "reason": reply.reason}
        if reply.model:
            fields["model"] = reply.model
        value = json.dumps(fields)
        try:
            self._connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, value, _digest(key + value))
            )
            kept = self.get(key)
        except sqlite3.DatabaseError:
            kept = None
        if kept is None:
            self.unsaved += 1
            return reply
        return replace(kept, usage=reply.usage)


def _read_row(key: str, value: object, checksum: object) -> Reply | None:
    """The answer in a row; None if the row is damaged."""
    # The checksum covers the key too: an answer under a wrong key is damage.
    if not isinstance(value, str) or _digest(key + value) != checksum:
        return None
    fields = json.loads(value)
    return Reply(fields["text"], reason=fields["reason"], model=fields.get("model", ""))


@contextmanager
def open_cache(path: Path) -> Iterator[Cache]:
    """Open the cache in a file.

    A damaged file is moved aside, and a new one begins. Damage is reported on stderr.
    """
    if not _is_sound(path, QUICK_CHECK):
        _move_aside(path)
    with open_database(path, SCHEMA) as connection:
        cache = Cache(connection)
        yield cache
    if not cache.unread and not cache.unsaved:
        return
    say(
        f"{path}: {cache.unread} answers could not be read, {cache.unsaved} not be kept; "
        "what is missing is asked for again"
    )
    if not _is_sound(path, THOROUGH_CHECK):
        _move_aside(path)


def _is_sound(path: Path, check: str) -> bool:
    try:
        with open_database(path, SCHEMA) as connection:
            return connection.execute(check).fetchone()[0] in ("ok", 1)
    except sqlite3.OperationalError:
        return True  # locked or full, which says nothing about the file
    except sqlite3.DatabaseError:
        return False


def _move_aside(path: Path) -> None:
    # Several processes may meet the same damage; the lock has one of them move the file.
    with FileLock(f"{path}.aside.lock", timeout=LOCK_SECONDS):
        if _is_sound(path, THOROUGH_CHECK):
            return
        target = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(target)
        # The log belongs to the damaged file: SQLite would play it into the new one.
        for tail in ("-wal", "-shm"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
    say(f"{path} is damaged; it was moved to {target}, and answers are asked for again")
