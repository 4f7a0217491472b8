"""CritiqueGRPOTrainer: TRL's GRPOTrainer under the mixed objective. It wraps TRL's methods and
copies none.

    L = L_scalar + refine_weight * L_refine + distill_weight * L_distill

`rollout` fills a generation batch, here its credit is shared out among the terms and the terms are
added up; their maths are in `objective`, those that need a teacher in `distill`. Padding, gathers,
group advantages, logging and splitting stay TRL's. With `critic=None` and default options this *is*
GRPOTrainer, bit for bit. Checkpoints are those of `resume`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOTrainer

from critique_rl.costs import GENERATED, KINDS, Prices, costs, count
from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.contract import Critic
from critique_rl.objective import group_advantages, refine_loss, signed_credit, weighted_advantages
from critique_rl.prompts import special_tokens
from critique_rl.trainer import hidden_states, trl_seams
from critique_rl.trainer.alarms import CollapseAlarm
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.distill import Distillation, refuse_sharding
from critique_rl.trainer.model_card import PAPER, add_section, section
from critique_rl.trainer.resume import Diverged, ResumableGRPOTrainer
from critique_rl.trainer.rollout.generation import Generation, counts_of, metrics_of
from critique_rl.trainer.rollout.two_phase import (
    TwoPhaseRollout,
    check_column,
    record_plain,
    refuse_unsupported,
)

__all__ = ["CritiqueGRPOConfig", "CritiqueGRPOTrainer"]

TOKEN_MEAN = ("dapo", "cispo", "vespo")
"""Loss types that divide by tokens of the generation batch; the others by rows of the micro batch.
"""


class CritiqueGRPOTrainer(ResumableGRPOTrainer):
    """GRPOTrainer that puts a critic's words to work. Takes what GRPOTrainer takes.

    With a `critic` (or `refine_column`), prompts are text and rewards are per row
    (`rewards.group_wise` marks those that compare a group); tools, environments, images and a
    `rollout_func` are refused. `tokens` counts every token by owner; `on_generation`, if set, is
    called with each `Generation` and its advantages; where `budget` is set, (kind of `costs.KINDS`,
    limit), the learning-rate schedule runs over it, not over steps.
    """

    _name = "Critique-GRPO"
    _tag_names = ("trl", "critique-grpo")
    _paper = PAPER

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: CritiqueGRPOConfig | None = None,
        train_dataset=None,
        *rest,
        critic: Critic | None = None,
        **kwargs,
    ):
        args = args or CritiqueGRPOConfig("critique-grpo")
        if not isinstance(args, CritiqueGRPOConfig):
            raise TypeError(
                f"args: got {type(args).__name__}, expected CritiqueGRPOConfig, which takes every field of GRPOConfig"
            )
        self.two_phases = self._wants_two_phases = (
            critic is not None or args.refine_column is not None
        )
        if self.two_phases:
            refuse_unsupported(train_dataset, kwargs, critic)
            check_column(train_dataset, args.refine_column, "refine_column")
            kwargs["rollout_func"] = rollout = TwoPhaseRollout(self)
        if args.distill_weight and args.distill_context == "demonstration":
            check_column(train_dataset, args.distill_column, "distill_column")
        args.check_trains(critic is not None)
        if not self.two_phases:
            self._name, self._tag_names, self._paper = (
                GRPOTrainer._name,
                GRPOTrainer._tag_names,
                GRPOTrainer._paper,
            )
        super().__init__(model, reward_funcs, args, train_dataset, *rest, **kwargs)
        if self.two_phases and isinstance(getattr(critic, "chat", None), PolicyChat):
            critic.chat.sample, critic.chat.specials = (
                rollout.answer,
                special_tokens(self.processing_class),
            )
        self.critic, self.tokens, self.on_generation, self.about = critic, Counter(), None, {}
        self.budget: tuple[str, float] | None = None
        self.prices, self.critic_usd, self.parameters = (
            Prices(),
            0.0,
            self.accelerator.unwrap_model(self.model).num_parameters(),
        )
        self.held = False
        self.generation, self.rows = Generation(), []
        self._live_logps: Tensor | None = None
        self._micro: dict[str, Any] | None = None
        refuse_sharding(self.accelerator.state, args)
        self.distillation = (
            Distillation(self)
            if args.distill_weight or args.refine_own_weight or args.refine_anchor_weight
            else None
        )
        if not args.clip:
            self.epsilon_low = self.epsilon_high = float("inf")
        if self.two_phases:
            self._check_batch()
        self._load_critic({})
        self.add_callback(_UpdateTeacher(self))
        self.add_callback(CollapseAlarm())

    def _check_batch(self) -> None:
        per_rank = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if per_rank % self.num_generations:
            raise ValueError(
                f"with a critic whole groups must lie on one rank: got per_device_train_batch_size * steps_per_generation = {per_rank}, "
                f"expected a multiple of num_generations = {self.num_generations}"
            )

    def hold_critique(self) -> None:
        """Until `release_critique`, train on the scalar term alone, exactly as without a critic."""
        self.held, self.two_phases, self.rollout_func = True, False, None

    def release_critique(self) -> None:
        """Critique and distill from the next generation on. An EMA teacher starts from the policy
        as it is now.
        """
        if not self.held:
            return
        self.held, self.two_phases = False, self._wants_two_phases
        self.rollout_func = TwoPhaseRollout(self) if self.two_phases else None
        self._restart_teacher()

    def _restart_teacher(self) -> None:
        if self.distillation is not None:
            self.distillation.teacher.restart(self.accelerator.unwrap_model(self.model))

    # ---- one generation --------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs):
        training = self.model.training
        self.rows, self.generation = inputs, Generation()
        output = super()._generate_and_score_completions(inputs)
        if training:
            self._share_credit(output)
            if self.distillation is not None and not self.held:
                self.distillation.prepare(output, self.generation)
                output["fault_mask"] = trl_seams.fault_mask(
                    self, output["completion_ids"], self.generation.verdicts
                )
            self._normalise(output)
            self._log_generation()
            if self.on_generation is not None:
                self.on_generation(self.generation, self._advantages.tolist())
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        batch = self.generation
        if batch.rewards is None:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            if self.model.training:
                record_plain(self, completions, completion_ids_list, rewards)
            return rewards
        whole = [
            i
            for i, function in enumerate(self.reward_funcs)
            if getattr(function, "group_wise", False)
        ]
        if whole:
            with trl_seams.reward_functions(self, whole):
                batch.rewards[:, whole] = trl_seams.score(
                    self, inputs, prompts, completions, completion_ids_list
                )
        return self.accelerator.gather(batch.rewards)

    def weighted(self, rewards: Tensor) -> Tensor:
        """The weighted reward of each row, (rows,); NaN where every function returned None."""
        values = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        return values.masked_fill(rewards.isnan().all(1), torch.nan)

    # ---- credit ----------------------------------------------------------------------------------

    def _share_credit(self, output: dict[str, Any]) -> None:
        """Split the advantages into the scalar term's (rollouts) and the refine term's (chosen
        refinements).
        """
        args, batch = self.args, self.generation
        self._count_passes(output)
        refined = self.mask(batch.refined)
        others = refined | self.mask(batch.off_policy)
        self._advantages = credit = self._credit(output["advantages"], others)
        if credit is not output["advantages"]:
            trl_seams.rewrite_advantages(self, self.accelerator.gather(credit))
        scalar = credit
        if (args.positive_weight, args.negative_weight) != (1.0, 1.0):
            scalar = weighted_advantages(credit, args.positive_weight, args.negative_weight)
        output["advantages"] = scalar.masked_fill(others, 0.0) if self.two_phases else scalar
        if self.two_phases and args.refine_slots:
            right = torch.tensor(
                [verdict.outcome == "right" for verdict in batch.verdicts], device=refined.device
            )
            earned = right.float() if args.refine_ratio == "nll" else credit
            output["refine_credit"] = earned.masked_fill(~refined, 0.0)

    def _credit(self, advantages: Tensor, others: Tensor) -> Tensor:
        """Credit (B,) of every row before weights: TRL's advantages where `credit` and `baseline`
        are its own. `others` (B,): rows that are no rollouts.
        """
        args, verdicts = self.args, self.generation.verdicts
        if args.credit == "signed":
            rewards = [
                1.0 if v.outcome == "right" else 0.0 if v.failed else float("nan") for v in verdicts
            ]
            return signed_credit(torch.tensor(rewards, device=advantages.device))
        if args.baseline == "rollouts" and self.two_phases:
            values = torch.tensor(
                [self.generation.values[i] for i in self.generation.order], device=advantages.device
            )
            return group_advantages(values, self.num_generations, counted=~others)
        return advantages

    def mask(self, rows: list[int]) -> Tensor:
        """(B,) bool: True at these rows of this rank's batch."""
        mask = torch.zeros(len(self.rows), dtype=torch.bool, device=self.accelerator.device)
        mask[rows] = True
        return mask

    def _normalise(self, output: dict[str, Any]) -> None:
        """What each term is divided by, over all ranks: the scalar term by its own rows, the refine
        term by `refine_normalizer`.
        """
        args = self.args
        if not self.two_phases and args.scalar_normalizer == "rollouts":
            return
        tokens = output["completion_mask"].sum(1)
        refined = self.mask(self.generation.refined)
        rollouts = ~(refined | self.mask(self.generation.off_policy))
        position = torch.arange(len(tokens), device=tokens.device) % self.num_generations
        reserved = position >= (
            self.num_generations - args.refine_slots if self.two_phases else self.num_generations
        )
        own = (output["advantages"] != 0) & rollouts
        if args.distill_mode == "advantage" and self.distillation is not None:
            own |= output["distill_mask"]
        rows = torch.stack([rollouts, own, reserved, refined]).float()
        sums = self.accelerator.reduce(
            torch.stack([rows @ tokens.float(), rows.sum(1)]), reduction="sum"
        )
        (
            (rollout_tokens, own_tokens, slot_tokens, refined_tokens),
            (rollout_rows, own_rows, slot_rows, _),
        ) = sums
        total_rows = len(tokens) * self.accelerator.num_processes
        if args.scalar_normalizer == "subset":
            rollout_tokens, rollout_rows = (
                torch.maximum(o, args.subset_floor * a)
                for o, a in ((own_tokens, rollout_tokens), (own_rows, rollout_rows))
            )
        output["num_items_in_batch"], output["scalar_share"] = (
            rollout_tokens,
            rollout_rows / total_rows,
        )
        by_rows = self.loss_type not in TOKEN_MEAN
        output["refine_tokens"] = {
            "slots": slot_tokens,
            "tokens": refined_tokens,
            "rollouts": rollout_rows * self.max_completion_length if by_rows else rollout_tokens,
            "paper": slot_rows * self.max_completion_length,
        }[args.refine_normalizer].clamp(min=1)

    # ---- counts and metrics ----------------------------------------------------------------------

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled from policy weights for training so far, over all ranks: rollouts,
        refinement candidates, self-critiques.
        """
        return count(self.tokens, *GENERATED)

    def costs(self) -> dict[str, float]:
        """All that was spent so far, by `costs.KINDS`."""
        return costs(self.tokens, self.critic_usd, self.parameters, self.prices)

    def _count_passes(self, output: dict[str, Any]) -> None:
        """Tokens of this rank's batch that are scored and trained on; their sampling was counted by
        owner.
        """
        counts, prompts = self.generation.counts, output["prompt_mask"].sum().item()
        counts.setdefault("tokens/rollout_prompt", prompts)
        rows = prompts + output["completion_mask"].sum().item()
        counts["tokens/trained"] = rows * self.num_iterations
        counts["tokens/scored"] = rows * (
            ("old_per_token_logps" in output) + ("ref_per_token_logps" in output)
        )

    def _log_generation(self) -> None:
        """One gather of counters from all ranks, then tokens by owner and our metrics."""
        batch = self.generation
        batch.counts.update(
            counts_of(batch, self.num_generations, self.args.refine_slots if self.two_phases else 0)
        )
        total: Counter = sum(
            (Counter(counts) for counts in gather_object([dict(batch.counts)])), Counter()
        )
        self.tokens.update(
            {key: int(value) for key, value in total.items() if key.startswith("tokens/")}
        )
        self.critic_usd += total["critique/usd"]
        for name, value in {
            **self.tokens,
            **{KINDS[kind]: spent for kind, spent in self.costs().items()},
        }.items():
            self._metrics["train"][name] = [value]
        for name, value in metrics_of(total).items():
            trl_seams.metric(self, name, value)

    # ---- the objective ---------------------------------------------------------------------------

    def logps(self, model, ids: Tensor, attention: Tensor, length: int) -> Tensor:
        """Log-probs (rows, length) of the last `length` tokens, with gradient."""
        return GRPOTrainer._get_per_token_logps_and_entropies(self, model, ids, attention, length)[
            0
        ]

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        with (
            trl_seams.completions_scored_alone()
            if self._wants_two_phases or self.distillation is not None
            else nullcontext()
        ):
            result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._live_logps = result[0]
        if (
            self.args.distill_mode == "advantage"
            and self._micro is not None
            and "distill_mask" in self._micro
        ):
            # TRL reads the advantages after this forward pass, which is the first to know the
            # policy's own log-probs.
            old = self._micro.get("old_per_token_logps", result[0].detach())
            token = (
                self.args.distill_weight
                * self.distillation.token_advantages(self._micro, old)
                / self._share(self._micro)
            )
            self._micro["advantages"] = self._micro["advantages"].unsqueeze(1) + token
        return result

    def _compute_loss(self, model, inputs):
        # A copy: the same micro batch comes back in each iteration on a generation.
        self._micro = {**inputs, "advantages": inputs["advantages"] / self._share(inputs)}
        wanted = (
            self.distillation is not None
            and self.distillation.needs_hidden
            and "distill_mask" in inputs
        )
        with (
            hidden_states.last_hidden_states(self)
            if wanted
            else hidden_states.no_hidden_states() as seen
        ):
            scalar = super()._compute_loss(model, self._micro)
        logps, self._live_logps, self._micro = self._live_logps, None, None
        if self._scalar_is_idle:
            scalar = (
                scalar.detach()
            )  # else autograd would go back through the head for a gradient of 0
        terms = {"scalar": scalar, **self._terms(model, inputs, logps, seen[0] if seen else None)}
        self._log_terms(terms)
        if (
            len(terms) > 1
            and not self.is_sharded
            and self.args.grad_norm_steps
            and self.state.global_step % self.args.grad_norm_steps == 0
        ):
            self._log_grad_norms(model, terms)
        return sum(terms.values())

    def _log_terms(self, terms: dict[str, Tensor]) -> None:
        """The means over ranks, which add up to TRL's `loss`. Every rank stops where one of them is
        not finite.
        """
        values = self.accelerator.reduce(
            torch.stack([term.detach().float() for term in terms.values()]), reduction="mean"
        )
        if not torch.isfinite(values.sum()):
            parts = ", ".join(
                f"{name} {value:.3g}" for name, value in zip(terms, values.tolist(), strict=True)
            )
            raise Diverged(f"step {self.state.global_step + 1}: the loss is not finite ({parts})")
        if len(terms) > 1:
            # A term is one micro batch's share of a step's; metrics are averaged over micro
            # batches.
            for name, value in zip(
                terms, (values * self.current_gradient_accumulation_steps).tolist(), strict=True
            ):
                trl_seams.metric(self, f"loss/{name}", value)

    @property
    def is_sharded(self) -> bool:
        """True where no rank has the policy's weights, or their gradients, whole: FSDP and
        DeepSpeed.
        """
        return self.accelerator.distributed_type in (
            DistributedType.FSDP,
            DistributedType.DEEPSPEED,
        )

    @property
    def _scalar_is_idle(self) -> bool:
        """True where the scalar term is 0 whatever the rewards, and another trains. Not under
        FSDP2: its backward hooks hang on the model's outputs.
        """
        args = self.args
        weights = (
            args.positive_weight,
            args.negative_weight,
            args.beta,
            args.entropy_coef,
            args.use_adaptive_entropy,
        )
        distilled = (
            self.distillation is not None
            and self.distillation.needs_hidden
            and not self.held
            and not self.is_sharded
        )
        return distilled and not any(weights) and not self.aux_loss_enabled

    def _share(self, inputs: dict[str, Any]) -> Tensor | float:
        """Of all rows, those of the scalar term: losses by rows divide by all. Advantages are
        scaled, because TRL's KL and entropy are not of these rows.
        """
        return (
            inputs["scalar_share"]
            if "scalar_share" in inputs and self.loss_type not in TOKEN_MEAN
            else 1.0
        )

    def _terms(self, model, inputs, logps: Tensor, hidden: Tensor | None) -> dict[str, Tensor]:
        """The weighted terms beside the scalar one."""
        args, terms = self.args, {}
        old = inputs.get("old_per_token_logps", logps.detach())
        if "refine_credit" in inputs and args.refine_weight:
            rows = inputs["refine_credit"] != 0
            mask = inputs["completion_mask"] * rows.unsqueeze(1)
            total = refine_loss(
                logps,
                old,
                inputs["refine_credit"],
                mask,
                args.refine_ratio,
                args.refine_gamma,
                args.ratio_clip,
                args.refine_floor,
            )
            terms["refine"] = args.refine_weight * total / self._divisor(inputs["refine_tokens"])
            trl_seams.mean_metric(self, "refine/logps", (logps * mask).sum(), mask.sum())
        if self.distillation is None or "distill_mask" not in inputs:
            return terms
        if args.distill_weight and args.distill_mode != "advantage":
            total = self.distillation.term(inputs, logps, old, hidden)
            terms["distill"] = args.distill_weight * total / self._divisor(inputs["distill_tokens"])
        if args.refine_own_weight or args.refine_anchor_weight:
            nll, drift = self.distillation.own_terms(model, inputs, logps)
            divisor = self._divisor(inputs["own_tokens"])
            terms["own"] = (
                args.refine_own_weight * nll + args.refine_anchor_weight * drift
            ) / divisor
        return terms

    def _divisor(self, tokens: Tensor) -> Tensor:
        """Tokens of a whole generation batch over all ranks -> what one micro batch of one rank
        divides its sum by, as TRL's dapo.
        """
        return (
            tokens
            / self.accelerator.num_processes
            * self.current_gradient_accumulation_steps
            / self.args.steps_per_generation
        )

    def _log_grad_norms(self, model, terms: dict[str, Tensor]) -> None:
        """Gradient norm of each term's share of this micro batch on this rank, before DDP's
        averaging: more ranks, smaller batches, larger norms.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        for name, term in terms.items():
            gradients = (
                torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
                if term.requires_grad
                else ()
            )
            squares = [g.float().pow(2).sum() for g in gradients if g is not None]
            trl_seams.metric(
                self,
                f"grad_norm/{name}",
                torch.stack(squares).sum().sqrt().item() if squares else 0.0,
            )

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """TRL's schedule; with a `budget` its position is what was spent, so that arms with steps
        of other sizes decay alike.
        """
        scheduler = super().create_scheduler(
            num_training_steps if self.budget is None else self._position(self.budget[1]), optimizer
        )
        if self.budget is not None:
            scheduler.lr_lambdas = [
                partial(self._at_spent, by_step) for by_step in scheduler.lr_lambdas
            ]
        return scheduler

    def _at_spent(self, by_step, _: int) -> float:
        kind, limit = self.budget
        return by_step(self._position(min(self.costs()[kind], limit)))

    def _position(self, spent: float) -> int:
        """Schedules count in whole steps: tokens as they are, dollars and FLOPs in millionths of
        the limit.
        """
        kind, limit = self.budget
        return int(spent) if kind.endswith("tokens") else int(1e6 * spent / limit)

    def create_model_card(self, *args, **kwargs) -> None:
        """TRL's, with a section on this run: method, critic, cost, and what `about` (names and
        words) holds.
        """
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            add_section(
                Path(self.args.output_dir),
                section(self.args, self.critic, self.tokens, self.costs(), self.about),
            )

    # ---- checkpoints -----------------------------------------------------------------------------

    @property
    def _scalar_so_far(self) -> bool:
        """True while no teacher has been used: a checkpoint of such a run has none, and a run that
        branches from it starts one.
        """
        return self.distillation is None or self.held

    def extra_state(self) -> dict[str, Any]:
        scalar_so_far = {"held": self.held, "scalar_so_far": self._scalar_so_far}
        critic = self.critic.state_dict() if hasattr(self.critic, "state_dict") else {}
        return {
            **super().extra_state(),
            **scalar_so_far,
            "tokens": dict(self.tokens),
            "critic_usd": self.critic_usd,
            "critic": critic,
        }

    def save_extra_files(self, checkpoint: Path) -> None:
        if not self._scalar_so_far:
            self.distillation.save(checkpoint)

    def load_extra_state(self, checkpoint: Path, state: dict[str, Any]) -> None:
        super().load_extra_state(checkpoint, state)
        if self.held and not state.get("held", True):
            self.release_critique()
        if self.distillation is not None and not self.held:
            self._restart_teacher() if state.get("scalar_so_far") else self.distillation.load(
                checkpoint
            )
        self.tokens, self.critic_usd = (
            Counter(state.get("tokens", {})),
            state.get("critic_usd", 0.0),
        )
        self._load_critic(state.get("critic", {}))

    def _load_critic(self, state: dict[str, Any]) -> None:
        """{}: the run starts anew, whatever a process before it has asked the critic."""
        if hasattr(self.critic, "load_state_dict"):
            self.critic.load_state_dict(state)


class _UpdateTeacher(TrainerCallback):
    """Moves the EMA teacher once an optimizer step."""

    def __init__(self, trainer: CritiqueGRPOTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.distillation is not None and not self.trainer.held:
            self.trainer.distillation.teacher.update(
                self.trainer.accelerator.unwrap_model(self.trainer.model)
            )
