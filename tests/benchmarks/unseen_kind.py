"""pass@1 of finished runs on plateau problems by whether they hold a trap of one kind.

    python tests/benchmarks/unseen_kind.py runs/dose borrow oracle-unseen scalar-unseen

For the arm whose base never saw that kind named in a critique; means over problems and seeds, with
the interval over both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from critique_rl.analysis.evaluations import read_evaluation
from critique_rl.intervals import crossed_interval
from critique_rl.lab import chain


def main(folder: str, kind: str, *arms: str) -> None:
    for arm in arms:
        rates: dict[bool, list[list[float]]] = {True: [], False: []}
        for path in sorted(Path(folder, arm).glob("seed*/eval.json")):
            for holds, seeds in rates.items():
                seed = int(path.parent.name.removeprefix("seed"))
                evaluation = read_evaluation(path, arm, seed)
                plateau = {
                    question: problem.right / problem.judged
                    for question, problem in evaluation.problems.items()
                    if problem.family == "plateau"
                }
                seeds.append(
                    [
                        rate
                        for question, rate in plateau.items()
                        if (kind in chain.parse_problem(question).traps.values()) is holds
                    ]
                )
        for holds, seeds in rates.items():
            values = crossed_interval(np.array(seeds))
            print(
                f"{arm}, {'with' if holds else 'without'} {kind}: {values.mean:.2f} "
                f"[{values.low:.2f}, {values.high:.2f}], {len(seeds[0])} problems"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
