"""Verifiers that run in killable processes, and the verifier that `task.verifier` names.

    math      LaTeX, expressions and numbers by the package math-verify (pip extra `math`)
    python    {kind: python, target: module:function}: the user's function
    command   {kind: command, argv: [...]}: a program of the user's (`workers.command`)
    tests     {kind: tests}: programs, by the tests of their row (`code.verifier`)
    or the name of a rule in `verifiers`

A python function takes (text, row) and returns True, False, a number, None or a Verdict; a reward
function of TRL will do too. All answers of a step share one deadline (`workers.pool`). An answer
that times out twice is wrong, so that hanging does not pay. One that was never judged, or was lost
twice with its process, is unscored: counted, never a 0. Equal answers to equal rows are judged
once per step, so that a group that hangs alike costs no more than one answer.
"""

from __future__ import annotations

import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.tasks.answer_text import NO_GOLD, gold_answer
from critique_rl.tasks.answers.formulas import LONGEST, answer_part
from critique_rl.tasks.answers.letters import read_letter
from critique_rl.tasks.answers.marked import marked_part
from critique_rl.tasks.code.verifier import build_tests_verifier
from critique_rl.tasks.row import Row
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.tasks.workers.command import command_verifier
from critique_rl.tasks.workers.settings import TRIES, check_settings
from critique_rl.tasks.workers.verifier import (
    TIMEOUT,
    WorkerVerifier,
    build_pool,
    digest,
    read_verdict,
)
from critique_rl.types import Verdict, Verifier

REMEMBERED = 4096
"""Verdicts on (gold, answer) that are kept."""
LETTER = re.compile(r"[A-J]")
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
    "command": {
        "argv": "The program and its arguments, as a list. Relative paths begin at the folder that "
        "the command runs in; a name without a slash is looked for in PATH.",
        "threshold": "The least reward, from 0 to 1, that is right.",
        **OPTIONS,
        "workers": "Copies of the program that judge side by side; null: two per core, at most 4, "
        "where the ranks of a machine share its cores.",
        "memory_gb": "Gigabytes that the program may hold; then it is killed.",
    },
    "tests": {
        "tests": "Column of the tests that the reward asks: a list of assertions, a function "
        "`check(candidate)` or functions `test_...`, or inputs and outputs of a script.",
        "public_tests": "Column of tests, in the same forms, whose values verdicts and "
        "critics may show. Without one they may show those of `tests`.",
        "entry_point": "Column of the tested function's name; left out: what tests call most.",
        "starter_code": "Column of code that stands before an answer: imports, or the beginning of "
        "a function that the answer goes on with.",
        "test_setup": "Column of code that runs before each test.",
        "cpu": "Seconds of a processor that a program may use for its public tests, and again for "
        "its hidden ones.",
        "program_memory_gb": "Gigabytes of address space of a program.",
        "unsafe_local": "true: run programs without a sandbox, with your rights. Only for programs "
        "that you have read.",
        "runner": "module:Class with a method run(script, stdin, seconds) that returns what the "
        "script printed: a sandbox of yours, in place of the one here.",
        **OPTIONS,
        "deadline": "Seconds on the clock that a program may take for its public tests, and again "
        "for its hidden ones; step_deadline is at least 4 of them and 20 seconds. Then it is "
        "killed and tried again; if it takes too long again, it is wrong, with the reason "
        "`timeout`.",
    },
}
"""Kinds that run in a process -> option -> its meaning."""


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
        super().__init__(build_pool(target, {}, deadline, step_deadline, workers, memory_gb))
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
                key = digest(gold, part)
                verdict = self._verdicts.get(key)
            if verdict is None:
                questions.setdefault(key, {"text": part, "gold": gold})
                places.setdefault(key, []).append(place)
            else:
                verdicts[place] = verdict
        asked = self.worker.ask_all(list(questions.values()), tries)
        for (key, equal), answer in zip(places.items(), asked, strict=True):
            verdict = read_verdict(answer)
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
    verifier: WorkerVerifier
    if kind == "math":
        verifier = MathVerifier(**options)
    elif kind == "tests":
        verifier = build_tests_verifier(**options)
    elif kind == "command":
        verifier = command_verifier(**options)
    else:
        verifier = user_verifier(**options)
    try:
        verifier.worker.start()
    except ValueError as error:
        raise ConfigError(f"task.verifier: {_start_fault(kind, str(error))}") from error
    return verifier


def _start_fault(kind: str, message: str) -> str:
    """Why a worker did not start, without the names of our modules where they say nothing."""
    if kind == "math":
        # A package that is missing is told in the words of the judge alone.
        _, _, missing = message.rpartition("ImportError: verifier ")
        return f"verifier {missing}" if missing else message
    if kind == "command":
        _, _, words = message.partition("CommandFailed: ")
        return f"command: {words}" if words else message
    return message


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
    pool = build_pool(judge, options, deadline, step_deadline, workers, memory_gb)
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
