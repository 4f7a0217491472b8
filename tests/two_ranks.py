"""Run by torchrun in test_trainer: rank 0 fails every rollout, rank 1 none. Arguments: policy folder, output folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import test_trainer as helpers

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic import RetryCritic

policy, folder = sys.argv[1], Path(sys.argv[2])
rank = int(os.environ["RANK"])


def by_rank(completions, **kwargs) -> list[float]:
    return [float(rank)] * len(completions)


def main() -> None:
    settings = {"max_steps": 5, "refine_template": "lab/refine", "ddp_timeout": 60}
    trainer = helpers.trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, policy, folder / "out", by_rank, settings=settings, critic=RetryCritic())
    critiqued, rollout_tokens = [], []

    def note(batch, advantages) -> None:
        critiqued.append(len(batch.critiques))
        rollout_tokens.append(batch.counts["tokens/rollout"])

    trainer.on_generation = note
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    checksum = sum(parameter.double().sum().item() for parameter in trainer.model.parameters())
    result = {"critiqued": critiqued, "rollout_tokens": sum(rollout_tokens), "log": log, "tokens": dict(trainer.tokens), "checksum": checksum}
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
