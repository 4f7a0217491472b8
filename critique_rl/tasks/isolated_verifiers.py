"""Verifiers that run in a killable process: Math-Verify, and the user's own function. What
`task.verifier` of a pipeline may name.

    math      LaTeX, expressions and numbers by the package math-verify (pip extra `math`)
    python    {kind: python, target: module:function}: (text, row) -> True, False, a number, None or a Verdict; or a reward function of TRL
    or the name of a rule in `verifier`

What gives no answer within the deadline, crashes or eats the memory is unscored with that reason:
counted, never a 0. Left out: a pool. Verdicts take milliseconds, but each text that hangs costs its
deadline, and a second to start the next process.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.tasks.answer_text import BOXED, gold_answer, last_box
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.tasks.worker import Lost, Worker
from critique_rl.types import Verdict, Verifier

REMEMBERED = 4096
"""Verdicts on (gold, answer) that are kept."""
KIND_OPTIONS = {
    "math": {
        "deadline": "Seconds for one answer, then its process is killed and the answer goes unscored."
    },
    "python": {
        "target": "module:function, found in the folder that the command runs in or among installed packages.",
        "threshold": "Numbers from here on are right.",
        "deadline": "Seconds for one answer, then its process is killed and the answer goes unscored.",
    },
}
"""Options of kinds that run in a process of their own, and what they mean."""
TAIL = 4000
"""Characters at the end of a text without a box that are searched for its answer."""


class WorkerVerifier:
    """A verifier that asks `worker`; `outcomes` that it lost are unscored."""

    def __init__(self, worker: Worker):
        self.worker = worker

    def __call__(self, text: str, row: Mapping[str, Any]) -> Verdict:
        return self._ask({"text": text, "row": json.loads(json.dumps(dict(row), default=str))})

    def _ask(self, question: Mapping[str, Any]) -> Verdict:
        try:
            outcome, answer, reason, *confidence = self.worker.ask(question)
        except Lost as lost:
            return Verdict("unscored", reason=str(lost))
        return Verdict(outcome, answer, reason, confidence=confidence[0] if confidence else None)


class MathVerifier(WorkerVerifier):
    """row["answer"] against the last \\boxed{...} of a text, or what Math-Verify finds in its end.
    Remembers verdicts, since the answers of a group repeat.
    """

    def __init__(self, deadline: float = 5.0):
        super().__init__(Worker("critique_rl.tasks.isolated_child:mathematics", deadline=deadline))
        self._known: OrderedDict[tuple[str, str], Verdict] = OrderedDict()

    def __call__(self, text: str, row: Mapping[str, Any]) -> Verdict:
        gold, part = gold_answer(row), _answer_part(text)
        if not gold.strip():
            return Verdict("unscored", reason='no gold answer: row["answer"] is missing')
        if (gold, part) not in self._known:
            self._known[gold, part] = self._ask({"text": part, "gold": gold})
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end((gold, part))
        return self._known[gold, part]


def _answer_part(text: str) -> str:
    box = last_box(text)
    return text[-TAIL:] if box is None else f"{BOXED}{box}}}"


def build_verifier(spec: Any) -> Verifier:
    """A verifier from a pipeline's `task.verifier`, a name or a mapping with a kind; its process is
    started. ConfigError for what cannot be.
    """
    spec = {"kind": spec} if isinstance(spec, str) else spec
    kinds = {**KIND_OPTIONS, **dict.fromkeys(VERIFIERS, ())}
    if not isinstance(spec, Mapping) or spec.get("kind") not in kinds:
        kind = str(spec.get("kind")) if isinstance(spec, Mapping) else repr(spec)
        raise ConfigError(f"task.verifier: unknown kind {kind}; {suggest(kind, kinds)}")
    options = {key: value for key, value in spec.items() if key != "kind"}
    check_keys(options, kinds[spec["kind"]], f"task.verifier {spec['kind']}")
    for name in ("deadline", "threshold"):
        if not isinstance(options.get(name, 1), int | float) or (
            name == "deadline" and options.get(name, 1) <= 0
        ):
            raise ConfigError(
                f"task.verifier.{name}: got {options[name]!r}, expected "
                + ("seconds, above 0" if name == "deadline" else "a number")
            )
    if spec["kind"] in VERIFIERS:
        return VERIFIERS[spec["kind"]]
    verifier = MathVerifier(**options) if spec["kind"] == "math" else user_verifier(**options)
    try:
        verifier.worker.start()
    except ValueError as error:
        raise ConfigError(f"task.verifier: {error}") from error
    return verifier


def user_verifier(
    target: Any = None, threshold: float = 0.5, deadline: float = 5.0
) -> WorkerVerifier:
    if not isinstance(target, str):
        raise ConfigError(
            f"task.verifier python: got target {target!r}, expected module:function, such as my_rewards:judge"
        )
    return WorkerVerifier(
        Worker(
            "critique_rl.tasks.isolated_child:user_function",
            {"target": target, "threshold": threshold},
            deadline,
        )
    )
