"""The number of changes of a database, kept in a small file beside it.

An older copy of a database opens like a good one. The count beside it tells them apart: it is
written after each change, so it is never ahead of the database that it belongs to.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

DIGITS = 20


class ChangeCount:
    """The file with the count.

    Args:
        path: the file; it is made if missing. A missing one says nothing about its database.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def read(self) -> int | None:
        """The count; None if none was written yet.

        Raises:
            sqlite3.DatabaseError: the file holds something else.
        """
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        text = os.read(self._descriptor, 2 * DIGITS).strip()
        if not text:
            return None
        if not text.isdigit():
            raise sqlite3.DatabaseError(f"{self.path.name} beside it holds no number")
        return int(text)

    def write(self, count: int) -> None:
        """Replace the count."""
        # Always as long as before: a reader never sees a part of it. It is not flushed to the disk:
        # after a power cut it is behind the database, which only finds less.
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, b"%0*d\n" % (DIGITS, count))

    def close(self) -> None:
        os.close(self._descriptor)
