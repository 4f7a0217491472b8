"""A verifier whose answers are judged by a function in killable processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.tasks.killable_process import NoAnswer
from critique_rl.tasks.row import Row
from critique_rl.tasks.workers.pool import UNJUDGED, Pool
from critique_rl.tasks.workers.settings import TRIES, check_settings
from critique_rl.types import Verdict

TIMEOUT = "timeout"
"""The reason of answers that took too long twice."""
GIGABYTE = 1 << 30


class WorkerVerifier:
    """A verifier that asks the function of a pool with {"text", "row"}."""

    explains = False
    """Whether its wrong verdicts are known to have reasons. A user's function is asked."""

    def __init__(self, worker: Pool):
        self.worker = worker

    def __call__(self, text: str, row: Row) -> Verdict:
        [verdict] = self.judge_all([text], [row])
        return verdict

    def judge_all(
        self, texts: Sequence[str], rows: Sequence[Row], tries: int = TRIES
    ) -> list[Verdict]:
        """Judge answers within one deadline. Equal answers to equal rows are judged once per step.

        Args:
            texts: Answers.
            rows: The row of each.
            tries: How often an answer that is lost is tried.

        Returns:
            A verdict for each, in order.
        """
        verdicts: dict[int, Verdict] = {}
        # Several reward functions ask for the verdicts on the same answers.
        known = self.worker.step_memory
        questions: dict[bytes, Mapping[str, Any]] = {}
        places: dict[bytes, list[int]] = {}
        for place, (text, row) in enumerate(zip(texts, rows, strict=True)):
            if len(text) > LONGEST_TEXT:
                verdicts[place] = Verdict("unreadable", reason=TOO_LONG)
                continue
            try:
                plain_row, row_text = _plain_row(row)
            except (TypeError, ValueError, RecursionError) as error:
                name = type(error).__name__
                verdicts[place] = Verdict("unscored", reason=f"row: it is no JSON ({name})")
                continue
            key = digest(text, row_text)
            if key in known:
                verdicts[place] = known[key]
                continue
            questions.setdefault(key, {"text": text, "row": plain_row})
            places.setdefault(key, []).append(place)
        asked = self.worker.ask_all(list(questions.values()), tries)
        for (key, equal), answer in zip(places.items(), asked, strict=True):
            verdict = read_verdict(answer)
            verdicts |= dict.fromkeys(equal, verdict)
            # Not one that a second try may change.
            if tries > 1:
                known[key] = verdict
        return [verdicts[place] for place in range(len(texts))]

    def try_once(self, text: str, row: Row) -> Verdict:
        """Judge without a second try: for a piece of a critique, whose verdict is no reward."""
        [verdict] = self.judge_all([text], [row], tries=1)
        return verdict


def _plain_row(row: Row) -> tuple[Any, str]:
    """A row as JSON can hold it, and that JSON.

    Raises:
        TypeError: A key that JSON cannot hold.
        ValueError: It holds itself.
        RecursionError: It is too deep.
    """
    plain = dict(row)
    try:
        # A copy would double the memory of a batch of long rows.
        return plain, json.dumps(plain)
    except TypeError:
        # Through JSON with str as a way out: rows may hold dates, paths and the like.
        text = json.dumps(plain, default=str)
        return json.loads(text), text


def digest(first: str, second: str) -> bytes:
    """A short key of two texts."""
    # Half of a character, which a policy's text may hold, is no UTF-8.
    parts = [part.encode(errors="surrogatepass") for part in (first, second)]
    digest = blake2b(b"%d:" % len(parts[0]), digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def read_verdict(answer: Any) -> Verdict:
    """The verdict that a judge sent, or what follows from a call without an answer."""
    if isinstance(answer, NoAnswer):
        code = str(answer)
        return Verdict("wrong" if code == TIMEOUT else "unscored", reason=code)
    outcome, text, reason, *rest = answer
    if reason in UNJUDGED:
        # A word of the user's, such as "crash", that would pass for a code of ours.
        reason = f"verifier: {reason}"
    confidence = rest[0] if rest else None
    details = rest[1] if len(rest) > 1 else {}
    return Verdict(outcome, text, reason, confidence=confidence, details=details)


def build_pool(
    target: str,
    options: Mapping[str, Any],
    deadline: float,
    step_deadline: float | None,
    workers: int | None,
    memory_gb: float,
) -> Pool:
    """A pool with checked settings, of which those of `isolated_verifiers.OPTIONS` are told there.

    Args:
        target: "module:function" that builds the judge.
        options: Its arguments.
        deadline: Seconds per answer.
        step_deadline: Seconds for all answers of a step; None: as in `workers.pool`.
        workers: Processes; None: `workers.pool.default_workers`.
        memory_gb: Gigabytes that each process may hold.

    Raises:
        ConfigError: For a number that is out of its range.
    """
    # Here and not in `build_verifier` alone, which Python can go round.
    check_settings(
        {
            "deadline": deadline,
            "step_deadline": step_deadline,
            "workers": workers,
            "memory_gb": memory_gb,
        }
    )
    memory = int(memory_gb * GIGABYTE)
    return Pool(target, options, deadline, step_deadline, workers, memory)
