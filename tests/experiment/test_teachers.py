"""Pipelines whose teacher is another model or a server: looked at before a run, and the same in a
run that goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from scoring_server import serving
from tiny_runs import SMALL, cli, write_pipeline
from transformers import AutoModelForCausalLM, AutoTokenizer

from critique_rl.cli.doctor.endpoint import check_teachers
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.experiment.foresight.settings import check_key
from critique_rl.experiment.preflight import setting_refusals

pytestmark = pytest.mark.processes
CRITIC = {"kind": "ground_truth"}
NO_CURVE = {**SMALL["evaluation"], "curve_every": 0}


def method(teacher, mode: str = "sampled") -> dict:
    return {"distill_weight": 1.0, "distill_mode": mode, "distill_teacher": teacher}


def pipeline(policy: str, teacher, **more) -> Pipeline:
    arms = {"a": {"critic": CRITIC, "method": {**method(teacher), **more}}}
    return parse_pipeline("p", {**SMALL, "policy": {"model": policy}, "arms": arms})


def test_the_doctor_asks_a_served_teacher_and_says_how_it_answers(tiny_policy) -> None:
    with serving(tiny_policy) as server:
        arms = pipeline(tiny_policy, {"base_url": server.url, "model": "m"})
        [line] = check_teachers(arms)
        assert (line.status, line.finding) == (
            "ok",
            "m gives log-probs of a text, by prompt_logprobs",
        )
        server.fault = "echo"
        [line] = check_teachers(arms)
        assert line.finding == "m gives log-probs of a text, by echo"
        server.fault = "no log-probs"
        [line] = check_teachers(arms)
    assert line.status == "fail"
    assert "gave no log-probs of a text (prompt_logprobs: bad response: no prompt" in line.finding
    assert not list(check_teachers(pipeline(tiny_policy, {"model": tiny_policy})))


def test_what_a_run_would_refuse_is_refused_before_any(tiny_policy, tmp_path, monkeypatch) -> None:
    [refusal] = setting_refusals(pipeline(tiny_policy, {"model": str(tmp_path / "nowhere")}))
    assert "method.distill_teacher.model" in refusal
    assert "is no folder" in refusal
    other = tmp_path / "other"
    shutil.copytree(tiny_policy, other)
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    tokenizer.add_tokens(["quux"])
    tokenizer.save_pretrained(other)
    [refusal] = setting_refusals(pipeline(tiny_policy, {"model": str(other)}))
    assert "has another tokenizer than the policy: 102 tokens" in refusal
    served = {"base_url": "https://teacher.example/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}
    [refusal] = setting_refusals(pipeline(tiny_policy, served, distill_mode="full"))
    assert "distill_mode full: got a teacher behind a server" in refusal
    config = pipeline(tiny_policy, served).arms["a"]
    [finding] = check_key(config)
    assert finding.is_refused
    assert "$NO_SUCH_KEY is not set" in finding.words
    monkeypatch.setenv("NO_SUCH_KEY", "key-of-a-server")
    assert not list(check_key(config))


def test_a_run_goes_on_with_the_teacher_that_it_was_started_with(tiny_policy, tmp_path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_policy, folder)

    def arguments(place: Path, *more: str) -> tuple:
        path = write_pipeline(
            tmp_path,
            tiny_policy,
            trl={**SMALL["trl"], "save_steps": 2},
            budget={"optimizer_steps": 2},
            evaluation=NO_CURVE,
            arms={"a": {"critic": CRITIC, "method": method({"model": str(place)}, "topk")}},
        )
        out = tmp_path / "runs"
        return ("train", path, "--arm", "a", "--seed", 0, "--out", out, *more)

    done = cli(*arguments(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    run = PipelineFolder(tmp_path / "runs" / "small").run("a", 0)
    assert not list(run.checkpoints.glob("checkpoint-*/teacher*"))
    assert "teacher/model.safetensors" in run.config.read_text()
    # the same content in another place
    run.evaluation.unlink()
    moved = folder.rename(tmp_path / "moved")
    done = cli(*arguments(moved))
    assert done.returncode == 0, done.stderr[-2000:]
    # other weights in the same place
    run.evaluation.unlink()
    model = AutoModelForCausalLM.from_pretrained(moved, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    model.save_pretrained(moved)
    refused = cli(*arguments(moved))
    assert refused.returncode == 2
    assert "cannot go on as the same run: teacher/model.safetensors" in refused.stderr


def test_a_served_run_keeps_its_answers_and_tells_what_they_cost(tiny_policy, tmp_path) -> None:
    with serving(tiny_policy) as server:
        teacher = {"base_url": server.url, "model": "m", "prompt_price": 2.0}
        path = write_pipeline(
            tmp_path,
            tiny_policy,
            budget={"usd": 0.001, "optimizer_steps": None},
            trl={**SMALL["trl"], "max_steps": 3},
            evaluation=NO_CURVE,
            arms={"a": {"critic": CRITIC, "method": method(teacher)}},
        )
        done = cli("train", path, "--arm", "a", "--seed", 0, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    run = PipelineFolder(tmp_path / "runs" / "small").run("a", 0)
    rows = read_jsonl(run.metrics)
    tokens = rows[-1]["tokens/served_teacher"]
    assert rows[-1]["cost/usd"] == pytest.approx(2e-6 * tokens)
    assert tokens > 0
    assert (run.teacher / "cache.sqlite").exists()
    card = (run.model / "README.md").read_text()
    assert "m behind a server as teacher" in card
    assert server.url not in card
