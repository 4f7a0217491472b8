"""Tables that a run logged to trackio, a SQLite file per project: `project.db/RUN` as a path.

trackio 0.43 keeps a table whole in its metrics' JSON: {"completions": {"_type": "trackio.table",
"_value": [row, ...]}}. Two runs may share a name, since it resumes none by default.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError

TABLE = "trackio.table"


def is_run(path: Path) -> bool:
    """Whether a path names a run within a project's file."""
    return path.parent.suffix == ".db" and path.parent.is_file()


def read_run(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of all tables of a run, numbered from 1, each with its step.

    Args:
        path: `project.db/RUN`, where RUN is a run's name or id.

    Raises:
        ConfigError: the file is no project, or no run, or several, have that name.
    """
    try:
        with closing(sqlite3.connect(f"file:{path.parent}?mode=ro", uri=True)) as project:
            run_id = _find_run(project, path)
            query = "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY step, id"
            logged = project.execute(query, (run_id,)).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"{path.parent}: got no project of trackio ({error})") from error
    number = 0
    for step, text in logged:
        metrics = json.loads(text)
        for value in metrics.values():
            if not isinstance(value, dict) or value.get("_type") != TABLE:
                continue
            for row in value["_value"]:
                number += 1
                yield number, {"step": step, **row}


def _find_run(project: sqlite3.Connection, path: Path) -> str:
    """The id of the run that a path names.

    Raises:
        ConfigError: none or several have that name.
    """
    known = project.execute("SELECT DISTINCT run_id, run_name FROM metrics").fetchall()
    ids = []
    for run_id, name in known:
        if path.name in (run_id, name):
            ids.append(run_id)
    if len(ids) == 1:
        found_id: str = ids[0]
        return found_id
    if ids:
        listed = ", ".join(ids)
        raise ConfigError(f"{path}: got {len(ids)} runs of that name, expected an id: {listed}")
    names = {name for _, name in known}
    listed = ", ".join(sorted(names))
    raise ConfigError(f"{path}: got no such run, expected one of {listed}")
