"""What a right row is worth by its source: the gain of two arms per 1,000 right rows that they
trained on, and the ratio of these with an interval over seeds.

    critique-rl run pipelines/controls.yaml --jobs 2
    python pipelines/gain_per_row.py pipelines/controls.yaml demonstration refine

Both arms sample rollouts, critiques and refinements alike, and each right refinement is one row;
in one of the arms the dataset's solution takes its place. So right refinements count the rows of
both. The gain is over the pipeline's control, seed by seed, on the primary metric.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from critique_rl.analysis.critiques.counts import critique_counts
from critique_rl.analysis.learning_curves import steps
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.intervals import crossed_interval


def main() -> None:
    """Print a table by seed, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pipeline")
    parser.add_argument("arm", help="such as demonstration")
    parser.add_argument("other", help="such as refine")
    parser.add_argument("--out", default="runs", help="where its results are (default: runs)")
    given = parser.parse_args()
    pipeline = load_pipeline(Path(given.pipeline))
    folder = PipelineFolder(Path(given.out) / Path(given.pipeline).stem)
    arms = json.loads(folder.comparison.read_text())["arms"]
    control = arms[pipeline.control]["metrics"][pipeline.primary]["per_seed"]
    print(f"gain on {pipeline.primary} over {pipeline.control}\n")
    print("| arm | seed | gain | right rows | gain per 1,000 |")
    print("|---|---|---|---|---|")
    worth: dict[str, list[float]] = {}
    for arm in (given.arm, given.other):
        levels = arms[arm]["metrics"][pipeline.primary]["per_seed"]
        for seed in pipeline.seeds:
            counts = critique_counts(steps(folder.run(arm, seed)))
            rows = counts.right_refinements if counts else 0
            gain = levels[str(seed)] - control[str(seed)]
            if not rows or gain <= 0:
                raise SystemExit(f"{arm}, seed {seed}: gain {gain:+.3f} by {rows} rows: no ratio")
            per_thousand = 1000 * gain / rows
            worth.setdefault(arm, []).append(per_thousand)
            print(f"| {arm} | {seed} | {gain:+.3f} | {rows} | {per_thousand:.2f} |")
    ratios = np.log(worth[given.arm]) - np.log(worth[given.other])
    interval = crossed_interval(ratios[:, None])
    mean, low, high = (math.exp(x) for x in (interval.mean, interval.low, interval.high))
    print(f"\n{given.arm} / {given.other}: {mean:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
