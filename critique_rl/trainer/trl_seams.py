"""Private names of TRL and of transformers' Trainer: no other module of the package may use one.

`CALLED`, `OVERRIDDEN`, `ATTRIBUTES`, `CLASS_ATTRIBUTES` and `MODULE_ATTRIBUTES` list the names, as
read in TRL 1.16.0 and transformers 5.23. A test compares them with the installed versions, so a
release that moves a name fails there first. Overrides stand in the trainer classes and wrap
`super()`; no body of TRL is copied.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from critique_rl.sampling.tokens import completions_of
from critique_rl.trainer.rollout.sampled import Row, Sampled

_IMAGE_FIELDS = [
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
]
_LOGPS_PARAMETERS = [
    "self",
    "model",
    "input_ids",
    "attention_mask",
    "logits_to_keep",
    "batch_size",
    "compute_entropy",
    "compute_aux_loss",
    *_IMAGE_FIELDS,
]
_REWARD_PARAMETERS = ["self", "inputs", "prompts", "completions", "completion_ids_list"]

CALLED = {
    "_calculate_rewards": _REWARD_PARAMETERS,
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_get_output_dir": ["self", "trial"],
    "_get_per_token_logps_and_entropies": _LOGPS_PARAMETERS,
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_tokenize_prompts": ["self", "prompts"],
}
"""Private method that a function of this module calls -> its parameters."""
OVERRIDDEN = {
    "_calculate_rewards": _REWARD_PARAMETERS,
    "_compute_loss": ["self", "model", "inputs"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_get_per_token_logps_and_entropies": _LOGPS_PARAMETERS,
    "_get_train_sampler": ["self", "dataset"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_save_checkpoint": ["self", "model", "trial"],
}
"""Private method that a trainer class of this package overrides -> its parameters."""
ATTRIBUTES = ("_buffered_inputs", "_logs", "_metrics", "_pending_extra_logs", "_step")
"""Private attributes of a trainer that functions of this module read or write."""
CLASS_ATTRIBUTES = ("_name", "_paper", "_tag_names")
"""Private class attributes that a trainer class of this package overrides, for its model card."""
MODULE_ATTRIBUTES = ("_use_triton",)
"""Private names of `trl.trainer.utils` that this module replaces for a while."""

TrlBatch = dict[str, Any]
"""TRL's batch, or a micro batch of it: key -> tensor, list or number."""

KEPT = "critique_rl_policy"
"""Attribute of a trainer: references to its model, and to it without wrappers (`policy_of`)."""
SCORED_TOKENS = 64
"""Tokens per tile of TRL's head on a CPU."""


def policy_of(trainer: GRPOTrainer) -> Any:
    """The policy without the wrappers of DDP; with those of PEFT, and sharded if it is."""
    # Under FSDP2 training replaces the trainer's model. Else it is found once: accelerate looks for
    # DeepSpeed among the installed packages each time, which takes milliseconds.
    # References are weak, so that whoever frees the model frees its memory.
    kept = getattr(trainer, KEPT, None)
    if kept is not None and kept[0]() is trainer.model:
        policy = kept[1]()
        if policy is not None:
            return policy
    policy = trainer.accelerator.unwrap_model(trainer.model)
    setattr(trainer, KEPT, (weakref.ref(trainer.model), weakref.ref(policy)))
    return policy


# ---- sampling ------------------------------------------------------------------------------------


def sample(trainer: GRPOTrainer, prompts: list[Any], num_generations: int = 1) -> Sampled:
    """Sample one completion per prompt with the trainer's own backend and settings.

    A collective where weights are sharded.

    Args:
        trainer: the trainer in whose step this happens.
        prompts: prompts of this rank, in blocks of `num_generations` equal ones.
        num_generations: size of a block. vLLM's server gets the first prompt of each block.
    """
    prompt_ids, images, multimodal_fields = trainer._tokenize_prompts(prompts)
    completion_ids, logprobs = trainer._generate_single_turn(
        prompt_ids, images, multimodal_fields, num_generations
    )
    prompt_lists = [list(ids) for ids in prompt_ids]
    completions = completions_of(trainer.processing_class, prompts, prompt_lists, completion_ids)
    return Sampled(prompt_lists, completion_ids, logprobs, completions)


def prompt_ids(trainer: GRPOTrainer, prompts: list[Any]) -> list[list[int]]:
    """Tokens of each prompt as the trainer would render it."""
    # TRL looks at prompts[0] to tell chats from plain text.
    if not prompts:
        return []
    rendered, _, _ = trainer._tokenize_prompts(prompts)
    return [list(ids) for ids in rendered]


# ---- rewards -------------------------------------------------------------------------------------


def gathered_rewards(
    trainer: GRPOTrainer,
    rows: list[Row],
    prompts: list[Any],
    completions: list[Any],
    ids: list[list[int]],
) -> Tensor:
    """Rewards of the rows of all ranks, as TRL's own method gives them.

    A collective: TRL gathers without padding, so every rank scores the same number of rows.

    Returns:
        (rows of all ranks, reward functions), NaN where a function returned None.
    """
    # By the class: the trainer's override would record the generation once more.
    return GRPOTrainer._calculate_rewards(trainer, rows, prompts, completions, ids)


def reorder_extra_columns(
    trainer: GRPOTrainer, order: Sequence[int], scored: int, copies: int
) -> None:
    """Bring columns that reward functions logged for `scored` rows into the batch's order.

    Columns of another length are dropped: TRL gathers a column with the batch, row by row. After
    the rows there may be `copies`, which are dropped.
    """
    columns = trainer._pending_extra_logs
    for name, values in list(columns.items()):
        if len(values) in (scored, scored + copies) and order:
            columns[name] = [values[i] for i in order]
        else:
            del columns[name]


def add_extra_columns(trainer: GRPOTrainer, columns: Mapping[str, list[str]]) -> None:
    """Columns of the table of completions, one value per row of this rank's batch.

    A name that the user's reward functions take already stays theirs.
    """
    taken = {"step", "prompt", "completion", "advantage", *trainer.reward_func_names}
    for name, values in columns.items():
        if name not in taken:
            trainer._pending_extra_logs.setdefault(name, values)


def take_extra_columns(trainer: GRPOTrainer) -> dict[str, list[Any]]:
    """Columns that reward functions have logged since TRL's last table, which lose them here."""
    columns = dict(trainer._pending_extra_logs)
    trainer._pending_extra_logs.clear()
    return columns


def put_extra_columns(trainer: GRPOTrainer, columns: Mapping[str, list[Any]]) -> None:
    """The inverse of `take_extra_columns`."""
    trainer._pending_extra_logs.update(columns)


def rewrite_advantages(trainer: GRPOTrainer, advantages: Tensor) -> None:
    """Have the table of completions show other advantages than those TRL computed.

    Args:
        trainer: the trainer whose last generation is shown.
        advantages: (B of all ranks,), in the order of the table.
    """
    # A deque that holds one generation batch at most.
    column: Any = trainer._logs["advantages"]
    for _ in range(min(len(advantages), len(column))):
        column.pop()
    column.extend(advantages.tolist())


# ---- log-probs -----------------------------------------------------------------------------------


def token_logps(
    trainer: GRPOTrainer,
    model: torch.nn.Module,
    ids: Tensor,
    attention: Tensor,
    length: int,
    batch_size: int | None = None,
) -> Tensor:
    """Log-probs (rows, length) of the last `length` tokens, with gradient.

    Args:
        trainer: its temperature and its tiles of the head are used.
        model: the policy, wrapped as in a training step.
        ids: (rows, positions) token ids, padded on both sides.
        attention: (rows, positions), 0 on padding.
        length: number of positions that are scored.
        batch_size: rows per forward pass; None: all.
    """
    # By the class: the trainer's override would take these for the log-probs of the loss.
    logps, *_ = GRPOTrainer._get_per_token_logps_and_entropies(
        trainer, model, ids, attention, length, batch_size
    )
    return logps


@contextmanager
def completions_scored_alone() -> Iterator[None]:
    """Within the block TRL's fused head reads completions only, on any device, in small tiles.

    Without CUDA it scores prompts too, in tiles that take 0.5 GB at a vocabulary of 32,768. The
    last digits of log-probs may differ, so stock training is left as it is.
    """
    stock_use_triton = trl_utils._use_triton
    stock_tokens = chunked_logprob.TOKEN_CHUNK_SIZE
    try:
        if not torch.cuda.is_available():
            # The answer also decides which positions are scored: Neuron would compile anew for
            # every number of them, so TRL 1.16 scores all wherever there is no Triton.
            trl_utils._use_triton = lambda device: True
            # Tiles of 512 took 1.16 times as long and twice the memory
            # (tests/benchmarks/sdpo_cost.py).
            chunked_logprob.TOKEN_CHUNK_SIZE = SCORED_TOKENS
        yield
    finally:
        trl_utils._use_triton = stock_use_triton
        chunked_logprob.TOKEN_CHUNK_SIZE = stock_tokens


# ---- metrics -------------------------------------------------------------------------------------


def metric(trainer: GRPOTrainer, name: str, value: float) -> None:
    """Add one value to the metric TRL will average and log; NaN is left out of the mean."""
    model: Any = trainer.model
    mode = "train" if model.training else "eval"
    trainer._metrics[mode][name].append(value)


def count_metric(trainer: GRPOTrainer, name: str, count: float) -> None:
    """Add a count to the metric TRL will log; counts since the last log add up."""
    model: Any = trainer.model
    mode = "train" if model.training else "eval"
    # TRL averages the values of a metric: where an optimizer step holds several generations, a
    # mean would lose counts.
    values = trainer._metrics[mode][name]
    values[:] = [sum(values) + count]


def mean_metric(trainer: GRPOTrainer, name: str, total: Tensor, count: Tensor) -> None:
    """One value for `metric`: a mean over all ranks; none where nothing was counted.

    A collective, because TRL logs the metrics of rank 0 alone.

    Args:
        trainer: the trainer that logs.
        name: name of the metric.
        total: scalar, the sum on this rank.
        count: scalar, the number of summands on this rank.
    """
    local = torch.stack([total.detach().float(), count.float()])
    sums = trainer.accelerator.reduce(local, reduction="sum")
    total_sum, count_sum = sums.tolist()
    if count_sum:
        metric(trainer, name, total_sum / count_sum)


def training_metrics(trainer: GRPOTrainer) -> dict[str, list[float]]:
    """Values since the last log by metric, to read or to change: TRL logs the mean of each."""
    return trainer._metrics["train"]


# ---- checkpoints and model card ------------------------------------------------------------------


def load_weights(trainer: GRPOTrainer, checkpoint: Path) -> None:
    """Give the trainer's model the weights of a checkpoint."""
    trainer._load_from_checkpoint(str(checkpoint))


def save_checkpoint(trainer: GRPOTrainer) -> None:
    """Write a checkpoint of the present step."""
    trainer._save_checkpoint(trainer.model, None)


def generation_in_progress(trainer: GRPOTrainer) -> tuple[int, list[TrlBatch]]:
    """(micro steps taken, micro batches of the last generation), which TRL's checkpoints lack."""
    batches: list[TrlBatch] = trainer._buffered_inputs or []
    return trainer._step, batches


def continue_generation(trainer: GRPOTrainer, step: int, batches: list[TrlBatch]) -> None:
    """Have the trainer go on within a generation.

    Args:
        trainer: a trainer whose training is about to start.
        step: micro steps taken.
        batches: micro batches, from `generation_in_progress`.
    """
    # TRL's annotation of the buffer is that of its first value, None.
    untyped: Any = trainer
    untyped._step = step
    untyped._buffered_inputs = batches


def checkpoints_folder(trainer: GRPOTrainer, trial: Any) -> Path:
    """The folder that holds checkpoints: output_dir, or a trial's folder in a search."""
    return Path(trainer._get_output_dir(trial=trial))


def keep_stock_card(trainer: GRPOTrainer) -> None:
    """Have the model card name stock GRPO. TRL's constructor reads the tags, so call it before."""
    for name in CLASS_ATTRIBUTES:
        setattr(trainer, name, getattr(GRPOTrainer, name))
