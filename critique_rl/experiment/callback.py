"""What a run does at each step besides training: metrics to disk, points of the learning curve,
plateau, budget, the best policy so far, stop signals.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from critique_rl.config.run_folder import RunFolder, append_jsonl, write_json
from critique_rl.config.schema import RunConfig
from critique_rl.experiment.evaluate import evaluate_policy, pass_metrics
from critique_rl.experiment.preflight import plateau_rule
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
from critique_rl.trainer.plateau import PlateauDetector
from critique_rl.trainer.trl_seams import metric


def read_best(folder: RunFolder) -> dict[str, Any]:
    """best.json: {"step", "value", "metric"}; {} where no policy was kept."""
    return json.loads(folder.best.read_text()) if folder.best.exists() else {}


def is_spent(config: RunConfig, spent: dict[str, float]) -> bool:
    """True where the budget is used up."""
    return config.budget.of is not None and spent[config.budget.of[0]] >= config.budget.of[1]


class RunCallback(TrainerCallback):
    """Metrics to disk, learning curve, budget, and a stop signal that leaves a checkpoint."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, task: Task, trainer: CritiqueGRPOTrainer
    ):
        self.config, self.folder, self.task, self.trainer = config, folder, task, trainer
        self.curve_rows = (
            task.held_out("validation", config.evaluation.curve_problems)
            if config.evaluation.curve_every
            else []
        )
        self.asked_to_stop = False
        self.started = time.perf_counter()
        self.detector = PlateauDetector(plateau_rule(config.plateau)) if config.plateau else None
        self.steps: dict[str, int] = {}
        """Steps of the plateau's events: stuck, solved, took_off."""

    def interrupt(self, *_: Any) -> None:
        """Signal handler: what was sampled is trained on, saved, and the run ends."""
        if self.asked_to_stop:
            raise KeyboardInterrupt
        self.asked_to_stop = True
        print(
            "stopping once this generation is trained on, with a checkpoint; once more to stop at once",
            file=sys.stderr,
        )

    @property
    def interrupted(self) -> bool:
        """True on all ranks where one was asked to stop: signals reach them at different steps, and
        a rank that stopped alone would hold up the others.
        """
        accelerator = self.trainer.accelerator
        return bool(
            accelerator.reduce(torch.tensor(float(self.asked_to_stop), device=accelerator.device))
        )

    def on_step_end(self, args, state, control, **kwargs):
        every, done = (
            self.config.evaluation.curve_every,
            is_spent(self.config, self.trainer.costs()),
        )
        stopped = self.interrupted and self.trainer.at_boundary
        if stopped or done:
            control.should_training_stop = True
            control.should_save = True
        last = done or state.global_step >= state.max_steps
        if every and (state.global_step % every == 0 or last):
            problems, metrics = self.curve_point()
            self._keep_best(state, metrics)
            self._look(state, problems)
        if state.global_step in self.trainer.kept_steps or (last and self.detector is not None):
            # Arms branch from here: at the plateau, at a step they name, or where it never came at
            # the last.
            control.should_save = True
            self.trainer.kept_steps.add(state.global_step)
        return control

    def _look(self, state, problems: list[dict[str, Any]]) -> None:
        """One look of the plateau detector, on every rank the same."""
        if self.detector is None or self.detector.status in ("solved", "took_off"):
            return
        family, before = self.config.plateau.family, self.detector.status
        watched = [problem for problem in problems if family in ("all", problem["family"])]
        if not all(problem["n"] for problem in watched):
            metric(self.trainer, "plateau/skipped_looks", 1.0)
            return
        status = self.detector.look(
            [problem["right"] / problem["n"] for problem in watched],
            self.config.evaluation.curve_samples,
        )
        if status == before:
            return
        self.steps[status] = state.global_step
        metric(self.trainer, f"plateau/{status}", float(state.global_step))
        print(
            f"step {state.global_step}: {status} (plateau of {family}, look {len(self.detector.series)})",
            file=sys.stderr,
        )
        if status == "stuck":
            self.trainer.kept_steps.add(state.global_step)
            if self.config.critique_from == "plateau":
                self.trainer.release_critique()

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "detector": self.detector.state_dict() if self.detector else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        if self.detector is not None and state["detector"] is not None:
            self.detector.load_state_dict(state["detector"])

    def _keep_best(self, state, metrics: dict[str, float]) -> None:
        """Save the policy where it is better than at every look before. A killed run meets the
        looks after its checkpoint again, with the same values.
        """
        value = metrics.get(self.config.evaluation.best_by)
        if value is None or value <= read_best(self.folder).get("value", -1.0):
            return
        kept = self.folder.best_model / f"step{state.global_step:05d}"
        self.trainer.save_model(str(kept))
        if self.trainer.accelerator.is_main_process:
            write_json(
                self.folder.best,
                {
                    "step": state.global_step,
                    "value": value,
                    "metric": self.config.evaluation.best_by,
                },
            )
            for other in self.folder.best_model.iterdir():
                if other != kept:
                    shutil.rmtree(other)
        self.trainer.accelerator.wait_for_everyone()

    def curve_point(self) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """One point of the learning curve, on validation problems, into this step's metrics; the
        judged problems, and their metrics.
        """
        evaluation = self.config.evaluation
        judged = evaluate_policy(
            self.trainer.model,
            self.trainer.processing_class,
            self.curve_rows,
            self.task,
            self.config,
            evaluation.curve_samples,
        )
        # All ranks ask the same, but a verifier's deadline or a GPU's rounding can part them, and
        # what follows must be decided alike.
        [judged] = broadcast_object_list([judged])
        self.trainer.tokens["tokens/evaluation"] += judged["evaluation_tokens"]
        metrics = pass_metrics(judged["problems"], (1,))
        for name, value in metrics.items():
            metric(self.trainer, f"eval/{name}", value)
        return judged["problems"], metrics

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and ("loss" in logs or "reward" in logs):
            row = {
                "step": state.global_step,
                "seconds": round(time.perf_counter() - self.started, 3),
                **logs,
            }
            append_jsonl(
                self.folder.metrics, {key: value for key, value in row.items() if value is not None}
            )
