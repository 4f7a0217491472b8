"""What is found before the first run trains: lengths, keys, sampling, budget; refused or warned."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_runs import SMALL, write_pipeline

from critique_rl.cli.doctor.command import check
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.experiment.foresight import settings
from critique_rl.experiment.foresight.findings import refuse_or_warn
from critique_rl.experiment.foresight.foresee import foresee

API = {"kind": "api", "base_url": "https://api.example.com/v1", "model": "m"}


def policy_with_context(folder, policy: str, tokens: int) -> str:
    """A copy of a policy whose context has that many tokens."""
    copy = shutil.copytree(policy, folder / f"context{tokens}")
    settings = json.loads((copy / "config.json").read_text())
    settings["max_position_embeddings"] = tokens
    (copy / "config.json").write_text(json.dumps(settings))
    return str(copy)


def found(policy: str, **changes) -> dict[str, tuple[bool, str, tuple[str, ...]]]:
    """What was checked -> (refused, words, arms)."""
    pipeline = parse_pipeline("small", {**SMALL, "policy": {"model": policy}, **changes})
    findings = foresee(pipeline.arms)
    return {item.what: (item.is_refused, item.words, arms) for item, arms in findings.items()}


def with_trl(**options) -> dict:
    return {**SMALL["trl"], "max_completion_length": 48, **options}


def test_settings_without_a_fault_are_not_talked_about(tiny_policy) -> None:
    assert found(tiny_policy, trl=with_trl()) == {}


@pytest.mark.parametrize(("times", "warned"), [(7.24, True), (0.6, False)])
def test_half_precision_is_warned_of_where_it_is_slow(
    tiny_policy, monkeypatch, times, warned
) -> None:
    monkeypatch.setattr(settings, "product_slowdown", lambda _: times)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings = found(tiny_policy, trl=with_trl(bf16=True))
    assert ("bf16" in findings) == warned
    if warned:
        is_refused, text, arms = findings["bf16"]
        assert not is_refused
        assert "takes 7.2 times as long as in float32" in text
        assert arms == ("scalar", "critique")


def test_the_time_of_half_precision_is_measured() -> None:
    assert 0.01 < settings.product_slowdown(torch.bfloat16) < 1000
    assert settings.product_slowdown(torch.float32) == pytest.approx(1)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (48, "max_completion_length is 48, and the policy's context of 48 tokens holds prompt"),
        (32, "max_completion_length is 48, and the policy's context of 32 tokens holds prompt"),
        (50, r"tokens and max_completion_length is 48: together over the policy's context of 50"),
    ],
)
def test_a_context_without_room_for_a_prompt_is_refused(
    tiny_policy, tmp_path, context, words
) -> None:
    policy = policy_with_context(tmp_path, tiny_policy, context)
    is_refused, text, arms = found(policy, trl=with_trl())["context"]
    assert is_refused
    assert words in text
    assert arms == ("scalar", "critique")


@pytest.mark.parametrize(
    ("context", "share", "words"),
    [
        # Prompts have 24 tokens at most, refine prompts without an attempt 25 to 31 or so.
        (76, "42%", "do not fit, however short the attempt: the policy's context of 76 tokens"),
        (100, "100%", "do not fit where an attempt has its longest 48 tokens: the policy's conte"),
    ],
)
def test_refine_prompts_without_room_are_warned_of_where_some_have_room(
    tiny_policy, tmp_path, context, share, words
) -> None:
    policy = policy_with_context(tmp_path, tiny_policy, context)
    is_refused, text, arms = found(policy, trl=with_trl())["refine prompts"]
    assert not is_refused
    assert text.startswith(f"{share} of refine prompts {words}")
    assert arms == ("critique",)  # the scalar arm refines nothing


def test_refine_prompts_that_never_have_room_are_refused(tiny_policy) -> None:
    method = {"max_refine_prompt_length": 20}
    is_refused, text, arms = found(tiny_policy, trl=with_trl(), method=method)["refine prompts"]
    assert is_refused
    assert text.endswith("however short the attempt: max_refine_prompt_length is 20")
    assert arms == ("critique",)


def test_solutions_that_do_not_fit_are_counted_in_the_policys_tokens(tiny_policy) -> None:
    # The tokenizer of the lab has one token per sign: the longest of the 12 has about 30.
    is_refused, words, _ = found(tiny_policy, trl=with_trl(max_completion_length=12))["solutions"]
    assert not is_refused  # a policy may answer in fewer tokens than the worked solution has
    assert (
        "12 worked solutions of the task need more than max_completion_length 12 (the lo" in words
    )
    assert found(tiny_policy, trl=with_trl(max_completion_length=99)) == {}


def test_answers_that_no_completion_can_hold_are_refused(tiny_policy, tmp_path) -> None:
    rows = [{"question": f"{i} + {i}", "answer": str(10**20 + i)} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "data", "size": 60, "options": {"train": str(path)}}
    is_refused, words, _ = found(
        tiny_policy, task=task, primary="pass@1/all", trl=with_trl(max_completion_length=20)
    )["solutions"]
    assert is_refused
    assert words.startswith("100% of ")
    assert " answers of the task need more than max_completion_length 20 (the longest: 22" in words


@pytest.mark.parametrize(
    "critic", [API, {"kind": "noisy", "critic": API, "wrong": 0.5}], ids=["api", "noisy"]
)
def test_a_missing_key_is_refused_before_any_arm_trains(
    tiny_policy, tmp_path, monkeypatch, capsys, critic
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = write_pipeline(tmp_path, tiny_policy, arms={"scalar": {}, "asked": {"critic": critic}})
    assert main(["run", str(path), "--out", str(tmp_path / "runs")]) == 2
    assert "arm asked, api key: https://api.example.com/v1 needs a key" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("log.txt"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert found(tiny_policy, arms={"asked": {"critic": critic}}, trl=with_trl()) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_p": 0.9}, "top_p 0.9 cut the distribution"),
        ({"top_k": 20, "min_p": 0.1}, "top_k 20, min_p 0.1 cut the distribution"),
        ({"generation_kwargs": {"top_p": 0.8}}, "top_p 0.8 cut the distribution"),
        ({}, ""),
        ({"top_p": 0.9, "use_vllm": False}, ""),
        ({"top_p": 0.9, "vllm_importance_sampling_correction": False}, ""),
        ({"top_p": 0.9, "generation_kwargs": {"top_p": 1.0}}, ""),
    ],
)
def test_with_vllm_a_cut_distribution_is_warned_of(tiny_policy, options, words) -> None:
    trl = with_trl(**{"use_vllm": True, **options})
    finding = found(tiny_policy, trl=trl).get("vLLM sampling")
    if not words:
        assert finding is None
        return
    assert not finding[0]
    assert finding[1].startswith(words)


def test_a_budget_that_is_not_there_is_warned_of(tiny_policy) -> None:
    is_refused, words, _ = found(tiny_policy, budget={}, trl=with_trl())["budget"]
    assert not is_refused
    assert words.startswith("there is none, so every arm ends after 3 epochs")
    assert found(tiny_policy, budget={}, trl=with_trl(max_steps=3)) == {}


def test_refusals_and_warnings_are_lines_with_their_arms(tiny_policy, tmp_path) -> None:
    arms = {"scalar": {}, "critique": {"critic": {"kind": "oracle"}}}
    data = {**SMALL, "policy": {"model": tiny_policy}, "arms": arms, "budget": {}}
    pipeline = parse_pipeline("small", {**data, "trl": with_trl()})
    [line] = refuse_or_warn(foresee(pipeline.arms))
    assert line.startswith("WARNING: arms scalar, critique, budget: there is none")
    policy = policy_with_context(tmp_path, tiny_policy, 48)
    pipeline = parse_pipeline("small", {**data, "trl": with_trl(), "policy": {"model": policy}})
    with pytest.raises(ConfigError, match="arms scalar, critique, context: max_completion_length"):
        refuse_or_warn(foresee(pipeline.arms))


def test_the_doctor_has_a_line_per_finding(tiny_policy, tmp_path) -> None:
    policy = policy_with_context(tmp_path, tiny_policy, 48)
    data = {**SMALL, "budget": {}, "trl": with_trl(), "policy": {"model": policy}}
    lines = {line.what: line for line in check(parse_pipeline("s", data), tmp_path, None, None)}
    assert lines["context (scalar, critique)"].status == "fail"
    assert lines["budget (scalar, critique)"].status == "warn"
    data = {**data, "policy": {"model": "nobody/has-this"}, "budget": SMALL["budget"]}
    lines = {line.what: line for line in check(parse_pipeline("s", data), tmp_path, None, None)}
    assert lines["lengths (scalar, critique)"].finding == (
        "not looked at, for nobody/has-this is not on this machine"
    )


@pytest.mark.parametrize(
    ("context", "completion", "advice"),
    [
        # Prompts have 24 tokens at most.
        (23, 8, "take a policy with a longer context, or leave out the longest questions"),
        (70, 48, "lower trl.max_completion_length, or leave out the longest questions"),
    ],
)
def test_advice_can_be_followed(tiny_policy, tmp_path, context, completion, advice) -> None:
    policy = policy_with_context(tmp_path, tiny_policy, context)
    trl = with_trl(max_completion_length=completion)
    pipeline = parse_pipeline("small", {**SMALL, "policy": {"model": policy}, "trl": trl})
    advices = {item.what: item.advice for item in foresee(pipeline.arms)}
    assert advices["context"] == advice


def test_a_solution_longer_than_the_context_asks_for_another_policy(tiny_policy, tmp_path) -> None:
    policy = policy_with_context(tmp_path, tiny_policy, 28)
    trl = with_trl(max_completion_length=4)
    pipeline = parse_pipeline("small", {**SMALL, "policy": {"model": policy}, "trl": trl})
    advices = {item.what: item.advice for item in foresee(pipeline.arms)}
    assert advices["solutions"] == "take a policy with a longer context than 28"


def test_a_policy_too_short_to_criticise_itself_is_refused(tiny_policy, tmp_path) -> None:
    rows = [{"question": f"{i} + {i}", "answer": str(i)} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "data", "size": 60, "options": {"train": str(path)}}
    changes = {
        "arms": {"scalar": {}, "critique": {"critic": {"kind": "self"}}},
        "task": task,
        "primary": "pass@1/all",
        "trl": with_trl(),
    }
    policy = policy_with_context(tmp_path, tiny_policy, 400)
    is_refused, words, arms = found(policy, **changes)["critic prompts"]
    assert is_refused
    assert words.startswith("100% of the prompts by which the policy criticises itself do not fit")
    policy = policy_with_context(tmp_path, tiny_policy, 4000)
    assert "critic prompts" not in found(policy, **changes)
    assert arms == ("critique",)
