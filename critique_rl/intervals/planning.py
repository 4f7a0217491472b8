"""How much a comparison can show: the smallest difference before any run, and the seeds that an
open question would take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from critique_rl.intervals.crossed import MeanSquares, mean_squares
from critique_rl.intervals.quantiles import t_quantile

MOST_SEEDS = 200
"""Seeds beyond which nobody would train."""


@dataclass(frozen=True)
class Design:
    """The size of a comparison of two arms."""

    problems: int
    """Held-out problems that both arms answer."""
    samples: int
    """Answers per problem, arm and seed."""
    seeds: int
    """Training seeds of each arm."""


@dataclass(frozen=True)
class Spread:
    """Assumed standard deviations of a paired difference of two pass rates, before any run."""

    problems: float = 0.3
    """Of the true difference, over problems. A tenth of all problems that flip from never right to
    always right gives .3.
    """
    seeds: float = 0.05
    """Of the true difference, over seeds."""
    rate: float = 0.5
    """Pass rate of both arms. At .5 sampled answers vary most."""


def smallest_difference(
    design: Design, spread: Spread = Spread(), power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest true difference whose interval leaves out 0 with probability `power`.

    The differences follow the model of `crossed_interval`, whose expected mean squares give the
    variance of the mean and its degrees of freedom:

        d_sp = d + seed_s + problem_p + e_sp,   Var(e_sp) = 2 rate (1 - rate) / samples
        smallest = (t_{1/2 + level/2, df} + t_{power, df}) sqrt(Var(mean))

    Args:
        design: numbers of problems, samples and seeds.
        spread: what is assumed of the differences.
        power: probability, from .5 to below 1.
        level: coverage of the interval, 0 to 1.

    Returns:
        A difference of pass rates; above 1 where nothing could be shown, infinite with one seed and
        one problem.
    """
    seeds = design.seeds
    problems = design.problems
    assert min(seeds, problems, design.samples) >= 1, f"got {design}, want 1 or more of each"
    ms_residual = 2 * spread.rate * (1 - spread.rate) / design.samples
    ms_seed = problems * spread.seeds**2 + ms_residual
    ms_problem = seeds * spread.problems**2 + ms_residual
    expected = MeanSquares(ms_seed, ms_problem, ms_residual, seeds, problems)
    return _shown(expected, power, level)


def _shown(expected: MeanSquares, power: float, level: float) -> float:
    """The smallest true mean that so much spread shows with probability `power`."""
    seeds = expected.seeds
    problems = expected.problems
    if seeds == 1 and problems == 1:
        return math.inf
    if seeds == 1:
        # As in `crossed_interval`: one seed says nothing of other seeds.
        variance = expected.problem / problems
        df = float(problems - 1)
    elif problems == 1:
        variance = expected.seed / seeds
        df = float(seeds - 1)
    else:
        variance, df = expected.variance_of_mean()
    to_exclude = t_quantile(0.5 + level / 2, df)
    to_power = t_quantile(power, df)
    error = math.sqrt(variance)
    return (to_exclude + to_power) * error


def seeds_to_decide(
    values_SP: np.ndarray, distance: float, power: float = 0.8, level: float = 0.95
) -> int | None:
    """The seeds in all with which a true mean would be told from a bound.

    Spread is what these values show: components of variance by equating mean squares.

    Args:
        values_SP: (S, P) with S and P of two or more, such as paired differences.
        distance: of the true mean from the bound, above 0.
        power: probability.
        level: coverage of the interval.

    Returns:
        None where `MOST_SEEDS` are not enough, as where problems are too few.
    """
    seen = mean_squares(values_SP)
    over_seeds = max(seen.seed - seen.residual, 0.0)
    over_problems = max(seen.problem - seen.residual, 0.0)
    of_problem = over_problems / seen.seeds
    for seeds in range(2, MOST_SEEDS + 1):
        expected = MeanSquares(
            seed=over_seeds + seen.residual,
            problem=seeds * of_problem + seen.residual,
            residual=seen.residual,
            seeds=seeds,
            problems=seen.problems,
        )
        if _shown(expected, power, level) <= distance:
            return seeds
    return None
