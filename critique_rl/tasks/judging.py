"""Judging a batch: one deadline for all answers of a step, and the shares of those it lost.

Training, evaluation and `judge` call the same functions, so that an answer has one verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from critique_rl.metrics import ALARMING_LOSS
from critique_rl.tasks.isolated_verifiers import TIMEOUT, WorkerVerifier
from critique_rl.tasks.row import Row
from critique_rl.types import Verdict, Verifier

PORTION = 256
"""Answers of an evaluation that share one deadline."""
LOST_PREFIX = "verification/"
"""Of the counters of `count_lost` among those of a training step, and of their alarms."""
NOT_ASKED = ("", "no success_reward")
"""Reasons of unscored answers that nobody wanted to be judged."""


def judge_answers(verifier: Verifier, texts: Sequence[str], rows: Sequence[Row]) -> list[Verdict]:
    """Judge the answers of a step; in processes, where the verifier has some.

    Args:
        verifier: Judges.
        texts: Answers.
        rows: The row of each.

    Returns:
        A verdict for each, in order.
    """
    if isinstance(verifier, WorkerVerifier):
        return verifier.judge_all(texts, rows)
    return [verifier(text, row) for text, row in zip(texts, rows, strict=True)]


def judge_in_portions(
    verifier: Verifier, texts: Sequence[str], rows: Sequence[Row]
) -> list[Verdict]:
    """`judge_answers` for an evaluation, which may have any size: each portion has a deadline."""
    verdicts: list[Verdict] = []
    for start in range(0, len(texts), PORTION):
        end = start + PORTION
        verdicts += judge_answers(verifier, texts[start:end], rows[start:end])
    return verdicts


@contextmanager
def one_deadline(functions: Iterable[Any]) -> Iterator[None]:
    """Within the block all that the verifiers of reward functions judge shares one deadline."""
    with ExitStack() as steps:
        for function in functions:
            verifier = getattr(function, "verifier", None)
            if isinstance(verifier, WorkerVerifier):
                steps.enter_context(verifier.worker.step())
        yield


# ---- shares --------------------------------------------------------------------------------------


def count_lost(verdicts: Iterable[Verdict]) -> Counter[str]:
    """Counters of answers: `judged` (all), `timeout`, and `unscored/<code>` for other losses."""
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        counts["judged"] += 1
        # The code before the colon; the words after it are about one row.
        code = verdict.reason.partition(":")[0]
        if verdict.outcome == "wrong" and code == TIMEOUT:
            counts["timeout"] += 1
        elif verdict.outcome == "unscored" and code not in NOT_ASKED:
            counts[f"unscored/{code}"] += 1
    return counts


def lost_sentences(counts: Mapping[str, int]) -> dict[str, str]:
    """What to tell of counters of `count_lost`.

    Returns:
        "timeout" and "unscored" -> a sentence, each only where its share is over `ALARMING_LOSS`.
    """
    judged = counts.get("judged", 0)
    if not judged:
        return {}
    timeouts = counts.get("timeout", 0)
    unscored = Counter[str]()
    for name, count in counts.items():
        if name.startswith("unscored/") and count:
            unscored[name.removeprefix("unscored/")] = count
    sentences = {}
    if timeouts > ALARMING_LOSS * judged:
        sentences["timeout"] = (
            f"{timeouts} of {judged} answers took the verifier longer than its deadline twice and "
            "count as wrong: look at these answers, or raise the verifier's deadline"
        )
    total = unscored.total()
    if total > ALARMING_LOSS * judged:
        reasons = ", ".join(f"{code} ({count})" for code, count in unscored.most_common(3))
        sentences["unscored"] = (
            f"{total} of {judged} answers could not be judged and count neither as right nor as "
            f"wrong: {reasons}; look at these answers, and at the verifier's step_deadline, "
            "workers and memory_gb"
        )
    return sentences
