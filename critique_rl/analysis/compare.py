"""Arms against a control: paired differences on the same problems and seeds, with intervals over
both (`metric_intervals`).

Problems are paired by id, seeds by number. A problem without enough judged samples in one of the
paired evaluations drops out of that pair, and `problems` counts the others. Left out: a correction
for many arms of the differences from the control; all pairs have intervals that hold at once. The
primary metric and the control are named before the run, and the verdict speaks
of every arm, never of the best one alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from critique_rl.analysis.boundary import boundaries
from critique_rl.analysis.comparability import ComparableRuns, select_comparable
from critique_rl.analysis.comparison import (
    COSTS,
    AcceptedChange,
    ArmSummary,
    Comparison,
    Cost,
    CritiqueCounts,
    MetricSummary,
    MetricValues,
    MissingRun,
    Reliability,
    ReliabilityBin,
    SecondTemplate,
    SeedKinds,
    SpentToTarget,
    Sweep,
    TemplateArm,
    read_sweep,
)
from critique_rl.analysis.critiques.counts import critique_counts
from critique_rl.analysis.differences import all_pairs, differences_from, mean_and_ends, seed_means
from critique_rl.analysis.evaluations import (
    ALL_FAMILIES,
    EXACT,
    METRIC,
    PASS,
    ArmRuns,
    Evaluation,
    Runs,
    Vote,
    parse_metric,
    read_base,
    read_evaluation,
)
from critique_rl.analysis.learning_curves import Step, steps, to_target
from critique_rl.analysis.metric_intervals import arm_contrast, split_of
from critique_rl.analysis.records import read_record
from critique_rl.config.accepted_changes import read_accepted
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import DamagedFile, read_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.costs import KINDS
from critique_rl.metrics import EVALUATION_METRICS, expected_calibration_error, reliability_bins

ESTIMATES = (PASS, EXACT)
"""Metrics that stand before the shares in tables."""
MOST_TOLD = 5
"""Reasons of unscored answers that an error lists."""


def compare(
    folder: PipelineFolder,
    control: str,
    primary: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    target: float | None = None,
    measure: str = "generated_tokens",
    delta: float | None = None,
) -> Comparison:
    """Read every eval.json of a pipeline and compare its arms.

    Args:
        folder: the pipeline's runs.
        control: the arm that all others are compared with.
        primary: the metric that was named before the run.
        arms: names of all arms, the control among them.
        seeds: seeds of every arm.
        target: a value of the primary metric whose cost is asked for.
        measure: of `costs.KINDS`: what is counted until `target`.
        delta: the smallest difference that is worth a claim.

    Returns:
        What compare.json is to hold (`Comparison.to_json`).

    Raises:
        ConfigError: nothing is evaluated, a file is damaged, or no evaluation holds the primary
            metric.
    """
    if control not in arms:
        raise ConfigError(
            f"got control {control!r}, expected one of the arms {', '.join(arms)}: name one of "
            f"them as `control`"
        )
    comparable = read_runs(folder, control, arms, seeds)
    metrics = metric_names(comparable.evaluations, primary)
    comparisons, unpaired = differences_from(control, comparable.runs, metrics)
    summaries = {}
    for arm, runs in comparable.runs.items():
        if runs:
            spent = None
            if target is not None:
                folders = {seed: folder.run(arm, seed) for seed in runs}
                spent = to_target(folders, primary, target, KINDS[measure])
            critiques = _critiques(folder, arm, runs)
            summaries[arm] = arm_summary(runs, comparable.base, metrics, spent, critiques)
    return Comparison(
        target=target,
        measure=measure,
        delta=delta,
        control=control,
        primary=primary,
        seeds=tuple(seeds),
        arms=summaries,
        base=_base_metrics(comparable.base, metrics),
        comparisons=tuple(comparisons),
        pairs=tuple(all_pairs(comparable.runs, primary)),
        boundary=boundaries(folder, comparable),
        second=_compare_second(comparable, control, primary),
        sweep=_read_sweep(folder),
        missing=tuple(_missing_runs(folder, arms, seeds)),
        incomparable=(*comparable.left_out, *unpaired),
        accepted_changes=_accepted_changes(folder, comparable.runs),
    )


def _accepted_changes(folder: PipelineFolder, arms: ArmRuns) -> tuple[AcceptedChange, ...] | None:
    """What was accepted in the middle of the compared runs; None for nothing."""
    changes = []
    for arm, runs in arms.items():
        for seed in runs:
            for item in read_accepted(folder.run(arm, seed)):
                changes.append(AcceptedChange(arm, seed, item.step, item.changes))
    return tuple(changes) or None


def read_runs(
    folder: PipelineFolder, control: str, arms: Sequence[str], seeds: Sequence[int]
) -> ComparableRuns:
    """Read the evaluations of arms and base, and leave out those that were not taken alike.

    Raises:
        ConfigError: nothing is evaluated, or a file is damaged.
    """
    runs: dict[str, Runs] = {arm: {} for arm in arms}
    for arm in arms:
        for seed in seeds:
            run = folder.run(arm, seed)
            if run.finished:
                runs[arm][seed] = read_evaluation(run.evaluation, arm, seed)
    if not any(runs.values()):
        raise ConfigError(
            f"got no eval.json under {folder.path}, expected {arms[0]}/seed{seeds[0]}/eval.json "
            f"and the like: train the arms first"
        )
    base = None
    if folder.base.finished:
        base = read_base(folder)
    return select_comparable(runs, control, base)


def _missing_runs(
    folder: PipelineFolder, arms: Sequence[str], seeds: Sequence[int]
) -> list[MissingRun]:
    return [
        MissingRun(arm, seed)
        for arm in arms
        for seed in seeds
        if not folder.run(arm, seed).finished
    ]


def _read_sweep(folder: PipelineFolder) -> Sweep | None:
    """What was swept; None for nothing. Raises DamagedFile for a file that says something else."""
    if not folder.sweep_choice.exists():
        return None
    advice = "delete it, and critique-rl run chooses again from the trials"
    try:
        return read_sweep(read_json(folder.sweep_choice, advice))
    except (AttributeError, TypeError) as error:
        raise DamagedFile(folder.sweep_choice, str(error), advice) from error


def _base_metrics(base: Evaluation | None, metrics: Sequence[str]) -> MetricValues | None:
    if base is None:
        return None
    return {name: base.metrics.get(name) for name in metrics}


def _compare_second(
    comparable: ComparableRuns, control: str, primary: str
) -> SecondTemplate | None:
    """The same comparison of the evaluations under `evaluation.second_template`.

    Returns:
        None where no evaluation has a second part.

    Raises:
        ConfigError: no second part holds the primary metric.
    """
    runs = {}
    for arm, evaluations in comparable.runs.items():
        runs[arm] = _second_parts(evaluations)
    if not any(runs.values()):
        return None
    base = comparable.base.second if comparable.base else None
    second = select_comparable(runs, control, base)
    metrics = metric_names(second.evaluations, primary)
    comparisons, unpaired = differences_from(control, second.runs, metrics)
    return SecondTemplate(
        template=second.evaluations[0].protocol["template"],
        base=_base_metrics(second.base, metrics),
        arms={
            arm: TemplateArm(_metric_summaries(evaluations, None, metrics))
            for arm, evaluations in second.runs.items()
            if evaluations
        },
        comparisons=tuple(comparisons),
        incomparable=(*second.left_out, *unpaired),
    )


def _second_parts(runs: Runs) -> Runs:
    return {seed: run.second for seed, run in runs.items() if run.second is not None}


def metric_names(evaluations: Sequence[Evaluation], primary: str) -> list[str]:
    """Names of all metrics in the order of the tables.

    Returns:
        The primary metric, pass@k by k, shares, then metrics of complete evaluations.

    Raises:
        ConfigError: no evaluation holds the primary metric, or nothing could be judged.
    """
    known: set[str] = set()
    for evaluation in evaluations:
        known.update(evaluation.metrics)
    names = [name for name in known if METRIC.fullmatch(name)]
    names.sort(key=_metric_order)
    names += [name for name in EVALUATION_METRICS if name in known]
    if primary not in names:
        _refuse_unjudged(evaluations, primary)
        expected = ", ".join(sorted(names)) or "(no pass@k metric found)"
        raise ConfigError(f"got primary {primary!r}, expected one of {expected}: correct `primary`")
    # The sort is stable: the others keep their order.
    return sorted(names, key=lambda name: name != primary)


def _refuse_unjudged(evaluations: Sequence[Evaluation], primary: str) -> None:
    """Refuse evaluations that lack the primary metric because the verifier could not judge them.

    Raises:
        ConfigError: as told, with the verifier's reasons.
    """
    samples = sum(evaluation.samples for evaluation in evaluations)
    unscored = sum(evaluation.unscored for evaluation in evaluations)
    if not unscored or not _could_be_held(evaluations, primary):
        return
    reasons = Counter[str]()
    for evaluation in evaluations:
        reasons.update(evaluation.reasons)
    common = reasons.most_common(MOST_TOLD)
    listed = ", ".join(f"{reason} ({count})" for reason, count in common)
    verifiers = dict.fromkeys(_verifier_of(evaluation) for evaluation in evaluations)
    raise ConfigError(
        f"the verifier {' or '.join(verifiers)} could not judge {unscored} of {samples} answers, "
        f"and so no evaluation has {primary}; its reasons: "
        f"{listed or 'not kept by the version that evaluated'}; try the verifier on a few answers "
        "with `critique-rl judge`, mend it or its settings (deadline, memory_gb, gold answers), "
        "then delete the eval.json files and evaluate again"
    )


def _could_be_held(evaluations: Sequence[Evaluation], metric: str) -> bool:
    """Whether evaluations would hold a metric if more of their answers had been judged."""
    if not METRIC.fullmatch(metric):
        return metric in EVALUATION_METRICS
    _, _, family = parse_metric(metric)
    families = {ALL_FAMILIES}
    for evaluation in evaluations:
        families.update(problem.family for problem in evaluation.problems.values())
    return family in families


def _verifier_of(evaluation: Evaluation) -> str:
    """The verifier of an evaluation as its settings name it."""
    task = evaluation.protocol.get("task") or {}
    verifier = task.get("verifier")
    if not verifier:
        return f"of the task {task.get('name')}"
    if isinstance(verifier, Mapping):
        names = [verifier.get("kind"), verifier.get("target")]
        return " ".join(str(name) for name in names if name)
    return str(verifier)


def _metric_order(metric: str) -> tuple[int, int, str, str]:
    name, k, family = parse_metric(metric)
    kind = len(ESTIMATES)
    if name in ESTIMATES:
        kind = ESTIMATES.index(name)
    return kind, k, name, family


def _critiques(folder: PipelineFolder, arm: str, runs: Runs) -> CritiqueCounts | None:
    """Critiques of the runs that are compared; None where one of them logged nothing."""
    logged: list[Step] = []
    for seed in runs:
        rows = steps(folder.run(arm, seed))
        # Counts of some of the seeds would pass for those of all.
        if not rows:
            return None
        logged += rows
    return critique_counts(logged)


def arm_summary(
    runs: Runs,
    base: Evaluation | None,
    metrics: Sequence[str],
    to_target: SpentToTarget | None,
    critiques: CritiqueCounts | None,
) -> ArmSummary:
    votes: list[Vote] = []
    for run in runs.values():
        votes += run.votes
    unscored = sum(run.unscored for run in runs.values())
    timeouts = sum(run.timeouts for run in runs.values())
    samples = sum(run.samples for run in runs.values())
    return ArmSummary(
        metrics=_metric_summaries(runs, base, metrics),
        cost=_mean_cost(runs),
        unscored=unscored,
        samples=samples if unscored or timeouts else None,
        timeouts=timeouts or None,
        reliability=_reliability(votes),
        to_target=to_target,
        critiques=critiques,
    )


def _mean_cost(runs: Runs) -> Cost:
    means = {}
    for name in COSTS:
        amounts = [getattr(run.cost, name) for run in runs.values()]
        means[name] = float(np.mean(amounts))
    return read_record(Cost, means)


def _reliability(votes: Sequence[Vote]) -> Reliability | None:
    if not votes:
        return None
    confidence = [agreement for agreement, _ in votes]
    right = [agreed_right for _, agreed_right in votes]
    bins = []
    for part in reliability_bins(confidence, right):
        shown = ReliabilityBin(part.low, part.high, part.mean, part.right, part.count)
        bins.append(shown)
    return Reliability(
        confidence="share of a problem's samples that gave its commonest answer",
        ece=expected_calibration_error(confidence, right),
        bins=tuple(bins),
    )


def _metric_summaries(
    runs: Runs, base: Evaluation | None, metrics: Sequence[str]
) -> dict[str, MetricSummary]:
    summaries = {}
    evaluations = list(runs.values())
    for metric in metrics:
        contrast = arm_contrast([evaluations], (1,), metric)
        if contrast is not None:
            mean, ci95 = mean_and_ends(contrast.interval)
            per_seed = seed_means(runs, contrast.values_SP)
            problems = contrast.values_SP.shape[1]
            kinds = None
            if base is not None:
                kinds = _seed_kinds(evaluations, base, metric)
            summaries[metric] = MetricSummary(mean, ci95, per_seed, problems, kinds)
    return summaries


def _seed_kinds(
    evaluations: Sequence[Evaluation], base: Evaluation, metric: str
) -> SeedKinds | None:
    """Which seeds took off; None where that cannot be said."""
    split = split_of(evaluations, base, metric)
    if split is None:
        return None
    # NaN has no place in JSON: one seed that took off has a level, and no interval.
    among = None
    among95 = None
    if split.among is not None:
        among, among95 = mean_and_ends(split.among)
    kept = None
    kept95 = None
    if split.kept is not None:
        kept, kept95 = mean_and_ends(split.kept)
    return SeedKinds(
        median=split.median,
        took_off=split.took_off,
        collapsed=split.collapsed,
        took_off95=split.share,
        among=among,
        among95=among95,
        collapsed95=split.collapse_share,
        kept=kept,
        kept95=kept95,
    )
