"""How much a comparison can show: the smallest difference for its problems, samples and seeds.

The number is `intervals.smallest_difference`, before any run, under the assumptions of
`intervals.Spread`. A comparison whose number exceeds the difference that is asked for cannot show
it, whatever its runs say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from critique_rl.analysis.comparison import Difference
from critique_rl.analysis.evaluations import ALL_FAMILIES, NO_NOISE, parse_metric, tries_behind
from critique_rl.analysis.formats import plural, two_decimals
from critique_rl.config.schema import Pipeline
from critique_rl.intervals import Design, Spread, smallest_difference
from critique_rl.metrics import EVALUATION_METRICS

DELTA = 0.5
"""The difference that is asked for where a pipeline names none (`delta:`)."""
SEED_STEPS = (2, 3, 5, 8, 12, 16)
"""Numbers of seeds that are tried as advice."""
MOST_PROBLEMS = 1_000_000


def smallest_of(metric: str, problems: int, samples: int, seeds: int) -> float | None:
    """The smallest difference on a metric that a comparison can show.

    Args:
        metric: pass@<k>/<family>, exact@<k>/<family>, or a share of samples.
        problems: problems that both arms have a value for.
        samples: answers per problem.
        seeds: seeds that both arms have.

    Returns:
        A difference, above 1 where nothing could be shown. None for metrics of a complete
        evaluation, whose spread is unknown, and for one seed with one problem.
    """
    if metric in EVALUATION_METRICS:
        return None
    tries = int(tries_behind(metric, samples))
    smallest = smallest_difference(Design(problems, max(tries, 1), seeds))
    if math.isfinite(smallest):
        return smallest
    return None


def cannot_show(difference: Difference, delta: float | None) -> float | None:
    """The smallest difference that a pair can show, if that is more than what is asked for.

    Args:
        difference: a pair of arms on one metric.
        delta: the difference that is asked for; None: `DELTA`.

    Returns:
        None where the pair can show a difference of `delta`.
    """
    asked = DELTA if delta is None else delta
    reach = difference.smallest or 0.0
    if difference.ci95 is not None:
        low, high = difference.ci95
        if low <= 0 <= high:
            # The runs may vary more than was assumed, as where single seeds collapse.
            reach = max(reach, (high - low) / 2)
    if reach > asked:
        return reach
    return None


def planned_design(pipeline: Pipeline, families: Sequence[str]) -> Design | None:
    """Problems, samples and seeds of the primary metric, as the pipeline will evaluate it.

    Args:
        pipeline: the experiment.
        families: the family of each problem that its arms will be judged on.

    Returns:
        None for a metric of a complete evaluation, which has no value per problem, and for a
        family without problems.
    """
    if pipeline.primary in EVALUATION_METRICS:
        return None
    _, _, family = parse_metric(pipeline.primary)
    problems = len(families)
    if family != ALL_FAMILIES:
        problems = families.count(family)
    if not problems:
        return None
    samples = pipeline.arms[pipeline.control].evaluation.samples
    tries = int(tries_behind(pipeline.primary, samples))
    return Design(problems, max(tries, 1), len(pipeline.seeds))


def describe(pipeline: Pipeline, design: Design) -> str:
    """What the design can show, in a sentence."""
    smallest = smallest_difference(design)
    seeds = plural(design.seeds, "seed")
    problems = plural(design.problems, "problem")
    samples = f"{plural(design.samples, 'sample')} each"
    if design.samples == NO_NOISE:
        samples = "exact chances"
    if smallest > 1:
        shown = "no difference at all"
    else:
        shown = f"differences in {pipeline.primary} of {two_decimals(smallest)} or more"
    return f"{seeds}, {problems} and {samples} show {shown}"


def advice(pipeline: Pipeline, design: Design) -> str:
    """A larger design that can show the difference asked for; "" where this one can."""
    delta = DELTA if pipeline.delta is None else pipeline.delta
    if smallest_difference(design) <= delta:
        return ""
    spread = Spread()
    larger = []
    for seeds in SEED_STEPS:
        if seeds > design.seeds and smallest_difference(replace(design, seeds=seeds)) <= delta:
            larger.append(plural(seeds, "seed"))
            break
    problems = design.problems
    while problems < MOST_PROBLEMS:
        problems *= 2
        if smallest_difference(replace(design, problems=problems), spread) <= delta:
            larger.append(plural(problems, "problem"))
            break
    wish = f"a difference of {two_decimals(delta)} (delta:) does not show"
    if not larger:
        return f"{wish}; give more problems and more seeds"
    return f"{wish}; it would with {' or with '.join(larger)}"
