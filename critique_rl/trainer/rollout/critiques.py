"""The critic's turn between the two samplings: failed rollouts go in, checked critiques come out.

The critic never sets a reward. A critique that failed, or that leaves no room for an answer, leaves
its rollout as it is and is counted with a reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from accelerate.utils import gather_object

from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.contract import Critic, CriticFailed, Reply, invalid_field, read_answer
from critique_rl.critic.thoughts import sampled_answer
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.choose_failures import copies_of
from critique_rl.trainer.rollout.critique_share import NOT_ASKED, CritiqueShare
from critique_rl.trainer.rollout.generation import Counts, Critiques, turn_counter
from critique_rl.trainer.rollout.refine import refine_prompt, select_failed
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.sampler import Sampler
from critique_rl.types import Attempt, Critique, Message, Usage

Wait = Callable[[], list[Critique]]
"""Waits for the critic's answers; CriticFailed where it may not fail, and did."""
MOST_PER_TOKEN = 64
"""Characters per token of no text that fits a prompt. A tokenizer takes 400 bytes per token, so a
longer text is not even tokenized.
"""
NOT_DUE = f"{NOT_ASKED}not_due"
"""Counter of failures that the critic would not be asked about with any share: those beyond the
limit per group, and copies of a text that has no critique.
"""


@dataclass(frozen=True)
class Selection:
    """The failed rollouts of one batch that the critic is asked about."""

    asked: list[int]
    """Their indices."""
    copies: dict[int, int]
    """Index of a copy -> index of the rollout with its text, whose critique it takes."""
    due: int
    """How many it would be asked about with any share."""
    counts: Counts
    """Counters of those that were not chosen."""


@dataclass(frozen=True)
class AskedBatch:
    """The failed rollouts of one batch, about which the critic was asked."""

    attempts: Mapping[int, Attempt]
    """The rollouts of this rank."""
    asked: list[int]
    """Indices of those that it was asked about."""
    truncated: Critiques
    """Skipped critiques of those that were cut."""
    wait: Wait
    """Waits for its critiques."""
    seconds: float
    """Seconds that asking took."""


class CriticTurn:
    """Asks one critic about the failed rollouts of each generation batch."""

    def __init__(
        self,
        critic: Critic,
        args: CritiqueGRPOConfig,
        sampler: Sampler,
        share: CritiqueShare | None = None,
    ):
        """Take the critic, and lend it the policy's replies if it is the policy itself.

        Args:
            critic: the critic.
            args: settings of the run.
            sampler: renders refine prompts, and samples for a critic that is the policy.
            share: chooses the failures that the critic is asked about; None: it is asked about all.
        """
        self.critic = critic
        self.args = args
        self.sampler = sampler
        self.share = share
        chat = getattr(critic, "chat", None)
        self.critic_is_policy = isinstance(chat, PolicyChat)
        if isinstance(chat, PolicyChat):
            chat.sample = self.reply
            chat.specials = sampler.special_tokens
        # Of the batch in progress, for `reply`.
        self._spare_prompt: Any = None
        self._reply_tokens: Counts = Counter()

    def critique_failed(self, attempts: list[Attempt]) -> tuple[Critiques, Counts]:
        """Critiques of the failed rollouts of one batch.

        A collective: every rank calls it, those without a failed rollout too.

        Args:
            attempts: the rollouts of this rank, group by group.

        Returns:
            Index of an attempt -> its critique; and counters, among them the seconds that the
            step waited for it.

        Raises:
            CriticFailed: the critic may not fail, and did, on any rank.
            TypeError: the critic returned no list, or something in it that is no critique.
            ValueError: the critic returned another number of critiques than it got attempts.
        """
        selection = self.choose(attempts)
        return self.finish(self.begin(attempts, selection), selection)

    def choose(self, attempts: list[Attempt]) -> Selection:
        """Choose the failed rollouts of one batch that the critic is asked about. A collective.

        Args:
            attempts: the rollouts of this rank, group by group.
        """
        verdicts = [attempt.verdict for attempt in attempts]
        by_index = dict(enumerate(attempts))
        truncated = self._skip_truncated(by_index)
        due = select_failed(
            verdicts,
            self.args.group_rollouts,
            self.args.critique_when,
            self._group_limit(),
            truncated,
        )
        copies: dict[int, int] = {}
        if self.args.critique_reuse:
            copies = copies_of(attempts, due, self.args.group_rollouts)
            due = [i for i in due if i not in copies]
        asked = due
        left_counts: Counts = Counter()
        if self.share is not None:
            asked, left_counts = self.share.choose(attempts, due)
        return Selection(asked, copies, len(due), left_counts)

    def begin(self, attempts: list[Attempt], selection: Selection) -> AskedBatch:
        """Ask about the chosen rollouts of one batch: now, where the critic answers in the
        background and may be stale, else once its critiques are read.

        Args:
            attempts: the rollouts of this rank, group by group.
            selection: of `choose`.
        """
        by_index = dict(enumerate(attempts))
        self._spare_prompt = attempts[0].row["prompt"]
        return self._begin(by_index, selection.asked, self._skip_truncated(by_index))

    def finish(self, batch: AskedBatch, selection: Selection) -> tuple[Critiques, Counts]:
        """Wait for the critiques of a batch; returns and raises as `critique_failed` does."""
        critiques, counts = self._finish(1, batch)
        copied = _copy(critiques, selection.copies)
        counts.update(selection.counts)
        failed = sum(attempt.verdict.failed for attempt in batch.attempts.values())
        uncritiqued = failed - len(batch.truncated) - len(copied)
        counts["critique/failed_rollouts"] = failed
        counts["critique/not_asked"] = uncritiqued - len(selection.asked)
        if self.share is not None:
            counts[NOT_DUE] = uncritiqued - selection.due
        return critiques | copied, counts

    def critique_refinements(
        self, turn: int, failed: Mapping[int, Attempt], due: Sequence[int]
    ) -> tuple[Critiques, Counts]:
        """Critiques of refinements that failed, after `critique_failed` on the same batch.

        A collective, as that is, with the same errors.

        Args:
            turn: the turn that is to refine them.
            failed: number of a failed refinement -> the refinement as an attempt.
            due: numbers of those that the critic may be asked about.

        Returns:
            Number of a refinement -> its critique; and counters.
        """
        truncated = self._skip_truncated(failed)
        asked = [number for number in due if number not in truncated]
        critiques, counts = self._finish(turn, self._begin(failed, asked, truncated))
        not_asked = len(failed) - len(asked) - len(truncated)
        counts["critique/failed_refinements"] = len(failed)
        counts["critique/not_asked"] = not_asked
        if self.share is not None:
            counts[NOT_DUE] = not_asked
        return critiques, counts

    def state(self) -> dict[str, Any]:
        """The critic's state, for a checkpoint; {} of a critic that keeps none."""
        if not hasattr(self.critic, "state_dict"):
            return {}
        state: dict[str, Any] = self.critic.state_dict()
        return state

    def reply(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """The policy's replies, for a critic that is the policy itself.

        A prompt that leaves no room for an answer gets a failed reply.
        """
        limit = self.sampler.prompt_limit
        rendered = self.sampler.prompt_ids(list(conversations))
        lengths = [len(ids) for ids in rendered]
        pairs = zip(conversations, lengths, strict=True)
        asked = [conversation for conversation, length in pairs if length <= limit]
        sampled = self.sampler.sample_uneven(asked, self._spare_prompt)
        self._reply_tokens["tokens/self_critique"] += sampled.completion_tokens
        self._reply_tokens["tokens/self_critique_prompt"] += sampled.prompt_tokens
        answers = iter(self._answers(sampled))
        replies = []
        for length in lengths:
            if length <= limit:
                replies.append(next(answers))
            else:
                replies.append(Reply("", "failed", "prompt_too_long"))
        return replies

    def _answers(self, sampled: Sampled) -> list[Reply]:
        """The policy's answers without their thoughts. The trainer counts their tokens."""
        are_cut = self.sampler.truncated(sampled.completion_ids)
        texts = sampled.texts
        replies = []
        for i, is_cut in enumerate(are_cut):
            prompt_ids = sampled.prompt_ids[i]
            ids = sampled.completion_ids[i]
            cleaned = sampled_answer(self.sampler.tokenizer, prompt_ids, ids, texts[i], is_cut)
            replies.append(read_answer(cleaned, is_cut, Usage()))
        return replies

    def refine_prompt(self, attempt: Attempt, critique: Critique) -> Any:
        """The prompt under which an attempt is refined."""
        return refine_prompt(
            attempt.row["prompt"],
            attempt,
            critique,
            self.args.refine_template,
            self.sampler.special_tokens,
        )

    def _begin(
        self, attempts: Mapping[int, Attempt], asked: list[int], truncated: Critiques
    ) -> AskedBatch:
        start = time.perf_counter()
        wait: Wait = list
        # The policy's own sampler is a collective, so that critic is called on every rank.
        if asked or self.critic_is_policy:
            wait = self._ask([_with_row_of_its_own(attempts[i]) for i in asked])
        seconds = time.perf_counter() - start
        return AskedBatch(attempts, asked, truncated, wait, seconds)

    def _ask(self, attempts: list[Attempt]) -> Wait:
        """What waits for the critic's answers."""
        begin = getattr(self.critic, "begin", None)
        if not self.args.critique_staleness or begin is None:
            return partial(self.critic.critique, attempts)
        wait: Wait
        try:
            wait = begin(attempts)
        except CriticFailed as failure:
            # Raised with the other ranks, once its answers are read.
            wait = partial(_fail, failure)
        return wait

    def _finish(self, turn: int, batch: AskedBatch) -> tuple[Critiques, Counts]:
        """Critiques of the asked attempts and those of truncated ones, and counters."""
        start = time.perf_counter()
        self._reply_tokens = Counter()
        answers = self._answers_of(batch)
        check_critiques(self.critic.name, answers, len(batch.asked))
        counts: Counts = Counter(self._reply_tokens)
        # A Counter adds fractions too; its type says int.
        seconds = batch.seconds + time.perf_counter() - start
        counts["critique/seconds"] = seconds  # type: ignore[assignment]
        if self.args.refine_turns > 1:
            counts.update(self._count_turn(turn, answers))
        critiques = dict(zip(batch.asked, answers, strict=True)) | batch.truncated
        if self.args.refine_slots:
            critiques = self._skip_long(batch.attempts, critiques)
        return critiques, counts

    def _count_turn(self, turn: int, answers: Sequence[Critique]) -> Counts:
        """Calls and tokens of the critic in one turn, the policy's as its critic among them."""
        written = self._reply_tokens["tokens/self_critique"]
        read = self._reply_tokens["tokens/self_critique_prompt"]
        for answer in answers:
            written += answer.usage.completion_tokens
            read += answer.usage.prompt_tokens
        counts: Counts = Counter()
        counts[turn_counter(turn, "asked")] = len(answers)
        counts[turn_counter(turn, "critic_tokens")] = written
        counts[turn_counter(turn, "critic_prompt_tokens")] = read
        return counts

    def _answers_of(self, batch: AskedBatch) -> list[Critique]:
        """The critic's answers.

        Raises:
            CriticFailed: on every rank, if the critic may not fail and did on one of them.
        """
        answers: list[Critique] = []
        failures: list[str] = []
        try:
            answers = batch.wait()
        except CriticFailed as failure:
            failures = [str(failure)]
        # A rank that raised alone would leave the others waiting for it at the next collective.
        failures = gather_object(failures)
        if failures:
            raise CriticFailed(failures[0])
        return answers

    def _group_limit(self) -> int:
        """Critiques per group at most: one per candidate, or all where the teacher reads them."""
        args = self.args
        teacher_reads_critiques = (
            args.distill_weight
            and args.distill_target != "refinements"
            and "critique" in args.distill_context
        )
        if teacher_reads_critiques or not args.refine_slots:
            return args.group_rollouts
        return args.group_candidates

    def _skip_truncated(self, attempts: Mapping[int, Attempt]) -> Critiques:
        """Skipped critiques of failed attempts that were cut, if `critique_truncated` is off."""
        if self.args.critique_truncated:
            return {}
        skipped = Critique("", self.critic.name, "skipped", "truncated")
        critiques = {}
        for i, attempt in attempts.items():
            if attempt.truncated and attempt.verdict.failed:
                critiques[i] = skipped
        return critiques

    def _skip_long(self, attempts: Mapping[int, Attempt], critiques: Critiques) -> Critiques:
        """Mark critiques as skipped whose refine prompt leaves no room for an answer."""
        limit = self.sampler.prompt_limit
        kept = dict(critiques)
        usable = []
        for i, critique in critiques.items():
            characters = len(attempts[i].text) + len(critique.text)
            if critique.status == "ok" and characters > MOST_PER_TOKEN * limit:
                kept[i] = replace(critique, status="skipped", reason="prompt_too_long")
            elif critique.status == "ok":
                usable.append(i)
        prompts = [self.refine_prompt(attempts[i], critiques[i]) for i in usable]
        for i, ids in zip(usable, self.sampler.prompt_ids(prompts), strict=True):
            if len(ids) > limit:
                kept[i] = replace(critiques[i], status="skipped", reason="prompt_too_long")
        return kept


def _fail(failure: CriticFailed) -> list[Critique]:
    """Raises CriticFailed."""
    raise failure


def _copy(critiques: Critiques, copies: Mapping[int, int]) -> Critiques:
    """Usable critiques once more, for attempts with the same text.

    Args:
        critiques: index of an attempt -> its critique.
        copies: index of a copy -> index of the attempt with its text.
    """
    copied = {}
    for number, first in copies.items():
        critique = critiques.get(first)
        if critique is not None and critique.status == "ok":
            copied[number] = replace(critique, usage=Usage(), cached=True)
    return copied


def check_critiques(critic: str, answers: Any, expected: int) -> None:
    """Check what a critic returned, which may be anybody's code.

    Args:
        critic: the critic's name.
        answers: what it returned.
        expected: the number of attempts that it got.

    Raises:
        TypeError: no list, or something in it that is no critique.
        ValueError: another number of critiques.
    """
    # A string is a sequence too, of letters.
    if not isinstance(answers, Sequence) or isinstance(answers, str):
        raise TypeError(
            f"critic {critic}: got a {type(answers).__name__}, "
            "expected a list of critiques (and no coroutine)"
        )
    if len(answers) != expected:
        raise ValueError(
            f"critic {critic}: got {len(answers)} critiques for {expected} attempts, "
            "expected one each, in order"
        )
    for answer in answers:
        if not isinstance(answer, Critique):
            raise TypeError(f"critic {critic}: got {answer!r}, expected a Critique")
        field = invalid_field(answer)
        if field:
            raise TypeError(f"critic {critic}: got {answer!r}, expected a Critique: {field}")


def _with_row_of_its_own(attempt: Attempt) -> Attempt:
    """The attempt for a critic, which may change what it reads; the row is needed again."""
    return replace(attempt, row=dict(attempt.row))
