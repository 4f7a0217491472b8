"""What a methods paragraph says beyond the comparison. `run_setup` reads it from run folders; logs
of other programs may fill as much of it as they hold.

Every field may be empty, which means: not recorded. Then the paragraph leaves the matter out, or
says that it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Setting = tuple[str, str]
"""(key, value in words)."""


@dataclass(frozen=True, kw_only=True)
class ArmSetup:
    """The published method that an arm trains with."""

    preset: str
    """Its name; "" for an arm without a preset."""
    source: str = ""
    """Paper and equation."""
    differences: str = ""
    """Where the preset differs from its source, as the preset states."""
    deviates: tuple[str, ...] = ()
    """Settings of the run that beat the preset's, each with both values."""
    changed_since: bool = False
    """Whether the preset had other options when the arm was trained."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSetup:
    """How finished policies were judged."""

    split: str = ""
    families: Mapping[str, int] = field(default_factory=dict)
    """Family -> held-out problems."""
    settings: tuple[Setting, ...] = ()
    """Samples per problem and decoding."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the arms of a comparison were trained and judged."""

    task: str = ""
    policy: str = ""
    """The model that training starts from."""
    shared: tuple[Setting, ...] = ()
    """Settings of training that all arms have."""
    differing: tuple[str, ...] = ()
    """Settings that differ between arms, each with its values."""
    uneven: tuple[str, ...] = ()
    """A sentence per arm whose seeds were not trained alike."""
    arms: Mapping[str, ArmSetup] = field(default_factory=dict)
    budget: str = ""
    """When a run ends, as a sentence."""
    evaluation: EvaluationSetup = EvaluationSetup()
    judged: str = ""
    """The answers that policies are judged by, as a sentence, where `evaluation` has none."""
    tuning: str = ""
    """What was tried before, as a sentence, where the comparison has no sweep."""
    curves: str = ""
    """What the learning curves were measured on, as a sentence."""
    intervals: str = ""
    """How intervals were made, as sentences. "": as this package makes those of the metric."""
    versions: tuple[str, ...] = ()
    """Package versions: one entry where all runs agree, else one per value with its runs."""
    machines: tuple[str, ...] = ()
    """Like `versions`."""
    notes: tuple[str, ...] = ()
    """Further sentences, which end the paragraph."""
