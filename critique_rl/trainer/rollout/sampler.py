"""Samples, tokens and limits of the trainer, for rollouts and for the contexts of teachers.

`Sampler` is one of the three places that read the trainer for them; `scoring.Scorer` and
`hidden_states.PolicyPasses` are the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import pad

from critique_rl.prompts import special_tokens
from critique_rl.sampling.recorded_logps import RecordedLogps, recorded_logps
from critique_rl.sampling.tokens import completions_of, is_truncated, trace_ids
from critique_rl.trainer import trl_seams
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.sampled import Sampled

NO_CONTEXT_LIMIT = 1 << 30
"""Tokens, for models whose config names no largest position."""


class Sampler:
    """Samples from the policy in training, with the trainer's own backend and settings."""

    def __init__(self, trainer: GRPOTrainer, args: CritiqueGRPOConfig):
        self.trainer = trainer
        self.args = args

    @property
    def tokenizer(self) -> Any:
        return self.trainer.processing_class

    @property
    def device(self) -> torch.device:
        return self.trainer.accelerator.device

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens of the policy's tokenizer, as text."""
        return special_tokens(self.tokenizer)

    @property
    def prompt_limit(self) -> int:
        """Tokens a refine prompt or a teacher's prompt may have."""
        limit = self.args.max_refine_prompt_length
        if limit is not None:
            return limit
        model = trl_seams.policy_of(self.trainer)
        context = getattr(model.config, "max_position_embeddings", None) or NO_CONTEXT_LIMIT
        return context - self.args.completion_limit

    def sample(self, prompts: list[Any], num_generations: int = 1) -> Sampled:
        """One completion per prompt; prompts stand in blocks of `num_generations` equal ones."""
        return trl_seams.sample(self.trainer, prompts, num_generations)

    def sample_uneven(self, prompts: list[Any], spare: Any) -> Sampled:
        """One completion per prompt where ranks have different numbers of prompts, or none.

        A collective: all ranks call it, those without prompts too.

        Args:
            prompts: prompts of this rank.
            spare: a prompt that makes up the numbers; its samples are dropped.
        """
        use_vllm = self.trainer.use_vllm
        most = max(gather_object([len(prompts)]))
        if not most:
            logprobs: list | None = [] if use_vllm else None
            return Sampled([], [], logprobs, [])
        # `generate` is a collective where weights are sharded: a rank without prompts has to take
        # part with one.
        wanted = max(len(prompts), 1)
        if use_vllm:
            # vLLM's server takes the prompts of all ranks and deals completions out by equal
            # shares: with uneven numbers a rank would get another's completions.
            wanted = most
        spares = [spare] * (wanted - len(prompts))
        sampled = self.sample([*prompts, *spares])
        return sampled.head(len(prompts))

    def recorded_logps(self, prompts: int) -> AbstractContextManager[RecordedLogps]:
        """Within the block the log-probs of one call of `sample` are recorded as it samples.

        Args:
            prompts: prompts of the call.
        """
        model = trl_seams.policy_of(self.trainer)
        return recorded_logps(model, self.trainer.temperature, prompts)

    def prompt_ids(self, prompts: list[Any]) -> list[list[int]]:
        """Tokens of each prompt as the trainer would render it."""
        return trl_seams.prompt_ids(self.trainer, prompts)

    def completion_ids(self, prompt: Any, text: str) -> list[int]:
        """Tokens of a text as a completion of a prompt, the end token included."""
        # Any: TRL's annotation has the text of a command line too, which it has read by now.
        kwargs: Any = self.trainer.chat_template_kwargs
        return trace_ids(self.tokenizer, prompt, text, self.trainer.eos_token_ids, kwargs)

    def logps(self, sampled: Sampled) -> list[list[float]]:
        """Log-probs of each completion's tokens under the policy as it is now. A collective.

        Returns:
            One list per completion, of its length.
        """
        trainer = self.trainer
        padding = self.tokenizer.pad_token_id
        prompt_ids, prompt_mask = padded(sampled.prompt_ids, padding, "left")
        ids, mask = padded(sampled.completion_ids, padding, "right")
        row_ids = torch.cat([prompt_ids, ids], 1)
        attention = torch.cat([prompt_mask, mask], 1)
        row_ids = row_ids.to(self.device)
        attention = attention.to(self.device)
        rows = self.args.per_device_train_batch_size
        model: Any = trainer.model
        with torch.no_grad(), trl_seams.completions_scored_alone():
            logps = trl_seams.token_logps(trainer, model, row_ids, attention, ids.shape[1], rows)
        rows_of_all = logps.float().tolist()
        lengths = mask.sum(1).tolist()
        kept = []
        for row, length in zip(rows_of_all, lengths, strict=True):
            kept.append(row[:length])
        return kept

    def truncated(self, completion_ids: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each completion ended at the limit of tokens, as TRL counts it."""
        stops = self.trainer.eos_token_ids
        pad = self.tokenizer.pad_token_id
        return [is_truncated(ids, stops, pad) for ids in completion_ids]

    def quote(self, prompt: Any, ids: list[int]) -> Sampled:
        """A completion that was not sampled, under a prompt: one row, without log-probs."""
        prompt_ids = self.prompt_ids([prompt])
        completions = completions_of(self.tokenizer, [prompt], prompt_ids, [ids])
        return Sampled(prompt_ids, [ids], None, completions)


def padded(rows: Sequence[Sequence[int]], value: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids of shape (rows, positions), padded on one side, and their attention."""
    tensors = []
    ones = []
    for row in rows:
        ids = torch.tensor(row, dtype=torch.long)
        tensors.append(ids)
        ones.append(torch.ones_like(ids))
    padded_ids = pad(tensors, value, padding_side=side)
    attention = pad(ones, 0, padding_side=side)
    return padded_ids, attention
