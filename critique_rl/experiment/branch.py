"""Arms that go on from a checkpoint of another arm's finished run, the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import EVALUATE, DamagedFile, read_json, write_json
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import RunIdentity
from critique_rl.config.schema import BranchConfig
from critique_rl.experiment.resume.start import write_metrics
from critique_rl.experiment.same_config import stored_identity
from critique_rl.trainer.checkpoint import copy_checkpoint, fault, sealed_checkpoints, step_of

ORIGIN = "branch.json"
"""In the folder of a run that branches off: the arm, seed and step it comes from."""


def read_origin(folder: RunFolder) -> dict[str, Any]:
    """The origin that `branch_off` wrote: {"arm", "seed", "at", "step", "fired"}.

    "fired" says whether the plateau came, where the run branches at it.
    """
    return read_json(folder.path / ORIGIN)


def trunk_checkpoint(branch: BranchConfig, folder: RunFolder) -> Path:
    """The checkpoint of the trunk that a run branches off from.

    Args:
        branch: The arm to branch from, and where.
        folder: The run that branches off.

    Raises:
        ConfigError: The trunk is not finished, or kept no whole checkpoint of that step.
    """
    trunk = _trunk(branch, folder)
    if not trunk.finished:
        raise ConfigError(
            f"{folder.path} branches from {trunk.path}, which is not finished; "
            "train it first, or use critique-rl run"
        )
    step, _ = _branch_step(branch, trunk)
    kept = {step_of(path): path for path in sealed_checkpoints(trunk.checkpoints)}
    if step not in kept:
        raise ConfigError(
            f"{trunk.path} kept no checkpoint of step {step}, only of {sorted(kept)}; "
            "remove it to train it again, or branch at one of these"
        )
    words = fault(kept[step], stored_identity(trunk, int(folder.path.name.removeprefix("seed"))))
    if words:
        raise ConfigError(
            f"{kept[step]} is damaged ({words}); remove {trunk.path} to train it again, or branch "
            f"at another of the steps {sorted(kept)}"
        )
    return kept[step]


def branch_off(branch: BranchConfig, folder: RunFolder, identity: RunIdentity) -> Path:
    """Copy a checkpoint of the trunk into this run's folder, with the metrics until there.

    Args:
        branch: The arm to branch from, and where.
        folder: The run that branches off.
        identity: The run that branches off. Both have one seed.

    Returns:
        The copied checkpoint.

    Raises:
        ConfigError: As `trunk_checkpoint` does.
    """
    checkpoint = trunk_checkpoint(branch, folder)
    trunk = _trunk(branch, folder)
    step, fired = _branch_step(branch, trunk)
    write_metrics(trunk, folder, step, checkpoint)
    place = {"at": branch.at, "step": step, "fired": fired}
    write_json(folder.path / ORIGIN, {"arm": branch.arm, "seed": identity.seed, **place})
    # The checkpoint comes last: a copy that is cut short is made again.
    copy_checkpoint(checkpoint, folder.checkpoints, identity)
    return folder.checkpoints / checkpoint.name


def _trunk(branch: BranchConfig, folder: RunFolder) -> RunFolder:
    pipeline = folder.path.parent.parent
    return RunFolder(pipeline / branch.arm / folder.path.name)


def _branch_step(branch: BranchConfig, trunk: RunFolder) -> tuple[int, bool]:
    """(the step to branch at, whether the plateau came).

    Raises:
        DamagedFile: the trunk's evaluation does not say it.
    """
    if branch.at != "plateau":
        return branch.at, True
    evaluation = read_json(trunk.evaluation, EVALUATE)
    try:
        if "stuck_step" in evaluation["plateau"]:
            return int(evaluation["plateau"]["stuck_step"]), True
        # A trunk without a plateau is branched from at its end, where it kept a checkpoint.
        return int(evaluation["cost"]["steps"]), False
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(trunk.evaluation, f"no plateau or cost: {error}", EVALUATE) from error
