"""Answer forms with their outcomes, judged by the verifier that `init` chooses for their kind."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from critique_rl.cli.judge import judge_rows
from critique_rl.tasks.answers.choose import choose_verifier
from critique_rl.types import Verdict

FORMS = Path(__file__).parent / "tasks" / "forms"


@dataclass(frozen=True)
class Judged:
    """One form and its verdict."""

    verifier: str
    row: dict
    verdict: Verdict

    @property
    def is_wrong_called_right(self) -> bool:
        return not self.row["right"] and self.verdict.outcome not in ("wrong", "unreadable")

    @property
    def is_right_called_wrong(self) -> bool:
        return self.row["right"] and self.verdict.outcome not in ("right", "unreadable")

    @property
    def is_right_unread(self) -> bool:
        return self.row["right"] and self.verdict.outcome == "unreadable"


def read_forms(name: str) -> dict[str, list[dict]]:
    """Kind -> rows (completion, answer, right, perhaps verifier) of one of the files."""
    kinds = defaultdict(list)
    for line in (FORMS / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kinds[row["kind"]].append(row)
    return dict(kinds)


def judge_forms(name: str) -> list[Judged]:
    """All forms of a file; the gold answers of a kind choose its verifier, as a data set's do.

    Rows that name a verifier are judged by it.
    """
    judged = []
    for rows in read_forms(name).values():
        verifier = rows[0].get("verifier") or choose_verifier([row["answer"] for row in rows])
        verdicts = judge_rows(rows, verifier)
        judged += [Judged(verifier, *pair) for pair in zip(rows, verdicts, strict=True)]
    return judged
