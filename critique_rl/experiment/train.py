"""One arm, one seed: build the parts, train, evaluate. Everything it leaves is in the run folder.

A run is finished when its eval.json exists. SIGTERM and Ctrl-C end it at the next generation with a
checkpoint; the same command continues from there.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

# Read while TRL is imported, which otherwise prints a warning about its experimental parts.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from transformers.trainer import TRAINER_STATE_NAME

from critique_rl.config.accepted_changes import KEY as ACCEPTED
from critique_rl.config.accepted_changes import Accepted
from critique_rl.config.durable_files import (
    CHECKSUM,
    EVALUATE,
    EVALUATIONS,
    LOGGED,
    check_checksum,
    checksum_of,
    read_json,
    read_jsonl,
    read_yaml,
    readable_rows,
    with_checksum,
    write_json,
    write_yaml,
)
from critique_rl.config.folder_checksums import folder_checksums
from critique_rl.config.resolved_run import base_config, to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder, RunFolder
from critique_rl.config.run_identity import KEY, RunIdentity
from critique_rl.config.schema import RunConfig
from critique_rl.config.terminal import say
from critique_rl.costs import costs
from critique_rl.critic.contract import CriticFailed
from critique_rl.experiment.branch import branch_off, read_origin, trunk_checkpoint
from critique_rl.experiment.build import (
    UNSEALED,
    WEIGHTS,
    build_trainer,
    load_start_policy,
    load_trained,
    load_weights,
    move_to_device,
)
from critique_rl.experiment.callback import (
    STOPPED,
    RunCallback,
    best_policy,
    has_stopped,
    is_spent,
    read_best,
)
from critique_rl.experiment.evaluate import final_evaluation, machine, versions
from critique_rl.experiment.flow.live import add_live_masses
from critique_rl.experiment.flow.snapshots import SnapshotCallback
from critique_rl.experiment.live.progress_lines import show_progress
from critique_rl.experiment.live.trackers import add_trackers
from critique_rl.experiment.preflight import check_arms, warn_sampling
from critique_rl.experiment.resume.changes import accepted_changes
from critique_rl.experiment.resume.inputs import Inputs, read_inputs
from critique_rl.experiment.resume.start import (
    bring_back,
    check_tables,
    delete_best,
    whole_checkpoint,
)
from critique_rl.experiment.same_config import INPUTS, config_changes, stored_identity
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.trainer.checkpoint import DamagedCheckpoint, last_sealed, read_state, step_of
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.model_card import CARD
from critique_rl.trainer.presets import deviations
from critique_rl.trainer.resume import Diverged

KEPT = ("arm", "seed", "cost", LOGGED, WEIGHTS)
"""Keys of eval.json that stay when a policy is judged again."""


class Interrupted(Exception):
    """The run was asked to stop, and left a checkpoint to continue from."""


class RunFailed(Exception):
    """The run could not go on; says why, and what survives."""


STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
STORAGE_WORDS = ("No space left", "os error 28", "inline_container.cc")
"""torch and safetensors report a full disk as errors of their own."""


def evaluate_base(config: RunConfig, pipeline: PipelineFolder) -> None:
    """Judge the policy before training on the problems of every arm.

    It is judged twice, with other samples: the difference between the two is noise.
    """
    task = load_task(config.task, 0)
    model, tokenizer = load_start_policy(config)
    for warning in warn_sampling(config, model.generation_config, model.config):
        say(f"warning: {warning}")
    move_to_device(model)
    write_yaml(pipeline.base.config, base_config(config))
    cost = {"generated_tokens": 0, "critic_tokens": 0, "usd": 0.0, "wall_seconds": 0.0, "steps": 0}
    # The one that makes the base count as finished comes last.
    checksums: dict[str, str] = {}
    for folder, seed in ((pipeline.base_again, 2), (pipeline.base, 1)):
        about = {"arm": "base", "seed": None, "samples_seed": seed, "cost": dict(cost)}
        evaluation = with_checksum(final_evaluation(model, tokenizer, task, config, about, seed))
        checksums[folder.path.name] = evaluation[CHECKSUM]
        write_yaml(pipeline.base.config, {**base_config(config), EVALUATIONS: checksums})
        write_json(folder.evaluation, evaluation)


def evaluate_again(config: RunConfig, folder: RunFolder) -> None:
    """Judge the policy of a finished run by the settings that its pipeline has now.

    Arm, seed and cost stay as they are.
    """
    stored = read_json(folder.evaluation, EVALUATE)
    check_checksum(folder.evaluation, stored, EVALUATE)
    about = {key: stored[key] for key in KEPT if key in stored}
    model, tokenizer = load_trained(config, folder, stored)
    move_to_device(model)
    task = load_task(config.task, 0)
    evaluation = final_evaluation(model, tokenizer, task, config, about)
    write_json(folder.evaluation, with_checksum(evaluation))


def train(
    config: RunConfig, arm: str, seed: int, folder: RunFolder, accepts_changes: bool = False
) -> None:
    """Train one arm with one seed and evaluate it, from the last checkpoint if there is one.

    Args:
        config: The arm, resolved.
        arm: Its name.
        seed: Orders the prompts and samples the completions.
        folder: Where the run writes.
        accepts_changes: Whether it goes on where settings or inputs have changed since its start.

    Raises:
        ConfigError: Settings that cannot be used, or have changed.
        Interrupted: The run was asked to stop.
        RunFailed: The loss is not finite, the disk is full, or a critic failed that may not.
    """
    try:
        _train(config, arm, seed, folder, accepts_changes)
    except DamagedCheckpoint as error:
        raise RunFailed(
            f"{error}; remove it, and the same command goes on from the one before"
        ) from error
    except Diverged as error:
        raise RunFailed(
            f"{error}; {_survivors(folder)}. "
            "The same command would meet it again: change the settings and give another --out"
        ) from error
    except CriticFailed as error:
        raise RunFailed(
            f"{error}; {_survivors(folder)}. Mend that (deadlines, caps and on_failure may be "
            "changed), and the same command continues"
        ) from error
    except Exception as error:
        if _is_misplaced(error, folder):
            misplaced: Any = error
            raise RunFailed(
                f"{misplaced.filename}: {misplaced.strerror}; put it right or remove it, and the "
                "same command continues"
            ) from error
        if not _is_storage_error(error):
            raise
        raise RunFailed(
            f"could not write ({error}); {_survivors(folder)}. "
            "Make room, and the same command continues"
        ) from error


def _is_storage_error(error: Exception) -> bool:
    if getattr(error, "errno", None) in STORAGE_ERRORS:
        return True
    return any(word in str(error) for word in STORAGE_WORDS)


def _is_misplaced(error: Exception, folder: RunFolder) -> bool:
    """True for a file of the run folder that may not be read, or a folder where a file belongs."""
    kinds = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
    if not isinstance(error, kinds):
        return False
    return str(error.filename).startswith(str(folder.path))


def _survivors(folder: RunFolder) -> str:
    """The words that name what is left of a failed run."""
    rows, _ = readable_rows(folder.metrics)
    checkpoint = last_sealed(folder.checkpoints)
    kept = f"the checkpoint of step {step_of(checkpoint)}" if checkpoint else "no checkpoint"
    return f"in {folder.path} survive the metrics of {len(rows)} steps, and {kept}"


@contextmanager
def stop_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C call `handler` within the block.

    However the block ends, the handlers from before it come back.

    Raises:
        ValueError: Python sets signal handlers in the main thread only.
    """
    previous: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous_handler in previous.items():
            # None stands for a handler that C code installed, which Python cannot set again.
            if previous_handler is not None:
                signal.signal(number, previous_handler)


def _train(
    config: RunConfig, arm: str, seed: int, folder: RunFolder, accepts_changes: bool
) -> None:
    """`train`, with the errors of its parts.

    Raises:
        Interrupted: The run was asked to stop.
    """
    check_arms({arm: config})
    config = with_seed(config, seed)
    # Before there is a trainer: see `resume.defaults.KNOWN`.
    config_changes(folder, config, seed)
    task = load_task(config.task, seed)
    trainer = build_trainer(config, folder, task, seed)
    trainer.about = {"arm": arm, "seed": seed, "task": task.name}
    if config.preset:
        trainer.about["preset"] = config.preset
    callback = RunCallback(config, folder, task, trainer)
    trainer.add_callback(callback)
    show_progress(trainer, config)
    if config.flow is not None:
        trainer.add_callback(SnapshotCallback(config, folder, trainer))
        add_live_masses(trainer, config, task)
    with stop_signals(callback.interrupt):
        # The other ranks then find a folder in order, and change nothing in it.
        with trainer.accelerator.main_process_first():
            inputs = read_inputs(config, task, trainer.args)
            checkpoint, trainer.identity = _start(config, inputs, folder, accepts_changes)
            callback.started -= bring_back(folder, checkpoint)
        add_trackers(trainer, config, folder, trainer.identity)
        _take_steps(trainer, config, checkpoint)
        if callback.interrupted:
            raise Interrupted(
                f"stopped at step {trainer.state.global_step} with a checkpoint; "
                "the same command continues"
            )
        about = {"arm": arm, "seed": seed, "cost": _cost(folder, trainer)}
        if callback.detector is not None:
            about["plateau"] = callback.plateau_summary()
        if STOPPED in callback.steps:
            about[STOPPED] = callback.steps[STOPPED]
        if config.branch_from is not None:
            about["branch"] = read_origin(folder)
        _finish(trainer, task, config, folder, about)


def _take_steps(trainer: CritiqueGRPOTrainer, config: RunConfig, checkpoint: Path | None) -> None:
    """Train from the checkpoint, or from the policy, to the end."""
    if checkpoint is None:
        trainer.train()
    elif _is_last(config, checkpoint, trainer):
        # transformers would take one more step where it continues a run that has reached its last.
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint))


def _start(
    config: RunConfig, inputs: Inputs, folder: RunFolder, accepts_changes: bool
) -> tuple[Path | None, RunIdentity]:
    """Where the run goes on from; its settings are written.

    Returns:
        The checkpoint, None for a new run; and whose it is.

    Raises:
        ConfigError: No checkpoint is whole, or something has changed that the user does not take.
    """
    seed = config.trl["seed"]
    identity = stored_identity(folder, seed)
    checkpoint = whole_checkpoint(folder, identity)
    identity = replace(identity, run_id=_run_id(folder, checkpoint))
    check_tables(folder, checkpoint, identity)
    origin = checkpoint
    if checkpoint is None and config.branch_from is not None:
        origin = trunk_checkpoint(config.branch_from, folder)
    accepted = accepted_changes(folder, config, seed, inputs, origin, accepts_changes)
    step = 0
    if origin is not None:
        step = step_of(origin)
    takes_another_course = not step or any(item.step == step for item in accepted)
    # A start takes no best policy over.
    best = read_best(folder, identity if step else None)
    if takes_another_course and best.get("step", 0) > step:
        # It would be kept, though its step may now come out otherwise.
        delete_best(folder)
    elif best:
        best_policy(folder, best)
    # Before any checkpoint: one without a config.yaml says nothing of how it was made.
    _write_config(config, identity, folder, inputs, accepted)
    if checkpoint is None and config.branch_from is not None:
        checkpoint = branch_off(config.branch_from, folder, identity)
    return checkpoint, identity


def _write_config(
    config: RunConfig,
    identity: RunIdentity,
    folder: RunFolder,
    inputs: Inputs,
    accepted: list[Accepted],
) -> None:
    explicit_options = {**config.trl, **config.method}
    deviates = deviations(config.preset, explicit_options) if config.preset else {}
    entries = [item.to_yaml() for item in accepted]
    content = {
        "schema": SCHEMA,
        "run_id": identity.run_id,
        "arm": identity.arm,
        "seed": identity.seed,
        **to_dict(config),
        "deviates": deviates,
        **({ACCEPTED: entries} if entries else {}),
        INPUTS: inputs,
        "versions": versions(),
        "machine": machine(),
        "command": sys.argv,
    }
    write_yaml(folder.config, content)


def _run_id(folder: RunFolder, checkpoint: Path | None = None) -> str:
    """The id of the run folder, the same however often the run is continued."""
    stored = None
    if folder.config.exists():
        stored = read_yaml(folder.config).get("run_id")
    if not stored and checkpoint is not None:
        stored = read_state(checkpoint).get(KEY, {}).get("run_id")
    run_id = str(stored or uuid.uuid4().hex[:12])
    # Trackers then continue a continued run instead of opening another; a user's choice stands.
    os.environ.setdefault("WANDB_RUN_ID", run_id)
    os.environ.setdefault("WANDB_RESUME", "allow")
    os.environ.setdefault("SWANLAB_RUN_ID", run_id)
    return run_id


def _is_last(config: RunConfig, checkpoint: Path, trainer: CritiqueGRPOTrainer) -> bool:
    """True where the run has no step left after the checkpoint.

    It was killed before its evaluation was written, or it branches off at a trunk's end.
    """
    state = read_state(checkpoint)
    tokens = state.get("tokens", {})
    spent = costs(
        tokens,
        state.get("critic_usd", 0.0),
        trainer.parameters,
        config.prices,
        trainer.teacher_parameters,
    )
    last_step = trainer.args.max_steps
    if last_step <= 0:
        # A run over epochs: how many steps these are, the checkpoint knows.
        last_step = read_json(checkpoint / TRAINER_STATE_NAME)["max_steps"]
    if has_stopped(state):
        return True
    return is_spent(config, spent) or step_of(checkpoint) >= last_step


def _finish(
    trainer: CritiqueGRPOTrainer,
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    about: dict[str, Any],
) -> None:
    """Save the policy and judge it: the last one, or the best on validation problems."""
    best = read_best(folder, trainer.identity) if config.evaluation.best_by else {}
    if not best:
        trainer.save_model(str(folder.model))
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        tokenizer = trainer.processing_class
        if best:
            source = best_policy(folder, best)
            shutil.copytree(source, folder.model, dirs_exist_ok=True)
            about["best"] = {key: best[key] for key in ("step", "value", "metric") if key in best}
        if best or trainer.is_sharded:
            # A sharded policy answers only where all ranks ask it.
            model, tokenizer = load_weights(config, str(folder.model.resolve()))
            move_to_device(model)
        evaluation = final_evaluation(model, tokenizer, task, config, about)
        _write_card(trainer, evaluation, folder)
        # Last: its presence means that the run is finished.
        evaluation[LOGGED] = checksum_of(read_jsonl(folder.metrics))
        evaluation[WEIGHTS] = folder_checksums(folder.model, UNSEALED)
        write_json(folder.evaluation, with_checksum(evaluation))
    trainer.accelerator.wait_for_everyone()


def _write_card(
    trainer: CritiqueGRPOTrainer, evaluation: dict[str, Any], folder: RunFolder
) -> None:
    """Write the model card as of the end of training, beside the trained policy."""
    metrics = ", ".join(
        f"{name} {value:.3f}"
        for name, value in evaluation["metrics"].items()
        if name.endswith("/all")
    )
    trainer.about["held-out"] = (
        f"{metrics} ({len(evaluation['problems'])} {evaluation['split']} problems, "
        f"{evaluation['samples']} samples each)"
    )
    trainer.create_model_card(model_name=f"{trainer.about['arm']}-seed{trainer.about['seed']}")
    # TRL writes it into its output_dir, where the checkpoints are.
    shutil.copyfile(folder.checkpoints / CARD, folder.model / CARD)


def _cost(folder: RunFolder, trainer: CritiqueGRPOTrainer) -> dict[str, Any]:
    """The cost of the training, as eval.json holds it."""
    tokens = trainer.tokens
    seconds = sum(row.get("step_time", 0.0) for row in read_jsonl(folder.metrics))
    return {
        **trainer.costs(),
        "critic_tokens": tokens["tokens/critic_prompt"] + tokens["tokens/critic_completion"],
        # The sum over steps leaves out what was trained twice after a kill, and start-up.
        "wall_seconds": round(seconds, 1),
        "steps": trainer.state.global_step,
        "evaluation_tokens": tokens["tokens/evaluation"],
        "tokens": {name.removeprefix("tokens/"): count for name, count in sorted(tokens.items())},
    }
