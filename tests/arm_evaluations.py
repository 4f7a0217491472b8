"""Evaluations of arms for tests: eval.json files put in a folder, and their comparison."""

import io
import json

from rich.console import Console

from critique_rl.analysis.compare import compare
from critique_rl.analysis.verdict import table
from critique_rl.config.run_folder import PipelineFolder

PROTOCOL = {
    "split": "test",
    "samples": 4,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 96,
    "task": {"name": "lab/chain"},
}
COST = {
    "generated_tokens": 150_000,
    "critic_tokens": 0,
    "usd": 0.0,
    "wall_seconds": 60.0,
    "steps": 61,
}


def put(
    tmp_path, arm, seed, right, cost=None, metrics=("pass@1/plateau",), families=None, **protocol
):
    """An eval.json with 4 samples a problem; `right` maps problem ids to right answers."""
    path = (
        tmp_path / "base" / "eval.json"
        if arm == "base"
        else PipelineFolder(tmp_path).run(arm, seed).evaluation
    )
    family = families or dict.fromkeys(right, "plateau")
    problems = [
        {"id": name, "family": family[name], "n": 4, "right": count, "unscored": 0}
        for name, count in right.items()
    ]
    about = {"arm": arm, "seed": seed, **PROTOCOL, **protocol}
    evaluation = {
        **about,
        "problems": problems,
        "metrics": dict.fromkeys(metrics, 0.5),
        "cost": {**COST, **(cost or {})},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evaluation))


def compared(tmp_path, arms=("scalar", "critique"), seeds=(0, 1), primary="pass@1/plateau"):
    return compare(PipelineFolder(tmp_path), "scalar", primary, arms, seeds)


def printed(comparison):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(comparison))
    return console.export_text()


def two_arms(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0, "b": 1})
    put(tmp_path, "scalar", 1, {"a": 0, "b": 1})
    put(tmp_path, "critique", 0, {"a": 1, "b": 3}, cost={"generated_tokens": 152_000})
    put(tmp_path, "critique", 1, {"b": 4, "a": 3})
