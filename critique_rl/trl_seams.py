"""The only place that touches private names of TRL (read in 1.16.0; `SIGNATURES` is checked by a test, so a release that moves one fails there first).

Everything else of GRPOTrainer that we override (`_generate_and_score_completions`, `_calculate_rewards`, `_compute_loss`,
`_get_per_token_logps_and_entropies`) is wrapped in `trainer`, never copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer

SIGNATURES = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_compute_loss": ["self", "model", "inputs"],
    "_tokenize_prompts": ["self", "prompts"],
    "_generate_single_turn": ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
}


@dataclass(frozen=True)
class Sampled:
    """Completions of one `generate` call on this rank: token ids, sampling logps (vLLM only, else None) and text in the prompt's format."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    logprobs: list[list[float]] | None
    completions: list[Any]


def sample(trainer: GRPOTrainer, prompts: list[Any], num_generations: int = 1) -> Sampled:
    """Sample one completion a prompt with the trainer's own backend and settings. A collective where weights are sharded."""
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    completion_ids, logprobs = trainer._generate_single_turn(prompt_ids, images, fields, num_generations)
    texts = trainer.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
    chat = not isinstance(prompts[0], str)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    return Sampled([list(ids) for ids in prompt_ids], completion_ids, logprobs, completions)


def prompt_lengths(trainer: GRPOTrainer, prompts: list[Any]) -> list[int]:
    """Tokens of each prompt as the trainer would render it."""
    return [len(ids) for ids in trainer._tokenize_prompts(prompts)[0]] if prompts else []


def score(trainer: GRPOTrainer, rows: list[dict], sampled_prompts: list[Any], completions: list[Any], ids: list[list[int]]) -> torch.Tensor:
    """Rewards of this rank's rows, (rows, functions), NaN where a function returned None. A collective: every rank scores as many rows."""
    gathered = GRPOTrainer._calculate_rewards(trainer, rows, sampled_prompts, completions, ids)
    start = trainer.accelerator.process_index * len(completions)
    return gathered[start : start + len(completions)]


@contextmanager
def reward_functions(trainer: GRPOTrainer, indices: Sequence[int]) -> Iterator[None]:
    """Within the block the trainer knows only the reward functions at `indices`."""
    names = ("reward_funcs", "reward_processing_classes", "reward_func_names")
    whole = {name: getattr(trainer, name) for name in names}
    try:
        for name in names:
            setattr(trainer, name, [whole[name][i] for i in indices])
        yield
    finally:
        for name in names:
            setattr(trainer, name, whole[name])


def reorder_extra_columns(trainer: GRPOTrainer, order: Sequence[int], scored: int) -> None:
    """Bring columns that reward functions logged for `scored` rows, in scoring order, into the batch's order (columns of another length are dropped)."""
    columns = trainer._pending_extra_logs
    for name, values in list(columns.items()):
        columns[name] = [values[i] for i in order] if len(values) == scored else []
        if not columns[name]:
            del columns[name]


def metric(trainer: GRPOTrainer, name: str, value: float) -> None:
    """Add one value to the metric TRL will average and log; NaN is left out of the mean."""
    trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)
