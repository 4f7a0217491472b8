"""Share right and tokens per answer in training and in evaluation of the same weights.

    python tests/benchmarks/one_sampler.py [--kinds "two eos, own pad" ...]

Every kind of `bigram_policies` goes through `critique-rl run` with a learning rate of 0, in three
arms: scalar, a self critic, and a local critic that is a folder of the same kind. Training and
evaluation then ask the same weights, and what is right is known. The table is Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bigram_policies
import pyarrow.parquet
import yaml
from bigram_policies import KINDS, UNPARSED, Kind

ARMS = ("scalar", "self", "local")
STEPS = 8
BATCH = 64
GROUP = 8
SAMPLES = 64
HEAD = (
    "| policy | known | base | arm | training | evaluation | tokens per answer: known, training, "
    "evaluation | critiques |"
)


def pipeline(kind: Kind, folder: Path) -> dict:
    """The pipeline of one kind."""
    policy = str(bigram_policies.save_policy(kind, folder / "policy"))
    data = str(bigram_policies.write_rows(kind, folder / "rows.jsonl"))
    critic = {"kind": "local", "model": policy, "temperature": 1.0, "max_tokens": 32}
    section: dict = {"model": policy}
    if kind.neutral:
        section["generation_config"] = "neutral"
    return {
        "task": {"name": "data", "options": {"train": data}, "verifier": "last_number"},
        "policy": section,
        "trl": {
            "learning_rate": 0.0,
            "num_generations": GROUP,
            "per_device_train_batch_size": BATCH,
            "max_completion_length": 32,
            **kind.trl,
        },
        "budget": {"optimizer_steps": STEPS},
        "evaluation": {"samples": SAMPLES, "ks": [1], "curve_every": 0},
        "seeds": [0],
        "primary": "pass@1/all",
        "arms": {"scalar": {}, "self": {"critic": {"kind": "self"}}, "local": {"critic": critic}},
    }


def rollouts(run: Path) -> tuple[list[bool], list[str]]:
    """(right or not of every rollout, text of every critique) of a run, from its rollout log."""
    right = []
    critiques = []
    for path in sorted((run / "rollouts").glob("*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            if row["role"] == "rollout":
                right.append(row["outcome"] == "right")
            if row.get("critique"):
                critiques.append(row["critique"])
    return right, critiques


def share(evaluation: dict) -> tuple[float, int, float]:
    """(share right, answers, tokens per answer) of an eval.json."""
    problems = evaluation["problems"]
    answers = sum(problem["n"] for problem in problems)
    right = sum(problem["right"] for problem in problems)
    return right / answers, answers, evaluation["cost"]["evaluation_tokens"] / answers


def agree(first: float, n: int, second: float, m: int, known: float) -> bool:
    """Whether two shares differ by at most 3.3 standard errors: one false alarm in a thousand."""
    error = math.sqrt(known * (1 - known) * (1 / n + 1 / m))
    return abs(first - second) <= 3.3 * error + 1e-12


def rows_of(kind: Kind, runs: Path) -> tuple[list[str], int]:
    """Lines of the table for one kind, and how many of them are wrong."""
    lines = []
    wrong = 0
    base, base_answers, _ = share(json.loads((runs / "base" / "eval.json").read_text()))
    for arm in ARMS:
        run = runs / arm / "seed0"
        evaluation, answers, tokens = share(json.loads((run / "eval.json").read_text()))
        cost = json.loads((run / "eval.json").read_text())["cost"]["tokens"]
        right, critiques = rollouts(run)
        trained = sum(right) / len(right)
        trained_tokens = cost["rollout"] / len(right)
        good = [
            agree(trained, len(right), evaluation, answers, kind.right),
            agree(base, base_answers, evaluation, answers, kind.right),
            agree(trained, len(right), kind.right, 10**9, kind.right),
            trained_tokens == kind.tokens,
            tokens == kind.tokens,
            all(text in bigram_policies.ANSWERS for text in critiques),
            arm == "scalar" or kind.right == 1.0 or len(critiques) > 0,
        ]
        mark = "" if all(good) else f" **WRONG {good}**"
        wrong += not all(good)
        lines.append(
            f"| {kind.name} | {kind.right:.3f} | {base:.3f} | {arm} | {trained:.3f} ({len(right)}) "
            f"| {evaluation:.3f} ({answers}) | {kind.tokens}, {trained_tokens:g}, {tokens:g} "
            f"| {len(critiques)}{mark} |"
        )
    return lines, wrong


def run(kind: Kind, folder: Path) -> Path:
    """Run the pipeline of one kind; the folder of its results."""
    path = folder / "kind.yaml"
    path.write_text(yaml.safe_dump(pipeline(kind, folder)))
    words = ["-m", "critique_rl", "run", str(path), "--out", str(folder / "runs"), "--jobs", "2"]
    process = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if process.returncode:
        logs = [log.read_text()[-2000:] for log in (folder / "runs").rglob("*.log")]
        raise SystemExit("\n".join([process.stdout, process.stderr, *logs]))
    return folder / "runs" / "kind"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in (*KINDS, UNPARSED)])
    names = parser.parse_args().kinds
    print(HEAD)
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    for kind in (*KINDS, UNPARSED):
        if kind.name in names:
            with tempfile.TemporaryDirectory() as folder:
                lines, count = rows_of(kind, run(kind, Path(folder)))
            wrong += count
            print("\n".join(lines), flush=True)
    print(f"\n{wrong} rows wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
