"""What has changed since a run was started, and whether the user takes it.

Settings are `same_config`'s, all else is `inputs`. A run without a checkpoint starts over with what
there is now, so nothing can have changed in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from critique_rl.config.accepted_changes import Accepted, parse_accepted
from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.schema import RunConfig
from critique_rl.config.terminal import say
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.resume.inputs import PACKAGES, Inputs, read_inputs, short_python
from critique_rl.experiment.same_config import INPUTS, VERSIONS, config_changes, read_config
from critique_rl.tasks.load import load_task
from critique_rl.trainer.checkpoint import has_checksums, sealed_checkpoints, step_of

SHOWN = 8
"""Digits of a checksum that are shown."""
COMPARED = ("python", "torch", "transformers", "trl")
"""Versions that folders without inputs have too."""
EVERYWHERE = ("python", *PACKAGES, "data/train", "ranks")
"""Inputs of every run, whatever its settings."""
PER_RUN = ("data/train", "ranks")
"""Inputs that may differ between the runs of an arm."""
CANNOT = "cannot go on as the same run"
ADVICE = (
    "Bring it back, give another --out, or give --accept-changes: the run then goes on with it, "
    "and the report says from which step"
)


def accepted_changes(
    run: RunFolder,
    config: RunConfig,
    seed: int,
    inputs: Inputs,
    checkpoint: Path | None,
    accepts: bool,
) -> list[Accepted]:
    """The changes accepted in a run so far, with those that are accepted now.

    Args:
        run: The folder that is continued.
        config: The run as its pipeline has it now.
        seed: Its seed.
        inputs: Its inputs now.
        checkpoint: What it goes on from; None for a start.
        accepts: Whether the user takes changes.

    Raises:
        ConfigError: Something has changed that the user does not take.
    """
    if checkpoint is None:
        step = 0
        stored: dict[str, Any] = {}
        changes = changes_between_runs(run, inputs)
    else:
        step = step_of(checkpoint)
        stored = _started_with(run, config, seed)
        changes = [str(change) for change in config_changes(run, config, seed)]
        changes += input_changes(stored, inputs)
        _note_unchecked(run, stored, checkpoint)
    if changes and not accepts:
        words = "; ".join(changes)
        raise ConfigError(
            f"{run.path} cannot go on as the same run: {words}. {ADVICE[0].upper()}{ADVICE[1:]}"
        )
    # Steps after the checkpoint are taken again, with what is there now.
    accepted = [Accepted(min(item.step, step), item.changes) for item in parse_accepted(stored)]
    if changes:
        say(f"accepted at step {step}: {'; '.join(changes)}")
        accepted.append(Accepted(step, tuple(changes)))
    return accepted


def check_inputs(run: RunFolder, config: RunConfig, seed: int) -> None:
    """Refuse changed inputs of a run before its process is started.

    Raises:
        ConfigError: Something has changed since the run started, or since others of its pipeline.
    """
    stored: dict[str, Any] = {}
    if sealed_checkpoints(run.checkpoints):
        stored = read_config(run)
    if not stored and not _runs_with_inputs(run):
        return
    arguments = trainer_arguments(config, run)
    inputs = read_inputs(config, load_task(config.task, seed), arguments)
    changes = input_changes(stored, inputs) if stored else changes_between_runs(run, inputs)
    if changes:
        listed = "; ".join(changes)
        raise ConfigError(f"{run.path} {CANNOT}: {listed}. {ADVICE}")


def changes_between_runs(run: RunFolder, inputs: Inputs) -> list[str]:
    """Inputs of a new run that differ from those of the runs beside it, in words.

    Of other seeds all count but the training rows, which the seed draws; of other arms only those
    that no arm chooses: versions, and templates of one name.
    """
    for other, stored in _runs_with_inputs(run).items():
        is_same_arm = other.parent == run.path.parent
        known = {
            name: value
            for name, value in stored.items()
            if name not in PER_RUN and (is_same_arm or "/" not in name or name[:8] == "prompts/")
        }
        if not is_same_arm:
            known = {name: value for name, value in known.items() if name in inputs}
        ours = {
            name: value
            for name, value in inputs.items()
            if name not in PER_RUN and (is_same_arm or name in known)
        }
        changes = input_changes({INPUTS: known}, ours)
        if changes:
            return [
                f"{change} (in {other.parent.name}/{other.name} the first)" for change in changes
            ]
    return []


def _runs_with_inputs(run: RunFolder) -> dict[Path, dict[str, Any]]:
    """The inputs of the other runs of a pipeline that have finished or left a checkpoint."""
    inputs = {}
    for path in sorted(run.path.parent.parent.glob("*/seed*/config.yaml")):
        other = RunFolder(path.parent)
        is_kept = other.finished or sealed_checkpoints(other.checkpoints)
        if other.path != run.path and is_kept:
            stored = read_config(other).get(INPUTS)
            if stored:
                inputs[other.path] = stored
    return inputs


def _started_with(run: RunFolder, config: RunConfig, seed: int) -> dict[str, Any]:
    """The config.yaml that the run was started with; that of its trunk for a new branch."""
    stored = read_config(run)
    if stored or config.branch_from is None:
        return stored
    trunk = PipelineFolder(run.path.parent.parent).run(config.branch_from.arm, seed)
    stored = read_config(trunk)
    return {key: value for key, value in stored.items() if key != "accepted_changes"}


def input_changes(stored: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """Inputs that differ from those of a config.yaml, in words with both values, cut short.

    Its section `versions` counts too: a folder of an earlier version has nothing else.
    """
    kept = stored.get(INPUTS) or {}
    changes: list[str] = []
    # A version stands in both sections, and each may have been edited alone.
    for before in (kept, _old_versions(stored)):
        names = [name for name in before if name in inputs]
        if before is kept:
            names += [*_lost(kept, inputs), *_lost(inputs, kept)]
        for name in names:
            words = _difference(name, before.get(name), inputs.get(name))
            if words and words not in changes:
                changes.append(words)
    if kept and VERSIONS in stored:
        lost = [name for name in EVERYWHERE if name in inputs and name not in kept]
        changes += [_difference(name, None, inputs[name]) for name in lost]
    return changes


def _difference(name: str, before: Any, now: Any) -> str:
    """Words for an input that differs; "" where it does not."""
    if before == now:
        return ""
    shown = _short(before), _short(now)
    if shown[0] == shown[1]:
        # A number where a text was.
        return f"{name} {before!r}, now {now!r}"
    return f"{name} {shown[0]}, now {shown[1]}"


def _lost(some: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Names that only the first has, of kinds of which both have some."""
    kinds = {name.partition("/")[0] for name in others if "/" in name}
    return [
        name
        for name in some
        if name not in others and name.partition("/")[0] in kinds and not name.endswith("/commit")
    ]


def _old_versions(stored: Mapping[str, Any]) -> dict[str, str]:
    versions = stored.get(VERSIONS)
    if not isinstance(versions, Mapping):
        return {}
    known = {name: str(versions[name]) for name in COMPARED if name in versions}
    if "python" in known:
        known["python"] = short_python(known["python"])
    return known


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    # A checksum stands last, after a count of rows.
    words = str(value).split(" ")
    if len(words[-1]) > 2 * SHOWN and words[-1].isalnum():
        words[-1] = words[-1][:SHOWN]
    return " ".join(words)


def _note_unchecked(run: RunFolder, stored: Mapping[str, Any], checkpoint: Path) -> None:
    """Say what cannot be compared in a folder of an earlier version."""
    missing = []
    if not stored.get(INPUTS):
        missing.append("no checksums of prompts, rows, policy and code")
    if not has_checksums(checkpoint):
        missing.append(f"none of {checkpoint.name}'s files")
    if missing:
        say(
            f"note: an earlier version started {run.path}: it kept {' and '.join(missing)}, so "
            "these could not be checked"
        )
