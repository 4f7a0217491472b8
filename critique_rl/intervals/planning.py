"""How much a comparison can show: the smallest difference, before any run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from critique_rl.intervals.quantiles import t_quantile


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
    if seeds == 1 and problems == 1:
        return math.inf
    if seeds == 1:
        # As in `crossed_interval`: one seed says nothing of other seeds.
        total = ms_problem
        df = float(problems - 1)
    elif problems == 1:
        total = ms_seed
        df = float(seeds - 1)
    else:
        df_seed = seeds - 1
        df_problem = problems - 1
        total = ms_seed + ms_problem - ms_residual
        squares = ms_seed**2 / df_seed + ms_problem**2 / df_problem
        squares += ms_residual**2 / (df_seed * df_problem)
        df = total**2 / squares
    error = math.sqrt(total / (seeds * problems))
    return (t_quantile(0.5 + level / 2, df) + t_quantile(power, df)) * error
