"""GRPOTrainer whose loss is the mixed objective, the sum of weighted terms.

    L = L_scalar + refine_weight * L_refine + distill_weight * L_distill

The scalar term is TRL's own loss on the advantages of rollouts. The maths of the others is in
`objective`; those that need a teacher are in `distill`. The keys of a micro batch say which terms
it has: `refine_credit` for the refine term, `distill_mask` for those with a teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from critique_rl.objective import refine_loss, unlikely_advantages
from critique_rl.trainer import hidden_states, trl_seams
from critique_rl.trainer.credit import TOKEN_MEAN
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.distill import Distillation
from critique_rl.trainer.resume import Diverged, ResumableGRPOTrainer
from critique_rl.trainer.trl_seams import TrlBatch


@dataclass(frozen=True)
class LossParts:
    """One micro batch's loss, and what a listener needs to split it further."""

    inputs: TrlBatch
    """The micro batch."""
    terms: dict[str, Tensor]
    """The weighted terms, scalars with gradient."""
    logps_BT: Tensor
    """(B, T) of TRL's forward pass, with gradient."""
    entropies_BT: Tensor | None
    """(B, T) of the same pass."""
    advantages: Tensor
    """(B,), or (B, T) with a teacher's: what the scalar term was taken on, with gradient."""
    row_advantages_B: Tensor
    """(B,) of these the part of each row's reward."""
    distill_parts: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """The distill term on some tokens, for a run that has it: masks (B, T) -> scalars, by name."""
    score_rows: Callable[[Tensor], Tensor]
    """Log-probs (R, T) of rows at (R,) places, from a forward pass of their own, with gradient."""


class MixedLossTrainer(ResumableGRPOTrainer):
    """Adds the terms of the mixed objective to TRL's loss."""

    # TRL declares these wider, or as None until its constructor has run.
    args: CritiqueGRPOConfig
    model: nn.Module
    num_generations_eval: int
    has_two_phases = False
    """Whether reserved rows are filled, at least once `held` ends."""
    held = False
    """Whether the scalar term trains alone for now."""
    distillation: Distillation | None = None
    """The terms with a teacher."""
    on_loss: Callable[[LossParts], None] | None = None
    """Called in each micro batch's loss, where the graph is still complete."""
    on_backward: Callable[[], None] | None = None
    """Called after each micro batch's backward pass, before gradients are clipped."""
    _live_entropies: Tensor | None = None
    """(B, T) from the same pass."""
    _live_logps: Tensor | None = None
    """(B, T) from TRL's forward pass in the loss in progress, for the other terms."""
    _micro_batch: TrlBatch | None = None
    """Of the loss in progress, whose advantages a teacher may change during the forward pass."""

    @property
    def policy(self) -> Any:
        """The policy without the wrappers of DDP."""
        return trl_seams.policy_of(self)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        # Stock training scores as TRL does, to the last bit.
        scoring: AbstractContextManager[None] = nullcontext()
        if self.has_two_phases or self.distillation is not None:
            scoring = trl_seams.completions_scored_alone()
        with scoring:
            result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._live_logps = result[0]
        self._live_entropies = result[1]
        micro_batch = self._micro_batch
        # TRL reads advantages and old log-probs after this forward pass, which is the first to know
        # the policy's own log-probs and entropies.
        if micro_batch is not None:
            logps_BT = result[0].detach()
            if "old_per_token_logps" in micro_batch:
                old_BT = micro_batch["old_per_token_logps"]
                # Of rows that the policy of now has sampled.
                is_new_BT = old_BT.isnan()
                micro_batch["old_per_token_logps"] = torch.where(is_new_BT, logps_BT, old_BT)
            if self.args.distill_mode == "advantage" and "distill_mask" in micro_batch:
                self._add_taught_advantages(micro_batch, logps_BT)
            if "rollout_mask" in micro_batch:
                self._add_unlikely_advantages(micro_batch, logps_BT, result[1])
        return result

    def _add_taught_advantages(self, micro_batch: TrlBatch, logps_BT: Tensor) -> None:
        """Add the teacher's advantages of tokens to those of rows; log-probs are (B, T)."""
        assert self.distillation is not None, "rows have a teacher, so there is one"
        old_logps_BT = micro_batch.get("old_per_token_logps", logps_BT)
        taught_BT = self.distillation.token_advantages(micro_batch, old_logps_BT)
        self._add_token_advantages(micro_batch, self.args.distill_weight * taught_BT)

    def _add_unlikely_advantages(
        self, micro_batch: TrlBatch, logps_BT: Tensor, entropies_BT: Tensor
    ) -> None:
        """Add OPSA's advantages of rollouts' least likely tokens; log-probs and entropies (B, T).

        Args:
            micro_batch: of TRL's, with rollout_mask (B,).
            logps_BT: log-probs of now.
            entropies_BT: entropies of now.
        """
        args = self.args
        # Tokens are chosen by the policy that sampled them, so each iteration trains the same ones.
        old_logps_BT = micro_batch.get("old_per_token_logps", logps_BT)
        mask_BT = micro_batch["completion_mask"] * micro_batch["rollout_mask"].unsqueeze(1)
        read_entropies_BT = entropies_BT if args.unlikely_entropy else None
        unlikely_BT = unlikely_advantages(
            old_logps_BT, mask_BT, args.unlikely_share, args.unlikely_advantage, read_entropies_BT
        )
        taken_BT = unlikely_BT != 0
        total = (old_logps_BT * taken_BT).sum()
        trl_seams.mean_metric(self, "unlikely/logps", total, taken_BT.sum())
        self._add_token_advantages(micro_batch, unlikely_BT)

    def _add_token_advantages(self, micro_batch: TrlBatch, added_BT: Tensor) -> None:
        """Add advantages of tokens (B, T) to those of rows (B,), or to those of tokens (B, T)."""
        advantages = micro_batch["advantages"]
        if advantages.dim() == 1:
            advantages = advantages.unsqueeze(1)
        micro_batch["advantages"] = advantages + added_BT / self._scalar_share(micro_batch)

    def training_step(self, *args, **kwargs):
        """TRL's, for one micro batch."""
        loss = super().training_step(*args, **kwargs)
        if self.on_backward is not None:
            self.on_backward()
        return loss

    def _compute_loss(self, model, inputs):
        terms = self.loss_terms(model, inputs)
        self._log_terms(terms)
        every = self.args.grad_norm_steps
        is_due = every and self.state.global_step % every == 0
        # Where weights are sharded, no rank has the gradient of a term.
        if is_due and len(terms) > 1 and not self.is_sharded:
            self.log_gradient_norms(model, terms)
        return sum(terms.values())

    def loss_terms(self, model: nn.Module, inputs: TrlBatch) -> dict[str, Tensor]:
        """The weighted terms of one micro batch's loss, scalars by name.

        Args:
            model: the policy, wrapped as in a training step.
            inputs: a micro batch of TRL's. It stays as it is.
        """
        advantages_B = inputs["advantages"] / self._scalar_share(inputs)
        advantages_B.requires_grad_(self.on_loss is not None)
        # A copy: the same micro batch comes back in each iteration on a generation.
        self._micro_batch = {**inputs, "advantages": advantages_B}
        with self._student_hidden_states(inputs) as seen:
            scalar = super()._compute_loss(model, self._micro_batch)
        logps_BT = self._live_logps
        assert logps_BT is not None, "TRL's loss scores the completions"
        entropies_BT = self._live_entropies
        advantages = self._micro_batch["advantages"]
        old_logps_BT = self._micro_batch.get("old_per_token_logps", logps_BT.detach())
        self._live_logps = None
        self._live_entropies = None
        self._micro_batch = None
        if self._scalar_is_idle:
            # Else autograd would go back through the head for a gradient of 0.
            scalar = scalar.detach()
        terms = {"scalar": scalar}
        if "refine_credit" in inputs and self.args.refine_weight:
            terms["refine"] = self._refine_term(inputs, logps_BT, old_logps_BT)
        if "distill_mask" in inputs:
            hidden_BLH = seen[0] if seen else None
            assert self.distillation is not None, "rows have a context, so there is a teacher"
            self.distillation.keeps_pair = self.on_loss is not None
            terms |= self._teacher_terms(model, inputs, logps_BT, old_logps_BT, hidden_BLH)
        if self.on_loss is not None:
            split = partial(self._distill_parts, inputs)
            score = partial(self._score_rows, inputs)
            rows_B = advantages_B.detach()
            self.on_loss(
                LossParts(inputs, terms, logps_BT, entropies_BT, advantages, rows_B, split, score)
            )
        return terms

    def _student_hidden_states(self, inputs: TrlBatch) -> AbstractContextManager[list[Tensor]]:
        """Within the block hidden states of TRL's forward pass, of shape (B, positions, H), are put
        into a list, if a term reads them.
        """
        distillation = self.distillation
        if distillation is None or not distillation.needs_hidden or "distill_mask" not in inputs:
            return nullcontext([])
        return hidden_states.last_hidden_states(self.policy)

    def _refine_term(self, inputs: TrlBatch, logps_BT: Tensor, old_logps_BT: Tensor) -> Tensor:
        """The weighted refine term, a scalar, from log-probs (B, T) of now and of before."""
        args = self.args
        credit_B = inputs["refine_credit"]
        mask_BT = inputs["completion_mask"] * (credit_B != 0).unsqueeze(1)
        total = refine_loss(
            logps_BT,
            old_logps_BT,
            credit_B,
            mask_BT,
            args.refine_ratio,
            args.refine_gamma,
            args.ratio_clip,
            args.refine_floor,
        )
        refined_logps = (logps_BT * mask_BT).sum()
        trl_seams.mean_metric(self, "refine/logps", refined_logps, mask_BT.sum())
        divisor = self._divisor(inputs["refine_tokens"])
        return args.refine_weight * total / divisor

    def _teacher_terms(
        self,
        model: nn.Module,
        inputs: TrlBatch,
        logps_BT: Tensor,
        old_logps_BT: Tensor,
        hidden_BLH: Tensor | None,
    ) -> dict[str, Tensor]:
        """The weighted terms that need a context, scalars by name.

        Args:
            model: the policy, wrapped as in a training step.
            inputs: a micro batch of TRL's with the keys of `Distillation.prepare`.
            logps_BT: log-probs (B, T), with gradient.
            old_logps_BT: log-probs (B, T) before this generation's updates.
            hidden_BLH: last hidden states (B, positions, H), where the divergence reads them.
        """
        args = self.args
        terms: dict[str, Tensor] = {}
        assert self.distillation is not None, "rows have a context, so there is a teacher"
        if args.distill_weight and args.distill_mode != "advantage":
            total = self.distillation.divergence_term(inputs, logps_BT, old_logps_BT, hidden_BLH)
            divisor = self._divisor(inputs["distill_tokens"])
            terms["distill"] = args.distill_weight * total / divisor
        if args.refine_own_weight or args.refine_anchor_weight:
            nll, drift = self.distillation.refine_prompt_terms(model, inputs, logps_BT)
            total = args.refine_own_weight * nll + args.refine_anchor_weight * drift
            divisor = self._divisor(inputs["own_tokens"])
            terms["own"] = total / divisor
        return terms

    def _score_rows(self, inputs: TrlBatch, places: Tensor) -> Tensor:
        """Log-probs (R, T) of the rows of a micro batch at `places` (R,), with gradient."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        ids = ids[places]
        attention = attention[places]
        length = inputs["completion_ids"].shape[1]
        with trl_seams.completions_scored_alone():
            return trl_seams.token_logps(self, self.policy, ids, attention, length)

    def _distill_parts(self, inputs: TrlBatch, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted distill term of this loss on some tokens, scalars by name.

        Args:
            inputs: the micro batch.
            masks: name -> (B, T), true on the tokens that count.
        """
        assert self.distillation is not None, "rows have a context, so there is a teacher"
        totals = self.distillation.divergence_parts(masks)
        scale = self.args.distill_weight / self._divisor(inputs["distill_tokens"])
        return {name: scale * total for name, total in totals.items()}

    def _log_terms(self, terms: dict[str, Tensor]) -> None:
        """Log the means of the terms (scalars) over ranks, which add up to TRL's `loss`.

        Raises:
            Diverged: on every rank, where one of them is not finite.
        """
        local = torch.stack([term.detach().float() for term in terms.values()])
        means = self.accelerator.reduce(local, reduction="mean")
        if not torch.isfinite(means.sum()):
            pairs = zip(terms, means.tolist(), strict=True)
            parts = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
            step = self.state.global_step + 1
            raise Diverged(f"step {step}: the loss is not finite ({parts})")
        if len(terms) == 1:
            return
        # A term is one micro batch's share of a step's; metrics are averaged over micro batches.
        shares = self.current_gradient_accumulation_steps
        step_means = (means * shares).tolist()
        for name, value in zip(terms, step_means, strict=True):
            trl_seams.metric(self, f"loss/{name}", value)

    def log_gradient_norms(self, model: nn.Module, terms: dict[str, Tensor]) -> None:
        """Log the gradient norm of each term (a scalar) of this micro batch on this rank.

        It is taken before DDP averages: more ranks and smaller batches have larger norms.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        for name, term in terms.items():
            norm = 0.0
            if term.requires_grad:
                gradients = torch.autograd.grad(
                    term, parameters, retain_graph=True, allow_unused=True
                )
                trained = [gradient for gradient in gradients if gradient is not None]
                squares = [gradient.float().pow(2).sum() for gradient in trained]
                if squares:
                    norm = torch.stack(squares).sum().sqrt().item()
            trl_seams.metric(self, f"grad_norm/{name}", norm)

    @property
    def is_sharded(self) -> bool:
        """True where no rank has all of the policy's weights, or of their gradients: FSDP and
        DeepSpeed.
        """
        return self.accelerator.distributed_type in hidden_states.SHARDED

    @property
    def _scalar_is_idle(self) -> bool:
        """True where the scalar term is 0 whatever the rewards, and another trains."""
        args = self.args
        if self.distillation is None:
            return False
        if not self.distillation.needs_hidden:
            return False
        if self.held:
            return False
        # The backward hooks of FSDP2 hang on the model's outputs, which the scalar term reads.
        if self.is_sharded:
            return False
        trains_rows = args.positive_weight or args.negative_weight or args.unlikely_advantage
        trains_entropy = args.entropy_coef or args.use_adaptive_entropy or self.aux_loss_enabled
        return not trains_rows and not args.beta and not trains_entropy

    def _scalar_share(self, inputs: TrlBatch) -> Tensor | float:
        """The share of all rows that belong to the scalar term, a scalar, for losses by rows.

        Those divide by all rows. Advantages are scaled for it and not the loss, because TRL's KL
        and entropy are of all rows.
        """
        if "scalar_share" in inputs and self.loss_type not in TOKEN_MEAN:
            return inputs["scalar_share"]
        return 1.0

    def _divisor(self, tokens: Tensor) -> Tensor:
        """Scalar that one micro batch of one rank divides its sum by, as TRL's dapo does.

        Args:
            tokens: scalar, of a complete generation batch over all ranks.
        """
        rank_tokens = tokens / self.accelerator.num_processes
        step_tokens = rank_tokens * self.current_gradient_accumulation_steps
        return step_tokens / self.args.steps_per_generation
