"""Branching from a plateau: one run that turns to critiques there, and an arm that branches there,
are the same run bit for bit.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import SMALL, cli, write_pipeline

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.run_folder import PipelineFolder

WALL = ("seconds", "step_time", "critique/seconds")
# A tiny policy gets nothing right: its series is all zero, and stuck at the first look after two
# windows.
BRANCHING = {
    "preset": "mixed",
    "method": {"distill_teacher": "ema"},
    "critic": {"kind": "oracle"},
    "trl": {**SMALL["trl"], "save_steps": 3, "learning_rate": 1e-3},
    "budget": {"optimizer_steps": 24},
    "evaluation": {
        **SMALL["evaluation"],
        "curve_every": 2,
        "curve_problems": 8,
        "curve_samples": 2,
    },
    "plateau": {"window": 2, "looks": 8, "min_gain": 0.2},
    "arms": {
        "scalar": {"critic": {"kind": "none"}, "method": {"distill_weight": 0}},
        "inside": {"critique_from": "plateau"},
        "branch": {"branch_from": {"arm": "scalar"}},
        "early": {"branch_from": {"arm": "scalar", "at": 4}},
    },
}


def series(run) -> list[dict]:
    return [
        {key: value for key, value in row.items() if key not in WALL}
        for row in read_jsonl(run.metrics)
    ]


@pytest.mark.processes
def test_critique_from_plateau_equals_the_branch_arm_bit_for_bit(tiny_policy, tmp_path) -> None:
    path = write_pipeline(tmp_path, tiny_policy, **BRANCHING)
    out = tmp_path / "runs"
    done = cli("run", path, "--out", out, "--jobs", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = PipelineFolder(out / "small")
    inside, branch, early, scalar = (
        folder.run(arm, 0) for arm in ("inside", "branch", "early", "scalar")
    )
    evaluation = json.loads(branch.evaluation.read_text())
    step = evaluation["branch"]["step"]
    assert (evaluation["branch"]["fired"], evaluation["plateau"]["status"], step) == (
        True,
        "stuck",
        10,
    )
    assert series(inside) == series(branch)
    assert series(scalar)[:step] == series(branch)[:step]
    assert "refine/candidates" in json.dumps(series(branch)[step:]), (
        "critiques came, and were followed"
    )
    assert "refine/candidates" not in json.dumps(series(branch)[:step])
    ours, theirs = (load_file(run.model / "model.safetensors") for run in (inside, branch))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(
        *(
            load_file(run.model / "model.safetensors")["model.embed_tokens.weight"]
            for run in (scalar, branch)
        )
    )
    assert json.loads(early.evaluation.read_text())["branch"]["step"] == 4
    assert series(early)[:4] == series(scalar)[:4]
    assert series(early)[4:] != series(branch)[4:]
    assert cli("run", path, "--out", out).returncode == 0


@pytest.mark.processes
def test_where_the_plateau_never_came_the_arm_branches_at_the_last_step(
    tiny_policy, tmp_path
) -> None:
    changes = {
        **BRANCHING,
        "plateau": {"window": 2, "looks": 8, "min_gain": 0.001},
        "budget": {"optimizer_steps": 8},
    }
    changes["arms"] = {name: BRANCHING["arms"][name] for name in ("scalar", "branch")}
    path = write_pipeline(tmp_path, tiny_policy, **changes)
    out = tmp_path / "runs"
    done = cli("run", path, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    branch = json.loads(PipelineFolder(out / "small").run("branch", 0).evaluation.read_text())
    assert (branch["branch"]["fired"], branch["branch"]["step"], branch["plateau"]["status"]) == (
        False,
        8,
        "rising",
    )
    assert len(read_jsonl(PipelineFolder(out / "small").run("branch", 0).metrics)) == 8, (
        "the last step is in the middle of an epoch"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": {"scalar": {}, "b": {"branch_from": {"arm": "scaler"}}}},
            "no other arm 'scaler'; did you mean 'scalar'",
        ),
        ({"arms": {"b": {"branch_from": {"arm": "b"}}}}, "no other arm 'b'"),
        (
            {"arms": {"scalar": {}, "b": {"branch_from": {"arm": "scalar", "at": "end"}}}},
            "expected 'plateau' or an optimizer step",
        ),
        (
            {"plateau": None, "arms": {"scalar": {}, "b": {"branch_from": {"arm": "scalar"}}}},
            "has no plateau: section",
        ),
        (
            {"plateau": None, "arms": {"a": {"critique_from": "plateau"}}},
            "critique_from plateau needs a plateau: section",
        ),
        ({"arms": {"a": {"critique_from": "stuck"}}}, "expected start or plateau"),
        ({"plateau": {"windw": 3}}, "unknown key 'windw'; did you mean 'window'"),
        ({"evaluation": {"curve_every": 0}}, "set evaluation.curve_every"),
    ],
)
def test_branches_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pipeline("p", {**SMALL, "policy": {"model": "lab"}, "plateau": {}, **changes})


@pytest.mark.processes
def test_a_plateau_between_two_generations_is_refused_before_the_first_run(
    tiny_policy, tmp_path
) -> None:
    trl = {**BRANCHING["trl"], "num_iterations": 3}
    path = write_pipeline(tmp_path, tiny_policy, **{**BRANCHING, "trl": trl})
    done = cli("run", path, "--out", tmp_path / "runs")
    assert (done.returncode, "expected a multiple of 3" in done.stderr) == (2, True), done.stderr[
        -1000:
    ]
