"""A model writes the critique: behind an OpenAI-compatible endpoint, in this process, or the policy
itself.

The attempt is fenced in the prompt as data. Of the reply only its text counts: no mark in it sets a
status or a reward. Votes are samples of the same prompt, the i-th of them sample i; one is chosen
by a rule that needs no further model. Left out: votes on whether the attempt is right, which the
verifier knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from critique_rl.critic.contract import Chat, Reply, without_thinking
from critique_rl.critic.leaks import IsAnswer, OnLeak, handle_leak
from critique_rl.prompts import clean, cut, is_blank, render
from critique_rl.types import Attempt, Critique, Usage

KNOWS = {"nothing": "", "answer": "answer", "solution": "solution"}
"""What the critic reads besides question and attempt -> the row's column."""
SCOPES = ("attempt", "group")
GROUP_SHARE = 4
"""A prompt over a whole group may be so many times as long as one attempt's."""


@dataclass(frozen=True)
class ChatCritic:
    """One call an attempt, or with `scope` "group" one for all failed attempts at a question (GOLF,
    arXiv 2603.04597), whose critique each of them gets.
    """

    chat: Chat
    template: str = "critique"
    """Of prompts/, what the critic reads. A pipeline's default is the task's own, and with scope
    group critique_group.
    """
    name: str = "api"
    is_answer: IsAnswer = lambda piece, row: False
    knows: Literal["nothing", "answer", "solution"] = "nothing"
    """What the critic reads besides question and attempt: the row's answer, or its solution. A row
    without it is skipped.
    """
    scope: Literal["attempt", "group"] = "attempt"
    """One critique for each attempt, or one for all failed attempts at a question."""
    votes: int = 1
    """Critiques asked for; one of them is used, all are paid for."""
    choose: Literal["first", "longest", "central"] = "first"
    """Which of the votes is used; central: the one that shares most words with the others."""
    on_leak: OnLeak = "keep"
    """A critique that gives the answer away is kept, redacted, or dropped. All of these are
    counted.
    """
    longest: int = 12_000
    """Characters of an attempt that the critic reads; what is over stands as a marked gap after the
    first three fifths.
    """

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """One critique each, in order. The chat is asked also without attempts: sampling from the
        policy is a collective.
        """
        groups = self._groups(attempts)
        askable = [indices for indices in groups if self._known(attempts[indices[0]]) is not None]
        prompts = [
            [{"role": "user", "content": self._prompt([attempts[i] for i in indices])}]
            for indices in askable
        ]
        replies = iter(self.chat.answer([prompt for prompt in prompts for _ in range(self.votes)]))
        critiques = {
            i: Critique("", self.name, "skipped", f"no_{self.knows}_column")
            for i in range(len(attempts))
        }
        for indices in askable:
            said = self._chosen([next(replies) for _ in range(self.votes)], attempts[indices[0]])
            for rank, i in enumerate(indices):
                notes = ("attempt_cut",) * (len(attempts[i].text) > self.longest)
                # One call was paid for, so one of the group carries what it cost.
                critiques[i] = replace(
                    said, notes=(*said.notes, *notes), usage=said.usage if rank == 0 else Usage()
                )
        return [critiques[i] for i in range(len(attempts))]

    def _groups(self, attempts: Sequence[Attempt]) -> list[list[int]]:
        """Indices of the attempts of each call, the shortest first."""
        if self.scope == "attempt":
            return [[i] for i in range(len(attempts))]
        groups: dict[str, list[int]] = {}
        for i, attempt in enumerate(attempts):
            groups.setdefault(attempt.question, []).append(i)
        return [sorted(indices, key=lambda i: len(attempts[i].text)) for indices in groups.values()]

    def _known(self, attempt: Attempt) -> str | None:
        """What the critic is told; None where the row lacks it."""
        column = KNOWS[self.knows]
        return str(attempt.row.get(column) or "") or None if column else ""

    def _prompt(self, attempts: Sequence[Attempt]) -> str:
        # Those of a known tokenizer; a server's is not known, and the usual ones are broken anyway.
        specials = getattr(self.chat, "specials", ())
        told = {column: "" for column in KNOWS.values() if column} | (
            {self.knows: self._known(attempts[0]) or ""} if KNOWS[self.knows] else {}
        )
        if self.scope == "attempt":
            return render(
                self.template,
                specials,
                question=attempts[0].question,
                attempt=cut(attempts[0].text, self.longest),
                **told,
            )
        texts, room = [], GROUP_SHARE * self.longest
        for text in dict.fromkeys(cut(attempt.text, self.longest) for attempt in attempts):
            room -= len(text)
            texts += [text] if room >= 0 or not texts else []
        return render(
            self.template, specials, question=attempts[0].question, attempts=texts, **told
        )

    def _chosen(self, replies: Sequence[Reply], attempt: Attempt) -> Critique:
        """The vote that is kept, with the cost of all; a failure's reason where none is usable."""
        votes = [
            handle_leak(self._read(reply), attempt, self.is_answer, self.on_leak)
            for reply in replies
        ]
        usable = [vote for vote in votes if vote.status == "ok"]
        # Where leaks matter, a vote that gave nothing away goes before one that had to be redacted.
        usable = [vote for vote in usable if self.on_leak == "keep" or not vote.leaked] or usable
        kept = CHOICES[self.choose](usable) if usable else votes[0]
        failed = ("vote_failed",) * (sum(vote.status != "ok" for vote in votes) if usable else 0)
        return replace(
            kept, usage=sum((vote.usage for vote in votes), Usage()), notes=(*kept.notes, *failed)
        )

    def _read(self, reply: Reply) -> Critique:
        text = without_thinking(clean(reply.text))
        if reply.status != "ok" or is_blank(text):
            status, reason = (
                ("failed", reply.reason or "empty")
                if reply.status == "ok"
                else (reply.status, reply.reason)
            )
            return Critique("", self.name, status, reason, usage=reply.usage, cached=reply.cached)
        return Critique(
            text,
            self.name,
            usage=reply.usage,
            cached=reply.cached,
            notes=("length",) * (reply.reason == "length"),
        )

    def state_dict(self) -> dict[str, Any]:
        """The chat's place in its journal, where it keeps one."""
        return self.chat.state_dict() if hasattr(self.chat, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if hasattr(self.chat, "load_state_dict"):
            self.chat.load_state_dict(state)


def _central(votes: Sequence[Critique]) -> Critique:
    """The vote that shares most words with the others (mean Jaccard index)."""
    words = [set(re.findall(r"\w+", vote.text.lower())) for vote in votes]
    shared = [
        sum(len(mine & other) / max(1, len(mine | other)) for other in words) for mine in words
    ]
    return votes[shared.index(max(shared))]


CHOICES: dict[str, Callable[[Sequence[Critique]], Critique]] = {
    "first": lambda votes: votes[0],
    "longest": lambda votes: max(votes, key=lambda vote: len(vote.text)),
    "central": _central,
}
"""Which usable vote is kept. "longest" is OpenClaw-RL's (its `_select_best_hint`); "central" leaves
outliers out.
"""
