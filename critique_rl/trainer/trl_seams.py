"""The only place that touches private names of TRL (read in 1.16.0; `SIGNATURES` is checked by a
test, so a release that moves one fails there first).

Everything else of GRPOTrainer that we override (`_generate_and_score_completions`,
`_calculate_rewards`, `_compute_loss`, `_get_per_token_logps_and_entropies`, `_get_train_sampler`,
saving and loading) is wrapped in `trainer`, never copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from critique_rl.types import Verdict

SIGNATURES = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_train_sampler": ["self", "dataset"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_tokenize_prompts": ["self", "prompts"],
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
}

SCORED_TOKENS = 64
"""Tokens a tile of TRL's head on a CPU: 512 took 1.16 times as long, and twice the memory
(tests/benchmarks/sdpo_cost.py).
"""


@dataclass(frozen=True)
class Sampled:
    """Completions of one `generate` call on this rank: token ids, sampling logps (vLLM only, else
    None) and text in the prompt's format.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    logprobs: list[list[float]] | None
    completions: list[Any]


def sample(trainer: GRPOTrainer, prompts: list[Any], num_generations: int = 1) -> Sampled:
    """Sample one completion a prompt with the trainer's own backend and settings. A collective
    where weights are sharded.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    completion_ids, logprobs = trainer._generate_single_turn(
        prompt_ids, images, fields, num_generations
    )
    texts = trainer.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
    chat = not isinstance(prompts[0], str)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    return Sampled([list(ids) for ids in prompt_ids], completion_ids, logprobs, completions)


def sample_uneven(trainer: GRPOTrainer, prompts: list[Any], spare: Any) -> Sampled:
    """`sample`, one completion a prompt, where ranks have different numbers of prompts, none
    included; all ranks call it alike.

    Samples of `spare` make up the numbers, and are dropped: a call is a collective where weights
    are sharded, and vLLM's server takes the prompts of all ranks and deals completions out by equal
    shares.
    """
    counts = gather_object([len(prompts)])
    wanted = max(counts) if trainer.use_vllm else max(len(prompts), min(1, max(counts)))
    if not wanted:
        return Sampled([], [], [] if trainer.use_vllm else None, [])
    sampled = sample(trainer, [*prompts, *[spare] * (wanted - len(prompts))], 1)
    kept = {f.name: getattr(sampled, f.name) for f in fields(Sampled)}
    return Sampled(
        **{name: value if value is None else value[: len(prompts)] for name, value in kept.items()}
    )


def completion_ids(trainer: GRPOTrainer, text: str) -> list[int]:
    """Tokens of a text as a completion, the end included."""
    return [
        *trainer.processing_class(text, add_special_tokens=False)["input_ids"],
        trainer.processing_class.eos_token_id,
    ]


def insert(trainer: GRPOTrainer, sampled: Sampled, place: int, prompt: Any, ids: list[int]) -> None:
    """Put a completion that was not sampled among those that were; its sampling logps are unknown."""
    text = trainer.processing_class.decode(ids, skip_special_tokens=True)
    sampled.prompt_ids.insert(place, list(trainer._tokenize_prompts([prompt])[0][0]))
    sampled.completion_ids.insert(place, ids)
    sampled.completions.insert(
        place, text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
    )
    if sampled.logprobs is not None:
        sampled.logprobs.insert(place, [None] * len(ids))


def prompt_ids(trainer: GRPOTrainer, prompts: list[Any]) -> list[list[int]]:
    """Tokens of each prompt as the trainer would render it."""
    return [list(ids) for ids in trainer._tokenize_prompts(prompts)[0]] if prompts else []


def score(
    trainer: GRPOTrainer,
    rows: list[dict],
    sampled_prompts: list[Any],
    completions: list[Any],
    ids: list[list[int]],
) -> torch.Tensor:
    """Rewards of this rank's rows, (rows, functions), NaN where a function returned None. A
    collective: every rank scores as many rows.
    """
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
    """Bring columns that reward functions logged for `scored` rows, in scoring order, into the
    batch's order (columns of another length are dropped).
    """
    columns = trainer._pending_extra_logs
    for name, values in list(columns.items()):
        columns[name] = [values[i] for i in order] if len(values) == scored else []
        if not columns[name]:
            del columns[name]


def rewrite_advantages(trainer: GRPOTrainer, advantages: torch.Tensor) -> None:
    """Have the completions table show these advantages (all ranks' rows of the last generation),
    not those TRL computed.
    """
    column = trainer._logs["advantages"]
    for _ in range(min(len(advantages), len(column))):
        column.pop()
    column.extend(advantages.tolist())


@contextmanager
def completions_scored_alone() -> Iterator[None]:
    """Within the block TRL's fused head reads the positions of completions only, in tiles of
    `SCORED_TOKENS`, as it does on CUDA, and on any device.

    Elsewhere it scores prompts too, in tiles that take 0.5 GB at a vocabulary of 32,768 (1.16: so
    that Neuron need not compile again). The last digits of log-probs may differ, so stock training
    is left as it is.
    """
    before = trl_utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE
    try:
        if not torch.cuda.is_available():
            trl_utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE = (
                (lambda device: True),
                SCORED_TOKENS,
            )
        yield
    finally:
        trl_utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE = before


def fault_mask(
    trainer: GRPOTrainer, completion_ids: torch.Tensor, verdicts: Sequence[Verdict]
) -> torch.Tensor:
    """(B, T) bool: tokens that overlap a span the verifier called faulty. Rows without such spans
    are all False.
    """
    mask = torch.zeros(completion_ids.shape, dtype=torch.bool)
    for row, verdict in enumerate(verdicts):
        if not verdict.faults:
            continue
        ends = torch.tensor(
            [
                len(text)
                for text in trainer.processing_class.batch_decode(
                    completion_ids[row].unsqueeze(1), skip_special_tokens=True
                )
            ]
        ).cumsum(0)
        starts = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1]])
        for start, end in verdict.faults:
            mask[row] |= (starts < end) & (ends > start)
    return mask.to(completion_ids.device)


def metric(trainer: GRPOTrainer, name: str, value: float) -> None:
    """Add one value to the metric TRL will average and log; NaN is left out of the mean."""
    trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)


def mean_metric(trainer: GRPOTrainer, name: str, total: torch.Tensor, count: torch.Tensor) -> None:
    """One value for `metric`: `total` over `count`, both summed over the ranks; none where nothing
    was counted. A collective: TRL logs rank 0's alone.
    """
    total, count = trainer.accelerator.reduce(
        torch.stack([total.detach().float(), count.float()]), reduction="sum"
    ).tolist()
    if count:
        metric(trainer, name, total / count)
