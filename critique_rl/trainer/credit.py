"""Credit of each row of a batch, and the normaliser of each term of the loss.

TRL's advantages over the mixed group are shared out: rollouts train the scalar term, chosen
refinements the refine term, and a candidate that nobody chose trains nothing. The scalar term is
divided by its own rows. The refine term is divided by the rows of all reserved slots, so that its
pull fades with the failures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from critique_rl.objective import group_advantages, signed_credit, weighted_advantages
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.trainer.trl_seams import TrlBatch

TOKEN_MEAN = ("dapo", "cispo", "vespo")
"""Loss types that divide by tokens of the generation batch; the others by rows of the micro batch.
"""


def row_credit(
    advantages_B: Tensor, batch: Generation, args: CritiqueGRPOConfig, two_phases: bool
) -> Tensor:
    """Credit (B,) of every row before it is weighted and shared out.

    Args:
        advantages_B: TRL's advantages (B,).
        batch: the same batch as text.
        args: settings of the run.
        two_phases: whether reserved rows were filled.

    Returns:
        (B,); `advantages_B` itself where `credit` and `baseline` are TRL's.
    """
    device = advantages_B.device
    if args.credit == "signed":
        right_B = batch.right_rows(device)
        # Abstained and unscored rows are neither right nor failed, and earn nothing.
        judged_B = right_B | batch.failed_rows(device)
        return signed_credit(right_B.float().masked_fill(~judged_B, torch.nan))
    if args.baseline == "rollouts" and two_phases:
        values = [batch.values[number] for number in batch.order]
        values_B = torch.tensor(values, device=device)
        return group_advantages(values_B, args.group_size, counted=batch.rollout_rows(device))
    return advantages_B


def scalar_credit(
    credit_B: Tensor, batch: Generation, args: CritiqueGRPOConfig, two_phases: bool
) -> Tensor:
    """Credit (B,) of the scalar term: that of `row_credit` (B,), 0 on rows that are no rollouts."""
    scalar_B = credit_B
    if (args.positive_weight, args.negative_weight) != (1.0, 1.0):
        scalar_B = weighted_advantages(credit_B, args.positive_weight, args.negative_weight)
    if not two_phases:
        return scalar_B
    return scalar_B.masked_fill(~batch.rollout_rows(credit_B.device), 0.0)


def refine_credit(credit_B: Tensor, batch: Generation, args: CritiqueGRPOConfig) -> Tensor:
    """Credit (B,) of the refine term: 0 on rows without a refinement, else as `row_credit` (B,)."""
    earned_B = credit_B
    if args.refine_ratio == "nll":
        # The likelihood of a wrong refinement has no lower bound, so as in RAFT only right ones
        # train.
        earned_B = batch.right_rows(credit_B.device).float()
    return earned_B.masked_fill(~batch.refined_rows(credit_B.device), 0.0)


@dataclass(frozen=True)
class KindTotals:
    """Tokens or rows of a generation batch over all ranks, by kind of row; scalars."""

    rollouts: Tensor
    credited: Tensor
    """Of the rollouts those that train the scalar term."""
    reserved: Tensor
    refined: Tensor


def count_kinds(
    output: TrlBatch,
    batch: Generation,
    args: CritiqueGRPOConfig,
    two_phases: bool,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> tuple[KindTotals, KindTotals]:
    """Tokens and rows by kind of row. A collective.

    Args:
        output: TRL's batch, after credit was shared out and teachers got their contexts.
        batch: the same batch as text.
        args: settings of the run.
        two_phases: whether reserved rows were filled.
        sum_over_ranks: sums a tensor over the ranks.
    """
    tokens_B = output["completion_mask"].sum(1)
    device = tokens_B.device
    rollouts_B = batch.rollout_rows(device)
    credited_B = (output["advantages"] != 0) & rollouts_B
    if args.distill_mode == "advantage" and "distill_mask" in output:
        # A teacher adds to the advantages of these rows, whatever their reward.
        credited_B = credited_B | output["distill_mask"]
    if args.unlikely_advantage:
        # So does the fixed advantage of unlikely tokens, which every rollout has.
        credited_B = rollouts_B
    slots = args.refine_slots if two_phases else 0
    row_B = torch.arange(len(tokens_B), device=device)
    place_B = row_B % args.group_size
    reserved_B = place_B >= args.group_size - slots
    kinds = [rollouts_B, credited_B, reserved_B, batch.refined_rows(device)]
    kinds_KB = torch.stack(kinds).float()
    tokens_K = kinds_KB @ tokens_B.float()
    rows_K = kinds_KB.sum(1)
    # One reduction for all eight sums: each one is a point where ranks wait for each other.
    tokens_K, rows_K = sum_over_ranks(torch.stack([tokens_K, rows_K]))
    return KindTotals(*tokens_K), KindTotals(*rows_K)


def normalisers(
    tokens: KindTotals, rows: KindTotals, all_rows: int, args: CritiqueGRPOConfig
) -> dict[str, Tensor]:
    """Keys of TRL's batch that the scalar and the refine term are divided by.

    Args:
        tokens: tokens by kind of row.
        rows: rows by kind of row.
        all_rows: rows of all kinds over all ranks.
        args: settings of the run.

    Returns:
        Scalars: num_items_in_batch (tokens of the scalar term), scalar_share (its part of the rows)
        and refine_tokens (at least 1).
    """
    scalar_tokens = tokens.rollouts
    scalar_rows = rows.rollouts
    if args.scalar_normalizer == "subset":
        # The floor keeps a lone row from taking the step of all.
        scalar_tokens = torch.maximum(tokens.credited, args.subset_floor * tokens.rollouts)
        scalar_rows = torch.maximum(rows.credited, args.subset_floor * rows.rollouts)
    rollout_length = scalar_tokens
    if args.loss_type not in TOKEN_MEAN:
        # Losses by rows: as in Dr. GRPO a row counts as a completion of full length.
        rollout_length = scalar_rows * args.completion_limit
    refine_tokens = {
        "slots": tokens.reserved,
        "tokens": tokens.refined,
        "rollouts": rollout_length,
        "paper": rows.reserved * args.completion_limit,
    }
    return {
        "num_items_in_batch": scalar_tokens,
        "scalar_share": scalar_rows / all_rows,
        "refine_tokens": refine_tokens[args.refine_normalizer].clamp(min=1),
    }
