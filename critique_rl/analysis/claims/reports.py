"""Reports on claims as claims.json and claims.md hold them: verdict, tests with intervals, and the
means of every arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from critique_rl.analysis.claims.claim import (
    Claim,
    Finding,
    Loss,
    contrast_words,
    judge,
    largest_loss,
)
from critique_rl.analysis.claims.rules import (
    CANNOT_SHOW,
    DELTA,
    NO_VERDICT,
    REPRODUCED,
    UNDECIDED,
    failed_check,
    overall,
)
from critique_rl.analysis.comparison import CritiqueCounts, Ends, Sweep
from critique_rl.analysis.critiques.words import no_critique_arms
from critique_rl.analysis.evaluations import BASE, ArmRuns, Evaluation
from critique_rl.analysis.problem_matrix import problem_matrix
from critique_rl.config.schema import Pipeline
from critique_rl.intervals.planning import MOST_SEEDS

Logged = Callable[[str, str], Mapping[int, Sequence[float]]]
"""(arm, metric) -> seed -> logged values by step."""


@dataclass(frozen=True)
class TestReport:
    """One test of a claim and what the runs say of it."""

    says: str
    metric: str
    contrast: Mapping[str, float]
    """Arm, or "base" -> coefficient."""
    expected: str
    """The bound in words, such as "above 0"."""
    bound_reason: str
    """Why the bound is what it is; "" where the claim does not say."""
    mean: float | None
    """None where there is nothing to say, for the reason given."""
    ci95: Ends | None
    """None where one seed and one problem say nothing of the spread."""
    per_seed: Mapping[str, float]
    """Seed, as JSON spells it -> the contrast's mean over problems."""
    verdict: str
    reason: str
    seeds_to_decide: int | None
    """Where undecided; None: more than anybody would train."""
    note: str
    """Of an effect that is refuted or weaker: what its seeds exclude."""
    loss: Loss | None
    """What the arm lost most on another family; None where there is no other."""


@dataclass(frozen=True)
class ArmMeans:
    """One arm on the metrics that a claim tests."""

    seeds: tuple[int, ...]
    """Empty for the base, which has none."""
    means: Mapping[str, float | None]
    """Metric -> mean; None where no evaluation of the arm holds it."""


@dataclass(frozen=True)
class ClaimReport:
    """One claim on one pipeline: an entry of claims.json, a field per key."""

    pipeline: str
    says: str
    source: str
    verdict: str
    tests: tuple[TestReport, ...]
    arms: Mapping[str, ArmMeans]
    """The base first, where it was evaluated."""
    sweep: Sweep | None
    """The values that the arms were tried with; None where nothing was swept."""
    changes: tuple[str, ...] = ()
    """How the claim differs from what it was when its runs began."""

    @property
    def reproduced(self) -> str:
        """How many of the tests are reproduced, in words."""
        verdicts = [test.verdict for test in self.tests]
        count = verdicts.count(REPRODUCED)
        return f"{count} of {len(verdicts)}"


def report_claim(
    pipeline: Pipeline,
    claim: Claim,
    runs: ArmRuns,
    base: Evaluation | None,
    sweep: Sweep | None = None,
    critiques: Mapping[str, CritiqueCounts | None] | None = None,
    logged: Logged | None = None,
    changes: Sequence[str] = (),
) -> ClaimReport:
    """Judge every test of a claim.

    Args:
        pipeline: names the claim and the arms.
        claim: of that pipeline.
        runs: arm -> comparable evaluations by seed.
        base: the policy before training; None where it was not evaluated.
        sweep: what the arms were tried with, which is only passed on.
        critiques: arm -> its counts. A test of an arm whose critiques never came has no verdict.
        logged: reads what the runs logged, for the claim's checks; None: nothing was.
        changes: of the claim since its runs began, which are only passed on.
    """
    failed = _failed_checks(claim, logged)
    missing = no_critique_arms(critiques or {})
    findings = []
    for test in claim.tests:
        finding = _complete(judge(test, runs, base), pipeline.seeds)
        findings.append(_checked(finding, failed, missing))
    metrics = list(dict.fromkeys(test.metric for test in claim.tests))
    arms = {}
    if base:
        arms[BASE] = ArmMeans((), _means([base], metrics))
    for arm in pipeline.arms:
        evaluations = runs.get(arm, {})
        means = _means(list(evaluations.values()), metrics)
        arms[arm] = ArmMeans(tuple(sorted(evaluations)), means)
    tests = []
    for finding in findings:
        loss = largest_loss(finding.test, runs, base)
        tests.append(_test_report(finding, loss))
    return ClaimReport(
        pipeline=pipeline.name,
        says=claim.says,
        source=claim.source,
        verdict=overall([finding.verdict for finding in findings]),
        tests=tuple(tests),
        arms=arms,
        sweep=sweep,
        changes=tuple(changes),
    )


def _complete(finding: Finding, seeds: Sequence[int]) -> Finding:
    """The finding, or no verdict yet: a look at some of the seeds may come out by chance."""
    number = len(finding.per_seed)
    only_base = set(finding.test.contrast) == {BASE}
    if finding.verdict == NO_VERDICT or only_base or number >= len(seeds):
        return finding
    reason = f"{number} of {len(seeds)} seeds have finished in all of its arms"
    return replace(finding, verdict=NO_VERDICT, reason=reason, seeds_to_decide=None, note="")


def _failed_checks(claim: Claim, logged: Logged | None) -> dict[str, str]:
    """Arm -> why a check of it fails."""
    failed = {}
    for check in claim.checks:
        reason = f"{check.arm} logged no {check.log}"
        if logged:
            values = logged(check.arm, check.log)
            if values:
                reason = failed_check(check, values)
        if reason:
            failed[check.arm] = reason
    return failed


def _checked(finding: Finding, failed: Mapping[str, str], missing: Sequence[str]) -> Finding:
    """The finding, or that nothing can be said of an arm without its critiques or its checks."""
    contrast = finding.test.contrast
    for arm, reason in failed.items():
        if arm in contrast and finding.verdict != NO_VERDICT:
            finding = replace(finding, verdict=CANNOT_SHOW, reason=reason)
    for arm in missing:
        if arm in contrast:
            reason = f"{arm} is not a critique arm: its critiques did not arrive"
            finding = replace(finding, verdict=NO_VERDICT, reason=reason)
    return finding


def _means(evaluations: Sequence[Evaluation], metrics: Sequence[str]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for metric in metrics:
        means[metric] = None
        if evaluations:
            values_EP = problem_matrix(evaluations, metric)
            if values_EP.size:
                means[metric] = float(values_EP.mean())
    return means


def _test_report(finding: Finding, loss: Loss | None) -> TestReport:
    test = finding.test
    mean = None
    ci95 = None
    if finding.interval is not None:
        mean = finding.interval.mean
        # JSON has no NaN.
        if math.isfinite(finding.interval.low):
            ci95 = (finding.interval.low, finding.interval.high)
    return TestReport(
        says=test.says,
        metric=test.metric,
        contrast=test.contrast,
        expected=_expected(test.bound, test.number),
        bound_reason=test.reason,
        mean=mean,
        ci95=ci95,
        per_seed={str(seed): value for seed, value in finding.per_seed.items()},
        verdict=finding.verdict,
        reason=finding.reason,
        seeds_to_decide=finding.seeds_to_decide,
        note=finding.note,
        loss=loss,
    )


def _expected(bound: str, number: float) -> str:
    """The bound in words."""
    if bound == DELTA:
        return f"above 0, worth it from {number:g}"
    return f"{bound} {number:g}"


def markdown(claims: Sequence[ClaimReport]) -> str:
    """The table of all claims, then each with its arms and tests."""
    lines = [
        "# Claims",
        "",
        "| claim | source | tests reproduced | verdict |",
        "|:---|:---|---:|:---|",
    ]
    for claim in claims:
        sentence = f"{claim.says} | {claim.source}"
        lines.append(f"| {sentence} | {claim.reproduced} | {claim.verdict} |")
    for claim in claims:
        lines += ["", *_claim_lines(claim)]
    return "\n".join(lines) + "\n"


def _claim_lines(claim: ClaimReport) -> list[str]:
    """A heading, the sentence, a table of arms and a table of tests."""
    first_arm = next(iter(claim.arms.values()))
    metrics = list(first_arm.means)
    lines = [f"## {claim.pipeline}: {claim.verdict}", "", f"{claim.says} ({claim.source})", ""]
    for change in claim.changes:
        lines += [f"Changed since its runs began: {change}.", ""]
    lines += [f"| arm | seeds | {' | '.join(metrics)} |", f"|:---|---:|{'---:|' * len(metrics)}"]
    lines += [_arm_line(name, arm) for name, arm in claim.arms.items()]
    lines += [
        "",
        "| test | contrast | metric | expected | value and 95% interval | verdict | largest loss |",
        "|:---|:---|:---|:---|---:|:---|:---|",
    ]
    lines += [_test_line(test) for test in claim.tests]
    return lines


def _arm_line(name: str, arm: ArmMeans) -> str:
    seeds = ", ".join(map(str, arm.seeds)) or "-"
    means = []
    for mean in arm.means.values():
        cell = "-" if mean is None else f"{mean:.3f}"
        means.append(cell)
    return f"| {name} | {seeds} | {' | '.join(means)} |"


def _test_line(test: TestReport) -> str:
    value = "-" if test.mean is None else f"{test.mean:+.3f}"
    if test.ci95:
        low, high = test.ci95
        value += f" [{low:+.3f}, {high:+.3f}]"
    verdict = test.verdict
    if test.reason:
        verdict += f": {test.reason}"
    elif test.note:
        verdict += f" ({test.note})"
    elif test.seeds_to_decide:
        verdict += f" ({test.seeds_to_decide} seeds would decide it)"
    elif test.verdict == UNDECIDED:
        verdict += f" (no number of seeds up to {MOST_SEEDS} would decide it)"
    expected = test.expected
    if test.bound_reason:
        expected += f" ({test.bound_reason})"
    contrast = contrast_words(test.contrast)
    cells = [test.says, contrast, test.metric, expected, value, verdict, _loss_cell(test.loss)]
    return f"| {' | '.join(cells)} |"


def _loss_cell(loss: Loss | None) -> str:
    """The largest loss in words; "-" where no other family lost."""
    if loss is None or loss.difference >= 0:
        return "-"
    interval = ""
    if loss.ci95:
        low, high = loss.ci95
        interval = f" [{low:+.3f}, {high:+.3f}]"
    pair = f"{loss.arm} - {loss.reference}"
    return f"{pair}, {loss.metric}: {loss.difference:+.3f}{interval}"
