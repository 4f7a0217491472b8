"""A run ends where its learning curve reaches `evaluation.stop_above`, and stays ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import cli, write_pipeline

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline

EVALUATION = {
    "problems": 4,
    "samples": 2,
    "ks": [1],
    "curve_every": 1,
    "curve_problems": 8,
    "curve_samples": 2,
}


def pipeline(folder: Path, stop_above: dict) -> Path:
    return write_pipeline(
        folder,
        "lab",
        task={"name": "lab/chain", "size": 12, "families": {"no-trap": 1}},
        trl={"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 48},
        budget={"optimizer_steps": 3},
        evaluation={**EVALUATION, "stop_above": stop_above},
        arms={"scalar": {}},
    )


@pytest.mark.processes
@pytest.mark.trains
def test_a_run_stops_at_the_first_point_that_reaches_every_value(tmp_path) -> None:
    # The base solves the no-trap family, and never the plateau family.
    path = pipeline(tmp_path, {"pass@1/no-trap": 0.5})
    words = ("train", path, "--arm", "scalar", "--seed", 0, "--out", tmp_path)
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "small" / "scalar" / "seed0"
    evaluation = json.loads((run / "eval.json").read_text())
    assert evaluation["cost"]["steps"] == 1
    assert evaluation["stopped_above"] == 1
    # Killed before its evaluation, it does not take the steps that it was spared.
    (run / "eval.json").unlink()
    again = cli(*words)
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "eval.json").read_text())["cost"]["steps"] == 1


@pytest.mark.parametrize(
    ("stop_above", "words"),
    [({"pass@4/all": 0.5}, "a pass@1"), ({"pass@1/all": 2}, "a share"), ({"x": "y"}, "stop_above")],
)
def test_values_that_no_curve_has_are_refused(tmp_path, stop_above, words) -> None:
    with pytest.raises(ConfigError, match=words):
        load_pipeline(pipeline(tmp_path, stop_above), [])


@pytest.mark.processes
def test_a_family_that_the_task_lacks_is_refused_by_doctor(tmp_path) -> None:
    path = pipeline(tmp_path, {"pass@1/nope": 0.5})
    done = cli("doctor", path)
    assert "stop_above: no metric 'pass@1/nope'" in " ".join((done.stdout + done.stderr).split())
