"""Judging a batch: one deadline for all answers of a step, and the shares of those it lost.

Training, evaluation and `judge` call the same functions, so that an answer has one verdict.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from critique_rl.metrics import ALARMING_LOSS
from critique_rl.tasks.row import Row
from critique_rl.tasks.workers.verifier import TIMEOUT, WorkerVerifier
from critique_rl.types import Verdict, Verifier

PORTION = 256
"""Answers of an evaluation that share one deadline."""
LOST_PREFIX = "verification/"
"""Of the counters of `count_lost` among those of a training step, and of their alarms."""
NOT_ASKED = ("", "no success_reward")
"""Reasons of unscored answers that nobody wanted to be judged."""
MOST_REASONS = 30
"""Reasons that are counted under names of their own; a user's function may give any number."""
LONGEST_NAME = 40
"""Characters of a reason's name."""
LONGEST_READ = 1000
"""Characters of a reason in which its name is looked for."""
OTHER = "other"
"""The name of all further reasons."""
UNSAFE = re.compile(r"[^\w .-]+")
"""What trackers refuse in the name of a metric, or read as the end of a part of it."""


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


# ---- reasons ----


def reason_name(reason: str) -> str:
    """A reason as the name of a counter or metric: what stands before its colon, made safe.

    The words after the colon are about one row. A text of any length and with any characters, which
    a user's function may give, becomes letters, digits, spaces, "_", "." and "-".
    """
    words, _, _ = reason[:LONGEST_READ].partition(":")
    safe = UNSAFE.sub("_", " ".join(words.split()))
    # A name of points alone would be a folder for trackers that write files.
    return safe[:LONGEST_NAME].strip(" ._-") or OTHER


def group_rare(counts: Mapping[str, int], most: int = MOST_REASONS) -> dict[str, int]:
    """The commonest names with their counts, and `OTHER` for the sum of the rest."""
    kept = Counter[str]()
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        is_common = len(kept) < most
        group = name if is_common else OTHER
        kept[group] += count
    return dict(kept)


def unscored_reasons(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Why answers could not be judged -> how many; at most `MOST_REASONS` reasons and `OTHER`."""
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.outcome == "unscored":
            counts[reason_name(verdict.reason)] += 1
    return group_rare(counts)


# ---- shares --------------------------------------------------------------------------------------


def count_lost(verdicts: Iterable[Verdict]) -> Counter[str]:
    """Counters of answers: `judged` (all), `timeout`, and `unscored/<code>` for other losses."""
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        counts["judged"] += 1
        if verdict.outcome == "wrong" and verdict.reason == TIMEOUT:
            counts["timeout"] += 1
        elif verdict.outcome == "unscored" and verdict.reason not in NOT_ASKED:
            counts[f"unscored/{reason_name(verdict.reason)}"] += 1
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
        common = unscored.most_common(3)
        reasons = ", ".join(f"{code} ({count})" for code, count in common)
        sentences["unscored"] = (
            f"{total} of {judged} answers could not be judged and count neither as right nor as "
            f"wrong: {reasons}; look at these answers, and at the verifier's step_deadline, "
            "workers and memory_gb"
        )
    return sentences
