"""A critic that asks a chat: a server, a transformers model in this process, or the policy itself.

The attempt is fenced in the prompt as data. Only the reply's text counts: no mark in it sets a
status or a reward. Votes are samples of the same prompt, and a rule chooses one (`CHOICES`). Left
out: votes on whether the attempt is right, which the verifier knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from critique_rl.critic.contract import Chat, Reply
from critique_rl.critic.leaks import IsAnswer, OnLeak, handle_leak
from critique_rl.critic.thoughts import clean_answer
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG, clean, cut, is_blank, render
from critique_rl.tasks.answer_text import told_answer, told_solution
from critique_rl.tasks.messages import conversation_text
from critique_rl.types import Attempt, Critique, Message, Usage

KNOWS_COLUMN = {"nothing": "", "answer": "answer", "solution": "solution"}
"""Value of `knows` -> the row's column that the critic reads."""
SCOPES = ("attempt", "group")
GROUP_SHARE = 4
"""Length of all attempts in a group's prompt, as a multiple of `longest`."""


@dataclass(frozen=True)
class ChatCritic:
    """Asks a chat once per failed attempt.

    With scope "group" it asks once per question, and every failed attempt at the question gets that
    critique (GOLF, arXiv 2603.04597).
    """

    chat: Chat
    """Answers the prompts."""
    template: str = "critique"
    """Template of prompts/ that the critic reads. A pipeline's default is the task's own, and with
    scope group the task's critique_group.
    """
    name: str = "api"
    is_answer: IsAnswer = lambda piece, row: False
    """The task's verifier, which finds leaks."""
    knows: Literal["nothing", "answer", "solution"] = "nothing"
    """The column that the critic reads besides question and attempt. A row without it is skipped.
    """
    scope: Literal["attempt", "group"] = "attempt"
    """One critique per attempt, or one for all failed attempts at a question."""
    votes: int = 1
    """Critiques asked for; one of them is used, all are paid for."""
    choose: Literal["first", "longest", "central"] = "first"
    """Which of the votes is used; central: the one that shares most words with the others."""
    on_leak: OnLeak = "keep"
    """A critique that gives the answer away is kept, redacted, or dropped. Each of them is counted.
    """
    longest: int = 12_000
    """Characters of an attempt that the critic reads. In a longer one a marked gap follows the
    first three fifths.
    """

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """One critique per attempt, in order."""
        askable, conversations = self._ask(attempts)
        # Also without conversations: sampling from the policy is a collective, so every rank calls.
        replies = self.chat.answer(conversations)
        return self._read_all(attempts, askable, replies)

    def begin(self, attempts: Sequence[Attempt]) -> Callable[[], list[Critique]]:
        """Send the prompts, where the chat answers in the background.

        Returns:
            A function that waits for what `critique` returns.
        """
        if not hasattr(self.chat, "begin"):
            return partial(self.critique, attempts)
        askable, conversations = self._ask(attempts)
        wait = self.chat.begin(conversations)
        return lambda: self._read_all(attempts, askable, wait())

    def _ask(self, attempts: Sequence[Attempt]) -> tuple[list[list[int]], list[list[Message]]]:
        """Indices of the attempts in each prompt, and the conversations: `votes` per prompt."""
        groups = self._group(attempts)
        askable = []
        for indices in groups:
            first = attempts[indices[0]]
            if self._lookup_knowledge(first) is not None:
                askable.append(indices)
        conversations: list[list[Message]] = []
        for indices in askable:
            group = [attempts[i] for i in indices]
            prompt = self.render_prompt(group)
            message: Message = {"role": "user", "content": prompt}
            for _ in range(self.votes):
                conversations.append([message])
        return askable, conversations

    def _read_all(
        self, attempts: Sequence[Attempt], askable: list[list[int]], answers: list[Reply]
    ) -> list[Critique]:
        """The critiques that the answers amount to, one per attempt."""
        replies = iter(answers)
        reason = f"no_{self.knows}_column"
        skipped = Critique("", self.name, "skipped", reason)
        critiques = [skipped for _ in attempts]
        for indices in askable:
            first = attempts[indices[0]]
            votes = [next(replies) for _ in range(self.votes)]
            critique = self._choose_vote(votes, first)
            for i in indices:
                critiques[i] = self._note_cut(critique, attempts[i])
                # One call was paid for, so only the group's first critique carries its cost.
                critique = replace(critique, usage=Usage())
        return critiques

    def _group(self, attempts: Sequence[Attempt]) -> list[list[int]]:
        """Indices of the attempts in each prompt, the shortest attempt first."""
        if self.scope == "attempt":
            return [[i] for i in range(len(attempts))]
        lengths = [len(attempt.text) for attempt in attempts]
        groups: dict[str, list[int]] = {}
        for i, attempt in enumerate(attempts):
            group = groups.setdefault(self._question(attempt), [])
            group.append(i)
        for group in groups.values():
            group.sort(key=lengths.__getitem__)
        return list(groups.values())

    def _note_cut(self, critique: Critique, attempt: Attempt) -> Critique:
        if len(attempt.text) <= self.longest:
            return critique
        notes = (*critique.notes, "attempt_cut")
        return replace(critique, notes=notes)

    def _lookup_knowledge(self, attempt: Attempt) -> str | None:
        """The text of the column that the critic knows; None if the row lacks it."""
        if self.knows == "answer":
            return told_answer(attempt.row) or None
        if self.knows == "solution":
            return told_solution(attempt.row) or None
        return ""

    def render_prompt(self, attempts: Sequence[Attempt]) -> str:
        """The question to the critic about attempts, all at one question: its one message."""
        # The special tokens of a known tokenizer are broken in the attempt. A server's tokenizer is
        # not known; the usual special tokens are broken for every critic.
        specials = getattr(self.chat, "specials", ())
        first = attempts[0]
        fields: dict[str, str | list[str]] = {"question": self._question(first)}
        for column in KNOWS_COLUMN.values():
            if column:
                fields[column] = ""
        if KNOWS_COLUMN[self.knows]:
            knowledge = self._lookup_knowledge(first)
            fields[self.knows] = knowledge or ""
        if self.scope == "attempt":
            fields["attempt"] = cut(first.text, self.longest)
        else:
            fields["attempts"] = self._texts_that_fit(attempts)
        return render(self.template, specials, **fields)

    def _question(self, attempt: Attempt) -> str:
        """The question, with the turns before it and after it where there are any."""
        return conversation_text(attempt.row.get("prompt"), attempt.question)

    def _texts_that_fit(self, attempts: Sequence[Attempt]) -> list[str]:
        """Different texts of a group, in order, as long as the prompt has room; one at least."""
        texts: list[str] = []
        room = GROUP_SHARE * self.longest
        cut_texts = [cut(attempt.text, self.longest) for attempt in attempts]
        different = dict.fromkeys(cut_texts)
        for text in different:
            room -= len(text)
            if room >= 0 or not texts:
                texts.append(text)
        return texts

    def _choose_vote(self, replies: Sequence[Reply], attempt: Attempt) -> Critique:
        """The chosen vote with the cost of all votes; the first failure if none is usable."""
        votes = []
        for reply in replies:
            critique = self._read(reply)
            vote = handle_leak(critique, attempt, self.is_answer, self.on_leak)
            votes.append(vote)
        usages = [vote.usage for vote in votes]
        cost = sum(usages, Usage())
        usable = [vote for vote in votes if vote.status == "ok"]
        if not usable:
            return replace(votes[0], usage=cost)
        failures = len(votes) - len(usable)
        # Where leaks matter, a vote without one goes before a vote that had to be redacted.
        if self.on_leak != "keep":
            without_leak = [vote for vote in usable if not vote.leaked]
            usable = without_leak or usable
        choose = CHOICES[self.choose]
        chosen = choose(usable)
        failure_notes = ["vote_failed"] * failures
        notes = (*chosen.notes, *failure_notes)
        return replace(chosen, usage=cost, notes=notes)

    def _read(self, reply: Reply) -> Critique:
        critique = Critique("", self.name, usage=reply.usage, cached=reply.cached)
        if reply.status != "ok":
            return replace(critique, status=reply.status, reason=reply.reason)
        if len(reply.text) > LONGEST_TEXT:
            return replace(critique, status="failed", reason=TOO_LONG)
        cleaned = clean_answer(clean(reply.text), reply.reason == "length")
        # A row refined with a text that nobody sees would be the kind `retry` by another name.
        if is_blank(cleaned.text):
            reason = cleaned.reason or reply.reason or "empty"
            return replace(critique, status="failed", reason=reason)
        critique = replace(critique, text=cleaned.text)
        if reply.reason:
            # Without a server's word, for notes are names of metrics.
            critique = replace(critique, notes=(reply.reason.partition(":")[0],))
        if reply.model:
            critique = replace(critique, reason=f"other_model: {reply.model}")
        return critique

    def state_dict(self) -> dict[str, Any]:
        """The chat's place in its journal, for a checkpoint; {} if it keeps none."""
        if hasattr(self.chat, "state_dict"):
            state: dict[str, Any] = self.chat.state_dict()
            return state
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the chat back to the state of a checkpoint."""
        if hasattr(self.chat, "load_state_dict"):
            self.chat.load_state_dict(state)


def _first(votes: Sequence[Critique]) -> Critique:
    return votes[0]


def _longest(votes: Sequence[Critique]) -> Critique:
    return max(votes, key=lambda vote: len(vote.text))


def _central(votes: Sequence[Critique]) -> Critique:
    """The vote with the largest mean Jaccard index of words to all votes, the first of equals."""
    words = []
    for vote in votes:
        words_in_order = re.findall(r"\w+", vote.text.lower())
        words.append(set(words_in_order))
    similarities = []
    for words_of_vote in words:
        indices = [_jaccard_index(words_of_vote, other) for other in words]
        similarities.append(sum(indices))
    highest = max(similarities)
    central = similarities.index(highest)
    return votes[central]


def _jaccard_index(words: set[str], other: set[str]) -> float:
    common = words & other
    union = words | other
    # Two critiques without a word have an empty union.
    return len(common) / max(1, len(union))


Choice = Callable[[Sequence[Critique]], Critique]
CHOICES: dict[str, Choice] = {
    "first": _first,
    # OpenClaw-RL's rule (its `_select_best_hint`).
    "longest": _longest,
    # Leaves outliers out.
    "central": _central,
}
"""Rule -> function that chooses one of the usable votes."""
