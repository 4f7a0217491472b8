"""Rollouts in two phases: sample and judge N - k rows per group, critique, fill the k others.

Phase 2 samples m refinements per group, or takes expert traces; `turns` refines those that failed
again. k of them stand under the plain prompt, and plain samples where nothing failed or came back.
Every rank scores as many rows and
makes as many `generate` calls as the others, whatever failed on it.

`TwoPhaseRollout` owns its batch: it gets prompts and rows, and returns a `generation.Generation`.
The data that pass between its stations are those of `phases`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from critique_rl.critic.contract import Critic
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.critique_share import CritiqueShare
from critique_rl.trainer.rollout.critiques import CriticTurn
from critique_rl.trainer.rollout.generation import Counts, Critiques, Generation, make_attempts
from critique_rl.trainer.rollout.phases import (
    FilledSlots,
    FirstPhase,
    SecondPhase,
    SlotCandidate,
    SlotPlan,
    count_rollouts,
    count_second,
    number_plain_samples,
    number_refinements,
    without_reserved,
)
from critique_rl.trainer.rollout.refine import choose_candidates, mentions_critique, swap_right
from critique_rl.trainer.rollout.sampled import Row, Sampled, batch_columns
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import Scorer, judge_padded
from critique_rl.trainer.rollout.turns import LaterTurns


class TwoPhaseRollout:
    """Makes one generation batch of this rank per call of `run`, which calls the stations in turn.

    It reads the policy through `sampler` and the reward functions through `scorer`.
    """

    def __init__(
        self,
        args: CritiqueGRPOConfig,
        sampler: Sampler,
        scorer: Scorer,
        critic: Critic | None,
        processes: int = 1,
    ):
        """Take what every batch needs.

        Args:
            args: settings of the run.
            sampler: samples from the policy.
            scorer: judges completions.
            critic: the critic, or None if expert traces fill the reserved rows.
            processes: number of ranks.
        """
        self.args = args
        self.sampler = sampler
        self.scorer = scorer
        self.processes = processes
        self.critic_turn: CriticTurn | None = None
        self.later_turns: LaterTurns | None = None
        self.share: CritiqueShare | None = None
        if critic is not None:
            # Without a choice nothing is drawn, so that a run's random numbers stay what they were.
            if args.critique_share < 1:
                self.share = CritiqueShare(args, draw_index)
            self.critic_turn = CriticTurn(critic, args, sampler, self.share)
            if args.refine_turns > 1:
                self.later_turns = LaterTurns(args, sampler, scorer, self.critic_turn)

    def run(self, prompts: list[Any], rows: list[Row]) -> Generation:
        """Make one generation batch of this rank. A collective: every rank calls it.

        Args:
            prompts: prompts in groups of N equal ones.
            rows: the dataset's row of each prompt.
        """
        first = self.judge_rollouts(rows, self.sample_rollouts(prompts))
        critiques: Critiques = {}
        counts: Counts = Counter()
        if self.critic_turn is not None:
            critiques, counts = self.critic_turn.critique_failed(first.attempts)
        counts.update(count_rollouts(first))
        plan = self.plan(rows, first, critiques)
        # One call for all: two calls, of 56 and 8 rows, took 1.4 times as long as one of 64.
        sampled = self.sampler.sample_uneven(plan.prompts, prompts[0])
        return self.complete(rows, first, critiques, counts, plan, sampled)

    def complete(
        self,
        rows: list[Row],
        first: FirstPhase,
        critiques: Critiques,
        counts: Counts,
        plan: SlotPlan,
        sampled: Sampled,
    ) -> Generation:
        """Judge phase 2, refine in further turns, and fill the reserved rows. A collective.

        Args:
            rows: the dataset's row of each prompt.
            first: the rollouts.
            critiques: index of a rollout -> its critique.
            counts: counters so far.
            plan: what phase 2 was to sample.
            sampled: one completion for each of its prompts.
        """
        counts = Counter(counts)
        group_rows = rows[:: self.args.group_size]
        sampled = sampled.with_inserted(plan.traces)
        second = self.judge_candidates(group_rows, plan.candidates, sampled, first)
        later: Critiques = {}
        if self.later_turns is not None:
            second, later, turn_counts = self.later_turns.run(group_rows, first, second)
            counts.update(turn_counts)
        slots = self.fill_slots(len(group_rows), second)

        judged = first.judged + second.judged
        self._reorder_extra_columns(slots.order, first, second)
        counts.update(plan.counts)
        counts.update(slots.counts)
        counts["refine/mentions"] = sum(second.mentions)
        counts.update(count_second(second, slots.idle))
        return Generation(
            group_rollouts=self.args.group_rollouts,
            attempts=first.attempts,
            critiques=critiques,
            turn_critiques=later,
            refinements=number_refinements(first, critiques | later, second, slots.chosen),
            plain=number_plain_samples(first, second, slots.idle),
            order=slots.order,
            values=judged.values,
            rewards=judged.rewards[slots.order],
            refined=slots.refined,
            off_policy=slots.off_policy,
            verdicts=[judged.verdicts[number] for number in slots.order],
            columns=batch_columns(first.sampled, second.sampled, slots.order),
            counts=counts,
        )

    # ---- phase 1 ---------------------------------------------------------------------------------

    def sample_rollouts(self, prompts: list[Any]) -> Sampled:
        """Sample the N - k rollouts of each group of N prompts."""
        return self.sampler.sample(self.rollouts_of(prompts), self.args.group_rollouts)

    def rollouts_of(self, rows: list[Any]) -> list[Any]:
        """Of complete groups what belongs to rollouts, the first N - k of each."""
        return without_reserved(rows, self.args.group_size, self.args.group_rollouts)

    def judge_rollouts(self, rows: list[Row], sampled: Sampled) -> FirstPhase:
        """Judge the rollouts.

        Args:
            rows: the dataset's row of every prompt, those of reserved rows among them.
            sampled: the rollouts.
        """
        rollout_rows = self.rollouts_of(rows)
        judged = self.scorer.judge(rollout_rows, sampled)
        truncated = self.sampler.truncated(sampled.completion_ids)
        attempts = make_attempts(rollout_rows, sampled.completions, judged.verdicts, truncated)
        return FirstPhase(sampled, judged, attempts)

    # ---- phase 2 ---------------------------------------------------------------------------------

    def plan(self, rows: list[Row], first: FirstPhase, critiques: Critiques) -> SlotPlan:
        """What phase 2 is to sample: refinements, plain samples, and places of expert traces.

        Args:
            rows: the dataset's row of each prompt.
            first: the rollouts, some of which are refined.
            critiques: index of a rollout -> its critique.
        """
        group_rows = rows[:: self.args.group_size]
        candidates, counts = self.plan_candidates(group_rows, critiques)
        prompts = []
        traces = {}
        for place, candidate in enumerate(candidates):
            group_prompt = group_rows[candidate.group]["prompt"]
            i = candidate.attempt
            if candidate.trace is not None:
                traces[place] = self.sampler.quote(group_prompt, candidate.trace)
            elif i is not None and self.critic_turn is not None:
                prompt = self.critic_turn.refine_prompt(first.attempts[i], critiques[i])
                prompts.append(prompt)
            else:
                prompts.append(group_prompt)
        return SlotPlan(candidates, prompts, traces, counts)

    def plan_candidates(
        self, group_rows: list[Row], critiques: Critiques
    ) -> tuple[list[SlotCandidate], Counts]:
        """The sequences of phase 2, group by group, and counters of expert traces.

        A group has refinements or an expert's trace, then plain samples for slots they leave. If
        traces take the rows of refinements, a group with refinements has its trace after them.
        """
        candidates: list[SlotCandidate] = []
        counts: Counts = Counter()
        slots = self.args.refine_slots
        if not slots:
            return candidates, counts
        column = self.args.refine_column
        swaps = self.args.swaps_refinements
        for group, row in enumerate(group_rows):
            refinements: list[SlotCandidate] = []
            traces: list[SlotCandidate] = []
            if column is None or swaps:
                refinements = self._plan_refinements(group, critiques)
            needs_trace = bool(refinements) or not swaps
            if column is not None and needs_trace:
                traces, group_counts = self._plan_trace(group, row["prompt"], row.get(column))
                counts.update(group_counts)
            filling = refinements or traces
            free_slots = max(0, slots - len(filling))
            candidates += filling
            candidates += [SlotCandidate(group)] * free_slots
            if refinements:
                candidates += traces
        return candidates, counts

    def judge_candidates(
        self,
        group_rows: list[Row],
        candidates: list[SlotCandidate],
        sampled: Sampled,
        first: FirstPhase,
    ) -> SecondPhase:
        """Judge phase 2 as answers to the plain questions.

        Args:
            group_rows: the dataset's row of each group.
            candidates: the sequences of phase 2.
            sampled: their completions.
            first: the rollouts, to pad with.
        """
        rows = [group_rows[candidate.group] for candidate in candidates]
        judged = self.scorer.judge_nothing()
        copies = 0
        if self.args.refine_slots:
            if self.processes > 1:
                # Scoring gathers over ranks without padding, and a rank with fewer failures has
                # fewer candidates: copies of a rollout make up the numbers.
                most = max(self.args.group_candidates, self.args.refine_slots)
                most += self.args.swaps_refinements
                copies = most * len(group_rows) - len(candidates)
            judged = judge_padded(self.scorer, rows, sampled, group_rows[0], first.sampled, copies)
        truncated = self.sampler.truncated(sampled.completion_ids)
        attempts = make_attempts(rows, sampled.completions, judged.verdicts, truncated)
        mentions = []
        for candidate, text in zip(candidates, sampled.texts, strict=True):
            mentions.append(candidate.attempt is not None and mentions_critique(text))
        places = list(range(len(candidates)))
        return SecondPhase(candidates, sampled, judged, attempts, mentions, places, copies)

    def fill_slots(self, groups: int, second: SecondPhase) -> FilledSlots:
        """Decide which sequence of phase 2 fills each reserved row of this rank's groups."""
        slots = self.args.refine_slots
        rollouts = self.args.group_rollouts
        order: list[int] = []
        refined: list[int] = []
        off_policy: list[int] = []
        all_chosen: set[int] = set()
        idle: set[int] = set()
        counts: Counts = Counter()
        for group in range(groups):
            order += range(group * rollouts, (group + 1) * rollouts)
            places = second.places_of(group)
            plain = [place for place in places if second.candidates[place].owner == "rollout"]
            traces: list[int] = []
            if self.args.swaps_refinements:
                traces = [place for place in places if second.candidates[place].owner == "expert"]
            others = [place for place in places if place not in plain + traces]
            chosen = self._choose(others, second)
            # Unscored and dropped candidates are the last resort: as plain rows they carry no
            # refine credit.
            spare = [place for place in others if place not in chosen]
            if self.args.swaps_refinements:
                chosen, unmatched = swap_right(chosen, traces, second.judged.verdicts)
                spare = unmatched + spare
                counts["refine/swapped"] += len([place for place in chosen if place in traces])
                counts["refine/unmatched"] += len(unmatched)
                idle.update(place for place in traces if place not in chosen)
            all_chosen.update(chosen)
            filling = chosen + plain + spare
            for place in filling[:slots]:
                row = len(order)
                if place in chosen:
                    refined.append(row)
                elif place in spare:
                    off_policy.append(row)
                order.append(groups * rollouts + place)
        return FilledSlots(order, refined, off_policy, all_chosen, idle, counts)

    def _reorder_extra_columns(
        self, order: list[int], first: FirstPhase, second: SecondPhase
    ) -> None:
        """Bring columns that reward functions logged, copies among their rows, into an order."""
        rollouts = len(first.attempts)
        judged_rows = list(range(rollouts))
        for row in second.rows:
            judged_rows.append(rollouts + row)
        order_rows = [judged_rows[number] for number in order]
        scored = rollouts + second.judged_rows
        self.scorer.reorder_extra_columns(order_rows, scored, second.copies)

    def _choose(self, places: list[int], second: SecondPhase) -> list[int]:
        """Of the refinements or traces of one group those that fill its slots."""
        allowed = places
        if self.args.refine_mentions == "drop":
            allowed = [place for place in places if not second.mentions[place]]
        verdicts = [second.judged.verdicts[place] for place in allowed]
        chosen = choose_candidates(
            verdicts, self.args.refine_slots, draw_index, self.args.refine_select
        )
        return [allowed[i] for i in chosen]

    def _plan_refinements(self, group: int, critiques: Critiques) -> list[SlotCandidate]:
        """One candidate per usable critique of the group, m at most."""
        planned = []
        for i, critique in critiques.items():
            if critique.status == "ok" and i // self.args.group_rollouts == group:
                planned.append(SlotCandidate(group, attempt=i))
        return planned[: self.args.group_candidates]

    def _plan_trace(self, group: int, prompt: Any, text: Any) -> tuple[list[SlotCandidate], Counts]:
        """A group's candidate from its expert's trace; none, but a count, if it cannot be used."""
        ids: list[int] = []
        if text:
            ids = self.sampler.completion_ids(prompt, str(text))
        if not ids:
            return [], Counter({"refine/traces_missing": 1})
        if len(ids) > self.args.completion_limit:
            return [], Counter({"refine/traces_too_long": 1})
        return [SlotCandidate(group, trace=ids)], Counter()


def draw_index(n: int) -> int:
    """A random integer in [0, n)."""
    # torch's generator, because its state is in every checkpoint.
    return int(torch.randint(n, (1,)))
