"""CritiqueGRPOTrainer: TRL's GRPOTrainer under the mixed objective.

    L = L_scalar + refine_weight * L_refine + distill_weight * L_distill

It wraps TRL's methods and copies none: padding, gathers, group advantages, logging and splitting
stay TRL's. `rollout` makes a generation batch, `credit` shares its credit out among the terms,
`distill` gives teachers their contexts, and `mixed_loss` adds the terms up. With `critic=None` and
default options this *is* GRPOTrainer, bit for bit. Checkpoints are those of `resume`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback

from critique_rl.analysis.critiques.counts import count_totals
from critique_rl.analysis.critiques.words import describe
from critique_rl.costs import GENERATED, KINDS, Prices, costs, count
from critique_rl.critic.contract import Critic
from critique_rl.tasks.judging import one_deadline
from critique_rl.trainer import hidden_states, trl_seams
from critique_rl.trainer.alarms import CollapseAlarm
from critique_rl.trainer.budget_schedule import Budget, follow_budget, schedule_position
from critique_rl.trainer.credit import (
    count_kinds,
    normalisers,
    refine_credit,
    row_credit,
    scalar_credit,
)
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.distill import Distillation
from critique_rl.trainer.mixed_loss import MixedLossTrainer
from critique_rl.trainer.model_card import PAPER, add_section, section
from critique_rl.trainer.refusals import (
    refuse_group_wise_baseline,
    refuse_missing_column,
    refuse_no_critic,
    refuse_present_critic,
    refuse_prompt,
    refuse_prompts,
    refuse_sharding,
    refuse_shifted_base,
    refuse_split_groups,
    refuse_unsupported,
    refuse_wrapped_base,
)
from critique_rl.trainer.rollout.completion_columns import completion_columns
from critique_rl.trainer.rollout.critique_share import CritiqueShare
from critique_rl.trainer.rollout.generation import (
    Counts,
    Generation,
    count_generation,
    critique_totals,
    generation_counts,
    generation_rates,
    plain_generation,
)
from critique_rl.trainer.rollout.generation_in_progress import is_boundary
from critique_rl.trainer.rollout.lookahead import Lookahead
from critique_rl.trainer.rollout.sampled import Row
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.sampling_options import check_policy_sampling
from critique_rl.trainer.rollout.scoring import Scorer
from critique_rl.trainer.rollout.success import success_rule
from critique_rl.trainer.rollout.two_phase import TwoPhaseRollout
from critique_rl.trainer.teachers.served import ServedTeacher
from critique_rl.trainer.teachers.teacher import weight_sample
from critique_rl.trainer.trl_seams import TrlBatch

logger = logging.getLogger(__name__)
__all__ = ["CritiqueGRPOConfig", "CritiqueGRPOTrainer"]


class CritiqueGRPOTrainer(MixedLossTrainer):
    """GRPOTrainer that puts a critic's words to work. Takes what GRPOTrainer takes.

    With a `critic` (or `refine_column`), prompts are text and rewards are per row
    (`rewards.group_wise` marks those that compare a group); tools, environments, images and a
    `rollout_func` are refused. `tokens` counts every token by owner; `on_generation`, if set, is
    called with each `Generation` and its advantages; where `budget` is set, (kind of `costs.KINDS`,
    limit), the learning-rate schedule runs over it, not over steps.
    """

    _name = "Critique-GRPO"
    _tag_names = ["trl", "critique-grpo"]  # noqa: RUF012 (TRL's own is a list, not a ClassVar)
    _paper = PAPER

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: CritiqueGRPOConfig | None = None,
        train_dataset=None,
        *rest,
        critic: Critic | None = None,
        teacher_folder: Path | None = None,
        **kwargs,
    ):
        """Build the trainer; arguments are GRPOTrainer's, `critic`, and `teacher_folder`, which
        keeps the answers and the spending of a teacher behind a server.

        Raises:
            TypeError: `args` or `critic` is something else.
            ValueError: the settings, the dataset or the sharding do not go together.
        """
        args = args or CritiqueGRPOConfig("critique-grpo")
        if not isinstance(args, CritiqueGRPOConfig):
            raise TypeError(
                f"args: got {type(args).__name__}, expected CritiqueGRPOConfig, "
                "which takes every field of GRPOConfig"
            )
        self.has_two_phases = critic is not None or args.refine_column is not None
        if critic is not None:
            refuse_no_critic(critic)
            refuse_present_critic(critic, args)
        if self.has_two_phases:
            refuse_unsupported(train_dataset, kwargs)
            refuse_missing_column(train_dataset, args.refine_column, "refine_column")
            kwargs["rollout_func"] = self.run_rollout
        else:
            trl_seams.keep_stock_card(self)
        if args.distill_weight and args.distill_context == "demonstration":
            refuse_missing_column(train_dataset, args.distill_column, "distill_column")
        args.check_trains(critic is not None)
        refuse_wrapped_base(model, args)
        reads_base = bool(args.base_readers()) and isinstance(model, nn.Module)
        base_sample = weight_sample(model) if reads_base else {}
        super().__init__(model, reward_funcs, args, train_dataset, *rest, **kwargs)
        check_policy_sampling(vars(args), self.policy)
        if self.has_two_phases:
            refuse_split_groups(args)
            refuse_group_wise_baseline(self.reward_funcs, args)
            refuse_prompts(train_dataset, self.processing_class, args.chat_template_kwargs or {})
        refuse_sharding(self.accelerator.state, args)
        refuse_shifted_base(self.policy, base_sample, args)
        if not args.clip:
            self.epsilon_low = self.epsilon_high = float("inf")
        self.critic = critic
        self.success = success_rule(
            self.reward_funcs,
            self.reward_func_names,
            self.reward_weights.tolist(),
            args,
            critic is not None,
        )
        self.on_generation: Callable[[Generation, list[float]], None] | None = None
        self.about: dict[str, Any] = {}
        self.tokens: Counts = Counter()
        self.budget: Budget | None = None
        self.prices = Prices()
        self.critic_usd = 0.0
        # None where a checkpoint of an earlier version did not count them.
        self.critique_totals: Counts | None = Counter()
        self.parameters = self.policy.num_parameters()
        self._build_stations(teacher_folder)
        self._load_critic({})
        self._load_served_teacher({})
        self.add_callback(_UpdateTeacher(self))
        self.add_callback(_CloseLookahead(self))
        self.alarm = CollapseAlarm()
        self.add_callback(self.alarm)

    def _build_stations(self, teacher_folder: Path | None) -> None:
        """Build the objects that a generation batch passes."""
        args = self.args
        sampler = Sampler(self, args)
        self.sampler = sampler
        self.scorer = Scorer(self, self.success)
        self.rollout: TwoPhaseRollout | None = None
        self.lookahead: Lookahead | None = None
        if self.has_two_phases:
            processes = self.accelerator.num_processes
            rollout = TwoPhaseRollout(args, sampler, self.scorer, self.critic, processes)
            self.rollout = rollout
            if args.critique_staleness and rollout.critic_turn is not None:
                self.lookahead = Lookahead(args, sampler, self.scorer, rollout, rollout.critic_turn)
        if args.distill_weight or args.refine_own_weight or args.refine_anchor_weight:
            passes = hidden_states.PolicyPasses(self)
            self.distillation = Distillation(args, self.model, sampler, passes, teacher_folder)
        # Of the generation batch in progress: TRL hands its own methods neither rows nor batch.
        self.rows: list[Row] = []
        self.generation: Generation | None = None

    @property
    def teacher_parameters(self) -> int:
        """Parameters of the teacher in this process: of the policy, unless it is another model."""
        other = self.distillation.teacher.other if self.distillation is not None else None
        if other is None:
            return self.parameters
        return sum(parameter.numel() for parameter in other.parameters())

    @property
    def critique_share(self) -> CritiqueShare | None:
        """Chooses the failures that the critic is asked about; None where it is asked about all."""
        if self.rollout is None:
            return None
        return self.rollout.share

    @property
    def two_phases(self) -> bool:
        """Whether the next generation batch is made in two phases."""
        return self.has_two_phases and not self.held

    def hold_critique(self) -> None:
        """Until `release_critique`, train on the scalar term alone, exactly as without a critic."""
        self.held = True
        self.rollout_func = None

    def release_critique(self) -> None:
        """Critique and distill from the next generation on. An EMA teacher starts from the policy
        as it is now.
        """
        if not self.held:
            return
        self.held = False
        self.rollout_func = self.run_rollout if self.has_two_phases else None
        self._restart_teacher()

    def _restart_teacher(self) -> None:
        if self.distillation is not None:
            self.distillation.teacher.restart(self.policy)

    # ---- one generation batch --------------------------------------------------------------------

    def run_rollout(self, prompts: list[Any], _trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: token ids and log-probs of one completion per prompt."""
        if self.rollout is not None and self.model.training:
            if self.lookahead is not None:
                self.generation = self.lookahead.complete()
            else:
                self.generation = self.rollout.run(prompts, self.rows)
            return self.generation.columns
        # TRL calls it in evaluation too, where nothing is critiqued.
        sampled = self.sampler.sample(prompts, self.num_generations_eval)
        return {
            "prompt_ids": sampled.prompt_ids,
            "completion_ids": sampled.completion_ids,
            "logprobs": sampled.logprobs,
        }

    def _generate_and_score_completions(self, inputs):
        self.rows = inputs
        self.generation = None
        if self.has_two_phases and self.model.training:
            for row in inputs:
                refuse_prompt(row["prompt"], "a row of train_dataset")
        with one_deadline(self.reward_funcs):
            if self.lookahead is not None and self.two_phases and self.model.training:
                self.rows = self.lookahead.advance(inputs, self.state.global_step)
            output = super()._generate_and_score_completions(self.rows)
        if self.generation is not None:
            self.generation = self._finish_generation(output, self.generation)
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        batch = self.generation
        if batch is not None and batch.rewards is not None:
            rewards = self.scorer.add_group_rewards(
                batch.rewards, inputs, prompts, completions, completion_ids_list
            )
            batch.counts.update(self.scorer.count_success(rewards, batch))
            trl_seams.add_extra_columns(self, completion_columns(batch))
            return self.accelerator.gather(rewards)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if not (self.has_two_phases or self.model.training):
            return rewards
        local_rewards = self.scorer.local_rows(rewards, len(completions))
        judged = self.scorer.judge_rewards(local_rewards)
        truncated = self.sampler.truncated(completion_ids_list)
        batch = plain_generation(
            inputs,
            prompts,
            completions,
            completion_ids_list,
            judged,
            truncated,
            self.args.group_size,
        )
        # In evaluation too: TRL's tables take columns of one length.
        if self.has_two_phases:
            trl_seams.add_extra_columns(self, completion_columns(batch))
        if self.model.training:
            batch.counts.update(self.scorer.count_success(local_rewards, batch))
            self.generation = batch
        return rewards

    def _finish_generation(self, output: TrlBatch, batch: Generation) -> Generation:
        """Add what the terms read to TRL's batch, count, log; the batch with all its counters."""
        counts = Counter(batch.counts)
        self._count_passes(output, counts)
        if self.lookahead is not None and self.two_phases:
            self._add_sampled_logps(output, batch, self.lookahead)
        credit_B = self.share_credit(output, batch)
        if self.distillation is not None and not self.held:
            keys, teacher_counts = self.distillation.prepare(output, batch)
            output.update(keys)
            counts.update(teacher_counts)
        if self.args.unlikely_advantage:
            output["rollout_mask"] = batch.rollout_rows(output["completion_mask"].device)
        self._normalise(output, batch)
        slots = self.args.refine_slots if self.two_phases else 0
        counts.update(count_generation(batch, self.args.group_size, slots))
        batch = replace(batch, counts=counts)
        self._log_generation(counts)
        if self.on_generation is not None:
            self.on_generation(batch, credit_B.tolist())
        return batch

    def _add_sampled_logps(self, output: TrlBatch, batch: Generation, lookahead: Lookahead) -> None:
        """Add the log-probs of the policy that sampled each row; log how old it is.

        Args:
            output: TRL's batch; `old_per_token_logps` (B, T) is set, NaN for the policy of now.
            batch: the same batch as text.
            lookahead: knows when it was sampled.
        """
        known_BT = output.get("old_per_token_logps")
        like_BT = output["completion_mask"]
        logps_BT = lookahead.sampled_logps(batch, like_BT, known_BT)
        if logps_BT is not None:
            output["old_per_token_logps"] = logps_BT
        trl_seams.metric(self, "critique/staleness", lookahead.staleness)

    # ---- credit ----------------------------------------------------------------------------------

    def share_credit(self, output: TrlBatch, batch: Generation) -> Tensor:
        """Split TRL's advantages into those of the scalar term and the credit of the refine term.

        Args:
            output: TRL's batch; `advantages` is replaced, `refine_credit` added.
            batch: the same batch as text.

        Returns:
            Credit (B,) of every row before it was split.
        """
        args = self.args
        two_phases = self.two_phases
        credit_B = row_credit(output["advantages"], batch, args, two_phases)
        if credit_B is not output["advantages"]:
            trl_seams.rewrite_advantages(self, self.accelerator.gather(credit_B))
        output["advantages"] = scalar_credit(credit_B, batch, args, two_phases)
        if two_phases and args.refine_slots:
            output["refine_credit"] = refine_credit(credit_B, batch, args)
        return credit_B

    def _normalise(self, output: TrlBatch, batch: Generation) -> None:
        """Add to TRL's batch what the scalar and the refine term are divided by."""
        if not self.two_phases and self.args.scalar_normalizer == "rollouts":
            # TRL's own normaliser is right: every row is a rollout.
            return
        tokens, rows = count_kinds(output, batch, self.args, self.two_phases, self._sum_over_ranks)
        all_rows = len(output["completion_mask"]) * self.accelerator.num_processes
        output.update(normalisers(tokens, rows, all_rows, self.args))

    def _sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """The sum of tensors of one shape, of any shape. A collective."""
        return self.accelerator.reduce(tensor, reduction="sum")

    # ---- counts and metrics ----------------------------------------------------------------------

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled from policy weights for training so far, over all ranks: rollouts,
        refinement candidates, self-critiques.
        """
        return count(self.tokens, *GENERATED)

    def costs(self) -> dict[str, float]:
        """All that was spent so far, by `costs.KINDS`."""
        return costs(
            self.tokens, self.critic_usd, self.parameters, self.prices, self.teacher_parameters
        )

    def _count_passes(self, output: TrlBatch, counts: Counts) -> None:
        """Add tokens of this rank that are scored and trained on; samplings were counted before."""
        prompts = output["prompt_mask"].sum().item()
        counts.setdefault("tokens/rollout_prompt", prompts)
        passed = prompts + output["completion_mask"].sum().item()
        counts["tokens/trained"] = passed * self.num_iterations
        scorings = ("old_per_token_logps" in output) + ("ref_per_token_logps" in output)
        counts["tokens/scored"] += passed * scorings

    def count(self, counts: Counts) -> Counts:
        """Add to the totals of the run what all ranks spent. A collective: one gather.

        Returns:
            The sums of the counters over the ranks.
        """
        total: Counts = Counter()
        for rank_counts in gather_object([dict(counts)]):
            # `+` drops counters of 0, so that nothing is logged of what did not happen.
            total = total + Counter(rank_counts)
        total = self.alarm.names.bounded(total)
        for name, value in total.items():
            if name.startswith("tokens/"):
                self.tokens[name] += int(value)
        self.critic_usd += total["critique/usd"] + total["distill/usd"]
        return total

    def _log_generation(self, counts: Counts) -> None:
        """Count what all ranks spent, and log tokens, costs and metrics."""
        total = self.count(counts)
        metrics = trl_seams.training_metrics(self)
        # Totals of the run: set, where others are averaged over the steps between two logs.
        for name, tokens in self.tokens.items():
            metrics[name] = [tokens]
        for kind, spent in self.costs().items():
            metrics[KINDS[kind]] = [spent]
        for name, amount in generation_counts(total).items():
            trl_seams.count_metric(self, name, amount)
        step = self.state.global_step + 1
        alarms = self.alarm.check_failed(total, self.reward_func_names, step)
        alarms |= self.alarm.check_lost(total, step)
        for name, rate in {**generation_rates(total), **alarms}.items():
            trl_seams.metric(self, name, rate)
        if self.critique_totals is not None:
            self.critique_totals.update(critique_totals(total))
        if self.critique_share is not None:
            self.critique_share.count_refined(total)

    # ---- schedule and model card -----------------------------------------------------------------

    @property
    def schedules_over_steps(self) -> bool:
        """Whether the learning rate depends on the number of steps that the run is to take."""
        return self.budget is None and super().schedules_over_steps

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """TRL's schedule; with a `budget` its position is what was spent."""
        if self.budget is None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps = schedule_position(self.budget, self.budget[1])
        scheduler = super().create_scheduler(steps, optimizer)
        follow_budget(scheduler, self.budget, self.costs)
        return scheduler

    def create_model_card(self, *args, **kwargs) -> None:
        """TRL's, with a section on this run: method, critic, cost, and what `about` (names and
        words) holds.
        """
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            spent = self.costs()
            about = dict(self.about)
            if self.critic is not None:
                about["critiques"] = self._describe_critiques()
            text = section(self.args, self.critic, self.tokens, spent, about)
            add_section(Path(str(self.args.output_dir)), text)

    def _describe_critiques(self) -> str:
        """What became of the critiques so far."""
        totals = self.critique_totals
        return describe(None if totals is None else count_totals(totals))

    # ---- checkpoints -----------------------------------------------------------------------------

    @property
    def _scalar_so_far(self) -> bool:
        """True while no teacher has been used: a checkpoint of such a run has none, and a run that
        branches from it starts one.
        """
        return self.distillation is None or self.held

    def extra_state(self) -> dict[str, Any]:
        """The state of `resume`, and what this trainer needs to go on."""
        critic: dict[str, Any] = {}
        is_ahead = self.lookahead is not None and self.lookahead.ahead is not None
        if self.lookahead is not None and is_ahead:
            critic = self.lookahead.critic_state
        elif self.critic is not None and hasattr(self.critic, "state_dict"):
            critic = self.critic.state_dict()
        served: dict[str, Any] = {}
        if self.served_teacher is not None:
            served = self.served_teacher.chat.state_dict()
        share: dict[str, Any] = {}
        if self.critique_share is not None:
            share = self.critique_share.state_dict()
        return {
            **super().extra_state(),
            "held": self.held,
            "scalar_so_far": self._scalar_so_far,
            "tokens": dict(self.tokens),
            "critic_usd": self.critic_usd,
            "critiques": self.critique_totals,
            "critic": critic,
            "served_teacher": served,
            "is_ahead": is_ahead,
            "critique_share": share,
        }

    def save_extra_files(self, checkpoint: Path) -> None:
        """Save a teacher that has been used, and a batch in flight. Called on every rank."""
        if self.lookahead is not None:
            self.lookahead.save(checkpoint, self.accelerator.process_index)
        if self.distillation is not None and not self.held:
            self.distillation.save(checkpoint)

    def load_extra_state(self, checkpoint: Path, state: dict[str, Any]) -> None:
        """The inverse of `extra_state` and `save_extra_files`."""
        super().load_extra_state(checkpoint, state)
        if self.held and not state.get("held", True):
            self.release_critique()
        if self.distillation is not None and not self.held:
            if state.get("scalar_so_far"):
                self._restart_teacher()
            else:
                self.distillation.load(checkpoint)
        self.tokens = Counter(state.get("tokens", {}))
        self.critic_usd = state.get("critic_usd", 0.0)
        totals = state.get("critiques")
        self.critique_totals = None if totals is None else Counter(totals)
        critic_state = state.get("critic", {})
        self._load_critic(critic_state)
        self._load_served_teacher(state.get("served_teacher", {}))
        if self.lookahead is not None and state.get("is_ahead"):
            rank = self.accelerator.process_index
            doubt = self.lookahead.load(checkpoint, rank, critic_state)
            if doubt and self.is_world_process_zero():
                logger.warning("%s: %s", checkpoint, doubt)
        if self.critique_share is not None:
            # A checkpoint of an earlier version, or of an arm that asked about all, has none.
            self.critique_share.load_state_dict(state.get("critique_share", {}))

    def restore(self, checkpoint: Path) -> None:
        """As `ResumableGRPOTrainer.restore`; the batch in flight is dropped, as at a run's end."""
        super().restore(checkpoint)
        self.drop_batch_in_flight()

    def drop_batch_in_flight(self) -> None:
        """Count what the batch costs that is sampled, and will not be trained. A collective."""
        if self.lookahead is not None:
            self.count(self.lookahead.close())

    def _load_critic(self, state: dict[str, Any]) -> None:
        """{}: the run starts anew, whatever a process before it has asked the critic."""
        if self.critic is not None and hasattr(self.critic, "load_state_dict"):
            self.critic.load_state_dict(state)

    @property
    def served_teacher(self) -> ServedTeacher | None:
        """The teacher behind a server; None where the teacher is in this process."""
        if self.distillation is None:
            return None
        return self.distillation.served

    def _load_served_teacher(self, state: dict[str, Any]) -> None:
        """As `_load_critic`."""
        if self.served_teacher is not None:
            self.served_teacher.chat.load_state_dict(state)


class _UpdateTeacher(TrainerCallback):
    """Moves the EMA teacher once per optimizer step, or per generation batch: `distill_ema_per`."""

    def __init__(self, trainer: CritiqueGRPOTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        if trainer.distillation is None or trainer.held:
            return
        per_generation = trainer.args.distill_ema_per == "generation"
        if per_generation and not is_boundary(trainer, state.global_step):
            return
        trainer.distillation.teacher.update(trainer.policy)


class _CloseLookahead(TrainerCallback):
    """Drops the batch in flight at the end of training."""

    def __init__(self, trainer: CritiqueGRPOTrainer):
        self.trainer = trainer

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.drop_batch_in_flight()
