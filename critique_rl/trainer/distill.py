"""Token-level terms whose teacher reads more than the student: distillation, and what keeps the
refine skill (own prompt, anchor to the base).

Each row of the batch may have a *context*: the prompt its completion is read under. For a rollout
it is the question with a critique, a right sibling or a demonstration, but without the attempt,
which a teacher that has seen it would endorse; for a chosen refinement it is the prompt it was
sampled from. The critic's words enter here only: never as tokens that are trained on. Every rank
makes the same number of forward passes, rows or no rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import pad

from critique_rl.objective import importance_weight, prefix_weight, sampled_divergence
from critique_rl.trainer import hidden_states, trl_seams
from critique_rl.trainer.rollout.generation import Generation
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.trainer.rollout.two_phase import prompt_limit
from critique_rl.trainer.sliced_divergence import Divergence, Head, sliced_divergence, sliced_logps
from critique_rl.trainer.teacher import Teacher, right_sibling, teacher_prompt


class Distillation:
    """The terms that need a context, for one trainer. Contexts are made once a generation, teachers
    read at each loss.
    """

    def __init__(self, trainer: GRPOTrainer):
        self.trainer, args = trainer, trainer.args
        self.teacher = Teacher(
            trainer.model, args.distill_teacher if args.distill_weight else "live", args.distill_ema
        )
        self.anchor = Teacher(trainer.model, "base") if args.refine_anchor_weight else None
        self.measure = Divergence(
            args.distill_alpha,
            args.distill_top_k if args.distill_mode == "topk" else None,
            args.distill_tail,
            trainer.temperature,
        )

    @property
    def needs_hidden(self) -> bool:
        """True where the student's hidden states are needed beside its log-probs."""
        return bool(self.trainer.args.distill_weight) and not self.trainer.args.sampled_token_only

    def save(self, folder: Path) -> None:
        self.teacher.save(folder, self.trainer.args.should_save)

    def load(self, folder: Path) -> None:
        self.teacher.load(folder)

    # ---- contexts: once a generation -------------------------------------------------------------

    def prepare(self, output: dict[str, Any], batch: Generation) -> None:
        """Add to TRL's batch: context_ids and context_mask (B, P) left padded, distill_mask and
        own_mask (B,), and the tokens both terms are divided by.
        """
        args, device, size = (
            self.trainer.args,
            output["completion_ids"].device,
            len(output["completion_ids"]),
        )
        prompts = self._contexts(batch, size)
        asked = [i for i in range(size) if prompts[i] is not None]
        found = dict(
            zip(asked, trl_seams.prompt_ids(self.trainer, [prompts[i] for i in asked]), strict=True)
        )
        short = {i: ids for i, ids in found.items() if len(ids) <= prompt_limit(self.trainer)}
        batch.counts["distill/prompt_too_long"] = len(found) - len(short)
        # A row without a context gets one token, so that the forward pass of a rank without any has
        # something to read.
        ids = [
            torch.tensor(short.get(i, [self.trainer.processing_class.pad_token_id]), device=device)
            for i in range(size)
        ]
        output["context_ids"] = pad(
            ids, self.trainer.processing_class.pad_token_id, padding_side="left"
        )
        output["context_mask"] = pad([torch.ones_like(row) for row in ids], 0, padding_side="left")
        has = torch.tensor([i in short for i in range(size)], device=device)
        refined = self.trainer.mask(batch.refined)
        right = torch.tensor(
            [verdict.outcome == "right" for verdict in batch.verdicts], device=device
        )
        targets = {"rollouts": ~refined, "refinements": refined & right, "both": ~refined | right}[
            args.distill_target
        ]
        output["distill_mask"] = has & targets if args.distill_weight else torch.zeros_like(has)
        output["own_mask"] = has & refined & right
        output["failed_mask"] = (
            torch.tensor([verdict.failed for verdict in batch.verdicts], device=device) & ~refined
        )
        tokens = output["completion_mask"].sum(1)
        rollouts = ~self.trainer.mask(batch.refined + batch.off_policy)
        shared = (
            output["distill_mask"] | rollouts
            if args.distill_normalizer == "rollouts"
            else output["distill_mask"]
        )
        sums = torch.stack([tokens[shared].sum(), tokens[output["own_mask"]].sum()])
        output["distill_tokens"], output["own_tokens"] = self.trainer.accelerator.reduce(
            sums, reduction="sum"
        ).clamp(min=1)
        batch.counts["distill/rows"] = int(output["distill_mask"].sum())
        batch.counts["tokens/teacher"] = int(
            (output["context_mask"].sum(1) + tokens)[output["distill_mask"]].sum()
        )

    def _contexts(self, batch: Generation, size: int) -> list[Any | None]:
        prompts: list[Any | None] = [None] * size
        number = {n: refinement for _, n, refinement in batch.refinements}
        args, refined = self.trainer.args, set(batch.refined)
        for row, source in enumerate(batch.order):
            if row in refined and source in number:
                refinement = number[source]
                prompts[row] = refine_prompt(
                    refinement.attempt.row["prompt"],
                    refinement.attempt,
                    refinement.critique,
                    args.refine_template,
                )
            elif (
                source < len(batch.attempts)
                and args.distill_weight
                and args.distill_target != "refinements"
            ):
                attempt, sibling = (
                    batch.attempts[source],
                    right_sibling(batch.attempts, source, batch.group_rollouts),
                )
                prompts[row] = teacher_prompt(
                    attempt.row["prompt"],
                    attempt,
                    batch.critiques.get(source),
                    sibling,
                    args.distill_context,
                    args.distill_column,
                    args.distill_template,
                )
        return prompts

    # ---- terms: at each loss ---------------------------------------------------------------------

    def token_advantages(self, inputs: dict[str, Any], old_logps_BT: Tensor) -> Tensor:
        """OPD's A_t = log pi_T - log pi_old on the rows that have a teacher, else 0: (B, T).
        OpenClaw-RL, section 4.2.
        """
        rows, mask = _rows(inputs, "distill_mask")
        hidden, head = self._read(inputs, rows, self.teacher)
        log_ratio = (
            sliced_logps(hidden, head, inputs["completion_ids"][rows], self.trainer.temperature)
            - old_logps_BT[rows]
        )
        self._log_ratios(inputs, rows, log_ratio)
        return torch.zeros_like(old_logps_BT).index_copy(0, rows, log_ratio * mask)

    def term(
        self,
        inputs: dict[str, Any],
        logps_BT: Tensor,
        old_logps_BT: Tensor,
        hidden_BLH: Tensor | None,
    ) -> Tensor:
        """Sum over distilled tokens of the divergence to the teacher, weighted by min(p / p_old,
        distill_is_clip). SDPO (arXiv 2601.20802), Eq. 1.
        """
        rows, mask = _rows(inputs, "distill_mask")
        args, length = self.trainer.args, inputs["completion_ids"].shape[1]
        hidden, head = self._read(inputs, rows, self.teacher)
        student = logps_BT[rows]
        weights = importance_weight(student, old_logps_BT[rows], args.distill_is_clip) * mask
        if hidden_BLH is None or args.distill_prefix:
            teacher = sliced_logps(
                hidden, head, inputs["completion_ids"][rows], self.trainer.temperature
            )
        if args.distill_prefix:
            weights = weights * prefix_weight(student * mask, teacher * mask)
        if hidden_BLH is None:
            self._log_ratios(inputs, rows, teacher - student.detach())
            return (sampled_divergence(student, teacher) * weights).sum()
        total, values, ours, teacher = self._divergence(
            inputs, rows, hidden_BLH[rows, -length - 1 : -1], hidden, head, weights, self.measure
        )
        self._log_ratios(inputs, rows, teacher - student.detach())
        self._check_head(ours, student.detach(), inputs["completion_mask"][rows])
        trl_seams.mean_metric(self.trainer, "distill/divergence", (values * mask).sum(), mask.sum())
        return total

    def own_terms(
        self, model: torch.nn.Module, inputs: dict[str, Any], logps_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(nll, KL(base || policy)) sums over right refinements under the prompt they were sampled
        from; the second is 0 without an anchor.
        """
        rows, mask = _rows(inputs, "own_mask")
        ids, attention, length = _joined(inputs, rows)
        with hidden_states.last_hidden_states(self.trainer) as seen:
            logps = self.trainer.logps(model, ids, attention, length)
        trl_seams.mean_metric(
            self.trainer, "refine/kl", ((logps - logps_BT[rows]).detach() * mask).sum(), mask.sum()
        )
        nll = -(logps * mask).sum()
        if self.anchor is None:
            return nll, nll * 0.0
        base_hidden, head = self._read(inputs, rows, self.anchor)
        exact = Divergence(0.0, temperature=self.trainer.temperature)
        return nll, self._divergence(
            inputs, rows, seen[0][:, -length - 1 : -1], base_hidden, head, mask.float(), exact
        )[0]

    @torch.no_grad()
    def _read(self, inputs: dict[str, Any], rows: Tensor, teacher: Teacher) -> tuple[Tensor, Head]:
        """A teacher's hidden states (rows, T, H) at the positions that predict the completion,
        under each row's context, and its head.
        """
        ids, attention, length = _joined(inputs, rows)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with (
            teacher.weights(model),
            hidden_states.last_hidden_states(self.trainer) as seen,
            self.trainer.accelerator.autocast(),
        ):
            model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=1)
            head = hidden_states.head_of(self.trainer).detach()
        return seen[0][:, -length - 1 : -1], head

    def _divergence(
        self,
        inputs,
        rows,
        student_hidden,
        teacher_hidden,
        teacher_head: Head,
        weights,
        measure: Divergence,
    ) -> tuple[Tensor, ...]:
        """`sliced_divergence` over the real tokens of some rows: the sum, then (rows, T)
        divergences and log-probs of student and teacher.
        """
        real = inputs["completion_mask"][rows].bool()
        labels, head = inputs["completion_ids"][rows][real], hidden_states.head_of(self.trainer)
        total, *each = sliced_divergence(
            student_hidden[real],
            head,
            teacher_hidden[real],
            teacher_head,
            weights[real],
            labels,
            measure,
        )
        return total, *(
            torch.zeros(real.shape, device=real.device).masked_scatter(real, values)
            for values in each
        )

    def _check_head(self, ours: Tensor, theirs: Tensor, mask: Tensor) -> None:
        """Some models scale their logits in ways of their own; what TRL scores is the truth."""
        gap = ((ours - theirs).abs() * mask).max().item()
        if gap > 0.1:
            raise ValueError(
                f"distill_mode {self.trainer.args.distill_mode}: this model's head gives log-probs {gap:.2f} away from TRL's (it scales its logits); use "
                "distill_mode sampled"
            )

    def _log_ratios(self, inputs: dict[str, Any], rows: Tensor, log_ratio: Tensor) -> None:
        """Mean teacher-student log-ratio on failed rollouts and on their faulty tokens: it must be
        negative, or the teacher endorses the error.
        """
        trained = inputs["completion_mask"][rows] * inputs["distill_mask"][rows].unsqueeze(1)
        failed = trained * inputs["failed_mask"][rows].unsqueeze(1)
        faulty = failed * inputs["fault_mask"][rows]
        for name, part in (("failed", failed), ("faulty", faulty)):
            trl_seams.mean_metric(
                self.trainer, f"distill/log_ratio_{name}", (log_ratio * part).sum(), part.sum()
            )


def refuse_sharding(state: Any, args: Any) -> None:
    """ValueError for sharded weights that these terms cannot read whole. `state`: accelerate's."""
    plugin, fsdp = state.deepspeed_plugin, getattr(state, "fsdp_plugin", None)
    found = (
        "DeepSpeed ZeRO-3"
        if plugin is not None and plugin.zero_stage == 3
        else "FSDP1"
        if fsdp is not None and fsdp.fsdp_version == 1
        else None
    )
    for name in ("distill_weight", "refine_anchor_weight"):
        value = getattr(args, name)
        if found and value:
            raise ValueError(
                f"{name}: got {value} under {found}, which gives no gradient of the whole head. Use DDP, ZeRO-2 or FSDP2, or set it to 0"
            )


def _rows(inputs: dict[str, Any], key: str) -> tuple[Tensor, Tensor]:
    """Rows that a term reads, at least one, and the mask (rows, T) of the tokens it trains: all 0
    where no row is its own.
    """
    chosen = inputs[key]
    rows = (
        chosen.nonzero().flatten()
        if chosen.any()
        else torch.zeros(1, dtype=torch.long, device=chosen.device)
    )
    return rows, inputs["completion_mask"][rows] * chosen[rows].unsqueeze(1)


def _joined(inputs: dict[str, Any], rows: Tensor) -> tuple[Tensor, Tensor, int]:
    """(ids, attention, completion length) of contexts and completions, without columns that are
    padding in every one of these rows.
    """
    mask = inputs["context_mask"][rows]
    start = int(mask.any(0).float().argmax())
    ids = torch.cat([inputs["context_ids"][rows, start:], inputs["completion_ids"][rows]], 1)
    return (
        ids,
        torch.cat([mask[:, start:], inputs["completion_mask"][rows]], 1),
        inputs["completion_ids"].shape[1],
    )
