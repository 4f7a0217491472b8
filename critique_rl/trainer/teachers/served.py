"""A teacher behind a server: log-probs of sampled tokens, asked for once per generation batch.

A call that fails leaves its rows without distillation, counted with the reason. There is no
log-prob in place of one that did not come. Each rank asks for its own rows; ranks share the
folder's ledger, limits and cache, as with an api critic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from accelerate.utils import broadcast_object_list, gather_object

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.scoring.probe import find_form
from critique_rl.critic.api.scoring.tokens import ECHO, Scoring, read_scores
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply
from critique_rl.tasks.judging import reason_name
from critique_rl.trainer.rollout.generation import Counts
from critique_rl.trainer.teachers.other_model import PROBE
from critique_rl.types import Usage


class ContextRow(NamedTuple):
    """A completion and the context that it is read under, as token ids."""

    context: list[int]
    completion: list[int]


class ServedTeacher:
    """Asks one server for the log-probs of completions.

    Attributes:
        form: how it is asked (`scoring.tokens.FORMS`), as the probe at the start found out.
    """

    def __init__(
        self, endpoint: Endpoint, folder: Path | None, tokenizer: Any, is_main: bool = True
    ):
        """Probe the server. A collective: the main rank asks.

        Args:
            endpoint: the server, its limits and prices.
            folder: keeps answers and spending, the same on all ranks; None: they last as long as
                this object.
            tokenizer: the policy's.
            is_main: whether this rank is the main one.

        Raises:
            ValueError: the server gives no log-probs of a text, or the key is missing.
        """
        self.chat = ApiChat(endpoint, folder, "teacher")
        self.tokenizer = tokenizer
        form = fault = ""
        if is_main:
            try:
                form = probe(endpoint, folder, tokenizer)
            except ValueError as error:
                fault = str(error)
        form, fault = broadcast_object_list([form, fault])
        # On every rank: one that raised alone would leave the others waiting.
        if fault:
            raise ValueError(f"distill_teacher: {fault}")
        self.form = form

    def score(self, rows: Sequence[ContextRow]) -> tuple[list[list[float] | None], Counts]:
        """The log-probs of the completions. A collective: every rank calls it, without rows too.

        Args:
            rows: of this rank. Equal ones are asked for once.

        Returns:
            Of each row its log-probs, one per token, or None where the call failed; and counters.

        Raises:
            CriticFailed: on every rank, where `on_failure` is stop and a call failed on one.
        """
        questions = [self._question(row) for row in rows]
        distinct = list(dict.fromkeys(questions))
        replies = dict(zip(distinct, self._answers(distinct), strict=True))
        logps: list[list[float] | None] = []
        counts: Counts = Counter()
        for question in questions:
            reply = replies[question]
            logps.append(read_scores(reply.text) if reply.status == "ok" else None)
            counts.update(_count_row(reply))
        usage = sum((reply.usage for reply in replies.values()), Usage())
        counts["tokens/served_teacher"] = usage.prompt_tokens + usage.completion_tokens
        # A Counter adds fractions too; its type says int.
        counts["distill/usd"] = usage.usd  # type: ignore[assignment]
        counts["distill/usage_estimated"] = usage.estimated
        return logps, counts

    def _question(self, row: ContextRow) -> Scoring:
        ids = (*row.context, *row.completion)
        texts: tuple[str, ...] = ()
        # The other form names each token by its id.
        if self.form == ECHO:
            texts = token_texts(self.tokenizer, ids)
        return Scoring(ids, len(row.context), self.form, texts)

    def _answers(self, questions: list[Scoring]) -> list[Reply]:
        """One reply per question. Raises CriticFailed on every rank, if one of them must stop."""
        answers: list[Reply] = []
        failures: list[str] = []
        try:
            answers = self.chat.answer(questions)
        except CriticFailed as failure:
            failures = [str(failure)]
        failures = gather_object(failures)
        if failures:
            raise CriticFailed(failures[0])
        return answers


def probe(endpoint: Endpoint, folder: Path | None, tokenizer: Any) -> str:
    """The form in which a server gives log-probs of a text with the policy's tokens.

    Args:
        endpoint: the server.
        folder: of its ledger; None: nothing is kept.
        tokenizer: the policy's.

    Raises:
        ValueError: it gives none, spells the tokens otherwise, or lacks its key.
    """
    ids = tokenizer.encode(PROBE)
    texts = token_texts(tokenizer, ids)
    if folder is not None:
        return find_form(endpoint, folder, ids, texts)[0]
    with TemporaryDirectory(prefix="critique_rl-") as temporary:
        return find_form(endpoint, Path(temporary), ids, texts)[0]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token alone."""
    decode: Callable[[list[int]], str] = tokenizer.decode
    return tuple(decode([number]) for number in ids)


def _count_row(reply: Reply) -> Counts:
    counts: Counts = Counter()
    if reply.cached:
        counts["distill/cached"] = 1
    else:
        counts[f"distill/{reply.status}"] = 1
    if reply.status != "ok":
        # Without the server's words: there must be few names of metrics.
        counts[f"distill/{reply.status}/{reason_name(reply.reason)}"] = 1
    if reply.model:
        counts["distill/other_model"] = 1
    return counts
