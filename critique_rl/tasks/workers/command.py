"""`verifier: {kind: command, argv: [...]}`: answers are judged by a program of the user's.

It may run in another environment, with another Python, or in another language. `program` has the
lines that it reads and prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.row import Row
from critique_rl.tasks.workers.pool import UNJUDGED
from critique_rl.tasks.workers.settings import SECTION, check_settings
from critique_rl.tasks.workers.verifier import GIGABYTE, WorkerVerifier, build_pool

JUDGE = "critique_rl.tasks.workers.program:program_judge"
TRIED = 3
"""Rows whose gold answers are judged before training."""
FORMS = ("...", "\\boxed{...}", "Answer: ...", "#...")
"""How a gold answer is written for it."""
EXAMPLE = "[.venv-judge/bin/python, judge.py]"


class CommandVerifier(WorkerVerifier):
    """Asks a program."""

    def check_gold_answers(self, rows: Sequence[Row]) -> str:
        """Have a few gold answers judged, so that a program that cannot is known before training.

        Args:
            rows: Training rows.

        Returns:
            A warning where none was right in any form; "" otherwise.

        Raises:
            ConfigError: None was judged, for a fault of the program or of its replies.
        """
        texts = []
        asked = []
        for row in rows[:TRIED]:
            for form in FORMS:
                texts.append(form.replace("...", str(row.get("answer") or "")))
                asked.append(row)
        verdicts = self.judge_all(texts, asked)
        if not verdicts or any(verdict.outcome == "right" for verdict in verdicts):
            return ""
        reasons = {verdict.reason for verdict in verdicts if verdict.reason}
        listed = ", ".join(sorted(reasons)[:TRIED])
        if all(verdict.reason in UNJUDGED for verdict in verdicts):
            raise ConfigError(
                f"{SECTION} command: the program judged none of {len(verdicts)} gold answers "
                f"({listed}); its own words are above. Give it one question on stdin by hand: it "
                "must print one line for it, and flush that line"
            )
        outcomes = ", ".join(sorted({verdict.outcome for verdict in verdicts}))
        return (
            f"{SECTION} command: the program called none of {len(verdicts)} gold answers right, "
            f"but {outcomes} ({listed or 'no reason'}); where the column `answer` is no answer in "
            "the form that it reads, this means nothing"
        )


def command_verifier(
    argv: Any = None,
    threshold: float = 0.5,
    deadline: float = 5.0,
    step_deadline: float | None = None,
    workers: int | None = None,
    memory_gb: float = 2.0,
) -> CommandVerifier:
    """The verifier of kind command. Options are told in `isolated_verifiers.KIND_OPTIONS`.

    Raises:
        ConfigError: For an argv that is no list of texts, and a number that is out of its range.
    """
    check_settings({"threshold": threshold})
    if not 0 < threshold <= 1:
        raise ConfigError(
            f"{SECTION}.threshold: got {threshold}, expected a number above 0 and at most 1, "
            "since rewards are from 0 to 1"
        )
    is_list = isinstance(argv, list | tuple) and len(argv) > 0
    if not is_list or not all(isinstance(word, str) and word for word in argv):
        raise ConfigError(
            f"{SECTION}.argv: got {argv!r}, expected a list of texts, the program first, "
            f"such as {EXAMPLE}; put a number in quotes"
        )
    memory = int(memory_gb * GIGABYTE)
    options = {"argv": list(argv), "threshold": threshold, "memory": memory}
    pool = build_pool(JUDGE, options, deadline, step_deadline, workers, memory_gb)
    return CommandVerifier(pool)
