"""Seconds and memory of `compare` and `report` on 40 runs (8 arms, 5 seeds) with a million rollout
rows in all, made up but in the real layout.

    nice python tests/benchmarks/report_scale.py [--folder runs/scale] [--rows 1000000]

Under 60 s, 1 GB and 2 MB of page, or the exit status is 1. The made-up runs stay in the folder if
one is named, so that the page can be looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.config.durable_files import write_json, write_text, write_yaml
from critique_rl.config.run_folder import PipelineFolder, RunFolder

ARMS = ("scalar", "retry", "indicative", "ground_truth", "oracle", "shuffled", "noisy", "mixed")
FAMILIES = ("plateau", "learnable", "no-trap")
SEEDS = range(5)
STEPS = 200
PROBLEMS = 200
SAMPLES = 16
KS = (1, 4, 16)
GROUP = 8
LIMITS = {"seconds": 60, "MB of memory": 1000, "MB of page": 2}

CODE = """
import sys
from pathlib import Path
from critique_rl.analysis.compare import compare
from critique_rl.analysis.report import write_report
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
folder, arms = PipelineFolder(Path(sys.argv[1])), sys.argv[2].split(",")
comparison = compare(folder, "scalar", "pass@1/plateau", arms, list(range(5)), 0.5)
write_json(folder.comparison, comparison.to_json())
{report}
"""


def evaluation(arm: str, seed: int, skill: float) -> dict[str, Any]:
    """200 problems a family; the higher the skill, the more are right."""
    rng = random.Random(f"{arm} {seed}")
    problems = []
    for family, ease in zip(FAMILIES, (-2.0, 0.5, 3.0), strict=True):
        for i in range(PROBLEMS):
            chance = 1 / (
                1 + math.exp(-(ease + skill + random.Random(i).gauss(0, 1) + rng.gauss(0, 0.2)))
            )
            right = sum(rng.random() < chance for _ in range(SAMPLES))
            problems.append(
                {
                    "id": f"{family}{i}",
                    "family": family,
                    "n": SAMPLES,
                    "right": right,
                    "unscored": 0,
                }
            )
    metrics = {f"pass@{k}/{family}": 0.5 for k in KS for family in (*FAMILIES, "all")}
    cost = {
        "generated_tokens": 220_000 + seed,
        "total_tokens": 700_000,
        "flops": 2e13,
        "critic_tokens": 5000,
        "usd": 0.3,
        "wall_seconds": 600,
        "steps": STEPS,
    }
    return {
        "arm": arm,
        "seed": seed,
        "split": "test",
        "samples": SAMPLES,
        "temperature": 1.0,
        "problems": problems,
        "metrics": metrics,
        "cost": cost,
    }


def metrics(arm: str, seed: int, skill: float) -> list[dict[str, Any]]:
    """A step a row, every tenth with a point of the learning curve."""
    rng = random.Random(seed)
    rows = []
    for step in range(1, STEPS + 1):
        spent = 1100 * step + rng.randrange(500)
        row = {
            "step": step,
            "seconds": 3.1 * step,
            "loss": rng.random(),
            "tokens/generated": spent,
            "tokens/total": 3 * spent,
        }
        row |= {"cost/flops": 1e8 * spent, "cost/usd": 1e-6 * spent}
        if arm != "scalar":
            row |= {
                "critique/ok": 30,
                "critique/leaked": rng.randrange(3),
                "critique/failed": rng.randrange(4),
                "refine/candidates": 30,
            }
            row["refine/rescue_rate"] = min(1.0, max(0.0, 0.3 + 0.2 * skill + rng.gauss(0, 0.1)))
        if step % 10 == 0:
            grown = skill * step / STEPS
            row |= {
                f"eval/pass@1/{f}": min(1.0, max(0.0, 0.15 * i + 0.25 * grown + rng.gauss(0, 0.03)))
                for i, f in enumerate((*FAMILIES, "all"))
            }
        rows.append(row)
    return rows


def rollouts(arm: str, step: int, rows: int, rng: random.Random) -> pa.Table:
    """Half rollouts, half candidates, as a generation leaves them."""
    half = rows // 2
    words = ("carry", "the", "one", "then", "subtract", "five", "and", "check")
    made = []
    for i in range(rows):
        candidate = i >= half
        status = "failed" if i % 11 == 0 else "ok"
        if candidate or arm == "scalar":
            status = ""
        text = " ".join(rng.choices(words, k=40))
        outcome = "right" if rng.random() < 0.4 else "wrong"
        row = {
            "step": step,
            "group": i % half // GROUP,
            "role": "rollout",
            "attempt": -1,
            "question": f"{i} + {step}?",
            "family": FAMILIES[i % 3],
            "text": text,
            "outcome": outcome,
            "answer": str(i),
            "reward": 0.0,
            "advantage": 0.1,
            "critic": "",
            "critique": "",
            "critique_status": status,
            "critique_reason": "",
            "leaked": status == "ok" and i % 29 == 0,
            "chosen": candidate and i % 5 == 0,
        }
        if candidate and arm != "scalar":
            row |= {"role": "candidate", "attempt": i - half}
        if status:
            row["critic"] = arm
        if status == "ok":
            row["critique"] = text
        if status == "failed":
            row["critique_reason"] = "timeout"
        made.append(row)
    return pa.Table.from_pylist(made)


def put_run(
    run: RunFolder, arm: str, seed: int, skill: float, rows: int, files: dict[str, pa.Table]
) -> None:
    """One run folder; its rollout files hold the arm's table again and again, as what is in them
    does not matter to their reader.
    """
    write_json(run.evaluation, evaluation(arm, seed, skill))
    write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in metrics(arm, seed, skill)))
    write_yaml(
        run.config,
        {
            "arm": arm,
            "seed": seed,
            "critic": {"kind": arm},
            "trl": {"learning_rate": 1e-4, "seed": seed},
            "versions": {"trl": "1.16.0"},
        },
    )
    run.rollouts.mkdir(parents=True, exist_ok=True)
    for step in range(1, STEPS + 1):
        pq.write_table(
            files[arm].slice(0, rows // STEPS), run.rollouts / f"step{step:05d}-rank0.parquet"
        )


def build(folder: PipelineFolder, rows: int) -> None:
    """All runs, and the base twice."""
    a_run = rows // (len(ARMS) * len(SEEDS))
    files = {arm: rollouts(arm, 1, a_run // STEPS, random.Random(arm)) for arm in ARMS}
    for seed in SEEDS:
        for i, arm in enumerate(ARMS):
            put_run(folder.run(arm, seed), arm, seed, 0.4 * i, a_run, files)
    # The base has no seed. Its second evaluation has other samples and the same names.
    about = {"arm": "base", "seed": None}
    write_json(folder.base.evaluation, evaluation("base", 0, -0.5) | about)
    write_json(folder.base_again.evaluation, evaluation("again", 0, -0.5) | about)


def measure(folder: PipelineFolder, report: bool) -> tuple[float, float]:
    """(seconds, MB at the peak) of a process that compares, and reports if asked to. The peak is of
    the largest child so far, so the smaller goes first.
    """
    started = time.perf_counter()
    code = CODE.format(report="write_report(folder, comparison)" if report else "")
    subprocess.run(
        [sys.executable, "-c", code, str(folder.path), ",".join(ARMS)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return time.perf_counter() - started, resource.getrusage(
        resource.RUSAGE_CHILDREN
    ).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = PipelineFolder((arguments.folder or Path(temporary)) / "scale")
        build(folder, arguments.rows)
        alone, memory = measure(folder, report=False)
        print(f"compare: {alone:.1f} s, {memory:.0f} MB")
        seconds, memory = measure(folder, report=True)
        size = folder.report.stat().st_size / 1e6
        print(f"compare and report: {seconds:.1f} s, {memory:.0f} MB, page {size:.2f} MB")
    return int(
        any(
            got > limit for got, limit in zip((seconds, memory, size), LIMITS.values(), strict=True)
        )
    )


if __name__ == "__main__":
    sys.exit(main())
