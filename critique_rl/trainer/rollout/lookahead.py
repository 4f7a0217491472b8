"""Rollouts one batch ahead of the critic (`critique_staleness: 1`).

    call t:  sample batch t | wait for the critic on t-1 | ask it about t | refine and train t-1

    with `refine_with_next`:
    call t:  wait for the critic on t-1 | sample batch t and refine t-1 | ask about t | train t-1

The critic answers on batch t while batch t-1 is refined and trained and batch t+1 is sampled, so a
step takes the longer of the two, not their sum. A rollout is trained one generation after it was
sampled. Its importance ratio is to the policy that sampled it, whose log-probs are taken then;
refinements are sampled by the newest policy. The critic is asked about one batch at a time, so
limits, caps and the order of its journal are those without staleness.

The first call has no batch before it: it samples its questions twice, and waits. The batch that is
in flight at the end trains nothing; its tokens and its critiques are counted. A checkpoint holds
the batch in flight, and a resumed run asks the critic again: what was paid for is in its cache.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from critique_rl.critic.contract import CriticFailed
from critique_rl.sampling.recorded_logps import RecordedLogps
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.critiques import AskedBatch, CriticTurn
from critique_rl.trainer.rollout.generation import Counts, Critiques, Generation, count_usage
from critique_rl.trainer.rollout.generation_in_progress import DIFFERS
from critique_rl.trainer.rollout.in_flight import (
    BatchInFlight,
    BatchShape,
    read_batch,
    refuse_rows,
    with_plain_details,
    write_batch,
)
from critique_rl.trainer.rollout.phases import SlotPlan, count_rollouts
from critique_rl.trainer.rollout.sampled import Row, Sampled
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.trainer.rollout.scoring import Scorer
from critique_rl.trainer.rollout.two_phase import TwoPhaseRollout


@dataclass(frozen=True)
class DueBatch:
    """A batch whose critiques are there."""

    batch: BatchInFlight
    """Its rollouts."""
    critiques: Critiques
    """Index of a rollout -> its critique."""
    plan: SlotPlan
    """What phase 2 samples."""
    refined: Sampled | None
    """Its completions, where they were sampled with the next batch."""
    counts: Counts
    """Counters of the critic, and of the tokens of the batch ahead."""


class Lookahead:
    """Makes the generation batches of a run with `critique_staleness` 1."""

    def __init__(
        self,
        args: CritiqueGRPOConfig,
        sampler: Sampler,
        scorer: Scorer,
        rollout: TwoPhaseRollout,
        critic_turn: CriticTurn,
    ):
        """Take what every batch needs.

        Args:
            args: settings of the run.
            sampler: samples from the policy.
            scorer: judges completions, and keeps the columns that reward functions log.
            rollout: makes the phases of a batch.
            critic_turn: asks the critic.
        """
        self.args = args
        self.sampler = sampler
        self.scorer = scorer
        self.rollout = rollout
        self.critic_turn = critic_turn
        self.ahead: BatchInFlight | None = None
        """Sampled and not trained yet."""
        self.asked: AskedBatch | None = None
        """What the critic was asked about it; None after a restart, until it is asked again."""
        self.critic_state: dict[str, Any] = {}
        """The critic's state just before it was asked, for a checkpoint."""
        self._due: DueBatch | None = None

    # ---- one generation batch --------------------------------------------------------------------

    def advance(self, rows: list[Row], step: int) -> list[Row]:
        """Sample a batch, and take up the one before it. A collective: every rank calls it.

        Args:
            rows: the dataset's rows of the batch that is sampled.
            step: optimizer steps so far.

        Returns:
            The rows of the batch that is due, which `complete` makes.
        """
        refuse_rows(rows[:: self.args.group_size])
        counts: Counts = Counter()
        if self.ahead is None:
            self._ask_about(self._sample(rows, step, counts))
        elif self.asked is None:
            self._ask_about(self.ahead)
        due = self.ahead
        asked = self.asked
        assert due is not None, "a batch was sampled"
        assert asked is not None, "the critic was asked about it"
        if self.args.refine_with_next:
            critiques, critic_counts = self._critiques(due, asked)
            plan = self.rollout.plan(due.rows, due.first, critiques)
            ahead, refined = self._sample_with(rows, step, plan, counts)
        else:
            ahead = self._sample(rows, step, counts)
            critiques, critic_counts = self._critiques(due, asked)
            plan = self.rollout.plan(due.rows, due.first, critiques)
            refined = None
        self._ask_about(ahead)
        counts.update(critic_counts)
        self._due = DueBatch(due, critiques, plan, refined, counts)
        return due.rows

    def complete(self) -> Generation:
        """Refine and fill the batch that `advance` took up. A collective."""
        due = self._take_due()
        batch = due.batch
        self.scorer.put_extra_columns(batch.columns)
        refined = due.refined
        if refined is None:
            refined = self.sampler.sample_uneven(due.plan.prompts, batch.rows[0]["prompt"])
        return self.rollout.complete(
            batch.rows, batch.first, due.critiques, due.counts, due.plan, refined
        )

    def _critiques(self, batch: BatchInFlight, asked: AskedBatch) -> tuple[Critiques, Counts]:
        selection = batch.selection
        assert selection is not None, "the critic was asked about it"
        return self.critic_turn.finish(asked, selection)

    def _sample(self, rows: list[Row], step: int, counts: Counts) -> BatchInFlight:
        """Sample and judge the rollouts of a batch, and count their tokens."""
        prompts = [row["prompt"] for row in rows]
        number = len(self.rollout.rollouts_of(prompts))
        with self.sampler.recorded_logps(number) as record:
            sampled = self.rollout.sample_rollouts(prompts)
        return self._judge(rows, step, sampled, record, counts)

    def _sample_with(
        self, rows: list[Row], step: int, plan: SlotPlan, counts: Counts
    ) -> tuple[BatchInFlight, Sampled]:
        """The same with the refinements of the batch before them, in one call."""
        prompts = self.rollout.rollouts_of([row["prompt"] for row in rows])
        count = len(prompts)
        with self.sampler.recorded_logps(count + len(plan.prompts)) as record:
            sampled = self.sampler.sample_uneven(prompts + plan.prompts, prompts[0])
        batch = self._judge(rows, step, sampled.head(count), record, counts)
        return batch, sampled.after(count)

    def _judge(
        self, rows: list[Row], step: int, sampled: Sampled, record: RecordedLogps, counts: Counts
    ) -> BatchInFlight:
        """Judge the rollouts of a batch, and count their tokens."""
        first = with_plain_details(self.rollout.judge_rollouts(rows, sampled))
        columns = self.scorer.take_extra_columns()
        logps = record.rows(sampled.completion_ids)
        # Ranks read them together, or none does.
        is_unknown = any(gather_object([logps is None]))
        if is_unknown and sampled.logprobs is None:
            logps = self.sampler.logps(sampled)
            counts["tokens/scored"] += sampled.prompt_tokens
            counts["tokens/scored"] += sampled.completion_tokens
        counts.update(count_rollouts(first))
        return BatchInFlight(rows, first, logps, columns, step)

    def _ask_about(self, batch: BatchInFlight) -> None:
        """Ask the critic about a batch, once it has answered on all ranks' batches before."""
        selection = batch.selection
        if selection is None:
            selection = self.critic_turn.choose(batch.first.attempts)
        self.ahead = replace(batch, selection=selection)
        self.critic_state = self.critic_turn.state()
        # Ranks share the critic's journal: none may write to it before all have read its state.
        gather_object([])
        self.asked = self.critic_turn.begin(batch.first.attempts, selection)

    def _take_due(self) -> DueBatch:
        due = self._due
        assert due is not None, "`advance` comes before `complete`"
        return due

    def sampled_logps(self, batch: Generation, like: Tensor, known: Tensor | None) -> Tensor | None:
        """Log-probs (B, T) under the policies that sampled the rows of the batch that is due.

        Args:
            batch: it, as `complete` made it.
            like: (B, T), whose shape and device it gets.
            known: (B, T) under the policy of now; None where nobody needs them.

        Returns:
            NaN on rows of the newest policy where nobody knows theirs; None with vLLM.
        """
        logps = self._take_due().batch.logps
        if logps is None:
            return None
        old_BT = torch.full(like.shape, torch.nan, device=like.device)
        if known is not None:
            old_BT = known.clone()
        rollouts = len(logps)
        for row, number in enumerate(batch.order):
            if number >= rollouts:
                continue
            old = torch.tensor(logps[number], device=like.device)
            length = len(old)
            old_BT[row, :length] = old
        return old_BT

    @property
    def staleness(self) -> int:
        """Generations between the sampling of the batch that is due and its training."""
        due = self._take_due()
        ahead = self.ahead
        assert ahead is not None, "`advance` has sampled one"
        if due.batch.step < ahead.step:
            return 1
        return 0

    # ---- the end, and checkpoints ----------------------------------------------------------------

    def close(self) -> Counts:
        """Drop the batch in flight. A collective.

        Returns:
            Counters of what its critiques cost. Its tokens were counted when they were sampled.
        """
        counts: Counts = Counter()
        if self.ahead is not None and self.asked is None:
            # After a restart: an answer that was paid for costs what it cost then.
            self._ask_about(self.ahead)
        ahead = self.ahead
        asked = self.asked
        self.ahead = None
        self.asked = None
        if ahead is None or asked is None:
            return counts
        try:
            critiques, _ = self._critiques(ahead, asked)
        except CriticFailed:
            # Nothing waits for these critiques any more.
            return counts
        for critique in critiques.values():
            counts.update(count_usage(critique))
        return counts

    def save(self, checkpoint: Path, rank: int) -> None:
        """Write this rank's batch in flight into a checkpoint."""
        if self.ahead is not None:
            write_batch(self.ahead, checkpoint, rank, self._shape)

    def load(self, checkpoint: Path, rank: int, critic_state: dict[str, Any]) -> str:
        """Take up the batch in flight of a checkpoint. A collective.

        Args:
            checkpoint: a checkpoint of a run with a batch in flight.
            rank: this rank.
            critic_state: the critic's state before it was asked.

        Returns:
            Why that is not possible, in a sentence; "" where it is.
        """
        ahead = read_batch(checkpoint, rank, self._shape, self.sampler.device)
        # Ranks sample together: with some of the batches none can be taken up.
        has_one = ahead is not None
        have_all = all(gather_object([has_one]))
        self.ahead = ahead if have_all else None
        self.asked = None
        self.critic_state = critic_state
        if have_all:
            return ""
        return (
            "it does not hold a batch in flight of these settings for every rank; the questions "
            f"are sampled anew, {DIFFERS}"
        )

    @property
    def _shape(self) -> BatchShape:
        args = self.args
        return BatchShape(self.rollout.processes, args.group_size, args.group_rollouts)
