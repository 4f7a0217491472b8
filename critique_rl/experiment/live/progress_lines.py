"""The progress of one run against its budget: a bar in a terminal, a line now and then in a log.

transformers' own bar counts optimizer steps, whose number a budget of tokens does not tell, and in
a log it prints all metrics of each step, which metrics.jsonl has.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from critique_rl.config.schema import RunConfig
from critique_rl.config.terminal import say
from critique_rl.experiment.progress import format_seconds, time_left
from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer

SECONDS = 30.0
"""Least time between two lines of a log."""


class ProgressLines(TrainerCallback):
    """Says how much of a run's budget is used, its last reward, and the time left.

    Args:
        config: The run, whose budget is counted.
        trainer: Its trainer.
        seconds: Least time between two lines where there is no terminal.
    """

    def __init__(self, config: RunConfig, trainer: CritiqueGRPOTrainer, seconds: float = SECONDS):
        self.config = config
        self.trainer = trainer
        self.seconds = seconds
        self.bar: Any = None
        self.began = 0.0
        self.said = 0.0
        self.share_at_start = 0.0
        self.reward: float | None = None

    def used(self, state: Any) -> tuple[str, float, float]:
        """The budget's unit in words, how much of it is spent, and its limit.

        Args:
            state: transformers' TrainerState.
        """
        if self.config.budget.limit is None:
            return "steps", float(state.global_step), float(state.max_steps)
        kind, limit = self.config.budget.limit
        spent = self.trainer.costs()[kind]
        return kind.replace("_", " "), spent, limit

    def on_train_begin(self, args, state, control, **kwargs):
        """Note where the run starts, and show the bar where somebody looks at a terminal."""
        unit, spent, limit = self.used(state)
        self.began = time.monotonic()
        self.said = self.began
        self.share_at_start = min(1.0, spent / limit)
        is_shown = sys.stderr.isatty() and not args.disable_tqdm
        if is_shown and state.is_world_process_zero:
            # Written before: a continued run shows at once how far it is.
            self.bar = tqdm(
                total=limit, initial=min(spent, limit), unit=f" {unit}", unit_scale=True
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Move the bar, or say a line where the last one is long ago."""
        if not (state.is_world_process_zero and logs and "loss" in logs):
            return
        self.reward = logs.get("reward", self.reward)
        if self.bar is not None:
            self._move_bar(state)
            return
        now = time.monotonic()
        is_due = now - self.said >= self.seconds
        if is_due or state.global_step == 1:
            self.said = now
            say(self.line(state, now - self.began))

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar, or say the last line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        elif state.is_world_process_zero:
            say(self.line(state, time.monotonic() - self.began))

    def line(self, state: Any, seconds: float) -> str:
        """The progress in one line.

        Args:
            state: transformers' TrainerState.
            seconds: Time since this process began to train.
        """
        unit, spent, limit = self.used(state)
        share = min(1.0, spent / limit)
        text = f"step {state.global_step}: {spent:,.6g} of {limit:,.6g} {unit} ({share:.0%})"
        if self.reward is not None:
            text += f", reward {self.reward:.2f}"
        left = time_left([share], self.share_at_start, seconds)
        if left is not None and share < 1:
            text += f", about {format_seconds(left)} left"
        return text

    def _move_bar(self, state: Any) -> None:
        _, spent, limit = self.used(state)
        self.bar.n = min(spent, limit)
        values = {"step": state.global_step}
        if self.reward is not None:
            values["reward"] = f"{self.reward:.2f}"
        self.bar.set_postfix(values)


def show_progress(trainer: CritiqueGRPOTrainer, config: RunConfig) -> None:
    """Put `ProgressLines` in the place of transformers' bar or printer."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)
    trainer.add_callback(ProgressLines(config, trainer))
