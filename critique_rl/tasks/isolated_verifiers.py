"""Verifiers that run in killable processes, and the verifier that `task.verifier` names.

    math      LaTeX, expressions and numbers by the package math-verify (pip extra `math`)
    python    {kind: python, target: module:function}: the user's function
    or the name of a rule in `verifiers`

A python function takes (text, row) and returns True, False, a number, None or a Verdict; a reward
function of TRL will do too. All answers of a step share one deadline (`workers.pool`). An answer
that times out twice is wrong, so that hanging does not pay. One that was never judged, or was lost
twice with its process, is unscored: counted, never a 0. Equal answers to equal rows are judged
once per step, so that a group that hangs alike costs no more than one answer.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.tasks.answer_text import NO_GOLD, gold_answer
from critique_rl.tasks.answers.formulas import LONGEST, answer_part
from critique_rl.tasks.answers.letters import read_letter
from critique_rl.tasks.answers.marked import marked_part
from critique_rl.tasks.killable_process import NoAnswer
from critique_rl.tasks.row import Row
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.tasks.workers.pool import Pool
from critique_rl.tasks.workers.settings import TRIES, check_settings
from critique_rl.types import Verdict, Verifier

REMEMBERED = 4096
"""Verdicts on (gold, answer) that are kept."""
TIMEOUT = "timeout"
"""The reason of answers that took too long twice."""
LETTER = re.compile(r"[A-J]")
GIGABYTE = 1 << 30
OPTIONS = {
    "deadline": "Seconds per answer; then its process is killed. The answer is tried again, alone "
    "in a fresh process; if it takes too long again, it is wrong, with the reason `timeout`.",
    "step_deadline": "Seconds for all answers of a step: rollouts, refinements, and pieces of "
    "critiques. Each 256 answers of an evaluation have as many. What is not judged by then is "
    "unscored. At least two deadlines. null: 120, or 24 deadlines, or as many as all answers need "
    "if each takes too long twice (up to 1200), whichever is most.",
    "workers": "Processes that judge; null: two per core, at most 4, where the ranks of a machine "
    "share its cores.",
    "memory_gb": "Gigabytes that each process may hold; then it is killed.",
}
KIND_OPTIONS = {
    "math": OPTIONS,
    "python": {
        "target": "module:function or folder/file.py:function, in the folder that the command runs "
        "in or among installed packages.",
        "threshold": "The least number that is right.",
        **OPTIONS,
    },
}
"""Kinds that run in a process -> option -> its meaning."""


class WorkerVerifier:
    """A verifier that asks the function of a pool with {"text", "row"}."""

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
            key = _digest(text, row_text)
            if key in known:
                verdicts[place] = known[key]
                continue
            questions.setdefault(key, {"text": text, "row": plain_row})
            places.setdefault(key, []).append(place)
        asked = self.worker.ask_all(list(questions.values()), tries)
        for (key, equal), answer in zip(places.items(), asked, strict=True):
            verdict = _read_verdict(answer)
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


def _digest(first: str, second: str) -> bytes:
    """A short key of two texts."""
    # Half of a character, which a policy's text may hold, is no UTF-8.
    parts = [part.encode(errors="surrogatepass") for part in (first, second)]
    digest = blake2b(b"%d:" % len(parts[0]), digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _read_verdict(answer: Any) -> Verdict:
    """The verdict that a judge sent, or what follows from a call without an answer."""
    if isinstance(answer, NoAnswer):
        code = str(answer)
        return Verdict("wrong" if code == TIMEOUT else "unscored", reason=code)
    outcome, text, reason, *rest = answer
    confidence = rest[0] if rest else None
    return Verdict(outcome, text, reason, confidence=confidence)


class MathVerifier(WorkerVerifier):
    """row["answer"] against the last \\boxed{...} of a text, else what it declares or ends in.

    Numbers, words and lists are compared by `answers.formulas`, expressions by Math-Verify.
    """

    def __init__(
        self,
        deadline: float = 5.0,
        step_deadline: float | None = None,
        workers: int | None = None,
        memory_gb: float = 2.0,
    ):
        target = "critique_rl.tasks.isolated_child:math_judge"
        super().__init__(_pool(target, {}, deadline, step_deadline, workers, memory_gb))
        # The answers of a group repeat.
        self._verdicts = OrderedDict[bytes, Verdict]()

    def judge_all(
        self, texts: Sequence[str], rows: Sequence[Row], tries: int = TRIES
    ) -> list[Verdict]:
        """As `WorkerVerifier.judge_all`. The same answer to the same gold answer is judged once."""
        verdicts: dict[int, Verdict] = {}
        questions: dict[bytes, dict[str, str]] = {}
        places: dict[bytes, list[int]] = {}
        for place, (text, row) in enumerate(zip(texts, rows, strict=True)):
            gold = gold_answer(row)
            verdict = _judge_without_library(text, gold)
            if verdict is None:
                gold = marked_part(gold) or gold
                part = answer_part(text)
                key = _digest(gold, part)
                verdict = self._verdicts.get(key)
            if verdict is None:
                questions.setdefault(key, {"text": part, "gold": gold})
                places.setdefault(key, []).append(place)
            else:
                verdicts[place] = verdict
        asked = self.worker.ask_all(list(questions.values()), tries)
        for (key, equal), answer in zip(places.items(), asked, strict=True):
            verdict = _read_verdict(answer)
            verdicts |= dict.fromkeys(equal, verdict)
            self._remember(key, verdict, tries)
        return [verdicts[place] for place in range(len(texts))]

    def _remember(self, key: bytes, verdict: Verdict, tries: int) -> None:
        """Keep a verdict; not one that another try may change."""
        is_lost = verdict.outcome == "unscored" or (verdict.reason == TIMEOUT and tries == 1)
        if is_lost:
            return
        self._verdicts[key] = verdict
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)


def _judge_without_library(text: str, gold: str) -> Verdict | None:
    """The verdict on what needs no mathematics; None for all else."""
    if not gold.strip():
        return Verdict("unscored", reason=NO_GOLD)
    if len(text) > LONGEST_TEXT:
        return Verdict("unreadable", reason=TOO_LONG)
    if LETTER.fullmatch(gold.strip()) and read_letter(text) == gold.strip():
        return Verdict("right", gold.strip())
    part = answer_part(text)
    if not part.strip():
        return Verdict("unreadable", reason="no answer of a known form")
    # Neither sent nor kept: nothing would be compared.
    if max(len(part), len(marked_part(gold) or gold)) > LONGEST:
        return Verdict("unreadable", reason=f"a formula of over {LONGEST:,} characters")
    return None


def _pool(
    target: str,
    options: Mapping[str, Any],
    deadline: float,
    step_deadline: float | None,
    workers: int | None,
    memory_gb: float,
) -> Pool:
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


def build_verifier(spec: Any) -> Verifier:
    """Build a verifier and start its process.

    Args:
        spec: `task.verifier` of a pipeline: a name, or a mapping with a kind. In Python also a
            function at the top of a file, which then runs in processes of its own.

    Raises:
        ConfigError: For an unknown kind or option, and for a function that cannot be loaded.
    """
    if isinstance(spec, str):
        spec = {"kind": spec}
    if callable(spec):
        spec = {"kind": "python", "target": spec}
    known = (*KIND_OPTIONS, *VERIFIERS)
    if not isinstance(spec, Mapping):
        advice = suggest(repr(spec), known)
        raise ConfigError(f"task.verifier: unknown kind {spec!r}; {advice}")
    options = dict(spec)
    kind = options.pop("kind", None)
    if kind not in known:
        advice = suggest(str(kind), known)
        raise ConfigError(f"task.verifier: unknown kind {kind}; {advice}")
    known_options = KIND_OPTIONS.get(kind, ())
    check_keys(options, known_options, f"task.verifier {kind}")
    check_settings(options)
    if kind in VERIFIERS:
        return VERIFIERS[kind]
    build = MathVerifier if kind == "math" else user_verifier
    verifier = build(**options)
    try:
        verifier.worker.start()
    except ValueError as error:
        # A package that is missing is told in the words of the judge alone.
        _, _, missing = str(error).rpartition("ImportError: verifier ")
        message = f"verifier {missing}" if missing and kind == "math" else str(error)
        raise ConfigError(f"task.verifier: {message}") from error
    return verifier


def user_verifier(
    target: Any = None,
    threshold: float = 0.5,
    deadline: float = 5.0,
    step_deadline: float | None = None,
    workers: int | None = None,
    memory_gb: float = 2.0,
) -> WorkerVerifier:
    """The verifier of kind python.

    Args:
        target: "module:function" of the user's function, or in Python the function itself.
        threshold: The least number that is right.
        deadline: Seconds per answer.
        step_deadline: Seconds for all answers of a step; None: as in `workers.pool`.
        workers: Processes; None: `workers.pool.default_workers`.
        memory_gb: Gigabytes that each process may hold.

    Raises:
        ConfigError: For a target that is no text and no function that can be imported, and for a
            number that is out of its range.
    """
    check_settings({"threshold": threshold})
    if callable(target):
        target = _target_of(target)
    if not isinstance(target, str):
        raise ConfigError(
            f"task.verifier python: got target {target!r}, "
            "expected module:function, such as my_rewards:judge"
        )
    options = {"target": target, "threshold": threshold}
    judge = "critique_rl.tasks.isolated_child:user_judge"
    pool = _pool(judge, options, deadline, step_deadline, workers, memory_gb)
    return WorkerVerifier(pool)


def _target_of(function: Callable[..., Any]) -> str:
    """The name under which another process imports a function.

    Raises:
        ConfigError: For one that stands at the top of no file.
    """
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    if module is None or file is None or getattr(module, name, None) is not function:
        raise ConfigError(
            f"task.verifier python: got {function!r}, which another process cannot import; "
            "expected a function at the top of a file, or its name, such as my_rewards:judge"
        )
    if module.__name__ == "__main__":
        return f"{os.path.abspath(file)}:{name}"
    return f"{module.__name__}:{name}"
