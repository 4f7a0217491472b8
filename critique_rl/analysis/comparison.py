"""What compare.json holds, as frozen dataclasses: a field per key, in the file's order.

Other programs read this file, so keys are added and never renamed. Keys that other programs added
are kept in `extra` (`records`). Fields with a default were added after the first files, or belong
to a part that a pipeline may lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from critique_rl.analysis.records import OPTIONAL, by_name, each, known_fields, read_record, to_json

Ends = tuple[float, float]
"""The lower and the upper end of a 95% interval."""
Extra = Mapping[str, Any]
"""Keys of the file that have no field: other programs added them."""
PerSeed = Mapping[str, float]
"""Seed, as JSON spells it -> value."""
MetricValues = Mapping[str, float | None]
"""Metric -> value; None where the evaluation has no finite one."""


@dataclass(frozen=True)
class Cost:
    """The cost of one run; in a comparison, the mean over an arm's runs."""

    generated_tokens: float = 0.0
    """Tokens sampled from the policy for training."""
    total_tokens: float = 0.0
    """Tokens of all owners."""
    flops: float = 0.0
    critic_tokens: float = 0.0
    """Prompt and completion tokens of critics."""
    usd: float = 0.0
    wall_seconds: float = 0.0
    steps: float = 0.0
    """Optimizer steps."""
    extra: Extra = field(default_factory=dict)


COSTS = tuple(known_fields(Cost))
"""The keys of a cost that the package knows."""


@dataclass(frozen=True, kw_only=True)
class SeedKinds:
    """The seeds of an arm on one metric: `intervals.seeds.SeedSplit`, as the file has it."""

    median: float
    """Over seeds."""
    took_off: int
    """Seeds that ended well over the policy before training."""
    collapsed: int
    """Seeds that ended well under it."""
    took_off95: Ends
    """95% interval of the chance that a seed takes off, exact."""
    among: float | None = None
    """Mean of the seeds that took off; None where none did."""
    among95: Ends | None = None
    """None where fewer than two did."""
    collapsed95: Ends | None = field(default=None, metadata=OPTIONAL)
    """95% interval of the chance that a seed collapses, exact; None in files of before."""
    kept: float | None = field(default=None, metadata=OPTIONAL)
    """Mean of the seeds that did not collapse, where others did."""
    kept95: Ends | None = field(default=None, metadata=OPTIONAL)
    """None where fewer than two did not."""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one arm over its problems and seeds."""

    mean: float
    ci95: Ends | None
    """None where one seed and one problem say nothing of the spread."""
    per_seed: PerSeed
    """Means over problems."""
    problems: int | None = None
    """Problems that every seed has a value for."""
    kinds: SeedKinds | None = field(default=None, metadata=OPTIONAL)
    """None, and no key in the file, with one seed or without an evaluated base."""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers with a confidence in (low, high]: `metrics.Bin`, as the file has it."""

    low: float
    high: float
    mean: float | None
    """Mean confidence."""
    right: float | None
    """Share of right answers, 0 to 1."""
    count: int
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class Reliability:
    """How sure a policy is, and how often it is right then."""

    confidence: str
    """The quantity that stands for the policy's confidence, in words."""
    ece: float | None
    """Expected calibration error, 0 to 1."""
    bins: tuple[ReliabilityBin, ...]
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class SpentToTarget:
    """An arm's spending until its validation curve first reached the target."""

    per_seed: Mapping[str, float | None]
    """Seed -> spending in units of the comparison's `measure`; None where it never got there."""
    reached: int
    """Seeds that got there."""
    mean: float | None
    """Geometric mean over seeds; None unless all seeds got there."""
    ci95: Ends | None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class CritiqueCounts:
    """The critiques of one arm, all of its seeds and steps together.

    asked = written + failed + skipped.
    """

    asked: int
    """Critiques asked for."""
    written: int
    """Critiques that arrived, `cached` ones among them."""
    cached: int
    """Critiques answered before, at no cost."""
    failed: int
    """Critiques that were asked for and gave nothing usable."""
    skipped: int
    """Critiques that were not sent, or could not be used."""
    reasons: Mapping[str, int]
    """ "failed: timeout" and the like -> count, the commonest first; also "written: other_model",
    of critiques that another model wrote than the one asked for.
    """
    leaked: int = 0
    """Critiques that give the answer away."""
    refinements: int = 0
    """Refinements sampled."""
    right_refinements: int = 0
    extra: Extra = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Critiques that were asked for and trained nothing."""
        return self.failed + self.skipped

    @property
    def shares(self) -> tuple[float | None, float | None, float | None]:
        """(rescue, leak, failure) rate, 0 to 1; None where the denominator is 0."""
        return (
            _share(self.right_refinements, self.refinements),
            _share(self.leaked, self.written),
            _share(self.missing, self.asked),
        )


def _share(part: int, total: int) -> float | None:
    if total:
        return part / total
    return None


@dataclass(frozen=True)
class ArmSummary:
    """One arm on its own: means, cost, and how far its confidence can be trusted."""

    metrics: Mapping[str, MetricSummary]
    cost: Cost
    unscored: int = 0
    """Samples that no verifier could judge, over all seeds."""
    samples: int | None = field(default=None, metadata=OPTIONAL)
    """Samples over all seeds; None, and no key in the file, where none was lost."""
    timeouts: int | None = field(default=None, metadata=OPTIONAL)
    """Samples that are wrong because judging them took too long; None where there are none."""
    reliability: Reliability | None = None
    """None where the evaluations hold no votes."""
    to_target: SpentToTarget | None = field(default=None, metadata=OPTIONAL)
    """None, and no key in the file, where the pipeline names no target."""
    critiques: CritiqueCounts | None = None
    """None where the runs logged no metrics, so that nothing is known."""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One arm minus another on one metric, paired on problems and seeds."""

    arm: str
    control: str
    """The arm that is subtracted."""
    metric: str
    difference: float
    ci95: Ends | None
    """None where one seed and one problem say nothing of the spread."""
    p: float | None = None
    """Two-sided p of the sign-flip test over seeds; None under `metrics.FEWEST_FOR_P` seeds."""
    per_seed: PerSeed
    seeds: tuple[int, ...]
    """Seeds that both arms have."""
    problems: int
    """Problems that all evaluations of the pair have a value for."""
    interval_covers: str = ""
    """The interval is about new "seeds", new "problems", or new "problems and seeds"."""
    smallest: float | None = None
    """The smallest difference that so many problems, samples and seeds can show
    (`power.smallest_of`); None where that is unknown.
    """
    together: Ends | None = field(default=None, metadata=OPTIONAL)
    """Of a pair among all pairs: an interval such that those of all pairs hold at once."""
    seeds_to_decide: int | None = field(default=None, metadata=OPTIONAL)
    """Where the interval holds 0: the seeds in all that would tell the observed difference from 0
    with probability .8.
    """
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class Boundary:
    """An arm against the policy before training: means over runs of counts of problems."""

    solved: float
    """Problems with a right sample that had none before."""
    lost: float
    """The reverse."""
    problems: float
    """Problems with as many judged samples before and after."""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class TemplateArm:
    """One arm under the second template, whose cost is the first's."""

    metrics: Mapping[str, MetricSummary]
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """An evaluation, or a pair on one metric, that entered no comparison."""

    arm: str
    seed: int | None
    """None for a pair of arms, and for the base."""
    reason: str
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class MissingRun:
    """A run without an eval.json."""

    arm: str
    seed: int
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True)
class AcceptedChange:
    """What differs from the start of a run since one of its steps: `--accept-changes`."""

    arm: str
    seed: int
    step: int
    """Later steps were trained with the changes."""
    changes: tuple[str, ...]
    """Each with both values, such as "prompts/refine 3f2a1b7c, now 9b1c02de"."""
    extra: Extra = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.arm} seed {self.seed} from step {self.step}: {'; '.join(self.changes)}"


@dataclass(frozen=True)
class SecondTemplate:
    """The same problems in other words (`evaluation.second_template`)."""

    template: str
    base: MetricValues | None
    """The policy before training; None where it was not evaluated."""
    arms: Mapping[str, TemplateArm]
    comparisons: tuple[Difference, ...]
    """Every arm minus the control, on every metric."""
    incomparable: tuple[LeftOut, ...] = ()
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepArm:
    """The values that `sweep:` tried for one arm."""

    chosen: float
    at_edge: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether the chosen value ends the list, so that a better one may lie beyond it."""
    tried: Mapping[str, float | None]
    """Value, as text -> the sweep's metric on validation problems."""
    unstable: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Values, as text, whose seeds differ by more than `sweep.UNSTABLE`; None where there are none.
    """
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What sweep.json says of the trials before training."""

    key: str
    """The configuration key that was tried, such as trl.learning_rate."""
    metric: str
    seeds: tuple[int, ...] | None = field(default=None, metadata=OPTIONAL)
    budget_share: float | None = field(default=None, metadata=OPTIONAL)
    """A trial's share of the arm's budget, 0 to 1."""
    arms: Mapping[str, SweepArm]
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A pipeline's arms against its control."""

    target: float | None = None
    """A value of the primary metric whose cost is asked for; None where none is."""
    measure: str = "generated_tokens"
    """Of `costs.KINDS`: what is counted until `target`."""
    delta: float | None = None
    """The smallest difference that is worth a claim; None: `power.DELTA`."""
    control: str
    primary: str
    """The metric that was named before the run."""
    seeds: tuple[int, ...]
    arms: Mapping[str, ArmSummary]
    base: MetricValues | None
    """The policy before training; None where it was not evaluated."""
    comparisons: tuple[Difference, ...]
    """Every arm minus the control, on every metric."""
    pairs: tuple[Difference, ...] = ()
    """Every arm minus every earlier one, on the primary metric."""
    boundary: Mapping[str, Boundary] | None
    """None without an evaluated base."""
    second: SecondTemplate | None = None
    """None where no second template was asked for."""
    sweep: Sweep | None = None
    """None where nothing was swept."""
    missing: tuple[MissingRun, ...]
    incomparable: tuple[LeftOut, ...]
    accepted_changes: tuple[AcceptedChange, ...] | None = field(default=None, metadata=OPTIONAL)
    """None, and no key in the file, where every run was trained alike from start to end."""
    extra: Extra = field(default_factory=dict)

    @property
    def critiques(self) -> dict[str, CritiqueCounts | None]:
        """Arm -> its counts of critiques."""
        return {arm: summary.critiques for arm, summary in self.arms.items()}

    def to_json(self) -> dict[str, Any]:
        """The object that compare.json holds."""
        data: dict[str, Any] = to_json(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Comparison:
        """Read what compare.json holds; keys that nobody here knows are kept in `extra`.

        Raises:
            ConfigError: a part is no object, or lacks a key.
        """
        return read_record(
            cls,
            data,
            seeds=tuple,
            arms=by_name(_read_arm_summary),
            comparisons=each(_read_difference),
            pairs=each(_read_difference),
            boundary=by_name(_read_boundary),
            second=_read_second_template,
            sweep=read_sweep,
            missing=each(_read_missing_run),
            incomparable=each(_read_left_out),
            accepted_changes=each(partial(read_record, AcceptedChange, changes=tuple)),
        )


_read_left_out = partial(read_record, LeftOut)
_read_missing_run = partial(read_record, MissingRun)
_read_boundary = partial(read_record, Boundary)
_read_cost = partial(read_record, Cost)
_read_kinds = partial(
    read_record, SeedKinds, took_off95=tuple, among95=tuple, collapsed95=tuple, kept95=tuple
)
_read_metric = partial(read_record, MetricSummary, ci95=tuple, kinds=_read_kinds)
_read_spending = partial(read_record, SpentToTarget, ci95=tuple)
_read_difference = partial(read_record, Difference, ci95=tuple, seeds=tuple, together=tuple)
_read_bin = partial(read_record, ReliabilityBin)
_read_reliability = partial(read_record, Reliability, bins=each(_read_bin))
_read_arm_summary = partial(
    read_record,
    ArmSummary,
    metrics=by_name(_read_metric),
    cost=_read_cost,
    reliability=_read_reliability,
    to_target=_read_spending,
    critiques=partial(read_record, CritiqueCounts),
)
_read_template_arm = partial(read_record, TemplateArm, metrics=by_name(_read_metric))
_read_second_template = partial(
    read_record,
    SecondTemplate,
    arms=by_name(_read_template_arm),
    comparisons=each(_read_difference),
    incomparable=each(_read_left_out),
)
_read_sweep_arm = partial(read_record, SweepArm, unstable=tuple)
read_sweep = partial(read_record, Sweep, seeds=tuple, arms=by_name(_read_sweep_arm))
"""Reads the object that sweep.json holds, as `records.read_record` does."""
