"""Turns of refinement after the first: what failed is critiqued and refined once more.

    rollout -> critique -> refinement -> critique -> refinement -> ...

A chain ends at its right refinement, where no usable critique came, or at turn `refine_turns`. Of
each chain the last refinement alone may fill a reserved row; the others train nothing. Turn 1 is
`two_phase`'s. Ranks whose chains have ended make the calls of the others.
"""

from __future__ import annotations

from collections import Counter

from accelerate.utils import gather_object

from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.critiques import CriticTurn
from critique_rl.trainer.rollout.generation import (
    Counts,
    Critiques,
    is_right,
    make_attempts,
    turn_counter,
)
from critique_rl.trainer.rollout.phases import FirstPhase, SecondPhase, SlotCandidate
from critique_rl.trainer.rollout.refine import mentions_critique
from critique_rl.trainer.rollout.sampled import Row
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import Scorer, judge_padded


class LaterTurns:
    """Refines failed refinements of each generation batch, turn by turn."""

    def __init__(
        self, args: CritiqueGRPOConfig, sampler: Sampler, scorer: Scorer, critic_turn: CriticTurn
    ):
        """Take what every batch needs.

        Args:
            args: settings of the run.
            sampler: samples from the policy.
            scorer: judges completions.
            critic_turn: asks the critic; it has critiqued the batch's rollouts before.
        """
        self.args = args
        self.sampler = sampler
        self.scorer = scorer
        self.critic_turn = critic_turn

    def run(
        self, group_rows: list[Row], first: FirstPhase, second: SecondPhase
    ) -> tuple[SecondPhase, Critiques, Counts]:
        """Take the turns from the second on. A collective: every rank calls it.

        Args:
            group_rows: the dataset's row of each group.
            first: the rollouts.
            second: the sequences of turn 1.

        Returns:
            The sequences of all turns; number of a failed refinement -> its critique; counters of
            the critic in later turns, and of the refinements of each turn.
        """
        critiques: Critiques = {}
        counts = count_turn(1, second)
        rollouts = len(first.attempts)
        for turn in range(2, self.args.refine_turns + 1):
            failed = failed_places(second, turn - 1)
            if not most_on_a_rank(len(failed)):
                break
            attempts = {}
            for place in failed:
                attempts[rollouts + place] = second.attempts[place]
            due = self._due(rollouts, second, failed)
            answers, critic_counts = self.critic_turn.critique_refinements(turn, attempts, due)
            critiques |= answers
            counts.update(critic_counts)
            candidates = plan_turn(turn, rollouts, second, answers)
            most = most_on_a_rank(len(candidates))
            if not most:
                break
            refinements = self._refine(group_rows, first, second, candidates, answers, most)
            counts.update(count_turn(turn, refinements))
            second = second.followed_by(refinements)
        return second, critiques, counts

    def _due(self, rollouts: int, second: SecondPhase, failed: list[int]) -> list[int]:
        """Numbers of the failed refinements, given by their places, whose critique is asked for.

        Under "group_failed" a group's chains end together, once one of them has not failed.
        """
        closed = set()
        if self.args.critique_when == "group_failed":
            for place in second.last_of_chains().values():
                verdict = second.attempts[place].verdict
                if not verdict.failed:
                    closed.add(second.candidates[place].group)
        due = []
        for place in failed:
            group = second.candidates[place].group
            if group not in closed:
                due.append(rollouts + place)
        return due

    def _refine(
        self,
        group_rows: list[Row],
        first: FirstPhase,
        second: SecondPhase,
        candidates: list[SlotCandidate],
        critiques: Critiques,
        most: int,
    ) -> SecondPhase:
        """Sample and judge one turn's refinements. A collective.

        Args:
            group_rows: the dataset's row of each group.
            first: the rollouts, to pad with.
            second: the sequences of the turns before.
            candidates: the refinements to sample.
            critiques: number of a refinement -> its critique.
            most: refinements of the rank that has most.
        """
        rows = [group_rows[candidate.group] for candidate in candidates]
        prompts = []
        rollouts = len(first.attempts)
        for candidate in candidates:
            number = candidate.earlier
            assert number is not None, "a later turn refines a refinement"
            attempt = second.attempts[number - rollouts]
            prompt = self.critic_turn.refine_prompt(attempt, critiques[number])
            prompts.append(prompt)
        sampled = self.sampler.sample_uneven(prompts, group_rows[0]["prompt"])
        copies = most - len(candidates)
        judged = judge_padded(self.scorer, rows, sampled, group_rows[0], first.sampled, copies)
        truncated = self.sampler.truncated(sampled.completion_ids)
        attempts = make_attempts(rows, sampled.completions, judged.verdicts, truncated)
        mentions = [mentions_critique(text) for text in sampled.texts]
        places = list(range(len(candidates)))
        return SecondPhase(candidates, sampled, judged, attempts, mentions, places, copies)


def failed_places(second: SecondPhase, turn: int) -> list[int]:
    """Places of one turn's refinements that failed. Abstained and unscored ones have not."""
    places = []
    for place, candidate in enumerate(second.candidates):
        is_refinement = candidate.attempt is not None and candidate.turn == turn
        if is_refinement and second.attempts[place].verdict.failed:
            places.append(place)
    return places


def plan_turn(
    turn: int, rollouts: int, second: SecondPhase, critiques: Critiques
) -> list[SlotCandidate]:
    """The refinements of a later turn, one per usable critique.

    Args:
        turn: the turn.
        rollouts: how many rollouts are numbered before the sequences of phase 2.
        second: the sequences of the turns before.
        critiques: number of a refinement -> its critique.
    """
    candidates = []
    for number, critique in critiques.items():
        if critique.status != "ok":
            continue
        place = number - rollouts
        refined = second.candidates[place]
        candidate = SlotCandidate(refined.group, refined.attempt, turn=turn, earlier=number)
        candidates.append(candidate)
    return candidates


def count_turn(turn: int, second: SecondPhase) -> Counts:
    """Counters of one turn's refinements; the plain samples and traces of turn 1 are not its."""
    counts: Counts = Counter()
    for place, candidate in enumerate(second.candidates):
        if candidate.attempt is None:
            continue
        verdict = second.attempts[place].verdict
        tokens = second.sampled.completion_ids[place]
        prompt_tokens = second.sampled.prompt_ids[place]
        counts[turn_counter(turn, "refined")] += 1
        counts[turn_counter(turn, "rescued")] += is_right(verdict)
        counts[turn_counter(turn, "tokens")] += len(tokens)
        counts[turn_counter(turn, "prompt_tokens")] += len(prompt_tokens)
    return counts


def most_on_a_rank(count: int) -> int:
    """The largest count of all ranks. A collective."""
    return max(gather_object([count]))
