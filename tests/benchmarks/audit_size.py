"""`critique-rl audit` on a log of a million rows: `python tests/benchmarks/audit_size.py [--rows
1000000]`, a minute.

Two arms of five seeds in verl's form, some 600 bytes per row, are written to a temporary folder.
Printed are the seconds and the peak resident memory of the audit as a process of its own, and its
time over that of reading the same lines by `json.loads` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARMS = ("scalar", "critique")
SEEDS = 5
GROUP = 8
STEPS = 50
TEXT = "so the sum of both is taken and then the rest is "


def write_run(folder: Path, arm: str, seed: int, rows: int) -> None:
    rng = random.Random(f"{arm} {seed}")
    asked = random.Random(seed)
    groups = rows // (STEPS * GROUP)
    (folder / "rollouts").mkdir(parents=True)
    for step in range(1, STEPS + 1):
        with (folder / "rollouts" / f"{step}.jsonl").open("w") as file:
            for _ in range(groups):
                problem = asked.randrange(20_000)
                right = 0.3 + 0.2 * (arm == "critique")
                for _ in range(GROUP):
                    row = {
                        "input": f"question {problem}: " + TEXT * 4,
                        "output": f"{TEXT * 5}{rng.randrange(10**9)}",
                        "gts": str(problem),
                        "score": float(rng.random() < right),
                        "step": step,
                        "problem_id": problem,
                        "response_length": rng.randrange(40, 80),
                    }
                    file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = []
        for arm in ARMS:
            for seed in range(SEEDS):
                place = Path(folder, f"{arm}-seed{seed}")
                write_run(place, arm, seed, arguments.rows // (len(ARMS) * SEEDS))
                words.append(str(place))
        files = sorted(Path(folder).rglob("*.jsonl"))
        size = sum(file.stat().st_size for file in files)
        began = time.perf_counter()
        lines = 0
        for file in files:
            with file.open("rb") as rows:
                for line in rows:
                    json.loads(line)
                    lines += 1
        reading = time.perf_counter() - began
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "critique_rl", "audit", *words],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        taken = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{lines:,} rows, {size / 1e6:,.0f} MB: {taken:.1f} s, peak {peak:,.0f} MB; "
        f"{taken / reading:.2f} times json.loads alone ({reading:.1f} s)"
    )


if __name__ == "__main__":
    main()
