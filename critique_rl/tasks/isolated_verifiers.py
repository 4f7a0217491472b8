"""Verifiers that run in a killable process, and the verifier that `task.verifier` names.

    math      LaTeX, expressions and numbers by the package math-verify (pip extra `math`)
    python    {kind: python, target: module:function}: the user's function
    or the name of a rule in `verifiers`

A python function takes (text, row) and returns True, False, a number, None or a Verdict; a reward
function of TRL will do too. An answer that crashes its process, eats its memory or takes longer
than the deadline is unscored with that reason: counted, never a 0.

Left out: a pool. Verdicts take milliseconds; only a text that hangs costs its deadline, and a
second to start the next process.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.tasks.answer_text import gold_answer
from critique_rl.tasks.answers.formulas import answer_part
from critique_rl.tasks.answers.letters import read_letter
from critique_rl.tasks.answers.marked import marked_part
from critique_rl.tasks.killable_process import NoAnswer, Worker
from critique_rl.tasks.row import Row
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.types import Verdict, Verifier

REMEMBERED = 4096
"""Verdicts on (gold, answer) that are kept."""
LETTER = re.compile(r"[A-J]")
_DEADLINE = "Seconds per answer; then its process is killed and the answer goes unscored."
KIND_OPTIONS = {
    "math": {"deadline": _DEADLINE},
    "python": {
        "target": "module:function, in the folder that the command runs in or among installed "
        "packages.",
        "threshold": "The least number that is right.",
        "deadline": _DEADLINE,
    },
}
"""Kinds that run in a process -> option -> its meaning."""


class WorkerVerifier:
    """A verifier that asks a worker's function with {"text", "row"}.

    An answer that the worker lost is unscored, with the code of `killable_process.NoAnswer` as
    reason.
    """

    def __init__(self, worker: Worker):
        self.worker = worker

    def __call__(self, text: str, row: Row) -> Verdict:
        # Through JSON with str as a way out: rows may hold dates, paths and the like.
        text_row = json.dumps(dict(row), default=str)
        plain_row = json.loads(text_row)
        return self._ask({"text": text, "row": plain_row})

    def _ask(self, question: Mapping[str, Any]) -> Verdict:
        try:
            fields = self.worker.ask(question)
        except NoAnswer as failure:
            return Verdict("unscored", reason=str(failure))
        outcome, answer, reason, *rest = fields
        confidence = rest[0] if rest else None
        return Verdict(outcome, answer, reason, confidence=confidence)


class MathVerifier(WorkerVerifier):
    """row["answer"] against the last \\boxed{...} of a text, else what it declares or ends in.

    Numbers, words and lists are compared by `answers.formulas`, expressions by Math-Verify.
    """

    def __init__(self, deadline: float = 5.0):
        super().__init__(Worker("critique_rl.tasks.isolated_child:math_judge", deadline=deadline))
        # The answers of a group repeat.
        self._verdicts = OrderedDict[tuple[str, str], Verdict]()

    def __call__(self, text: str, row: Row) -> Verdict:
        gold = gold_answer(row)
        if not gold.strip():
            return Verdict("unscored", reason='no gold answer: row["answer"] is missing')
        if LETTER.fullmatch(gold.strip()) and read_letter(text) == gold.strip():
            return Verdict("right", gold.strip())
        part = answer_part(text)
        if not part.strip():
            return Verdict("unreadable", reason="no answer of a known form")
        marked_gold = marked_part(gold)
        if marked_gold:
            gold = marked_gold
        key = (gold, part)
        if key not in self._verdicts:
            self._verdicts[key] = self._ask({"text": part, "gold": gold})
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(key)
        return self._verdicts[key]


def build_verifier(spec: Any) -> Verifier:
    """Build a verifier and start its process.

    Args:
        spec: `task.verifier` of a pipeline: a name, or a mapping with a kind.

    Raises:
        ConfigError: For an unknown kind or option, and for a function that cannot be loaded.
    """
    if isinstance(spec, str):
        spec = {"kind": spec}
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
    _check_numbers(options)
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


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for a deadline that is no time, or a threshold that is no number."""
    deadline = options.get("deadline", 1)
    if not isinstance(deadline, int | float) or deadline <= 0:
        raise ConfigError(f"task.verifier.deadline: got {deadline!r}, expected seconds, above 0")
    threshold = options.get("threshold", 1)
    if not isinstance(threshold, int | float):
        raise ConfigError(f"task.verifier.threshold: got {threshold!r}, expected a number")


def user_verifier(
    target: Any = None, threshold: float = 0.5, deadline: float = 5.0
) -> WorkerVerifier:
    """The verifier of kind python.

    Args:
        target: "module:function" of the user's function.
        threshold: The least number that is right.
        deadline: Seconds per answer.

    Raises:
        ConfigError: For a target that is no text.
    """
    if not isinstance(target, str):
        raise ConfigError(
            f"task.verifier python: got target {target!r}, "
            "expected module:function, such as my_rewards:judge"
        )
    options = {"target": target, "threshold": threshold}
    return WorkerVerifier(Worker("critique_rl.tasks.isolated_child:user_judge", options, deadline))
