"""Finished runs of a pipeline with presets, made by hand: config.yaml, metrics.jsonl, eval.json."""

from __future__ import annotations

import math
from pathlib import Path

import yaml
from arm_evaluations import put

from critique_rl.config.durable_files import append_jsonl, write_yaml
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.resolved_run import to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder
from critique_rl.experiment.resume.inputs import preset_inputs
from critique_rl.trainer.presets import deviations

ODD = "odd_arm %#{x}^~ \N{GREEK SMALL LETTER BETA}"
"""An arm's name with signs that LaTeX reads otherwise."""
PIPELINE = {
    "task": {"name": "lab/chain", "size": 12},
    "policy": {"model": "lab"},
    "trl": {"max_completion_length": 12, "learning_rate": 1e-4},
    "budget": {"generated_tokens": 150000},
    "evaluation": {"problems": 8, "samples": 4, "curve_every": 1},
    "seeds": [0, 1, 2],
    "primary": "pass@1/plateau",
    "arms": {
        "scalar": {"preset": "dr_grpo"},
        "critique": {
            "preset": "critique_grpo",
            "method": {"refine_gamma": 0.3},
            "critic": {"kind": "oracle"},
        },
        ODD: {"preset": "nsr"},
    },
}
RIGHT = {"scalar": 1, "critique": 3, ODD: 0}
"""Arm -> right answers of 4 to most problems."""
VERSIONS = {"python": "3.11.9", "trl": "1.16.0"}


def make(folder: Path, pipeline: dict = PIPELINE) -> tuple[Path, PipelineFolder]:
    """Write the pipeline's file and its results into a folder; the run of ODD with seed 2 is not
    evaluated.
    """
    path = folder / "plateau.yaml"
    path.write_text(yaml.safe_dump(pipeline, allow_unicode=True, sort_keys=False))
    results = PipelineFolder(folder / "runs" / "plateau")
    for arm, config in load_pipeline(path, []).arms.items():
        for seed in pipeline["seeds"]:
            run = results.run(arm, seed)
            about = {"schema": SCHEMA, "run_id": "0123456789ab", "arm": arm, "seed": seed}
            deviates = deviations(config.preset, {**config.trl, **config.method})
            inputs = preset_inputs(config.preset)
            settings = to_dict(with_seed(config, seed))
            more = {"deviates": deviates, "inputs": inputs, "versions": VERSIONS}
            write_yaml(run.config, {**about, **settings, **more})
            for step in range(1, 13):
                rate = RIGHT[arm] / 4 * (1 - math.exp(-step / 4)) + 0.01 * seed
                row = {"step": step, "tokens/generated": 12_500 * step + seed}
                append_jsonl(run.metrics, {**row, "eval/pass@1/plateau": round(rate, 3)})
            if (arm, seed) != (ODD, 2):
                _put_evaluation(results.path, arm, seed)
    put(results.path, "base", None, {f"p{i}": int(i < 2) for i in range(8)})
    return path, results


def _put_evaluation(folder: Path, arm: str, seed: int) -> None:
    right = {f"p{i}": RIGHT[arm] + (i + seed) % 2 for i in range(8)}
    cost = {"total_tokens": 310_000}
    if arm == "critique":
        cost |= {"critic_tokens": 12_000, "usd": 0.35}
    put(folder, arm, seed, right, cost=cost)


def accept_change(results: PipelineFolder, arm: str, seed: int) -> None:
    """What a run looks like that went on with another prompt at step 5."""
    config = yaml.safe_load(results.run(arm, seed).config.read_text())
    config["accepted_changes"] = [{"step": 5, "changes": ["prompts/refine 0a, now 0b"]}]
    write_yaml(results.run(arm, seed).config, config)
