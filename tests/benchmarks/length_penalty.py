"""A plain TRL script with an accuracy reward and a length penalty, and the same script with two
lines swapped: which rollouts count as failed, and how many are rescued, with and without the
penalty. Five minutes on one core.

    python tests/benchmarks/length_penalty.py

"under 1 in all" are the right rollouts whose weighted sum is under success_threshold: those a sum
would have called failed.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from tempfile import TemporaryDirectory

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from critique_rl import (
    CritiqueGRPOConfig,
    CritiqueGRPOTrainer,
    TaskConfig,
    build_critic,
    load_policy,
    load_task,
)

SEEDS, STEPS, WEIGHT = 4, 5, 0.01
TASK = load_task(TaskConfig("lab/chain", size=512), seed=0)
SETTINGS = {
    "num_generations": 8,
    "per_device_train_batch_size": 64,
    "max_completion_length": 48,
    "learning_rate": 1e-4,
    "max_steps": STEPS,
    "logging_strategy": "no",
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


def accuracy(completions, answer, **columns) -> list[float]:
    """As the user of a script writes it: the last line is "#" and the answer."""
    texts = [completion[0]["content"] for completion in completions]
    return [
        float(text.rpartition("#")[2] == gold) for text, gold in zip(texts, answer, strict=True)
    ]


def length_penalty(completion_ids, **columns) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


def stock(folder: str, seed: int) -> None:
    """The script before the swap."""
    model, tokenizer = load_policy("lab")
    arguments = GRPOConfig(folder, seed=seed, reward_weights=[1.0, WEIGHT], **SETTINGS)
    GRPOTrainer(
        model,
        [accuracy, length_penalty],
        arguments,
        train_dataset=Dataset.from_list(TASK.train),
        processing_class=tokenizer,
    ).train()


def swapped(folder: str, seed: int, penalty: bool) -> Counter[str]:
    """The script after it; what was counted in all steps."""
    model, tokenizer = load_policy("lab")
    rewards = [accuracy, length_penalty] if penalty else [accuracy]
    weights = [1.0, WEIGHT] if penalty else [1.0]
    arguments = CritiqueGRPOConfig(
        folder,
        seed=seed,
        reward_weights=weights,
        success_reward="accuracy",
        refine_template="lab/refine",
        **SETTINGS,
    )
    trainer = CritiqueGRPOTrainer(
        model,
        rewards,
        arguments,
        train_dataset=Dataset.from_list(TASK.train),
        processing_class=tokenizer,
        critic=build_critic({"kind": "oracle"}, TASK),
    )
    counts: Counter[str] = Counter()

    def count(batch, advantages) -> None:
        for number, attempt in enumerate(batch.attempts):
            # by the task's verifier, which no reward function of this script knows
            is_right = TASK.verifier(attempt.text, attempt.row).outcome == "right"
            failed = attempt.verdict.failed
            counts["rollouts"] += 1
            counts["wrong"] += not is_right
            counts["failed"] += failed
            counts["failed although right"] += failed and is_right
            counts["not failed although wrong"] += not failed and not is_right
            counts["right, under 1 in all"] += is_right and batch.values[number] < 1
        for _, _, refinement in batch.refinements:
            counts["refinements"] += 1
            counts["rescued"] += refinement.verdict.outcome == "right"

    trainer.on_generation = count
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return counts


def main() -> None:
    columns = (
        *("rollouts", "wrong", "failed", "failed although right", "not failed although wrong"),
        *("right, under 1 in all", "refinements", "rescued"),
    )
    print("| reward | " + " | ".join(columns) + " | rescue rate |")
    print("|---" * (len(columns) + 2) + "|")
    with TemporaryDirectory() as folder:
        stock(folder, 0)
        for penalty in (False, True):
            rates = []
            total: Counter[str] = Counter()
            for seed in range(SEEDS):
                counts = swapped(folder, seed, penalty)
                rates.append(counts["rescued"] / counts["refinements"])
                total.update(counts)
            name = "accuracy - .01 x tokens" if penalty else "accuracy"
            mean = sum(rates) / SEEDS
            spread = math.sqrt(sum((rate - mean) ** 2 for rate in rates) / (SEEDS - 1))
            cells = " | ".join(f"{total[column]:,}" for column in columns)
            print(f"| {name} | {cells} | {mean:.3f} (sd over seeds {spread:.3f}) |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
