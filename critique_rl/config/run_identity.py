"""Whose a file is: the arm, seed and id of a run.

Checkpoints, the best policy, tables of rollouts, eval.json and config.yaml carry it, so that a file
of another run is told from damage and from one's own. Files of earlier versions carry none, and
pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEY = "run"
"""Key of an identity in the files that carry one."""


@dataclass(frozen=True)
class RunIdentity:
    """One run of a pipeline."""

    arm: str
    seed: int
    run_id: str = ""
    """Of its folder, the same however often it is continued; "" where config.yaml has none."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def fault(self, stored: Any) -> str:
        """Why a file that carries `stored` is not of this run; "" where it is, or carries nothing.

        Args:
            stored: The file's identity, or a mapping with some of its keys.
        """
        if not isinstance(stored, Mapping):
            return ""
        arm = stored.get("arm", self.arm)
        seed = stored.get("seed", self.seed)
        if (arm, seed) != (self.arm, self.seed):
            return f"it is of arm {arm!r} with seed {seed!r}"
        run_id = stored.get("run_id")
        if run_id and self.run_id and run_id != self.run_id:
            return f"it is of another run of this arm and seed, {str(run_id)[:12]}"
        return ""


def table_identity(path: Path) -> Any:
    """What the metadata of a parquet table say of its run; None where they say nothing.

    None too for what cannot be read: its reader says that.
    """
    # Imported here: most commands read no table.
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A named pipe would hold up the reader for ever.
    if not path.is_file():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        return json.loads(metadata.get(KEY.encode(), b"null"))
    except (pa.ArrowException, OSError, ValueError):
        return None
