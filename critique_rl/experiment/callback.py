"""The work of a run at each step besides training.

Metrics go to disk, the learning curve gets its points, and the best policy is kept. A spent budget
or a stop signal ends the run with a checkpoint. Decisions are the same on all ranks.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from critique_rl.config.durable_files import DamagedFile, append_jsonl, read_json, write_json
from critique_rl.config.folder_checksums import first_fault, folder_checksums
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import KEY, RunIdentity
from critique_rl.config.schema import RunConfig
from critique_rl.config.terminal import say
from critique_rl.experiment.evaluate import evaluate_policy
from critique_rl.experiment.evaluation_metrics import Tally, pass_metrics
from critique_rl.experiment.preflight import plateau_rule
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.plateau import PlateauDetector
from critique_rl.trainer.trl_seams import metric

STOPPED = "stopped_above"
"""Key of the step at which a run reached `evaluation.stop_above`."""
BEST = "put back a copy, or remove the run's folder to train it again"


def read_best(folder: RunFolder, identity: RunIdentity | None = None) -> dict[str, Any]:
    """best.json: {"step", "value", "metric", "files", "run"}; {} where no policy was kept.

    Args:
        folder: The run's folder.
        identity: The run; None where nobody knows it.

    Raises:
        DamagedFile: it is something else, or of another run.
    """
    best = read_json(folder.best, BEST)
    if best and not (isinstance(best.get("step"), int) and "value" in best):
        raise DamagedFile(folder.best, "no step and value", BEST)
    foreign = identity.fault(best.get(KEY)) if identity is not None else ""
    if foreign:
        raise DamagedFile(folder.best, foreign, BEST)
    return best


def best_policy(folder: RunFolder, best: dict[str, Any]) -> Path:
    """The folder of the best policy.

    Args:
        folder: The run's folder.
        best: From `read_best`.

    Raises:
        DamagedFile: Its files are not those that were saved.
    """
    kept = folder.best_model / f"step{best['step']:05d}"
    checksums = best.get("files")
    words = ""
    if not kept.is_dir():
        words = "it is missing"
    elif isinstance(checksums, dict):
        words = first_fault(kept, checksums)
    if words:
        raise DamagedFile(kept, words, BEST)
    return kept


def is_spent(config: RunConfig, spent: dict[str, float]) -> bool:
    """True where the budget is used up; `spent` is by kind, as `costs.costs` gives it."""
    if config.budget.limit is None:
        return False
    kind, limit = config.budget.limit
    return spent[kind] >= limit


def has_stopped(state: dict[str, Any]) -> bool:
    """True where a run had reached `evaluation.stop_above` when it wrote a checkpoint.

    Args:
        state: Of the checkpoint, as `read_state` gives it.
    """
    own_state = state.get("callbacks", {}).get(RunCallback.__name__, {})
    return STOPPED in own_state.get("steps", {})


class RunCallback(TrainerCallback):
    """Metrics to disk, learning curve, plateau, budget, and a stop signal that leaves a checkpoint.

    `state_dict` and `load_state_dict` take its state into checkpoints, see
    `ResumableGRPOTrainer`.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, task: Task, trainer: CritiqueGRPOTrainer
    ):
        self.config = config
        self.folder = folder
        self.task = task
        self.trainer = trainer
        self.curve_rows: list[Any] = []
        evaluation = config.evaluation
        if evaluation.curve_every:
            self.curve_rows = task.held_out("validation", evaluation.curve_problems)
        self.asked_to_stop = False
        self.started = time.perf_counter()
        """Start of the run's clock; a continued run sets it back by the time trained before."""
        self.detector: PlateauDetector | None = None
        if config.plateau:
            rule = plateau_rule(config.plateau)
            self.detector = PlateauDetector(rule)
        self.steps: dict[str, int] = {}
        """Steps of the plateau's events: stuck, solved, took_off; and `STOPPED`."""

    def interrupt(self, *_: Any) -> None:
        """Signal handler: the sampled generation is trained on, saved, and the run ends.

        Raises:
            KeyboardInterrupt: At the second signal.
        """
        if self.asked_to_stop:
            raise KeyboardInterrupt
        self.asked_to_stop = True
        say(
            "stopping once this generation is trained on, with a checkpoint; "
            "once more to stop at once"
        )

    @property
    def interrupted(self) -> bool:
        """True on all ranks where one was asked to stop; every rank must ask."""
        # Signals reach the ranks at different steps, and a rank that stopped alone would hold up
        # the others.
        accelerator = self.trainer.accelerator
        asked = torch.tensor(float(self.asked_to_stop), device=accelerator.device)
        return bool(accelerator.reduce(asked))

    def on_step_end(self, args, state, control, **kwargs):
        """Take a point of the learning curve where one is due, and decide about stop and save."""
        is_budget_spent = is_spent(self.config, self.trainer.costs())
        # `interrupted` comes first: all ranks take part in it, at every step.
        is_stop_due = self.interrupted and self.trainer.at_boundary
        if is_stop_due or is_budget_spent:
            control.should_training_stop = True
            control.should_save = True
        step = state.global_step
        is_last = is_budget_spent or step >= state.max_steps
        curve_every = self.config.evaluation.curve_every
        if curve_every and (step % curve_every == 0 or is_last):
            problems, metrics = self.curve_point()
            self._keep_best(step, metrics)
            self._look_for_plateau(step, problems)
            if self._is_reached(metrics):
                self.steps[STOPPED] = step
                say(f"step {step}: every value of evaluation.stop_above is reached")
                control.should_training_stop = True
                control.should_save = True
        # Arms branch from here: at a step they name, at the plateau, or at the last step where the
        # plateau never came.
        kept_steps = self.trainer.kept_steps
        is_branch_point = step in kept_steps
        if is_branch_point or (is_last and self.detector is not None):
            control.should_save = True
            kept_steps.add(step)
        return control

    def _is_reached(self, metrics: dict[str, float]) -> bool:
        """True where the run stops at values of its learning curve, and all are reached."""
        wanted = self.config.evaluation.stop_above
        if not wanted:
            return False
        return all(metrics.get(name, -1.0) >= value for name, value in wanted.items())

    def _look_for_plateau(self, step: int, problems: list[Tally]) -> None:
        """One look of the plateau detector, the same on every rank."""
        plateau = self.config.plateau
        if plateau is None or self.detector is None:
            return
        if self.detector.status in ("solved", "took_off"):
            return
        family = plateau.family
        watched = [problem for problem in problems if family in ("all", problem["family"])]
        # The detector pairs looks problem by problem, and n = 0 leaves a problem without a rate.
        if not all(problem["n"] for problem in watched):
            metric(self.trainer, "plateau/skipped_looks", 1.0)
            return
        rates = [problem["right"] / problem["n"] for problem in watched]
        status_before = self.detector.status
        status = self.detector.look(rates, self.config.evaluation.curve_samples)
        if status != status_before:
            looks = len(self.detector.series)
            say(f"step {step}: {status} (plateau of {family}, look {looks})")
            self._record_status(step, status)

    def plateau_summary(self) -> dict[str, Any]:
        """The plateau's status, and the step of each of its events: {"status", "stuck_step"}."""
        assert self.detector is not None, "the run looks for no plateau"
        summary: dict[str, Any] = {"status": self.detector.status}
        for event, step in self.steps.items():
            if event != STOPPED:
                summary[f"{event}_step"] = step
        return summary

    def _record_status(self, step: int, status: str) -> None:
        """Log a new status of the plateau; a plateau is kept for branches and may free a critic."""
        self.steps[status] = step
        metric(self.trainer, f"plateau/{status}", float(step))
        if status == "stuck":
            self.trainer.kept_steps.add(step)
            if self.config.critique_from == "plateau":
                self.trainer.release_critique()

    def state_dict(self) -> dict[str, Any]:
        """The plateau's state, as JSON."""
        detector = None
        if self.detector is not None:
            detector = self.detector.state_dict()
        return {"steps": self.steps, "detector": detector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps = state["steps"]
        # A checkpoint of another arm, which this one branches from, may have had no plateau.
        if self.detector is not None and state["detector"] is not None:
            self.detector.load_state_dict(state["detector"])

    def _keep_best(self, step: int, metrics: dict[str, float]) -> None:
        """Save the policy where it is better than at every look before."""
        best_by = self.config.evaluation.best_by
        value = metrics.get(best_by)
        # A continued run meets the looks after its checkpoint again, with the same values: equal is
        # not better.
        if value is None:
            return
        best = read_best(self.folder)
        if value <= best.get("value", -1.0):
            return
        kept = self.folder.best_model / f"step{step:05d}"
        # On every rank: a sharded policy is saved by all of them.
        self.trainer.save_model(str(kept))
        if self.trainer.accelerator.is_main_process:
            # Old policies go last, so that best.json always names one that is there.
            files = folder_checksums(kept)
            best = {"step": step, "value": value, "metric": best_by, "files": files}
            if self.trainer.identity is not None:
                best[KEY] = self.trainer.identity.to_json()
            write_json(self.folder.best, best)
            for other in self.folder.best_model.iterdir():
                if other != kept:
                    shutil.rmtree(other)
        self.trainer.accelerator.wait_for_everyone()

    def curve_point(self) -> tuple[list[Tally], dict[str, float]]:
        """Take one point of the learning curve, on validation problems, into this step's metrics.

        Returns:
            The judged problems, and their metrics.
        """
        trainer = self.trainer
        judged = evaluate_policy(
            trainer.model,
            trainer.processing_class,
            self.curve_rows,
            self.task,
            self.config,
            self.config.evaluation.curve_samples,
        )
        # All ranks ask the same, but a verifier's deadline or a GPU's rounding can part them, and
        # what follows must be decided alike.
        [judged] = broadcast_object_list([judged])
        trainer.tokens["tokens/evaluation"] += judged["evaluation_tokens"]
        problems = judged["problems"]
        metrics = pass_metrics(problems, (1,))
        for name, value in metrics.items():
            metric(trainer, f"eval/{name}", value)
        return problems, metrics

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Add the row of a training step to metrics.jsonl."""
        # transformers logs a summary of the training too, which is no step's row.
        is_step = bool(logs) and ("loss" in logs or "reward" in logs)
        if not (state.is_world_process_zero and is_step):
            return
        elapsed = time.perf_counter() - self.started
        seconds = round(elapsed, 3)
        row = {"step": state.global_step, "seconds": seconds, **logs}
        known = {key: value for key, value in row.items() if value is not None}
        append_jsonl(self.folder.metrics, known)
