"""Token-level terms whose teacher reads more than the student: distillation, and the terms that
keep the refine skill (the refinement's own prompt, an anchor to the base).

Each row of the batch may have a *context*: the prompt under which its completion is read again.
For a rollout it is the question with a critique, a right sibling or a demonstration, or the bare
question. It is never the attempt, because a teacher that has seen the attempt would endorse it. For
a chosen refinement it is the prompt that it was sampled from. The critic's words enter here only:
they are never tokens that are trained on.

| key of TRL's batch           | written by | read by                                         |
|------------------------------|------------|-------------------------------------------------|
| context_ids, context_mask    | `prepare`  | `read`, `refine_prompt_terms`                   |
| contrast_ids, contrast_mask  | `prepare`  | `token_advantages`, under `distill_contrast`    |
| context_logps, contrast_logps | `prepare` | the same, where a server is the teacher         |
| distill_mask, distill_tokens | `prepare`  | `divergence_term`, `token_advantages`, `credit` |
| own_mask, own_tokens         | `prepare`  | `refine_prompt_terms`, the trainer's sum        |
| failed_mask, fault_mask      | `prepare`  | `divergence_term`, `token_advantages`           |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from trl.trainer.utils import pad

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.objective import importance_weight, prefix_weight, sampled_divergence
from critique_rl.sampling.attention import positions_of
from critique_rl.trainer import hidden_states
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.hidden_states import PolicyPasses, TermRows, term_rows
from critique_rl.trainer.rollout.generation import Counts, Generation
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import fault_mask
from critique_rl.trainer.sliced_divergence import Divergence, Head, sliced_divergence, sliced_logps
from critique_rl.trainer.teachers.other_model import load_teacher
from critique_rl.trainer.teachers.section import TeacherModel, read_teacher
from critique_rl.trainer.teachers.served import ContextRow, ServedTeacher
from critique_rl.trainer.teachers.teacher import (
    Teacher,
    contrast_prompts,
    critiqued_problems,
    teacher_prompts,
)
from critique_rl.trainer.trl_seams import TrlBatch

LOGPS_TOLERANCE = 0.1
"""Gap in log-probs between TRL and our own head, from which on the head is not the model's."""
HEAD_FAULT = (
    "this model's head gives log-probs {gap} away from the model's own, so it does more with its "
    "logits than scale and cap them. Use a served teacher, distill_teacher: {{base_url: ...}}, or "
    "refinements alone, distill_weight: 0"
)
HIDDEN_FAULT = (
    "{name} does not pass through its base model, whose hidden states the teacher's are. Use a "
    "served teacher, distill_teacher: {{base_url: ...}}, or refinements alone, distill_weight: 0"
)


@dataclass(frozen=True)
class _Pair:
    """Student and teacher on the rows that are distilled, B in number."""

    rows: TermRows
    weights: Tensor
    """(B, T) of each token's divergence."""
    student: Tensor
    """(B, T) log-probs, with gradient."""
    student_hidden: Tensor | None
    """(B, T, H), with gradient; None for the form that reads the sampled token alone."""
    teacher: Tensor | None
    """(B, T) log-probs; None where only the divergence reads the teacher."""
    teacher_hidden: Tensor | None
    """(B, T, H); None where a server is the teacher."""
    head: Head | None
    """The teacher's."""


class Distillation:
    """The terms that need a context, for one trainer.

    Contexts are made once per generation batch; teachers read at each loss.
    """

    def __init__(
        self,
        args: CritiqueGRPOConfig,
        model: nn.Module,
        sampler: Sampler,
        passes: PolicyPasses,
        teacher_folder: Path | None = None,
    ):
        """Take the teacher's weights from the policy at the start, or load or probe another one.

        Args:
            args: settings of the run.
            model: the policy at the start.
            sampler: renders the teacher's prompts.
            passes: forward passes of the policy in training.
            teacher_folder: keeps the answers and the spending of a teacher behind a server.

        Raises:
            ValueError: the teacher is not there, or cannot teach this policy.
        """
        self.args = args
        self.sampler = sampler
        self.passes = passes
        source = read_teacher(args.distill_teacher) if args.distill_weight else "live"
        self.served: ServedTeacher | None = None
        if isinstance(source, TeacherModel):
            rows = len(hidden_states.head_of(model).weight)
            other = load_teacher(source, sampler.tokenizer, rows, sampler.device)
            self.teacher = Teacher(model, "other", other=other)
        elif isinstance(source, Endpoint):
            self.teacher = Teacher(model, "other")
            self.served = ServedTeacher(
                source, teacher_folder, sampler.tokenizer, passes.is_main_rank
            )
        else:
            self.teacher = Teacher(model, source, args.distill_ema)
        self.anchor = Teacher(model, "base") if args.refine_anchor_weight else None
        top_k = args.distill_top_k if args.distill_mode == "topk" else None
        self.has_checked_head = False
        self.keeps_pair = False
        """Whether `divergence_term` leaves what it read to `divergence_parts`."""
        self.last_pair: _Pair | None = None
        self.measure = Divergence(
            args.distill_alpha,
            top_k,
            args.distill_tail,
            passes.temperature,
            args.distill_entry_clip,
        )

    @property
    def needs_hidden(self) -> bool:
        """True where the student's hidden states are needed beside its log-probs."""
        return bool(self.args.distill_weight) and not self.args.sampled_token_only

    def save(self, folder: Path) -> None:
        """Save what the teacher keeps besides the policy. Called on every rank."""
        self.teacher.save(folder, self.args.should_save)

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        self.teacher.load(folder)

    # ---- contexts: once per generation batch -----------------------------------------------------

    def prepare(self, output: TrlBatch, batch: Generation) -> tuple[dict[str, Tensor], Counts]:
        """Make what the terms read at each loss. A collective.

        Args:
            output: TRL's batch of B rows.
            batch: the same batch as text.

        Returns:
            New keys of TRL's batch: context_ids and context_mask (B, P), padded on the left, and
            under `distill_contrast` the same of the contrast; distill_mask, own_mask and
            failed_mask (B,); fault_mask (B, T); and scalars, the tokens of all ranks that each term
            is divided by. Then this rank's counters.
        """
        tokens_B = output["completion_mask"].sum(1)
        contexts, long_contexts = self._contexts(teacher_prompts(batch, self.args))
        device = tokens_B.device
        keys = self._context_tensors("context", contexts, device)
        has_context_B = _present(contexts, device)
        keys |= self._row_masks(batch, has_context_B)
        without_contrast = 0
        read = {"context": contexts}
        if self.args.distill_contrast != "none":
            # Of all ranks: one rank may hold a single problem.
            pool = gather_object(critiqued_problems(batch))
            contrasts, long_contrasts = self._contexts(contrast_prompts(batch, pool, self.args))
            long_contexts += long_contrasts
            keys |= self._context_tensors("contrast", contrasts, device)
            contrasted_B = keys["distill_mask"] & _present(contrasts, device)
            without_contrast = int((keys["distill_mask"] & ~contrasted_B).sum())
            keys["distill_mask"] = contrasted_B
            read["contrast"] = contrasts
        counts: Counts = Counter()
        if self.served is not None:
            counts.update(self._ask(self.served, output, read, keys))
        keys |= self._normalisers(batch, keys, tokens_B)
        tokenizer = self.sampler.tokenizer
        keys["fault_mask"] = fault_mask(tokenizer, output["completion_ids"], batch.verdicts)
        distill_B = keys["distill_mask"]
        read_B = keys["context_mask"].sum(1) + tokens_B
        if self.args.distill_contrast != "none":
            # The teacher reads the completion twice.
            read_B = read_B + keys["contrast_mask"].sum(1) + tokens_B
        counts["distill/prompt_too_long"] = long_contexts
        counts["distill/no_contrast"] = without_contrast
        counts["distill/rows"] = int(distill_B.sum())
        if self.served is None:
            counts["tokens/teacher"] = int(read_B[distill_B].sum())
        return keys, counts

    def _ask(
        self,
        served: ServedTeacher,
        output: TrlBatch,
        read: Mapping[str, list[list[int] | None]],
        keys: dict[str, Tensor],
    ) -> Counts:
        """Ask a server for the log-probs of the rows that distill. A collective.

        Args:
            served: the teacher.
            output: TRL's batch of B rows.
            read: "context" and perhaps "contrast" -> each row's context.
            keys: `<context>_logps` (B, T) is added, and rows without an answer leave
                `distill_mask` (B,).

        Returns:
            This rank's counters.
        """
        counts: Counts = Counter()
        mask_BT = output["completion_mask"].bool()
        for name, contexts in read.items():
            distilled = keys["distill_mask"].nonzero().flatten().tolist()
            rows = []
            for row in distilled:
                completion = output["completion_ids"][row][mask_BT[row]]
                rows.append(ContextRow(contexts[row] or [], completion.tolist()))
            answers, row_counts = served.score(rows)
            counts.update(row_counts)
            logps_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
            for row, logps in zip(distilled, answers, strict=True):
                if logps is None:
                    keys["distill_mask"][row] = False
                else:
                    logps_BT[row][mask_BT[row]] = torch.tensor(logps, device=logps_BT.device)
            keys[f"{name}_logps"] = logps_BT
        return counts

    def _contexts(self, prompts: list[Any | None]) -> tuple[list[list[int] | None], int]:
        """Token ids of each row's prompt, None where it has none, and how many were too long."""
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
        self, name: str, contexts: list[list[int] | None], device: torch.device
    ) -> dict[str, Tensor]:
        """`name`_ids and `name`_mask (B, P), padded on the left."""
        padding = self.sampler.tokenizer.pad_token_id
        # A row without a context gets one token, so that the forward pass of a rank without any
        # has something to read.
        rows = [torch.tensor(ids or [padding], device=device) for ids in contexts]
        ones = [torch.ones_like(row) for row in rows]
        return {
            f"{name}_ids": pad(rows, padding, padding_side="left"),
            f"{name}_mask": pad(ones, 0, padding_side="left"),
        }

    def _row_masks(self, batch: Generation, has_context_B: Tensor) -> dict[str, Tensor]:
        """Which rows each term trains, and which failed, all (B,) bool."""
        device = has_context_B.device
        refined_B = batch.refined_rows(device)
        # A wrong refinement demonstrates a wrong answer, so no target includes it.
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
        """Tokens of all ranks that each term is divided by, scalars of at least 1; under the
        normaliser `rows` the rows that distill.
        """
        divided_B = masks["distill_mask"]
        if self.args.distill_normalizer == "rollouts":
            divided_B = divided_B | batch.rollout_rows(tokens_B.device)
        distill_tokens = tokens_B[divided_B].sum()
        if self.args.distill_normalizer == "rows":
            distill_tokens = divided_B.sum()
        own_tokens = tokens_B[masks["own_mask"]].sum()
        local = torch.stack([distill_tokens, own_tokens])
        # A rank, or all of them, may have no such row.
        distill_tokens, own_tokens = self.passes.sum_over_ranks(local).clamp(min=1)
        return {"distill_tokens": distill_tokens, "own_tokens": own_tokens}

    # ---- terms: at each loss ---------------------------------------------------------------------

    def token_advantages(self, inputs: TrlBatch, old_logps_BT: Tensor) -> Tensor:
        """OPD's A_t = log pi_T - log pi_old, (B, T): 0 on rows without a teacher.

        OpenClaw-RL (arXiv 2603.10165), section 4.2. Under `distill_contrast` it is RLCSD's

            A_t = log pi_T(y_t | x, c, y_<t) - log pi_T(y_t | x, c', y_<t)

        (arXiv 2606.11709, Eq. 7 with K = 1), where c' is the critique of another problem: what any
        critique does to the style of an answer cancels.

        Args:
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            old_logps_BT: log-probs (B, T) before this generation's updates.
        """
        rows = term_rows(inputs, "distill_mask")
        teacher_logps = self._teacher_logps(rows, "context")
        compared_logps = old_logps_BT[rows.places]
        if self.args.distill_contrast != "none":
            compared_logps = self._teacher_logps(rows, "contrast")
        log_ratio = teacher_logps - compared_logps
        self._log_ratios(rows, log_ratio)
        # TRL's log-probs are float32, those of a double teacher are not.
        advantages = (log_ratio * rows.trained).to(old_logps_BT.dtype)
        return torch.zeros_like(old_logps_BT).index_copy(0, rows.places, advantages)

    def divergence_term(
        self, inputs: TrlBatch, logps_BT: Tensor, old_logps_BT: Tensor, hidden_BLH: Tensor | None
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
        pair = self._read_both(inputs, logps_BT, old_logps_BT, hidden_BLH)
        self.last_pair = pair if self.keeps_pair else None
        rows = pair.rows
        student = pair.student.detach()
        if pair.student_hidden is None:
            total, teacher = self._sampled_sum(pair, pair.weights)
            self._log_ratios(rows, teacher - student)
            return total
        total, divergences, head_logps, teacher = self._pair_divergence(pair, pair.weights)
        self._log_ratios(rows, teacher - student)
        self._check_head(head_logps, student, rows.completion_mask)
        divergence_sum = (divergences * rows.trained).sum()
        self.passes.log_mean("distill/divergence", divergence_sum, rows.trained.sum())
        return total

    def divergence_parts(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The last `divergence_term` on some tokens alone, once; nothing is logged.

        Args:
            masks: name -> (B, T), true on tokens that count.

        Returns:
            Name -> scalar.
        """
        pair = self.last_pair
        assert pair is not None, "keeps_pair is set before the term is taken"
        self.last_pair = None
        totals = {}
        for name, mask_BT in masks.items():
            weights = pair.weights * mask_BT[pair.rows.places]
            if pair.student_hidden is None:
                totals[name] = self._sampled_sum(pair, weights)[0]
                continue
            totals[name] = self._pair_divergence(pair, weights)[0]
        return totals

    def _pair_divergence(self, pair: _Pair, weights: Tensor) -> tuple[Tensor, ...]:
        """`_divergence` of student and teacher, with weights (B, T) of each token."""
        hidden = pair.student_hidden
        assert hidden is not None, "the sampled form reads no hidden states"
        assert pair.teacher_hidden is not None, "a server gives no hidden states"
        assert pair.head is not None, "whoever has hidden states has a head"
        return self._divergence(
            pair.rows, hidden, pair.teacher_hidden, pair.head, weights, self.measure
        )

    def _read_both(
        self, inputs: TrlBatch, logps_BT: Tensor, old_logps_BT: Tensor, hidden_BLH: Tensor | None
    ) -> _Pair:
        """What student and teacher say about the distilled rows; arguments of `divergence_term`.

        Args:
            inputs: as there.
            logps_BT: (B, T) as there.
            old_logps_BT: (B, T) as there.
            hidden_BLH: (B, positions, H) as there.
        """
        rows = term_rows(inputs, "distill_mask")
        student = logps_BT[rows.places]
        old = old_logps_BT[rows.places]
        importance = importance_weight(student, old, self.args.distill_is_clip)
        weights = importance * rows.trained
        if self.args.distill_normalizer == "rows":
            # A mean over each row's tokens; `distill_tokens` then holds the number of rows.
            weights = weights / rows.trained.sum(1, keepdim=True).clamp(min=1)
        teacher_hidden = head = teacher = None
        if self.served is None:
            teacher_hidden, head = self.read(rows, self.teacher)
        if hidden_BLH is None or self.args.distill_prefix:
            teacher = self._teacher_logps(rows, "context", teacher_hidden, head)
        if teacher is not None and self.args.distill_prefix:
            mask = rows.trained
            weights = weights * prefix_weight(student * mask, teacher * mask)
        student_hidden = None
        if hidden_BLH is not None:
            student_hidden = rows.predicting(hidden_BLH[rows.places])
        return _Pair(rows, weights, student, student_hidden, teacher, teacher_hidden, head)

    def _sampled_sum(self, pair: _Pair, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the form that reads the sampled token alone, a scalar; the teacher's log-probs.

        Args:
            pair: student and teacher of B rows.
            weights: (B, T) of each token.
        """
        assert pair.teacher is not None, "this form reads the teacher's log-probs"
        total = (sampled_divergence(pair.student, pair.teacher) * weights).sum()
        return total, pair.teacher

    def refine_prompt_terms(
        self, model: nn.Module, inputs: TrlBatch, logps_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums over right refinements, read under the prompt that they were sampled from.

        Args:
            model: the policy, wrapped as in a training step.
            inputs: a micro batch of TRL's, with the keys of `prepare`.
            logps_BT: log-probs (B, T) under the question alone.

        Returns:
            Two scalars: the nll, and KL(base || policy), which is 0 without an anchor.
        """
        rows = term_rows(inputs, "own_mask")
        mask = rows.trained
        ids, attention = rows.with_context()
        with hidden_states.last_hidden_states(self.passes.model) as seen:
            logps = self.passes.token_logps(model, ids, attention, rows.length)
        gain = (logps - logps_BT[rows.places]).detach()
        total = (gain * mask).sum()
        self.passes.log_mean("refine/kl", total, mask.sum())
        nll = -(logps * mask).sum()
        if self.anchor is None:
            return nll, nll * 0.0
        base_hidden, head = self.read(rows, self.anchor)
        forward_kl = Divergence(0.0, temperature=self.passes.temperature)
        hidden = rows.predicting(seen[0])
        weights = mask.float()
        drift, *_ = self._divergence(rows, hidden, base_hidden, head, weights, forward_kl)
        return nll, drift

    @torch.no_grad()
    def read(
        self, rows: TermRows, teacher: Teacher, context: str = "context"
    ) -> tuple[Tensor, Head]:
        """Have a teacher read completions under their contexts. A collective for sharded weights.

        Args:
            rows: the rows.
            teacher: whose weights read.
            context: which context, "context" or "contrast".

        Returns:
            Last hidden states (B, T, H) at the positions that predict the completion, and the
            teacher's head.

        Raises:
            ValueError: the model's hidden states, or its logits from them, cannot be had.
        """
        ids, attention = rows.with_context(context)
        hidden: Tensor | None = None
        with (
            teacher.weights(self.passes.model) as model,
            hidden_states.last_hidden_states(model) as seen,
            self.passes.autocast(),
        ):
            for part in rows.slices(attention, self.passes.slice_positions):
                mask = part.cut(attention)
                # Logits of one position alone: the divergence makes the others in slices.
                output = model(
                    input_ids=part.cut(ids),
                    attention_mask=mask,
                    use_cache=False,
                    logits_to_keep=1,
                    **positions_of(model, mask),
                )
                if not seen:
                    name = type(model).__name__
                    raise ValueError(f"distill_weight: {HIDDEN_FAULT.format(name=name)}")
                states = seen.pop()
                if hidden is None:
                    hidden = states.new_zeros(len(ids), rows.length, states.shape[-1])
                hidden[part.rows, : part.length] = part.predicting(states)
            head = hidden_states.head_of(model).detach()
        assert hidden is not None, "a term reads one row at least"
        if not self.has_checked_head:
            self._check_logits(head, states[:, -1], output.logits[:, -1])
            self.has_checked_head = True
        return hidden, head

    def _check_logits(self, head: Head, hidden_BH: Tensor, logits_BV: Tensor) -> None:
        """Check that a model's logits (B, V) are those of its head on hidden states (B, H).

        Raises:
            ValueError: they are not, and no mode of distillation can read the model.
        """
        gap = hidden_states.head_gap(head, hidden_BH, logits_BV)
        if gap > hidden_states.HEAD_TOLERANCE:
            raise ValueError(f"distill_weight: {HEAD_FAULT.format(gap=f'{gap:.0%}')}")

    def _teacher_logps(
        self, rows: TermRows, context: str, hidden: Tensor | None = None, head: Head | None = None
    ) -> Tensor:
        """Log-probs (B, T) of the completions under the teacher.

        Args:
            rows: the rows.
            context: which context it reads, "context" or "contrast".
            hidden: its hidden states (B, T, H), where it has read them.
            head: its head then.
        """
        if self.served is not None:
            return rows.column(f"{context}_logps")
        if hidden is None or head is None:
            hidden, head = self.read(rows, self.teacher, context)
        return sliced_logps(hidden, head, rows.completion_ids, self.passes.temperature)

    def _divergence(
        self,
        rows: TermRows,
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        teacher_head: Head,
        weights: Tensor,
        measure: Divergence,
    ) -> tuple[Tensor, ...]:
        """`sliced_divergence` over the tokens of some rows that are no padding.

        Args:
            rows: the rows.
            student_hidden: last hidden states (B, T, H), with gradient.
            teacher_hidden: the teacher's (B, T, H).
            teacher_head: the teacher's head.
            weights: (B, T) of each token.
            measure: which divergence.

        Returns:
            The sum, a scalar; then divergences and log-probs of student and teacher, all (B, T).
        """
        real = rows.completion_mask.bool()
        student_head = hidden_states.head_of(self.passes.model)
        # Rows beyond the student's are padding of another model's vocabulary.
        teacher_head = teacher_head.cut(len(student_head.weight))
        total, *each = sliced_divergence(
            student_hidden[real],
            student_head,
            teacher_hidden[real],
            teacher_head,
            weights[real],
            rows.completion_ids[real],
            measure,
        )
        zeros = torch.zeros(real.shape, device=real.device, dtype=each[0].dtype)
        return total, *(zeros.masked_scatter(real, values) for values in each)

    def _check_head(self, head_logps: Tensor, logps: Tensor, mask: Tensor) -> None:
        """Check log-probs from our own head against TRL's, all (B, T).

        Raises:
            ValueError: they differ, because the model does more with its logits.
        """
        gaps = (head_logps - logps).abs() * mask
        gap = gaps.max().item()
        if gap > LOGPS_TOLERANCE:
            raise ValueError(
                f"distill_mode {self.args.distill_mode}: {HEAD_FAULT.format(gap=f'{gap:.2f}')}"
            )

    def _log_ratios(self, rows: TermRows, log_ratio: Tensor) -> None:
        """Log the mean log-ratio (B, T) of teacher and student on failed rollouts.

        It must be negative there, and on their faulty tokens, or the teacher endorses the error.
        """
        failed = rows.trained * rows.column("failed_mask").unsqueeze(1)
        faulty = failed * rows.column("fault_mask")
        for name, part in (("failed", failed), ("faulty", faulty)):
            total = (log_ratio * part).sum()
            self.passes.log_mean(f"distill/log_ratio_{name}", total, part.sum())


def _present(contexts: list[list[int] | None], device: torch.device) -> Tensor:
    """(B,) bool: rows that have a context."""
    return torch.tensor([ids is not None for ids in contexts], device=device)
