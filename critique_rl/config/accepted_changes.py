"""Changes that a user accepted in the middle of a run (`--accept-changes`), as config.yaml has
them:

    accepted_changes: [{step: 50, changes: ["prompts/refine 3f2a1b7c, now 9b1c02de"]}]

Steps after `step` were trained with the changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from critique_rl.config.durable_files import read_yaml
from critique_rl.config.run_folder import RunFolder

KEY = "accepted_changes"


@dataclass(frozen=True)
class Accepted:
    """What was accepted at one step of a run."""

    step: int
    changes: tuple[str, ...]

    def to_yaml(self) -> dict[str, Any]:
        """The entry of config.yaml."""
        return {**asdict(self), "changes": list(self.changes)}


def parse_accepted(stored: Mapping[str, Any]) -> list[Accepted]:
    """The entries of a config.yaml; those of another form are left out."""
    entries = stored.get(KEY)
    accepted = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("changes"), list):
            changes = tuple(str(change) for change in entry["changes"])
            step = entry.get("step")
            accepted.append(Accepted(step if isinstance(step, int) else 0, changes))
    return accepted


def read_accepted(run: RunFolder) -> list[Accepted]:
    """The changes accepted in a run; [] without a config.yaml.

    Raises:
        DamagedFile: config.yaml cannot be read.
    """
    # Reading YAML takes long, and hardly any run has the key.
    if not run.config.is_file() or KEY.encode() not in run.config.read_bytes():
        return []
    return parse_accepted(read_yaml(run.config))
