"""Runs of a policy folder with odd ends and settings: training and evaluation are of one policy."""

from __future__ import annotations

import json

import pytest
import yaml
from benchmarks import one_sampler
from bigram_policies import Kind
from tiny_runs import cli

pytestmark = [pytest.mark.trains, pytest.mark.processes]

ODD = Kind(
    "odd",
    end="<end_of_turn>",
    pad="</s>",
    # Behind "surely" .9 are right; the penalty is replaced, and .1 is above .05 of .9.
    generation={"eos_token_id": ["<end_of_turn>"], "repetition_penalty": 3.0, "min_p": 0.05},
    trl={"chat_template_kwargs": {"sure": True}},
    right=0.9,
    tokens=4,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of all arms: (folder of the pipeline, its file, what the command printed as errors)."""
    folder = tmp_path_factory.mktemp("odd")
    path = folder / "odd.yaml"
    path.write_text(yaml.safe_dump(one_sampler.pipeline(ODD, folder)))
    done = cli("run", path, "--out", folder / "runs")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "odd", path, done.stderr


def test_training_and_evaluation_agree_in_every_arm(finished) -> None:
    runs, _, _ = finished
    lines, wrong = one_sampler.rows_of(ODD, runs)
    assert wrong == 0, "\n".join(lines)
    evaluation = json.loads((runs / "scalar" / "seed0" / "eval.json").read_text())
    assert evaluation["max_new_tokens"] == 32
    assert evaluation["sampler"] == {
        "stop_ids": [3, 5],
        "settings": {"min_p": 0.05, "repetition_penalty": 1.0},
        "chat_template_kwargs": {"sure": True},
    }


def test_run_says_once_what_the_folder_leaves_in_force(finished) -> None:
    _, _, errors = finished
    assert errors.count("sets min_p 0.05") == 1
    assert "policy.generation_config=neutral" in errors


def test_saved_weights_are_judged_as_the_run_judged_them(finished) -> None:
    runs, path, _ = finished
    before = json.loads((runs / "scalar" / "seed0" / "eval.json").read_text())
    done = cli("evaluate", path, "--arm", "scalar", "--out", runs.parent)
    assert done.returncode == 0, done.stderr
    after = json.loads((runs / "scalar" / "seed0" / "eval.json").read_text())
    assert after["problems"] == before["problems"]
    assert after["sampler"] == before["sampler"]


def test_critics_are_tried_on_answers_that_end_as_rollouts_do(finished) -> None:
    runs, path, _ = finished
    done = cli("critics", path, "--out", runs.parent, "--json")
    assert done.returncode == 0, done.stderr
    bank = json.loads((runs / "bench" / "bank.json").read_text())
    assert {text for _, text in bank["attempts"]} == {"Sum = 7"}
    data = json.loads(done.stdout)
    # A refinement is right as often as a rollout; prompts have no say in this policy.
    for figures in data["critics"].values():
        assert figures["right"]["mean"] == pytest.approx(0.9, abs=0.25)


def test_doctor_says_it_too(finished, tmp_path) -> None:
    _, path, _ = finished
    done = cli("doctor", path, "--out", tmp_path, "--json")
    lines = json.loads(done.stdout)
    [line] = [line for line in lines if line["what"] == "sampling"]
    assert line["status"] == "warn"
    assert "min_p 0.05" in line["found"]
    assert "neutral" in line["advice"]
