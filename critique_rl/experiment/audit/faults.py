"""What is missing or unfair in a comparison, as far as its logs show it.

Each check says `found`, with the rows that show it; `clear`; or `unknown`, where the logs do not
hold what it reads. A fault is never a proof that a result is wrong.
"""

from __future__ import annotations

from critique_rl.experiment.audit import alike, answer_checks
from critique_rl.experiment.audit.findings import Audited, Finding

CHECKS = (
    alike.seeds,
    alike.problems,
    alike.prompts,
    alike.samples,
    alike.budgets,
    alike.settings,
    alike.anchors,
    alike.tried,
    alike.controls,
    answer_checks.judged,
    answer_checks.dead_groups,
    answer_checks.truncation,
    answer_checks.duplicates,
    answer_checks.leaks,
    answer_checks.overlap,
    answer_checks.checkpoints,
)
"""In the order of the page."""


def find_faults(audited: Audited) -> list[Finding]:
    """Make all checks."""
    return [check(audited) for check in CHECKS]
