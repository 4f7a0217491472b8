"""Arms that go on from a checkpoint of another arm's finished run, the trunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl, write_json, write_text
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import BranchConfig
from critique_rl.trainer.checkpoint import copy_checkpoint, sealed_checkpoints, step_of

ORIGIN = "branch.json"
"""In the folder of a run that branches off: the arm, seed and step it comes from."""


def read_origin(folder: RunFolder) -> dict[str, Any]:
    """The origin that `branch_off` wrote: {"arm", "seed", "at", "step", "fired"}.

    "fired" says whether the plateau came, where the run branches at it.
    """
    return json.loads((folder.path / ORIGIN).read_text())


def branch_off(branch: BranchConfig, folder: RunFolder, seed: int) -> Path:
    """Copy a checkpoint of the trunk into this run's folder, with the metrics until there.

    Args:
        branch: The arm to branch from, and where.
        folder: The run that branches off.
        seed: Of both runs.

    Returns:
        The copied checkpoint.

    Raises:
        ConfigError: The trunk is not finished, or kept no checkpoint of that step.
    """
    pipeline = folder.path.parent.parent
    trunk = RunFolder(pipeline / branch.arm / folder.path.name)
    if not trunk.finished:
        raise ConfigError(
            f"{folder.path} branches from {trunk.path}, which is not finished; "
            "train it first, or use critique-rl run"
        )
    step, fired = _branch_step(branch, trunk)
    kept = {step_of(path): path for path in sealed_checkpoints(trunk.checkpoints)}
    if step not in kept:
        raise ConfigError(
            f"{trunk.path} kept no checkpoint of step {step}, only of {sorted(kept)}; "
            "remove it to train it again, or branch at one of these"
        )
    cut_metrics(trunk, folder, step)
    origin = {"arm": branch.arm, "seed": seed, "at": branch.at, "step": step, "fired": fired}
    write_json(folder.path / ORIGIN, origin)
    # The checkpoint comes last: a copy that is cut short is made again.
    copy_checkpoint(kept[step], folder.checkpoints)
    return folder.checkpoints / kept[step].name


def _branch_step(branch: BranchConfig, trunk: RunFolder) -> tuple[int, bool]:
    """(the step to branch at, whether the plateau came)."""
    if branch.at != "plateau":
        return branch.at, True
    evaluation = json.loads(trunk.evaluation.read_text())
    if "stuck_step" in evaluation["plateau"]:
        return evaluation["plateau"]["stuck_step"], True
    # A trunk without a plateau is branched from at its end, where it kept a checkpoint.
    return evaluation["cost"]["steps"], False


def cut_metrics(source: RunFolder, target: RunFolder, step: int) -> list[dict[str, Any]]:
    """Write the metrics of `source` up to `step` as those of `target`, which may be the same run.

    Returns:
        The rows written.
    """
    rows = [row for row in read_jsonl(source.metrics) if row["step"] <= step]
    lines = [json.dumps(row) + "\n" for row in rows]
    write_text(target.metrics, "".join(lines))
    return rows
