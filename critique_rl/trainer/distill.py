"""Token-level terms whose teacher reads more than the student: distillation, and the terms that
keep the refine skill (the refinement's own prompt, an anchor to the base).

Each row of the batch may have a *context*: the prompt under which its completion is read again.
For a rollout it is the question with a critique, a right sibling or a demonstration. It is never
the attempt, because a teacher that has seen the attempt would endorse it. For a chosen refinement
it is the prompt that it was sampled from. The critic's words enter here only: they are never tokens
that are trained on.

| key of TRL's batch           | written by | read by                                         |
|------------------------------|------------|-------------------------------------------------|
| context_ids, context_mask    | `prepare`  | `read`, `refine_prompt_terms`                   |
| distill_mask, distill_tokens | `prepare`  | `divergence_term`, `token_advantages`, `credit` |
| own_mask, own_tokens         | `prepare`  | `refine_prompt_terms`, the trainer's sum        |
| failed_mask, fault_mask      | `prepare`  | `divergence_term`, `token_advantages`           |
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import pad

from critique_rl.objective import importance_weight, prefix_weight, sampled_divergence
from critique_rl.trainer import hidden_states
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.hidden_states import PolicyPasses
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import fault_mask
from critique_rl.trainer.sliced_divergence import Divergence, Head, sliced_divergence, sliced_logps
from critique_rl.trainer.teacher import Teacher, teacher_prompts

HEAD_TOLERANCE = 0.1
"""Gap in log-probs between TRL and our own head, from which on the head is not the model's."""


class Distillation:
    """The terms that need a context, for one trainer.

    Contexts are made once per generation batch; teachers read at each loss.
    """

    def __init__(
        self, args: CritiqueGRPOConfig, model: nn.Module, sampler: Sampler, passes: PolicyPasses
    ):
        """Take the teacher's weights from the policy at the start.

        Args:
            args: settings of the run.
            model: the policy at the start.
            sampler: renders the teacher's prompts.
            passes: forward passes of the policy in training.
        """
        self.args = args
        self.sampler = sampler
        self.passes = passes
        kind = args.distill_teacher if args.distill_weight else "live"
        self.teacher = Teacher(model, kind, args.distill_ema)
        self.anchor = Teacher(model, "base") if args.refine_anchor_weight else None
        top_k = args.distill_top_k if args.distill_mode == "topk" else None
        self.measure = Divergence(args.distill_alpha, top_k, args.distill_tail, passes.temperature)

    @property
    def needs_hidden(self) -> bool:
        """True where the student's hidden states are needed beside its log-probs."""
        return bool(self.args.distill_weight) and not self.args.sampled_token_only

    def save(self, folder: Path) -> None:
        self.teacher.save(folder, self.args.should_save)

    def load(self, folder: Path) -> None:
        self.teacher.load(folder)

    # ---- contexts: once per generation batch -----------------------------------------------------

    def prepare(
        self, output: dict[str, Any], batch: Generation
    ) -> tuple[dict[str, Tensor], Counter[str]]:
        """Make what the terms read at each loss. A collective.

        Args:
            output: TRL's batch of B rows.
            batch: the same batch as text.

        Returns:
            New keys of TRL's batch: context_ids and context_mask (B, P), padded on the left;
            distill_mask, own_mask and failed_mask (B,); fault_mask (B, T); and scalars, the tokens
            of all ranks that each term is divided by. Then this rank's counters.
        """
        tokens_B = output["completion_mask"].sum(1)
        contexts, long_contexts = self._contexts(batch)
        device = tokens_B.device
        keys = self._context_tensors(contexts, device)
        has_context_B = torch.tensor([ids is not None for ids in contexts], device=device)
        keys |= self._row_masks(batch, has_context_B)
        keys |= self._normalisers(batch, keys, tokens_B)
        tokenizer = self.sampler.tokenizer
        keys["fault_mask"] = fault_mask(tokenizer, output["completion_ids"], batch.verdicts)
        distill_B = keys["distill_mask"]
        read_B = keys["context_mask"].sum(1) + tokens_B
        counts: Counter[str] = Counter()
        counts["distill/prompt_too_long"] = long_contexts
        counts["distill/rows"] = int(distill_B.sum())
        counts["tokens/teacher"] = int(read_B[distill_B].sum())
        return keys, counts

    def _contexts(self, batch: Generation) -> tuple[list[list[int] | None], int]:
        """Token ids of each row's context, None where it has none, and how many were too long."""
        prompts = teacher_prompts(batch, self.args)
        limit = self.sampler.prompt_limit
        contexts: list[list[int] | None] = [None] * len(prompts)
        long_contexts = 0
        rows = [row for row, prompt in enumerate(prompts) if prompt is not None]
        rendered = self.sampler.prompt_ids([prompts[row] for row in rows])
        for row, ids in zip(rows, rendered, strict=True):
            if len(ids) <= limit:
                contexts[row] = ids
            else:
                long_contexts += 1
        return contexts, long_contexts

    def _context_tensors(
        self, contexts: list[list[int] | None], device: torch.device
    ) -> dict[str, Tensor]:
        """context_ids and context_mask (B, P), padded on the left."""
        padding = self.sampler.tokenizer.pad_token_id
        # A row without a context gets one token, so that the forward pass of a rank without any
        # has something to read.
        rows = [torch.tensor(ids or [padding], device=device) for ids in contexts]
        ones = [torch.ones_like(row) for row in rows]
        return {
            "context_ids": pad(rows, padding, padding_side="left"),
            "context_mask": pad(ones, 0, padding_side="left"),
        }

    def _row_masks(self, batch: Generation, has_context_B: Tensor) -> dict[str, Tensor]:
        """Which rows each term trains, and which failed, all (B,) bool."""
        device = has_context_B.device
        refined_B = batch.refined_rows(device)
        # A wrong refinement teaches nothing, whatever the target.
        demonstration_B = refined_B & batch.right_rows(device)
        targets = {
            "rollouts": ~refined_B,
            "refinements": demonstration_B,
            "both": ~refined_B | demonstration_B,
        }
        distill_B = has_context_B & targets[self.args.distill_target]
        if not self.args.distill_weight:
            distill_B = torch.zeros_like(has_context_B)
        return {
            "distill_mask": distill_B,
            "own_mask": has_context_B & demonstration_B,
            "failed_mask": batch.failed_rows(device) & ~refined_B,
        }

    def _normalisers(
        self, batch: Generation, masks: dict[str, Tensor], tokens_B: Tensor
    ) -> dict[str, Tensor]:
        """Tokens of all ranks that each term is divided by, scalars of at least 1."""
        divided_B = masks["distill_mask"]
        if self.args.distill_normalizer == "rollouts":
            divided_B = divided_B | batch.rollout_rows(tokens_B.device)
        distill_tokens = tokens_B[divided_B].sum()
        own_tokens = tokens_B[masks["own_mask"]].sum()
        local = torch.stack([distill_tokens, own_tokens])
        # A rank, or all of them, may have no such row.
        distill_tokens, own_tokens = self.passes.sum_over_ranks(local).clamp(min=1)
        return {"distill_tokens": distill_tokens, "own_tokens": own_tokens}

    # ---- terms: at each loss ---------------------------------------------------------------------

    def token_advantages(self, inputs: dict[str, Any], old_logps_BT: Tensor) -> Tensor:
        """OPD's A_t = log pi_T - log pi_old, (B, T): 0 on rows without a teacher.

        OpenClaw-RL (arXiv 2603.10165), section 4.2.

        Args:
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            old_logps_BT: log-probs (B, T) before this generation's updates.
        """
        rows, mask = _trained_rows(inputs, "distill_mask")
        teacher_hidden, head = self.read(inputs, rows, self.teacher)
        teacher_logps = self._teacher_logps(inputs, rows, teacher_hidden, head)
        log_ratio = teacher_logps - old_logps_BT[rows]
        self._log_ratios(inputs, rows, log_ratio)
        return torch.zeros_like(old_logps_BT).index_copy(0, rows, log_ratio * mask)

    def divergence_term(
        self,
        inputs: dict[str, Any],
        logps_BT: Tensor,
        old_logps_BT: Tensor,
        hidden_BLH: Tensor | None,
    ) -> Tensor:
        """Sum over distilled tokens of the divergence to the teacher, a scalar.

        Each token is weighted by min(p / p_old, distill_is_clip): SDPO (arXiv 2601.20802), Eq. 1.

        Args:
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            logps_BT: log-probs (B, T) of the student, with gradient.
            old_logps_BT: log-probs (B, T) before this generation's updates.
            hidden_BLH: last hidden states (B, positions, H) of the student; None for the form that
                reads the sampled token alone.
        """
        rows, mask = _trained_rows(inputs, "distill_mask")
        length = inputs["completion_ids"].shape[1]
        teacher_hidden, head = self.read(inputs, rows, self.teacher)
        student = logps_BT[rows]
        clip = self.args.distill_is_clip
        weights = importance_weight(student, old_logps_BT[rows], clip) * mask
        if hidden_BLH is None or self.args.distill_prefix:
            teacher = self._teacher_logps(inputs, rows, teacher_hidden, head)
        if self.args.distill_prefix:
            weights = weights * prefix_weight(student * mask, teacher * mask)
        if hidden_BLH is None:
            self._log_ratios(inputs, rows, teacher - student.detach())
            return (sampled_divergence(student, teacher) * weights).sum()
        student_hidden = hidden_BLH[rows, -length - 1 : -1]
        total, divergences, head_logps, teacher = self._divergence(
            inputs, rows, student_hidden, teacher_hidden, head, weights, self.measure
        )
        self._log_ratios(inputs, rows, teacher - student.detach())
        self._check_head(head_logps, student.detach(), inputs["completion_mask"][rows])
        self.passes.log_mean("distill/divergence", (divergences * mask).sum(), mask.sum())
        return total

    def refine_prompt_terms(
        self, model: nn.Module, inputs: dict[str, Any], logps_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums over right refinements, read under the prompt that they were sampled from.

        Args:
            model: the policy, wrapped as in a training step.
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            logps_BT: log-probs (B, T) under the question alone.

        Returns:
            Two scalars: the nll, and KL(base || policy), which is 0 without an anchor.
        """
        rows, mask = _trained_rows(inputs, "own_mask")
        ids, attention, length = _join_context(inputs, rows)
        with hidden_states.last_hidden_states(self.passes.model) as seen:
            logps = self.passes.token_logps(model, ids, attention, length)
        difference = (logps - logps_BT[rows]).detach()
        self.passes.log_mean("refine/kl", (difference * mask).sum(), mask.sum())
        nll = -(logps * mask).sum()
        if self.anchor is None:
            return nll, nll * 0.0
        base_hidden, head = self.read(inputs, rows, self.anchor)
        exact = Divergence(0.0, temperature=self.passes.temperature)
        hidden = seen[0][:, -length - 1 : -1]
        drift, *_ = self._divergence(inputs, rows, hidden, base_hidden, head, mask.float(), exact)
        return nll, drift

    @torch.no_grad()
    def read(self, inputs: dict[str, Any], rows: Tensor, teacher: Teacher) -> tuple[Tensor, Head]:
        """Have a teacher read completions under their contexts. A collective for sharded weights.

        Args:
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            rows: (rows,) places in the micro batch.
            teacher: whose weights.

        Returns:
            Last hidden states (rows, T, H) at the positions that predict the completion, and the
            teacher's head.
        """
        ids, attention, length = _join_context(inputs, rows)
        model = self.passes.model
        with (
            teacher.weights(model),
            hidden_states.last_hidden_states(model) as seen,
            self.passes.autocast(),
        ):
            # Logits of one position alone: the divergence makes the others in slices.
            model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=1)
            head = hidden_states.head_of(model).detach()
        return seen[0][:, -length - 1 : -1], head

    def _teacher_logps(
        self, inputs: dict[str, Any], rows: Tensor, teacher_hidden: Tensor, head: Head
    ) -> Tensor:
        """Log-probs (B, T) of the completions at `rows` (B,) from hidden states (B, T, H)."""
        labels = inputs["completion_ids"][rows]
        return sliced_logps(teacher_hidden, head, labels, self.passes.temperature)

    def _divergence(
        self,
        inputs: dict[str, Any],
        rows: Tensor,
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        teacher_head: Head,
        weights: Tensor,
        measure: Divergence,
    ) -> tuple[Tensor, ...]:
        """`sliced_divergence` over the tokens of some rows that are no padding.

        Args:
            inputs: a micro batch of TRL's.
            rows: (rows,) places in the micro batch.
            student_hidden: last hidden states (rows, T, H), with gradient.
            teacher_hidden: the teacher's (rows, T, H).
            teacher_head: the teacher's head.
            weights: (rows, T) of each token.
            measure: which divergence.

        Returns:
            The sum, a scalar; then divergences and log-probs of student and teacher, all (rows, T).
        """
        real = inputs["completion_mask"][rows].bool()
        total, *each = sliced_divergence(
            student_hidden[real],
            hidden_states.head_of(self.passes.model),
            teacher_hidden[real],
            teacher_head,
            weights[real],
            inputs["completion_ids"][rows][real],
            measure,
        )
        zeros = torch.zeros(real.shape, device=real.device)
        return total, *(zeros.masked_scatter(real, values) for values in each)

    def _check_head(self, head_logps: Tensor, logps: Tensor, mask: Tensor) -> None:
        """Check log-probs from our own head against TRL's, all (B, T).

        Raises:
            ValueError: they differ, because the model scales its logits in a way of its own.
        """
        gap = ((head_logps - logps).abs() * mask).max().item()
        if gap > HEAD_TOLERANCE:
            raise ValueError(
                f"distill_mode {self.args.distill_mode}: this model's head gives log-probs "
                f"{gap:.2f} away from TRL's (it scales its logits); use distill_mode sampled"
            )

    def _log_ratios(self, inputs: dict[str, Any], rows: Tensor, log_ratio: Tensor) -> None:
        """Log the mean log-ratio (B, T) of teacher and student on failed rollouts.

        It must be negative there, and on their faulty tokens, or the teacher endorses the error.
        """
        distilled = inputs["distill_mask"][rows] & inputs["failed_mask"][rows]
        failed = inputs["completion_mask"][rows] * distilled.unsqueeze(1)
        faulty = failed * inputs["fault_mask"][rows]
        for name, part in (("failed", failed), ("faulty", faulty)):
            self.passes.log_mean(f"distill/log_ratio_{name}", (log_ratio * part).sum(), part.sum())


def _trained_rows(inputs: dict[str, Any], key: str) -> tuple[Tensor, Tensor]:
    """Rows that a term reads, and which of their tokens it trains.

    Every rank makes the same number of forward passes: where a micro batch has no row for a term,
    its first row is read, and trains nothing.

    Returns:
        (rows,) places in the micro batch, at least one; and (rows, T), 0 on tokens not trained.
    """
    chosen = inputs[key]
    rows = chosen.nonzero().flatten()
    if not chosen.any():
        rows = torch.zeros(1, dtype=torch.long, device=chosen.device)
    return rows, inputs["completion_mask"][rows] * chosen[rows].unsqueeze(1)


def _join_context(inputs: dict[str, Any], rows: Tensor) -> tuple[Tensor, Tensor, int]:
    """Contexts followed by completions.

    Args:
        inputs: a micro batch of TRL's, with the keys of `prepare`.
        rows: (rows,) places in the micro batch.

    Returns:
        Token ids and attention, both (rows, positions), without columns that are padding in every
        one of these rows; and T, the length of completions.
    """
    completion_ids = inputs["completion_ids"][rows]
    context_mask = inputs["context_mask"][rows]
    start = int(context_mask.any(0).float().argmax())
    ids = torch.cat([inputs["context_ids"][rows, start:], completion_ids], 1)
    attention = torch.cat([context_mask[:, start:], inputs["completion_mask"][rows]], 1)
    return ids, attention, completion_ids.shape[1]
