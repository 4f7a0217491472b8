"""What `run` refuses, `train`, `plan` and `doctor` refuse too, in the same words and before
anything is written or trained.
"""

from __future__ import annotations

import copy
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import SMALL

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.experiment.preflight import check_pipeline, setting_refusals

NAN, INF = float("nan"), float("inf")
API = {"kind": "api", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
LOCAL = {"kind": "local", "model": "lab/critic"}
LIBRARIES = [
    *[
        ("trl.generation_kwargs", value)
        for value in (
            *({"foo": 1}, {"num_beam": 2}, {"num_beams": "a"}, {"num_beams": 0}),
            *({"num_return_sequences": 2}, {"stop_strings": ["a"]}, '{"foo": 1}'),
            *({"return_dict_in_generate": True}, {"temperature": "hot"}, {"suppress_tokens": "a"}),
        )
    ],
    ("trl.cache_implementation", "statik"),
    *[("policy.options", {name: 1}) for name in ("foo", "atn_implementation", "load_in_8bits")],
    *[("policy.options", {"attn_implementation": value}) for value in ("nope", "flashed")],
    ("policy.options", {"dtype": "float33"}),
    *[("trl.optim_args", value) for value in ("foo=1", "foo", "amsgrad=true", "a=b=c")],
    *[("trl.lr_scheduler_kwargs", value) for value in ({"foo": 1}, {"num_cycles": 2}, [1])],
    *[("trl.lr_scheduler_type", value) for value in ("cosine_with_min_lr", "warmup_stable_decay")],
    *[("critic", {**LOCAL, "device": value}) for value in ("gpu0", "cuda:99", "meta", "", 5)],
    *[("critic", {**LOCAL, "options": value}) for value in ({"foo": 1}, {"dtype": "float33"})],
    ("critic", {"kind": "noisy", "wrong": 0.5, "critic": {**LOCAL, "device": "cuda:99"}}),
    *[("trl.router_aux_loss_coef", value) for value in (0.1, -1)],
    *[(f"trl.{name}", -1) for name in ("vespo_k_pos", "vespo_lambda_neg", "neftune_noise_alpha")],
    ("trl.vllm_importance_sampling_mode", "token"),
    ("trl.gradient_checkpointing_kwargs", {"foo": 1}),
    ("trl.model_init_kwargs", {"dtype": "float32"}),
]
"""Values that a library alone can judge, so that it is asked without the weights."""
BAD = [
    *LIBRARIES,
    *[("trl.learning_rate", value) for value in (NAN, INF, -1.0, True, "1e", [1], None)],
    *[("trl.max_completion_length", value) for value in (0, -1, True, 1.5, None)],
    *[("trl.num_generations", value) for value in (0, 1, -2, 3, True, 2.5)],
    *[("trl.per_device_train_batch_size", value) for value in (0, -1, 6, "8")],
    *[("trl.gradient_accumulation_steps", value) for value in (0, -1, True)],
    *[("trl.steps_per_generation", value) for value in (0, -1)],
    *[("trl.num_iterations", value) for value in (0, -1, False)],
    *[("trl.temperature", value) for value in (0, -1.0, NAN)],
    *[("trl.top_p", value) for value in (0, 1.5, -0.1, NAN)],
    *[("trl.top_k", value) for value in (-2, 1.5)],
    *[("trl.save_steps", value) for value in (0, -1, 1.5, True, "often", NAN)],
    *[("trl.save_total_limit", value) for value in (0, -1, True)],
    *[("trl.max_steps", value) for value in (0, -2, 1.5, True)],
    *[("trl.beta", value) for value in (-0.1, NAN)],
    *[("trl.max_grad_norm", value) for value in (-1, NAN, INF)],
    *[("trl.weight_decay", value) for value in (-1, NAN)],
    *[("trl.data_seed", value) for value in (-1, 2**32, True)],
    *[("trl.loss_type", value) for value in ("gspo", 3)],
    *[("trl.optim", value) for value in ("adamv", 3)],
    *[("trl.lr_scheduler_type", value) for value in ("lineal",)],
    *[("trl.reward_weights", value) for value in ([1.0, 2.0], 3)],
    *[("trl.output_dir", value) for value in ("/tmp/elsewhere",)],
    *[("method.refine_slots", value) for value in (-1, True, 4, 1.5)],
    *[("method.refine_weight", value) for value in (NAN, -1, True)],
    *[("method.refine_template", value) for value in ("../x", 3)],
    *[("preset", value) for value in ("grpoo", 3)],
    *[("seeds", value) for value in ([-1], [2**32], [0, 0], [True], [1.0], [], 3, None, ["0"])],
    *[("task.size", value) for value in (0, -1, True, 1.5, 10**9, 1)],
    *[("task.families", value) for value in ({"plateau": -1}, {"plateau": 0}, {"plateau": NAN})],
    *[("task.families", value) for value in ({"../x": 1}, {"plateau": True}, 3, {1: 1})],
    *[("task.options", value) for value in ({"depth": 3}, {1: 1}, 3)],
    *[("task.repeat_one", value) for value in (-1, 10**6, True)],
    *[
        ("task.verifier", {"kind": "math", **numbers})
        for numbers in (
            {"deadline": 5, "step_deadline": 9},
            {"deadline": 1e30},
            {"deadline": True},
            {"workers": 10**6},
            {"memory_gb": 1e-9},
        )
    ],
    *[("task.verifier", value) for value in ("mathh", {"kind": "python", "target": "no:no"}, 3)],
    *[("evaluation.samples", value) for value in (0, -1, True, 1.5)],
    *[("evaluation.problems", value) for value in (0, -1, 10**7)],
    *[("evaluation.temperature", value) for value in (-1, NAN, INF, True)],
    *[("evaluation.top_p", value) for value in (0, 1.1, NAN)],
    *[("evaluation.ks", value) for value in ([], [0], [1, 1], [True], 1, [64], ["1"], [1.5])],
    *[("evaluation.split", value) for value in ("train", 3)],
    *[("evaluation.curve_every", value) for value in (-1, True)],
    *[("budget", value) for value in ({"optimizer_steps": 0}, {"flops": NAN}, {"usd": INF}, 3)],
    *[
        ("budget", value)
        for value in ({"generated_tokens": -1}, {"total_tokens": True}, {"usd": 1})
    ],
    *[("prices", value) for value in ({"completion": -1}, {"prompt": NAN}, {"training": True})],
    *[("keep_steps", value) for value in (True, [True], [0], [-1], [1.5], 3, [2, 2])],
    *[("plateau", value) for value in ({"window": 0}, {"alpha": NAN}, {"family": "../x"})],
    *[("primary", value) for value in ("pass@16/plateau", "pass@1/../x", 3, NAN)],
    *[("control", value) for value in (1, [1], "../x")],
    *[("target", value) for value in (NAN, 0, 2, True)],
    *[("policy.model", value) for value in ("./nowhere", "/etc/none", 3)],
    *[("reward", value) for value in ({"kind": "random", "rate": NAN}, {"kind": "randon"})],
    *[("critic", value) for value in ({"kind": "oracel"}, {"kind": "retry", "votes": 2}, {})],
    *[
        ("critic", {**API, name: value})
        for name, value in (
            *(("concurrency", 0), ("concurrency", -1), ("deadline", NAN), ("deadline", 0)),
            *(("attempt_deadline", -1), ("attempts", 0), ("temperature", -1), ("temperature", NAN)),
            *(("top_p", 0), ("max_tokens", 0), ("prompt_price", -1), ("completion_price", NAN)),
            *(("caps", {"max_cost": -1}), ("caps", {"max_requests": NAN}), ("base_url", "nowhere")),
            *(("requests_per_minute", 0), ("max_concurrent", 0), ("seed", True), ("votes", True)),
        )
    ],
    *[
        ("sweep", {"values": [1e-4, value], "seeds": [9]})
        for value in (NAN, -1.0, 1.0000001e-4, True)
    ],
    *[
        ("sweep", {"values": [1e-4, 2e-4], "seeds": seeds})
        for seeds in ([0], [-1], [2**32], [True])
    ],
    *[("sweep", {"values": [1e-4, 2e-4], "seeds": [9], "metric": m}) for m in ("pass@9/all", 3)],
    *[
        ("sweep", {"values": [1e-4, 2e-4], "seeds": [9], "key": key})
        for key in ("trl.lr", "task.size")
    ],
]
"""(Dotted key, a value that it must not have)."""
LONG = "CRITIQUE_RL_CASES" in os.environ
"""All cases; the suite takes some of each kind."""


def changed(key: str, value: object) -> dict:
    data = copy.deepcopy({**SMALL, "policy": {"model": "lab"}})
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    return data


def refusal(path: Path) -> str:
    """What refuses the pipeline, in words; "" where nothing does."""
    try:
        check_pipeline(load_pipeline(path), download=False)
    except ConfigError as error:
        return str(error)
    return ""


def test_every_bad_value_is_refused_in_one_sentence(tmp_path) -> None:
    path = tmp_path / "small.yaml"
    step = 1 if LONG else 5
    for key, value in BAD[::step]:
        path.write_text(yaml.safe_dump(changed(key, value)))
        words = refusal(path)
        assert words, (key, value)
        assert "Traceback" not in words
        assert len(words.splitlines()) == 1, words
    path.write_text(yaml.safe_dump({**SMALL, "policy": {"model": "lab"}}))
    assert refusal(path) == ""


def test_values_that_only_a_library_knows_are_refused_before_models_load() -> None:
    before = torch.get_rng_state()
    for key, value in LIBRARIES:
        [words] = setting_refusals(parse_pipeline("p", changed(key, value)))[:1]
        assert key.partition(".")[2] in words or key in words
        assert len(words.splitlines()) == 1
        assert len(words) < 600
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "vLLM is not installed"),
        (
            {"loss_type": "vespo", "vllm_importance_sampling_mode": "sequence_mask"},
            "expected token_truncate or token_mask",
        ),
    ],
)
def test_vllm_where_it_is_not_installed_or_its_correction_does_not_fit(options, words) -> None:
    data = changed("trl.use_vllm", True)
    data["trl"].update(options)
    [refused] = setting_refusals(parse_pipeline("p", data))
    assert words in refused
    # Other machines may have it, and no machine takes the pair.
    elsewhere = setting_refusals(parse_pipeline("p", data), is_elsewhere=True)
    assert len(elsewhere) == len(options) // 2


@pytest.mark.skipif(find_spec("codecarbon") is not None, reason="codecarbon is installed")
def test_a_tracker_that_is_not_installed_is_refused_and_may_be_elsewhere() -> None:
    pipeline = parse_pipeline("p", changed("trl.report_to", "codecarbon"))
    [refused] = setting_refusals(pipeline)
    assert "trl.report_to: got 'codecarbon'" in refused
    assert setting_refusals(pipeline, is_elsewhere=True) == []
    [unknown] = setting_refusals(parse_pipeline("p", changed("trl.report_to", "wandbb")), True)
    assert "wandbb is not supported" in unknown


@pytest.mark.parametrize(
    "options",
    [
        {"generation_kwargs": {"num_beams": 2}, "cache_implementation": "static"},
        {"generation_kwargs": '{"no_repeat_ngram_size": 3, "max_new_tokens": 9000}'},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=True"},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0.5}},
        {
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": '{"num_decay_steps": 1}',
        },
        {"loss_type": "vespo", "vllm_importance_sampling_mode": "sequence_mask"},
        {"router_aux_loss_coef": 0.0, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    ],
)
def test_what_the_libraries_take_is_taken(options) -> None:
    data = changed("policy.options", {"attn_implementation": "eager", "attention_dropout": 0.0})
    data["trl"].update(options)
    data["arms"]["critique"]["critic"] = {**LOCAL, "device": "cpu", "options": {"dtype": "float16"}}
    assert setting_refusals(parse_pipeline("p", data)) == []


def answers(path: Path, capsys, out: Path) -> dict[str, str]:
    """What each command says about a pipeline; none of them may write anything."""
    said = {}
    common = [str(path), "--out", str(out)]
    for command in ("run", "plan", "train", "doctor"):
        words = [command, *common]
        if command == "train":
            words += ["--arm", "scalar", "--seed", "0"]
        assert main(words) in (1, 2), words
        output = capsys.readouterr()
        said[command] = output.out + output.err
        assert not out.exists(), words
    return said


def test_four_commands_refuse_in_the_same_words_and_write_nothing(tmp_path, capsys) -> None:
    path = tmp_path / "small.yaml"
    step = 1 if LONG else 17
    for key, value in BAD[::step]:
        path.write_text(yaml.safe_dump(changed(key, value)))
        words = refusal(path)
        for command, text in answers(path, capsys, tmp_path / "runs").items():
            for line in words.splitlines():
                assert line in text, (command, key, value)


def test_the_doctor_names_every_fault_at_once(tmp_path) -> None:
    data = changed("trl.learning_rate", -1.0)
    data["policy"] = {"model": "./nowhere"}
    data["primary"] = "pass@9/all"
    data["arms"]["critique"]["critic"] = {"kind": "oracel"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    refusals = setting_refusals(load_pipeline(path))
    for part in ("learning_rate", "./nowhere", "pass@9/all", "oracel"):
        assert any(part in refusal for refusal in refusals), part


def test_a_place_for_results_that_is_none_is_refused_by_all(tmp_path, capsys) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "policy": {"model": "lab"}}))
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        for command in ("run", "plan", "train", "doctor"):
            words = [command, str(path), "--out", str(out)]
            if command == "train":
                words += ["--arm", "scalar", "--seed", "0"]
            assert main(words) in (1, 2)
            assert "give another --out" in "".join(capsys.readouterr())


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_train_takes_no_seed_that_a_pipeline_could_not_name(tmp_path, capsys, seed) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "policy": {"model": "lab"}}))
    assert main(["train", str(path), "--arm", "scalar", f"--seed={seed}"]) == 2
    assert "--seed: got" in capsys.readouterr().err
