"""A bound on metrics whose names come from users' functions: reasons of verdicts and critiques.

A function may give each answer a reason of its own. Trackers and pages take hundreds of metrics,
not a hundred thousand.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from critique_rl.tasks.judging import LOST_PREFIX, MOST_REASONS, OTHER
from critique_rl.tasks.workers.pool import UNJUDGED

REASON = re.compile(
    rf"({re.escape(LOST_PREFIX)}unscored/|outcome/unscored/|critique/failed/|critique/skipped/|"
    r"distill/failed/|distill/skipped/|critique/(?=[^/]+$))(.+)"
)
"""Names of counters that end in a reason or a note: (what stands before it, it)."""
ALWAYS = (
    *UNJUDGED,
    "no gold answer",
    "ok",
    "failed",
    "skipped",
    "cached",
    "leaked",
    "usd",
    "usage_estimated",
    "excess_tokens",
    "failed_refinements",
    "due",
    "asked",
    "leaks_unread",
    OTHER,
)
"""Ends of names that this package gives and others read: they are kept beside the bound."""


class MetricNames:
    """The names that a run has, the first `MOST_REASONS` of each kind; later ones are `OTHER`."""

    def __init__(self):
        self.kept: dict[str, list[str]] = {}
        """What stands before a reason -> the reasons that have metrics, as JSON."""

    def bounded(self, total: Counter[str]) -> Counter[str]:
        """Counters of one generation over all ranks, with few names.

        Args:
            total: its counters. Where several reasons are new, the commonest are kept.
        """
        result: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for name, count in total.items():
            match = REASON.fullmatch(name)
            if match is None or match[2] in ALWAYS:
                result[name] += count
            else:
                reasons[match[1]][match[2]] += count
        for prefix, counts in reasons.items():
            kept = self.kept.setdefault(prefix, [])
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                if reason not in kept and len(kept) < MOST_REASONS:
                    kept.append(reason)
                name = reason if reason in kept else OTHER
                result[prefix + name] += count
        return result
