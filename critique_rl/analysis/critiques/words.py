"""What the counts of critiques mean for a verdict, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from critique_rl.analysis.comparison import CritiqueCounts

SOME_MISSING = 0.1
"""Above this share of missing critiques the verdict names the arm."""
MOST_MISSING = 0.9
"""Above this share the arm is no critique arm: what it shows is not about critiques."""
MOST_REASONS = 3
"""Reasons of a sentence; a table has all of them."""
NOT_RECORDED = "not recorded"
"""Stands for the counts of runs that logged none."""


def is_missing_some(counts: CritiqueCounts | None) -> bool:
    """Whether the verdict has to name the arm."""
    return counts is not None and counts.missing > SOME_MISSING * counts.asked


def is_no_critique_arm(counts: CritiqueCounts | None) -> bool:
    """Whether nearly no critique that the arm asked for arrived."""
    return counts is not None and counts.missing > MOST_MISSING * counts.asked


def no_critique_arms(arms: Mapping[str, CritiqueCounts | None]) -> list[str]:
    """The arms of which nearly no critique arrived, in order."""
    return [arm for arm, counts in arms.items() if is_no_critique_arm(counts)]


def missing_clauses(arms: Mapping[str, CritiqueCounts | None]) -> list[str]:
    """A clause of the verdict per arm whose critiques are missing above `SOME_MISSING`.

    Returns:
        For example "critique is not a critique arm: 118 of the 120 critiques that it asked for did
        not arrive (98%; skipped: circuit open 102, failed: connection 16)".
    """
    clauses = []
    for arm, counts in arms.items():
        if counts is None or not is_missing_some(counts):
            continue
        kind = arm
        if is_no_critique_arm(counts):
            kind = f"{arm} is not a critique arm"
        share = _percent(counts.missing, counts.asked)
        reasons = [item for item in counts.reasons.items() if not item[0].startswith("written")]
        words = describe_reasons(reasons[:MOST_REASONS])
        if len(reasons) > MOST_REASONS:
            words += ", and others"
        detail = f"{share}; {words}" if words else share
        clauses.append(
            f"{kind}: {counts.missing} of the {counts.asked} critiques that it asked for did not "
            f"arrive ({detail})"
        )
    return clauses


def _percent(part: int, total: int) -> str:
    """A share in percent that is 100% only where it is all."""
    percent = 100 * part / total
    if part < total and percent > 99:
        if percent < 99.99:
            return f"{percent:.2f}%"
        return "over 99.99%"
    return f"{percent:.0f}%"


def describe_reasons(reasons: Iterable[tuple[str, int]]) -> str:
    """ "failed: timeout 3, skipped: prompt too long 2"."""
    return ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in reasons)


def describe(counts: CritiqueCounts | None) -> str:
    """The counts in words, for a model card."""
    if counts is None:
        return NOT_RECORDED
    if not counts.asked:
        return "none asked for"
    words = (
        f"{counts.asked} asked for, {counts.written} written, {counts.failed} failed, "
        f"{counts.skipped} skipped"
    )
    reasons = describe_reasons(counts.reasons.items())
    if reasons:
        words += f" ({reasons})"
    if is_no_critique_arm(counts):
        words += ": not a critique arm"
    return words
