"""Rescue rate on plateau problems along a run, mean over an arm's generations in each eighth of the
token budget, all seeds together.

    python tests/benchmarks/rescue_over_time.py runs/mixed
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from critique_rl.config.durable_files import read_jsonl

METRIC, PARTS = "refine/rescue_rate/plateau", 8


def rates(arm: Path) -> list[float]:
    """One mean an eighth."""
    rescues = defaultdict(list)
    for path in arm.glob("seed*/metrics.jsonl"):
        rows = [row for row in read_jsonl(path) if "tokens/generated" in row]
        for row in rows:
            if METRIC in row:
                rescues[
                    min(
                        PARTS - 1,
                        int(PARTS * row["tokens/generated"] / (rows[-1]["tokens/generated"] + 1)),
                    )
                ].append(row[METRIC])
    return [mean(rescues[part]) if rescues[part] else float("nan") for part in range(PARTS)]


if __name__ == "__main__":
    print(
        "| arm | "
        + " | ".join(f"{part + 1}/{PARTS}" for part in range(PARTS))
        + " |\n|"
        + "---|" * (PARTS + 1)
    )
    for arm in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        values = rates(arm)
        if any(value == value for value in values):
            print(f"| {arm.name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
