"""Our interval beside rliable's stratified bootstrap (Agarwal et al. 2021, arXiv 2108.13264), over
seeds and problems.

    python -m venv .venv-rliable
    .venv-rliable/bin/pip install rliable 'arch==7.2' 'numpy<2.3' 'pandas<3'
    .venv-rliable/bin/python tests/benchmarks/against_rliable.py

rliable draws seeds anew within each problem, as if runs of different problems were independent.
That holds in its benchmark of games; a seed of ours meets every problem, and what it does to all of
them at once, or what problems differ in, that bootstrap cannot see. Printed: how often each holds
the truth.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from rliable import library
from rliable import metrics as theirs

INTERVALS = Path(__file__).parents[2] / "critique_rl" / "intervals.py"


def load_ours():
    """Our intervals alone: the package needs torch, and rliable an older numpy."""
    spec = importlib.util.spec_from_file_location("ours", INTERVALS)
    sys.modules["ours"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(draws: int = 200, seeds: int = 5, problems: int = 60) -> None:
    ours = load_ours()
    random = np.random.default_rng(0)
    print(
        f"{draws} draws of {seeds} seeds x {problems} problems; 95 % intervals that hold the "
        "truth, and their mean width"
    )
    for name, seed_sd, problem_sd in (
        ("single values vary", 0.0, 0.0),
        ("seeds vary too", 0.1, 0.0),
        ("problems vary too", 0.0, 0.3),
    ):
        hits, widths = np.zeros(2), np.zeros(2)
        for _ in range(draws):
            shape = (seeds, problems)
            values = (
                0.5
                + seed_sd * random.normal(size=(seeds, 1))
                + problem_sd * random.normal(size=(1, problems))
                + 0.2 * random.normal(size=shape)
            )
            _, bounds = library.get_interval_estimates(
                {"arm": values}, lambda scores: np.array([theirs.aggregate_mean(scores)]), reps=1000
            )
            interval = ours.crossed_interval(values)
            for i, (low, high) in enumerate(((interval.low, interval.high), bounds["arm"][:, 0])):
                hits[i] += low <= 0.5 <= high
                widths[i] += high - low
        print(
            f"{name}: ours {hits[0] / draws:.2f} ({widths[0] / draws:.3f}), rliable "
            f"{hits[1] / draws:.2f} ({widths[1] / draws:.3f})"
        )


if __name__ == "__main__":
    main()
