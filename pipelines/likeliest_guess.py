"""Masses in `lab/tiers`, apart for problems whose likeliest guess is right and the others.

    critique-rl run pipelines/flow_tiers.yaml --jobs 2
    critique-rl flow pipelines/flow_tiers.yaml --jobs 2
    python pipelines/likeliest_guess.py pipelines/flow_tiers.yaml

A hidden operand is 1 more often than 2 or 3, and the question does not show which it is. So the
likeliest guess is right where every hidden operand is 1. Means over problems and seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from critique_rl.analysis.flow.classes import BASE_WRONG, REST, RIGHT
from critique_rl.analysis.flow.series import Series, read_flow
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.lab import tiers

SHOWN = (RIGHT, BASE_WRONG, REST)


def main() -> None:
    """Print a row per arm, family and kind of problem."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pipeline")
    parser.add_argument("--out", default="runs", help="where its results are (default: runs)")
    given = parser.parse_args()
    pipeline = load_pipeline(Path(given.pipeline))
    folder = PipelineFolder(Path(given.out) / Path(given.pipeline).stem)
    print("| arm | family | likeliest guess | problems | right | base's own wrong | rest |")
    print("|---|---|---|---:|---:|---:|---:|")
    flow = read_flow(folder, list(pipeline.arms), pipeline.seeds)
    for arm, runs in flow.items():
        for family in ("tier1", "tier2", "tier3"):
            for is_right in (True, False):
                print_row(arm, family, is_right, runs)


def print_row(arm: str, family: str, is_right: bool, runs: Mapping[int, Series]) -> None:
    """Print the masses before and after training of one kind of problem.

    Args:
        arm: Its name.
        family: Of `lab/tiers`.
        is_right: Whether the likeliest guess of these problems is right.
        runs: Seed -> masses of the arm.
    """
    problems: list[str] = []
    for series in runs.values():
        for name, of_family in series.families.items():
            if of_family != family or name in problems:
                continue
            if likeliest_is_right(name) == is_right:
                problems.append(name)
    words = "wrong"
    if is_right:
        words = "right"
    row = f"| {arm} | {family} | {words} | {len(problems)} |"
    for kind in SHOWN:
        before: list[float] = []
        after: list[float] = []
        for series in runs.values():
            first = series.points[0]
            last = series.points[-1]
            for name in problems:
                before.append(first.problems[name][kind])
                after.append(last.problems[name][kind])
        row += f" {mean(before):.3f} → {mean(after):.3f} |"
    print(row)


def likeliest_is_right(question: str) -> bool:
    """Whether every hidden operand of a problem is 1."""
    problem = tiers.parse_problem(question)
    for size, (_, shown) in zip(problem.truth, problem.operands, strict=True):
        if not shown and size != 1:
            return False
    return True


if __name__ == "__main__":
    main()
