"""One arm, one seed: build the parts, train, evaluate. Everything it leaves is in the run folder (`runs`).

A run is finished when its eval.json exists. SIGTERM and Ctrl-C end it at the next step with a checkpoint; the same command continues from there.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import sys
import time
import uuid
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers
import trl
import yaml
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from critique_rl.checkpoint import branch as copy_checkpoint
from critique_rl.checkpoint import last_whole, read_state, remove_halves, step_of, whole
from critique_rl.config import (
    BranchConfig,
    ConfigError,
    EvaluationConfig,
    PlateauConfig,
    RunConfig,
    TaskConfig,
    base_config,
    check_keys,
    suggest,
    to_dict,
    with_seed,
)
from critique_rl.costs import costs
from critique_rl.critic import build_critic
from critique_rl.evaluate import Sampling, judge, pass_metrics
from critique_rl.options import CritiqueGRPOConfig
from critique_rl.plateau import PlateauDetector, PlateauRule
from critique_rl.policy import load_policy
from critique_rl.presets import deviations, preset
from critique_rl.prompts import known
from critique_rl.record import write_rollouts
from critique_rl.rewards import VerifierReward
from critique_rl.runs import SCHEMA, PipelineFolder, RunFolder, append_jsonl, read_jsonl, write_json, write_text, write_yaml
from critique_rl.tasks import Task, load_task
from critique_rl.trainer import CritiqueGRPOTrainer, Diverged
from critique_rl.trl_seams import metric

# Of a field that TRL's own config sets: nothing a user could change.
warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)

METHOD_FIELDS = {f.name for f in fields(CritiqueGRPOConfig)} - {f.name for f in fields(trl.GRPOConfig)}


FIXED = {
    "save_only_model": (False, "a run that is killed could not go on exactly"),
    "save_strategy": ("steps", "runs are continued from their checkpoints; save_steps and save_total_limit say how many"),
    "logging_steps": (1, "metrics.jsonl has one row a step, so that a continued run has the same"),
}
"""TRL options that a run folder's promises need."""


class Interrupted(Exception):
    """The run was asked to stop, and left a checkpoint to continue from."""


class RunFailed(Exception):
    """The run could not go on: what happened, and what survives."""


BRANCH = "branch.json"
"""Where an arm that branches off came from; in its eval.json too."""
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
STORAGE_WORDS = ("No space left", "os error 28", "inline_container.cc")
"""torch and safetensors report a full disk as errors of their own."""


def trainer_arguments(config: RunConfig, folder: RunFolder) -> CritiqueGRPOConfig:
    """The `preset:`, `trl:` and `method:` sections as TRL's arguments, names checked. Defaults suit a CPU: float32, no gradient checkpointing, no tracker."""
    known = {f.name for f in fields(trl.GRPOConfig) if f.init}
    for key in config.trl:
        if key in METHOD_FIELDS:
            raise ConfigError(f"trl: {key!r} is an option of ours; move it to the method: section")
    check_keys(config.trl, known, "trl")
    check_keys(config.method, METHOD_FIELDS, "method")
    for key, (allowed, why) in FIXED.items():
        if config.trl.get(key, allowed) != allowed:
            raise ConfigError(f"trl.{key}: got {config.trl[key]!r}, expected {allowed!r}: {why}")
    stated = preset(config.preset) if config.preset else {}
    cpu = not torch.cuda.is_available()
    defaults = {
        "bf16": not cpu,
        "gradient_checkpointing": not cpu,
        "use_cpu": cpu,
        "report_to": "none",
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 50,
        "save_total_limit": 1,
        "disable_tqdm": not sys.stderr.isatty(),
        "max_steps": _max_steps(config),
    }
    try:
        return CritiqueGRPOConfig(output_dir=str(folder.checkpoints), **{**defaults, **stated, **config.trl, **config.method})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"trl/method: {error}") from error


def _max_steps(config: RunConfig) -> int:
    if config.budget.optimizer_steps:
        return config.budget.optimizer_steps
    # The budget ends the run; the cap only bounds a run whose completions are all but empty.
    return 1_000_000 if config.budget.of else -1


class RunCallback(TrainerCallback):
    """Metrics to disk, learning curve, budget, and a stop signal that leaves a checkpoint."""

    def __init__(self, config: RunConfig, folder: RunFolder, task: Task, trainer: CritiqueGRPOTrainer):
        self.config, self.folder, self.task, self.trainer = config, folder, task, trainer
        self.curve_rows = task.held_out("validation", config.evaluation.curve_problems) if config.evaluation.curve_every else []
        self.interrupted = False
        self.started = time.perf_counter()
        self.detector = PlateauDetector(plateau_rule(config.plateau)) if config.plateau else None
        self.steps: dict[str, int] = {}
        """Steps of the plateau's events: stuck, solved, took_off."""

    def interrupt(self, *_: Any) -> None:
        """Signal handler: what was sampled is trained on, saved, and the run ends."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("stopping once this generation is trained on, with a checkpoint; once more to stop at once", file=sys.stderr)

    def on_step_end(self, args, state, control, **kwargs):
        every, done = self.config.evaluation.curve_every, _is_spent(self.config, self.trainer.costs())
        stopped = self.interrupted and self.trainer.at_boundary
        if stopped or done:
            control.should_training_stop = True
            control.should_save = True
        last = done or state.global_step >= state.max_steps
        if every and (state.global_step % every == 0 or last):
            self._look(state, self.curve_point())
        if state.global_step in self.trainer.kept_steps or (last and self.detector is not None):
            # Arms branch from here: at the plateau, at a step they name, or where it never came at the last.
            control.should_save = True
            self.trainer.kept_steps.add(state.global_step)
        return control

    def _look(self, state, problems: list[dict[str, Any]]) -> None:
        """One look of the plateau detector; on every rank the same, because all judge the same problems with the same seed."""
        if self.detector is None or self.detector.status in ("solved", "took_off"):
            return
        family, before = self.config.plateau.family, self.detector.status
        watched = [problem for problem in problems if family in ("all", problem["family"])]
        if not all(problem["n"] for problem in watched):
            metric(self.trainer, "plateau/skipped_looks", 1.0)
            return
        status = self.detector.look([problem["right"] / problem["n"] for problem in watched], self.config.evaluation.curve_samples)
        if status == before:
            return
        self.steps[status] = state.global_step
        metric(self.trainer, f"plateau/{status}", float(state.global_step))
        print(f"step {state.global_step}: {status} (plateau of {family}, look {len(self.detector.series)})", file=sys.stderr)
        if status == "stuck":
            self.trainer.kept_steps.add(state.global_step)
            if self.config.critique_from == "plateau":
                self.trainer.release_critique()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "detector": self.detector.state_dict() if self.detector else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        if self.detector is not None and state["detector"] is not None:
            self.detector.load_state_dict(state["detector"])

    def curve_point(self) -> list[dict[str, Any]]:
        """One point of the learning curve, on validation problems, into this step's metrics; the judged problems."""
        evaluation = self.config.evaluation
        judged = evaluate_policy(self.trainer.model, self.trainer.processing_class, self.curve_rows, self.task, self.config, evaluation.curve_samples)
        self.trainer.tokens["tokens/evaluation"] += judged["evaluation_tokens"]
        for name, value in pass_metrics(judged["problems"], (1,)).items():
            metric(self.trainer, f"eval/{name}", value)
        return judged["problems"]

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and ("loss" in logs or "reward" in logs):
            row = {"step": state.global_step, "seconds": round(time.perf_counter() - self.started, 3), **logs}
            append_jsonl(self.folder.metrics, {key: value for key, value in row.items() if value is not None})


def plateau_rule(plateau: PlateauConfig) -> PlateauRule:
    """ConfigError for numbers that cannot work."""
    try:
        return PlateauRule(plateau.window, plateau.min_gain, plateau.looks, plateau.alpha, plateau.solved)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def evaluate_policy(model, tokenizer, rows, task: Task, config: RunConfig, samples: int, seed: int = 0) -> dict[str, Any]:
    """Judge a policy on rows with the run's decoding settings."""
    return judge(model, tokenizer, rows, task.verifier, samples, _sampling(config), seed)


def _sampling(config: RunConfig) -> Sampling:
    evaluation = config.evaluation
    return Sampling(evaluation.temperature, evaluation.top_p, int(config.trl.get("max_completion_length", 256)))


def final_evaluation(model, tokenizer, task: Task, config: RunConfig, about: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    """The held-out evaluation as eval.json holds it; `seed` is of the samples, not of the problems."""
    evaluation: EvaluationConfig = config.evaluation
    judged = evaluate_policy(model, tokenizer, task.held_out(evaluation.split, evaluation.problems), task, config, evaluation.samples, seed)
    about["cost"]["evaluation_tokens"] = about["cost"].get("evaluation_tokens", 0) + judged["evaluation_tokens"]
    return {
        **about,
        "split": evaluation.split,
        "samples": evaluation.samples,
        **asdict(_sampling(config)),
        "task": asdict_task(config.task),
        "problems": judged["problems"],
        "metrics": pass_metrics(judged["problems"], evaluation.ks),
        "versions": versions(),
    }


def asdict_task(task: TaskConfig) -> dict[str, Any]:
    """What names the problems: the task and its options, not how many are trained on."""
    return {"name": task.name, "options": dict(task.options)}


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "transformers": transformers.__version__, "trl": trl.__version__}


def evaluate_base(config: RunConfig, pipeline: PipelineFolder) -> None:
    """The policy before training, on the same problems as every arm; twice, so that what samples alone change is known."""
    task = load_task(config.task, 0)
    model, tokenizer = _policy(config)
    write_yaml(pipeline.base.config, base_config(config))
    cost = {"generated_tokens": 0, "critic_tokens": 0, "usd": 0.0, "wall_seconds": 0.0, "steps": 0}
    for folder, seed in ((pipeline.base_again, 2), (pipeline.base, 1)):
        about = {"arm": "base", "seed": None, "cost": dict(cost)}
        write_json(folder.evaluation, final_evaluation(model, tokenizer, task, config, about, seed))


def evaluate_again(config: RunConfig, folder: RunFolder) -> None:
    """Judge a finished run's policy anew, with the settings the pipeline has now; arm, seed and cost stay."""
    about = json.loads(folder.evaluation.read_text())
    model, tokenizer = load_policy(str(folder.model.resolve()))
    write_json(folder.evaluation, final_evaluation(model, tokenizer, load_task(config.task, 0), config, {key: about[key] for key in ("arm", "seed", "cost")}))


def _policy(config: RunConfig):
    try:
        return load_policy(config.policy.model, **config.policy.options)
    except OSError as error:
        # FileNotFoundError of ours, and what transformers raises for a name that is neither a folder nor on the Hub.
        raise ConfigError(f"policy: {error}") from error


def build_trainer(config: RunConfig, folder: RunFolder, task: Task, seed: int) -> CritiqueGRPOTrainer:
    """Policy, reward, critic and trainer of one run."""
    arguments = trainer_arguments(config, folder)
    critic = build_critic(config.critic, task, seed)
    for name in ("refine", "distill"):
        if f"{name}_template" not in config.method:
            setattr(arguments, f"{name}_template", f"{task.prompts}{'teacher' if name == 'distill' else name}")
    if not task.train:
        raise ConfigError(f"task {task.name}: the training set is empty; raise task.size or check task.families")
    model, tokenizer = _policy(config)
    _check_prompt_lengths(task, tokenizer, model, arguments.max_completion_length)
    dataset = Dataset.from_list([dict(row) for row in task.train])
    try:
        trainer = CritiqueGRPOTrainer(model, VerifierReward(task.verifier), arguments, dataset, critic=critic, processing_class=tokenizer)
    except ValueError as error:
        raise ConfigError(f"trl/method: {error}") from error
    trainer.budget, trainer.prices = config.budget.of, config.prices
    trainer.kept_steps |= set(config.keep_steps)
    if config.critique_from == "plateau":
        trainer.hold_critique()
    trainer.on_generation = lambda batch, advantages: write_rollouts(
        folder, trainer.state.global_step + 1, trainer.accelerator.process_index, batch, advantages
    )
    return trainer


def _check_prompt_lengths(task: Task, tokenizer, model, completion: int) -> None:
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    longest = max((len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]) for row in task.train), default=0)
    if longest + completion > context:
        raise ConfigError(f"the longest prompt has {longest} tokens and max_completion_length is {completion}: together over the policy's context of {context}")


def train(config: RunConfig, arm: str, seed: int, folder: RunFolder) -> None:
    """Train one arm with one seed and evaluate it; continues from the last whole checkpoint if there is one.

    Interrupted if asked to stop; RunFailed where the loss is not finite or the disk is full.
    """
    try:
        _train(config, arm, seed, folder)
    except Diverged as error:
        raise RunFailed(f"{error}; {_survivors(folder)}. The same command would meet it again: change the settings and give another --out") from error
    except Exception as error:
        if not _is_storage(error):
            raise
        raise RunFailed(f"could not write ({error}); {_survivors(folder)}. Make room, and the same command continues") from error


def _is_storage(error: Exception) -> bool:
    return getattr(error, "errno", None) in STORAGE or any(word in str(error) for word in STORAGE_WORDS)


def _survivors(folder: RunFolder) -> str:
    rows, checkpoint = read_jsonl(folder.metrics), last_whole(folder.checkpoints)
    kept = f"the checkpoint of step {step_of(checkpoint)}" if checkpoint else "no checkpoint"
    return f"in {folder.path} survive the metrics of {len(rows)} steps, and {kept}"


def _train(config: RunConfig, arm: str, seed: int, folder: RunFolder) -> None:
    check_arms({arm: config})
    config = with_seed(config, seed)
    task = load_task(config.task, seed)
    trainer = build_trainer(config, folder, task, seed)
    deviates = deviations(config.preset, {**config.trl, **config.method}) if config.preset else {}
    about = {"schema": SCHEMA, "run_id": _run_id(folder), "arm": arm, "seed": seed}
    write_yaml(folder.config, {**about, **to_dict(config), "deviates": deviates, "versions": versions(), "command": sys.argv})
    callback = RunCallback(config, folder, task, trainer)
    trainer.add_callback(callback)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, callback.interrupt)
    checkpoint = last_whole(folder.checkpoints)
    remove_halves(folder.checkpoints)
    if checkpoint is None and config.branch_from is not None:
        checkpoint = _branch(config.branch_from, folder, seed)
    callback.started -= _continue(folder, 0 if checkpoint is None else step_of(checkpoint))
    if checkpoint is not None and _is_done(config, checkpoint, trainer):
        # transformers would take one more step where it continues a run that has reached its last.
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if callback.interrupted:
        raise Interrupted(f"stopped at step {trainer.state.global_step} with a checkpoint; the same command continues")
    about = {"arm": arm, "seed": seed, "cost": _cost(folder, trainer)}
    if callback.detector is not None:
        about["plateau"] = {"status": callback.detector.status, **{f"{name}_step": step for name, step in callback.steps.items()}}
    if config.branch_from is not None:
        about["branch"] = json.loads((folder.path / BRANCH).read_text())
    _finish(trainer, task, config, folder, about)


def _is_spent(config: RunConfig, spent: dict[str, float]) -> bool:
    """True where the budget is used up."""
    return config.budget.of is not None and spent[config.budget.of[0]] >= config.budget.of[1]


def _is_done(config: RunConfig, checkpoint: Path, trainer: CritiqueGRPOTrainer) -> bool:
    """True where the checkpoint is the last of its run: killed before its evaluation was written, or branched off at its end."""
    state = read_state(checkpoint)
    spent = costs(state.get("tokens", {}), state.get("critic_usd", 0.0), trainer.parameters, config.prices)
    last = trainer.args.max_steps
    if last <= 0:  # by epochs; what that is in steps, the checkpoint knows
        last = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())["max_steps"]
    return _is_spent(config, spent) or step_of(checkpoint) >= last


def _branch(branch: BranchConfig, folder: RunFolder, seed: int) -> Path:
    """The checkpoint of a finished run of another arm, copied here with the metrics until there."""
    trunk = RunFolder(folder.path.parent.parent / branch.arm / folder.path.name)
    if not trunk.finished:
        raise ConfigError(f"{folder.path} branches from {trunk.path}, which is not finished; train it first, or use critique-rl run")
    about = json.loads(trunk.evaluation.read_text())
    kept, fired = {step_of(path): path for path in whole(trunk.checkpoints)}, True
    step = branch.at
    if branch.at == "plateau":
        fired = "stuck_step" in about["plateau"]
        step = about["plateau"].get("stuck_step", about["cost"]["steps"])
    if step not in kept:
        raise ConfigError(f"{trunk.path} kept no checkpoint of step {step}, only of {sorted(kept)}; remove it to train it again, or branch at one of these")
    rows = [row for row in read_jsonl(trunk.metrics) if row["step"] <= step]
    write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    write_json(folder.path / BRANCH, {"arm": branch.arm, "seed": seed, "at": branch.at, "step": step, "fired": fired})
    copy_checkpoint(kept[step], folder.checkpoints)
    return folder.checkpoints / kept[step].name


def _finish(trainer, task: Task, config: RunConfig, folder: RunFolder, about: dict[str, Any]) -> None:
    trainer.save_model(str(folder.model))
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        write_json(folder.evaluation, final_evaluation(model, trainer.processing_class, task, config, about))
    trainer.accelerator.wait_for_everyone()


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
    """One id for the run folder's whole life, so that trackers continue a continued run instead of opening another."""
    stored = yaml.safe_load(folder.config.read_text()).get("run_id") if folder.config.exists() else None
    run_id = stored or uuid.uuid4().hex[:12]
    for name, value in {"WANDB_RUN_ID": run_id, "WANDB_RESUME": "allow", "SWANLAB_RUN_ID": run_id}.items():
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


def _check_boundaries(config: RunConfig, arguments: CritiqueGRPOConfig) -> None:
    """Runs branch where a generation is used up only."""
    period = max(1, arguments.steps_per_generation * arguments.num_iterations // arguments.gradient_accumulation_steps)
    if config.plateau is not None:
        plateau_rule(config.plateau)
    named = [("evaluation.curve_every", config.evaluation.curve_every)] if config.plateau is not None else []
    for name, step in [*named, *(("a step to branch at", step) for step in config.keep_steps)]:
        if step % period:
            raise ConfigError(f"{name}: got {step}, expected a multiple of {period}, the optimizer steps of a generation")


def _check_family(config: RunConfig, task: Task) -> None:
    """The plateau's family must be among the problems of the learning curve."""
    if config.plateau is None:
        return
    evaluation = config.evaluation
    if evaluation.curve_problems < 1 or evaluation.curve_samples < 1:
        raise ConfigError("a plateau is looked for on the learning curve; set evaluation.curve_problems and curve_samples to 1 or more")
    families = {str(row["family"]) for row in task.held_out("validation", 1)} | {"all"}
    if config.plateau.family not in families:
        raise ConfigError(f"plateau.family: no family {config.plateau.family!r}; {suggest(config.plateau.family, families)}")


def check_arms(arms: dict[str, RunConfig]) -> None:
    """Everything that can be refused before the first run starts is refused here, for all arms."""
    for arm, config in arms.items():
        try:
            arguments = trainer_arguments(config, RunFolder(Path("unused")))
            _check_boundaries(config, arguments)
            task = load_task(replace(config.task, size=16), 0)
            critic = build_critic(config.critic, task)
            _check_family(config, task)
            for name in ("refine_template", "distill_template"):
                if name in config.method and config.method[name] not in known():
                    raise ConfigError(f"{name}: no template {config.method[name]!r}; {suggest(str(config.method[name]), known())}")
            arguments.check_trains(critic is not None)
        except ValueError as error:
            raise ConfigError(f"arm {arm}: {error}") from error


def check_primary(primary: str, config: RunConfig) -> None:
    """A primary metric that no evaluation will hold is refused before the first run, not after the last."""
    families = {str(row["family"]) for row in load_task(replace(config.task, size=16), 0).held_out(config.evaluation.split, 1)} | {"all"}
    known = [f"pass@{k}/{family}" for k in config.evaluation.ks for family in sorted(families)]
    if primary not in known:
        raise ConfigError(f"primary: no metric {primary!r} with these evaluation.ks and families; {suggest(primary, known)}")
