"""Rewards and verdicts of sampled completions, by the trainer's reward functions.

Which functions say what is right is `success`'s. A reward that could not be given is never a
failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from trl import GRPOTrainer

from critique_rl.trainer import trl_seams
from critique_rl.trainer.rollout.sampled import Row, Sampled
from critique_rl.trainer.rollout.success import SuccessRule, count_success
from critique_rl.types import Verdict


@dataclass(frozen=True)
class Judged:
    """Judgement of some rows, in their order."""

    rewards: Tensor
    """(B, F) of F reward functions, NaN where a function returned None or was not called."""
    values: list[float]
    """Weighted reward of each row; NaN where it could not be judged."""
    verdicts: list[Verdict]
    """Verdict of each row."""

    def head(self, count: int) -> Judged:
        """The first `count` rows."""
        rewards = self.rewards[:count]
        return Judged(rewards, self.values[:count], self.verdicts[:count])

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            torch.cat([self.rewards, other.rewards]),
            self.values + other.values,
            self.verdicts + other.verdicts,
        )


class RolloutRows(Protocol):
    """What is read of a `generation.Generation`, whose module imports this one."""

    verdicts: list[Verdict]

    def rollout_rows(self, device: torch.device) -> Tensor:
        """(B,) bool: rows that hold a rollout."""


class Scorer:
    """Judges completions with the reward functions of one trainer."""

    def __init__(self, trainer: GRPOTrainer, success: SuccessRule):
        self.trainer = trainer
        self.success = success

    def judge(self, rows: list[Row], sampled: Sampled) -> Judged:
        """Judge completions one by one; functions that compare a group are not called here.

        A collective: every rank judges the same number of rows.

        Args:
            rows: the dataset's row of each completion. Its prompt is what the completion answers,
                whatever prompt it was sampled under.
            sampled: the completions.
        """
        per_row = self._functions(group_wise=False)
        prompts = [row["prompt"] for row in rows]
        with self._only_functions(per_row):
            scored = self._local_rewards(rows, prompts, sampled.completions, sampled.completion_ids)
        shape = (len(rows), len(self.trainer.reward_funcs))
        rewards = torch.full(shape, torch.nan, device=scored.device)
        rewards[:, per_row] = scored
        return self.judge_rewards(rewards)

    def judge_nothing(self) -> Judged:
        """The judgement of no rows, which calls no function and no other rank."""
        functions = len(self.trainer.reward_funcs)
        rewards = torch.empty(0, functions, device=self.trainer.accelerator.device)
        return Judged(rewards, [], [])

    def judge_rewards(self, rewards: Tensor) -> Judged:
        """Values and verdicts of rewards (B, F) that the functions have just given."""
        values = self.weighted_rewards(rewards).tolist()
        verdicts = self.success.verdicts(self.trainer.reward_funcs, rewards)
        return Judged(rewards, values, verdicts)

    def add_group_rewards(
        self,
        rewards: Tensor,
        rows: list[Row],
        prompts: list[Any],
        completions: list[Any],
        ids: list[list[int]],
    ) -> Tensor:
        """Call the functions that compare a group, once, on complete groups.

        Args:
            rewards: (B, F) of the other functions, in the batch's order.
            rows: the dataset's row of each completion.
            prompts: prompt of each completion.
            completions: completions in the format of their prompts.
            ids: token ids of each completion.

        Returns:
            (B, F), the columns of these functions filled.
        """
        group_wise = self._functions(group_wise=True)
        if not group_wise:
            return rewards
        complete = rewards.clone()
        with self._only_functions(group_wise):
            scored = self._local_rewards(rows, prompts, completions, ids)
        complete[:, group_wise] = scored
        return complete

    def reorder_extra_columns(self, order: Sequence[int], scored: int, copies: int) -> None:
        """Bring columns that reward functions logged into the batch's order.

        Args:
            order: number of the sequence in each row.
            scored: sequences that were scored.
            copies: further rows that were scored after them to make up the numbers of a rank.
        """
        trl_seams.reorder_extra_columns(self.trainer, order, scored, copies)

    def take_extra_columns(self) -> dict[str, list[Any]]:
        """Columns that reward functions have logged, which TRL's table loses here."""
        return trl_seams.take_extra_columns(self.trainer)

    def put_extra_columns(self, columns: Mapping[str, list[Any]]) -> None:
        """The inverse of `take_extra_columns`."""
        trl_seams.put_extra_columns(self.trainer, columns)

    def count_success(self, rewards: Tensor, batch: RolloutRows) -> Counter[str]:
        """Counters of the batch's failed rollouts, and of what could contradict them.

        Args:
            rewards: (B, F) of its rows.
            batch: the batch as text.
        """
        is_rollout = batch.rollout_rows(rewards.device)
        pairs = zip(batch.verdicts, is_rollout.tolist(), strict=True)
        verdicts = [verdict for verdict, counted in pairs if counted]
        functions = self.trainer.reward_funcs
        names = self.trainer.reward_func_names
        return count_success(self.success, functions, names, rewards[is_rollout], verdicts)

    def weighted_rewards(self, rewards: Tensor) -> Tensor:
        """Weighted sum of rewards (B, F) -> (B,); NaN where every one is NaN."""
        weights = self.trainer.reward_weights.to(rewards.device)
        values = (rewards * weights).nansum(1)
        return values.masked_fill(rewards.isnan().all(1), torch.nan)

    def local_rows(self, gathered: Tensor, count: int) -> Tensor:
        """This rank's `count` rows (B, F) of a tensor gathered from all ranks."""
        start = self.trainer.accelerator.process_index * count
        return gathered[start : start + count]

    def _functions(self, group_wise: bool) -> list[int]:
        """Places of the reward functions that compare a group, or of the others."""
        places = []
        for place, function in enumerate(self.trainer.reward_funcs):
            if getattr(function, "group_wise", False) == group_wise:
                places.append(place)
        return places

    def _local_rewards(
        self, rows: list[Row], prompts: list[Any], completions: list[Any], ids: list[list[int]]
    ) -> Tensor:
        """Rewards (B, F) of this rank's rows by the functions that the trainer knows."""
        gathered = trl_seams.gathered_rewards(self.trainer, rows, prompts, completions, ids)
        return self.local_rows(gathered, len(completions))

    @contextmanager
    def _only_functions(self, indices: Sequence[int]) -> Iterator[None]:
        """Within the block the trainer knows only the reward functions at `indices`."""
        names = ("reward_funcs", "reward_processing_classes", "reward_func_names")
        complete = {name: getattr(self.trainer, name) for name in names}
        try:
            for name, values in complete.items():
                some = [values[i] for i in indices]
                setattr(self.trainer, name, some)
            yield
        finally:
            for name, values in complete.items():
                setattr(self.trainer, name, values)


def judge_padded(
    scorer: Scorer, rows: list[Row], sampled: Sampled, spare_row: Row, spare: Sampled, copies: int
) -> Judged:
    """Judge completions, and copies of another one that make up the numbers of this rank.

    A collective: scoring gathers over ranks without padding.

    Args:
        scorer: judges them.
        rows: the dataset's row of each completion.
        sampled: the completions.
        spare_row: the row that copies are judged with.
        spare: completions, of which the first is copied.
        copies: how many copies.

    Returns:
        The judgement without the copies.
    """
    padded = Sampled(
        [],
        sampled.completion_ids + spare.completion_ids[:1] * copies,
        None,
        sampled.completions + spare.completions[:1] * copies,
    )
    judged = scorer.judge(rows + [spare_row] * copies, padded)
    return judged.head(len(rows))


def fault_mask(tokenizer: Any, completion_ids: Tensor, verdicts: Sequence[Verdict]) -> Tensor:
    """Tokens that overlap a span which the verifier called faulty.

    Args:
        tokenizer: the policy's.
        completion_ids: (B, T) token ids.
        verdicts: the verdict of each row.

    Returns:
        (B, T) bool; rows without such spans are all False.
    """
    mask = torch.zeros(completion_ids.shape, dtype=torch.bool)
    faulty = [row for row, verdict in enumerate(verdicts) if verdict.faults]
    # Token by token, because spans are in characters of the decoded text; each kind of token once.
    kinds, kind_of = completion_ids[faulty].cpu().unique(return_inverse=True)
    pieces = tokenizer.batch_decode(kinds.unsqueeze(1), skip_special_tokens=True)
    piece_lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.long)
    for row, kinds_of_row in zip(faulty, kind_of, strict=True):
        lengths = piece_lengths[kinds_of_row]
        ends = lengths.cumsum(0)
        starts = ends - lengths
        for start, end in verdicts[row].faults:
            mask[row] |= (starts < end) & (ends > start)
    return mask.to(completion_ids.device)
