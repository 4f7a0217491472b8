"""One arm, one seed: build the parts, train, evaluate. Everything it leaves is in the run folder
(`runs`).

A run is finished when its eval.json exists. SIGTERM and Ctrl-C end it at the next step with a
checkpoint; the same command continues from there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import yaml
from transformers.trainer import TRAINER_STATE_NAME

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import base_config, to_dict, with_seed
from critique_rl.config.run_folder import (
    SCHEMA,
    PipelineFolder,
    RunFolder,
    read_jsonl,
    write_json,
    write_text,
    write_yaml,
)
from critique_rl.config.schema import BranchConfig, RunConfig
from critique_rl.costs import costs
from critique_rl.critic.contract import CriticFailed
from critique_rl.experiment.build import _on_device, _policy, build_trainer
from critique_rl.experiment.callback import RunCallback, is_spent, read_best
from critique_rl.experiment.evaluate import final_evaluation, machine, versions
from critique_rl.experiment.preflight import check_arms
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.trainer.checkpoint import branch as copy_checkpoint
from critique_rl.trainer.checkpoint import (
    last_sealed,
    read_state,
    remove_unsealed,
    sealed_checkpoints,
    step_of,
)
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.model_card import CARD
from critique_rl.trainer.presets import deviations
from critique_rl.trainer.resume import Diverged


class Interrupted(Exception):
    """The run was asked to stop, and left a checkpoint to continue from."""


class RunFailed(Exception):
    """The run could not go on: what happened, and what survives."""


BRANCH = "branch.json"
"""Where an arm that branches off came from; in its eval.json too."""
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
STORAGE_WORDS = ("No space left", "os error 28", "inline_container.cc")
"""torch and safetensors report a full disk as errors of their own."""


def evaluate_base(config: RunConfig, pipeline: PipelineFolder) -> None:
    """The policy before training, on the same problems as every arm; twice, so that what samples
    alone change is known.
    """
    task = load_task(config.task, 0)
    model, tokenizer = _on_device(*_policy(config))
    write_yaml(pipeline.base.config, base_config(config))
    cost = {"generated_tokens": 0, "critic_tokens": 0, "usd": 0.0, "wall_seconds": 0.0, "steps": 0}
    for folder, seed in ((pipeline.base_again, 2), (pipeline.base, 1)):
        about = {"arm": "base", "seed": None, "cost": dict(cost)}
        write_json(folder.evaluation, final_evaluation(model, tokenizer, task, config, about, seed))


def evaluate_again(config: RunConfig, folder: RunFolder) -> None:
    """Judge a finished run's policy anew, with the settings the pipeline has now; arm, seed and
    cost stay.
    """
    about = json.loads(folder.evaluation.read_text())
    model, tokenizer = _on_device(*load_policy(str(folder.model.resolve())))
    write_json(
        folder.evaluation,
        final_evaluation(
            model,
            tokenizer,
            load_task(config.task, 0),
            config,
            {key: about[key] for key in ("arm", "seed", "cost")},
        ),
    )


def train(config: RunConfig, arm: str, seed: int, folder: RunFolder) -> None:
    """Train one arm with one seed and evaluate it; continues from the last whole checkpoint if
    there is one.

    Interrupted if asked to stop; RunFailed where the loss is not finite, the disk is full, or a
    critic failed that may not.
    """
    try:
        _train(config, arm, seed, folder)
    except Diverged as error:
        raise RunFailed(
            f"{error}; {_survivors(folder)}. The same command would meet it again: change the settings and give another --out"
        ) from error
    except CriticFailed as error:
        raise RunFailed(
            f"{error}; {_survivors(folder)}. Mend that (deadlines, caps and on_failure may be changed), and the same command continues"
        ) from error
    except Exception as error:
        if not _is_storage(error):
            raise
        raise RunFailed(
            f"could not write ({error}); {_survivors(folder)}. Make room, and the same command continues"
        ) from error


def _is_storage(error: Exception) -> bool:
    return getattr(error, "errno", None) in STORAGE or any(
        word in str(error) for word in STORAGE_WORDS
    )


def _survivors(folder: RunFolder) -> str:
    rows, checkpoint = read_jsonl(folder.metrics), last_sealed(folder.checkpoints)
    kept = f"the checkpoint of step {step_of(checkpoint)}" if checkpoint else "no checkpoint"
    return f"in {folder.path} survive the metrics of {len(rows)} steps, and {kept}"


def _train(config: RunConfig, arm: str, seed: int, folder: RunFolder) -> None:
    check_arms({arm: config})
    config = with_seed(config, seed)
    task = load_task(config.task, seed)
    trainer = build_trainer(config, folder, task, seed)
    trainer.about = {
        "arm": arm,
        "seed": seed,
        "task": task.name,
        **({"preset": config.preset} if config.preset else {}),
    }
    callback = RunCallback(config, folder, task, trainer)
    trainer.add_callback(callback)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, callback.interrupt)
    # The other ranks then find a folder in order, and change nothing in it.
    with trainer.accelerator.main_process_first():
        _write_config(config, arm, seed, folder)
        checkpoint = _checkpoint(config, seed, folder)
        callback.started -= _continue(folder, 0 if checkpoint is None else step_of(checkpoint))
    if checkpoint is not None and _is_done(config, checkpoint, trainer):
        # transformers would take one more step where it continues a run that has reached its last.
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if callback.interrupted:
        raise Interrupted(
            f"stopped at step {trainer.state.global_step} with a checkpoint; the same command continues"
        )
    about = {"arm": arm, "seed": seed, "cost": _cost(folder, trainer)}
    if callback.detector is not None:
        about["plateau"] = {
            "status": callback.detector.status,
            **{f"{name}_step": step for name, step in callback.steps.items()},
        }
    if config.branch_from is not None:
        about["branch"] = json.loads((folder.path / BRANCH).read_text())
    _finish(trainer, task, config, folder, about)


def _write_config(config: RunConfig, arm: str, seed: int, folder: RunFolder) -> None:
    deviates = deviations(config.preset, {**config.trl, **config.method}) if config.preset else {}
    about = {"schema": SCHEMA, "run_id": _run_id(folder), "arm": arm, "seed": seed}
    write_yaml(
        folder.config,
        {
            **about,
            **to_dict(config),
            "deviates": deviates,
            "versions": versions(),
            "machine": machine(),
            "command": sys.argv,
        },
    )


def _checkpoint(config: RunConfig, seed: int, folder: RunFolder) -> Path | None:
    """Where the run goes on from, if it does; half-written checkpoints are removed."""
    remove_unsealed(folder.checkpoints)
    checkpoint = last_sealed(folder.checkpoints)
    return (
        _branch(config.branch_from, folder, seed)
        if checkpoint is None and config.branch_from is not None
        else checkpoint
    )


def _is_done(config: RunConfig, checkpoint: Path, trainer: CritiqueGRPOTrainer) -> bool:
    """True where the checkpoint is the last of its run: killed before its evaluation was written,
    or branched off at its end.
    """
    state = read_state(checkpoint)
    spent = costs(
        state.get("tokens", {}), state.get("critic_usd", 0.0), trainer.parameters, config.prices
    )
    last = trainer.args.max_steps
    if last <= 0:  # by epochs; what that is in steps, the checkpoint knows
        last = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())["max_steps"]
    return is_spent(config, spent) or step_of(checkpoint) >= last


def _branch(branch: BranchConfig, folder: RunFolder, seed: int) -> Path:
    """The checkpoint of a finished run of another arm, copied here with the metrics until there."""
    trunk = RunFolder(folder.path.parent.parent / branch.arm / folder.path.name)
    if not trunk.finished:
        raise ConfigError(
            f"{folder.path} branches from {trunk.path}, which is not finished; train it first, or use critique-rl run"
        )
    about = json.loads(trunk.evaluation.read_text())
    kept, fired = {step_of(path): path for path in sealed_checkpoints(trunk.checkpoints)}, True
    step = branch.at
    if branch.at == "plateau":
        fired = "stuck_step" in about["plateau"]
        step = about["plateau"].get("stuck_step", about["cost"]["steps"])
    if step not in kept:
        raise ConfigError(
            f"{trunk.path} kept no checkpoint of step {step}, only of {sorted(kept)}; remove it to train it again, or branch at one of these"
        )
    rows = [row for row in read_jsonl(trunk.metrics) if row["step"] <= step]
    write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    write_json(
        folder.path / BRANCH,
        {"arm": branch.arm, "seed": seed, "at": branch.at, "step": step, "fired": fired},
    )
    copy_checkpoint(kept[step], folder.checkpoints)
    return folder.checkpoints / kept[step].name


def _finish(
    trainer, task: Task, config: RunConfig, folder: RunFolder, about: dict[str, Any]
) -> None:
    """Save the policy and judge it: the last one, or the best on validation problems."""
    best = read_best(folder) if config.evaluation.best_by else {}
    if not best:
        trainer.save_model(str(folder.model))
    if trainer.accelerator.is_main_process:
        model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
        if best:
            shutil.copytree(
                folder.best_model / f"step{best['step']:05d}", folder.model, dirs_exist_ok=True
            )
            about["best"] = best
        if best or trainer.is_sharded:
            # A sharded policy answers only where all ranks ask it.
            model, tokenizer = _on_device(*load_policy(str(folder.model.resolve())))
        evaluation = final_evaluation(model, tokenizer, task, config, about)
        _write_card(trainer, evaluation, folder)
        write_json(folder.evaluation, evaluation)
    trainer.accelerator.wait_for_everyone()


def _write_card(
    trainer: CritiqueGRPOTrainer, evaluation: dict[str, Any], folder: RunFolder
) -> None:
    """The model card as of the end of training, beside the trained policy."""
    metrics = ", ".join(
        f"{name} {value:.3f}"
        for name, value in evaluation["metrics"].items()
        if name.endswith("/all")
    )
    trainer.about["held-out"] = (
        f"{metrics} ({len(evaluation['problems'])} {evaluation['split']} problems, {evaluation['samples']} samples each)"
    )
    trainer.create_model_card(model_name=f"{trainer.about['arm']}-seed{trainer.about['seed']}")
    shutil.copyfile(folder.checkpoints / CARD, folder.model / CARD)


def _cost(folder: RunFolder, trainer) -> dict[str, Any]:
    rows, tokens = read_jsonl(folder.metrics), trainer.tokens
    critic = tokens["tokens/critic_prompt"] + tokens["tokens/critic_completion"]
    seconds = sum(row.get("step_time", 0.0) for row in rows)
    owners = {name.removeprefix("tokens/"): value for name, value in sorted(tokens.items())}
    return {
        **trainer.costs(),
        "critic_tokens": critic,
        "wall_seconds": round(seconds, 1),
        "steps": trainer.state.global_step,
        "evaluation_tokens": tokens["tokens/evaluation"],
        "tokens": owners,
    }


def _run_id(folder: RunFolder) -> str:
    """One id for the run folder's whole life, so that trackers continue a continued run instead of
    opening another.
    """
    stored = (
        yaml.safe_load(folder.config.read_text()).get("run_id") if folder.config.exists() else None
    )
    run_id = stored or uuid.uuid4().hex[:12]
    for name, value in {
        "WANDB_RUN_ID": run_id,
        "WANDB_RESUME": "allow",
        "SWANLAB_RUN_ID": run_id,
    }.items():
        os.environ.setdefault(name, value)
    return run_id


def _continue(folder: RunFolder, step: int) -> float:
    """Cut the metrics back to the checkpoint's step; seconds trained until there."""
    rows = [row for row in read_jsonl(folder.metrics) if row["step"] <= step]
    if rows or folder.metrics.exists():
        write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    if step:
        print(f"continuing from step {step}", file=sys.stderr)
    return rows[-1]["seconds"] if rows else 0.0
