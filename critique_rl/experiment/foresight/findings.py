"""Findings about a pipeline before it trains: what refuses a run, and what it is warned of.

Refused is what leaves no result to compare: no answer or no refinement could be sampled, or no
critic be asked. Warned of is what may be meant, or what the data alone cannot decide: a policy may
answer in fewer tokens than the worked solution, a filter of likely tokens may be part of a
published recipe, and TRL may be the one to end a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from critique_rl.config.checks import ConfigError


@dataclass(frozen=True)
class Finding:
    """One thing to mend before training."""

    what: str
    """The thing that was checked, such as "context"."""
    is_refused: bool
    """A run would give no result."""
    words: str
    """What was found, with its numbers."""
    advice: str
    """What to change."""


ArmsByFinding = Mapping[Finding, tuple[str, ...]]
"""Finding -> the arms that it is about."""


def sentence(finding: Finding, arms: tuple[str, ...]) -> str:
    """The finding as one line of text."""
    noun = "arms" if len(arms) > 1 else "arm"
    return f"{noun} {', '.join(arms)}, {finding.what}: {finding.words}; {finding.advice}"


def refuse_or_warn(findings: ArmsByFinding) -> list[str]:
    """The warnings, a line each.

    Raises:
        ConfigError: the findings that refuse a run, a line each.
    """
    refusals = [sentence(finding, arms) for finding, arms in findings.items() if finding.is_refused]
    if refusals:
        raise ConfigError("\n".join(refusals))
    return [f"WARNING: {sentence(finding, arms)}" for finding, arms in findings.items()]
