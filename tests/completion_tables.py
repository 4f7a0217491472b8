"""Trains with TRL's tables of completions switched on, on any number of ranks: what
trainer/test_completion_table reads. By hand: python tests/completion_tables.py POLICY OUT TURNS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tiny_trainers import dataset, trainer_of
from waiting import SECONDS

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.types import Critique

RANK = int(os.environ.get("RANK", 0))
SETTINGS = {
    "max_steps": 3,
    "log_completions": True,
    "num_completions_to_print": 0,
    "refine_template": "lab/refine",
    "eval_strategy": "steps",
    # The evaluation overwrites the table of its step, 2.
    "eval_steps": 2,
    "per_device_eval_batch_size": 4,
    "ddp_timeout": SECONDS,
}
TURNS = {"refine_select": "random", "max_steps": 7}
"""So that refinements of later turns fill rows too: `marked` calls the first of each turn right."""


class Quoting:
    """Quotes the attempt, so that a row of the table shows whose critique it holds."""

    name = "quoting"

    def critique(self, attempts):
        critiques = [Critique(f"not {attempt.text}", self.name) for attempt in attempts]
        critiques[-1:] = [Critique("", self.name, "failed", "timeout") for _ in critiques[-1:]]
        return critiques


def marked(completions, log_extra, **columns) -> list[float]:
    """Every third one is right; another number fails on each rank. Each row is marked."""
    log_extra("mark", [completion[0]["content"] for completion in completions])
    return [float((i + RANK) % (3 + RANK) == 0) for i in range(len(completions))]


def train(policy: str, folder: Path, turns: int) -> CritiqueGRPOTrainer:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        marked,
        settings={**SETTINGS, **(TURNS if turns > 1 else {}), "refine_turns": turns},
        critic=Quoting(),
        eval_dataset=dataset().select(range(2)),
    )
    trainer.train()
    return trainer


def main(policy: str, out: str, turns: str = "1") -> None:
    train(policy, Path(out) / f"tables{turns}", int(turns))


if __name__ == "__main__":
    main(*sys.argv[1:])
