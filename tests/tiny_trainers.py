"""Tiny trainers for tests: settings, data, rewards, and how one is built."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = ["3-7+9", "4+8-2", "1+1+1", "9-5+5"]

SETTINGS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 8,
    "learning_rate": 1e-2,
    "max_steps": 3,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "lr_scheduler_type": "constant",
}


def dataset() -> Dataset:
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": q}], "answer": "5"} for q in QUESTIONS * 4]
    )


def long_words(completions, **kwargs) -> list[float]:
    return [len(set(c[0]["content"])) / 8 for c in completions]


def even(completions, **kwargs) -> list[float]:
    """Half of what a random model writes is right."""
    texts = [completion[0]["content"] for completion in completions]
    return [float(text != "" and len(text) % 2 == 0 and ord(text[-1]) % 2 == 0) for text in texts]


def trainer_of(kind, config, policy: str, folder: Path, reward=even, data=None, **kwargs):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    arguments = config(output_dir=str(folder), **{**SETTINGS, **kwargs.pop("settings", {})})
    return kind(
        model,
        reward,
        arguments,
        train_dataset=data or dataset(),
        processing_class=tokenizer,
        **kwargs,
    )


def history(trainer) -> list[dict]:
    keys = (
        "loss",
        "reward",
        "grad_norm",
        "entropy",
        "completions/mean_length",
        "frac_reward_zero_std",
    )
    return [
        {key: row.get(key) for key in keys} for row in trainer.state.log_history if "loss" in row
    ]
