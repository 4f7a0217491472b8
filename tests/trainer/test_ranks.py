"""Two ranks against one on fixed completions and critiques, to 1e-5; and ranks that sample for
themselves, under DDP and FSDP2. All over gloo, on a CPU.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ranks
import torch
from accelerate.commands import launch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from replayed_ranks import STEPS, VARIANTS
from scoring_server import serving
from tiny_runs import SMALL, write_pipeline
from waiting import ended, wait_for_steps

from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.preflight import setting_refusals
from critique_rl.trainer.refusals import refuse_sharding

pytestmark = pytest.mark.processes
SHIPPED = Path(__file__).parents[2] / "pipelines"
CLOSE = 1e-5
SHARED = ("loss", "grad_norm", "reward", "loss/scalar", "loss/refine", "loss/distill", "loss/own")
"""Of each optimizer step. Other metrics are means over micro batches, in which rows come together
at random.
"""
SHARDED = ("base", "alone", "ema", "lora", "other")
OUTCOMES = ("ok", "cached", "failed", "skipped", "not_asked")
UNEVEN_RUNS = ("moody", "own_critic", "turns", "own_turns", "shared")
RESUMED = ("resumed", "resumed_turns", "resumed_stale")
SERVED = ("vllm_server", "vllm_turns", "vllm_stale")


def read(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{name}{rank}.json").read_text())


@pytest.fixture(scope="module")
def one(tiny_policy, tmp_path_factory) -> Path:
    def calls(folder: Path) -> list[ranks.Call]:
        return [("replayed_ranks", [tiny_policy, str(folder), *VARIANTS])]

    return ranks.run_once(tmp_path_factory, "one", calls, world=1)


@pytest.fixture(scope="module")
def ddp(tiny_policy, tmp_path_factory) -> Path:
    def calls(folder: Path) -> list[ranks.Call]:
        arguments = [tiny_policy, str(folder)]
        return [
            ("replayed_ranks", [*arguments, *VARIANTS]),
            ("free_ranks", [*arguments, *UNEVEN_RUNS, *RESUMED, *SERVED]),
        ]

    return ranks.run_once(tmp_path_factory, "ddp", calls)


@pytest.fixture(scope="module")
def fsdp2(tiny_policy, tmp_path_factory) -> Path:
    def calls(folder: Path) -> list[ranks.Call]:
        arguments = [tiny_policy, str(folder)]
        return [
            ("replayed_ranks", [*arguments, *SHARDED]),
            ("free_ranks", [*arguments, *UNEVEN_RUNS, *RESUMED]),
        ]

    return ranks.run_once(tmp_path_factory, "fsdp2", calls, FSDP_ON_CPU="1")


# ---- replayed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_take_the_steps_of_one(one, ddp, variant) -> None:
    alone, together = read(one, "replayed")[variant], read(ddp, "replayed")[variant]
    same_steps(alone, together)
    assert alone["norms"].keys() == together["norms"].keys()
    for term, norms in alone["norms"].items():
        assert norms == pytest.approx(together["norms"][term], abs=CLOSE), (
            f"gradient norms of {term}"
        )
        assert len(norms) == 2 * STEPS
        assert max(norms) > 10 * CLOSE
    assert read(ddp, "replayed", 1)[variant]["tokens"] == together["tokens"]
    same_weights(one, ddp, variant)


@pytest.mark.parametrize("variant", SHARDED)
def test_two_ranks_with_half_of_the_weights_each_take_the_steps_of_one(one, fsdp2, variant) -> None:
    same_steps(read(one, "replayed")[variant], read(fsdp2, "replayed")[variant])
    same_weights(one, fsdp2, variant)


def test_another_model_with_the_weights_of_the_start_takes_the_steps_of_the_base(one) -> None:
    runs = read(one, "replayed")
    same_steps(runs["base"], runs["other"])
    for name, weights in torch.load(one / "base.pt").items():
        torch.testing.assert_close(torch.load(one / "other.pt")[name], weights, atol=1e-6, rtol=0)


def test_ranks_share_a_served_teacher_and_take_the_steps_of_one_and_of_its_weights(
    tiny_policy, tmp_path
) -> None:
    with serving(tiny_policy) as server:
        for world in (1, 2):
            folder = tmp_path / str(world)
            variants = ["served", "in_process"]
            calls = [("replayed_ranks", [tiny_policy, str(folder), *variants])]
            asked = len(server.asked)
            ranks.run(folder, calls, world, TEACHER_URL=server.url)
            # Equal rows of one rank are asked for once, and one rank alone probes.
            assert len(server.asked) - asked < 100
    alone, together = (read(tmp_path / world, "replayed") for world in "12")
    same_steps(alone["served"], together["served"])
    same_weights(tmp_path / "1", tmp_path / "2", "served")
    for variant, runs in (("served", alone), ("in_process", alone)):
        assert max(row["loss/distill"] for row in runs[variant]["log"]) > 10 * CLOSE
    for mine, theirs in zip(alone["served"]["log"], alone["in_process"]["log"], strict=True):
        # The term's weight of 10 multiplies the rounding of a pass over other batches.
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4, abs=10 * CLOSE)


def same_steps(alone: dict[str, Any], together: dict[str, Any]) -> None:
    assert len(alone["log"]) == len(together["log"]) == 2 * STEPS
    for mine, theirs in zip(alone["log"], together["log"], strict=True):
        for name in SHARED:
            assert mine.get(name) == pytest.approx(theirs.get(name), abs=CLOSE), name
        terms = [value for name, value in theirs.items() if name.startswith("loss/")]
        assert not terms or sum(terms) == pytest.approx(theirs["loss"], abs=CLOSE)
        counted = {
            name: value
            for name, value in mine.items()
            if name.startswith(("critique/", "rollout/", "refine/")) and name not in UNEVEN
        }
        assert counted == {name: theirs[name] for name in counted}
    assert alone["tokens"] == together["tokens"]


UNEVEN = ("critique/seconds", "refine/logps", "refine/kl")


def same_weights(one: Path, other: Path, variant: str) -> None:
    mine, theirs = (torch.load(folder / f"{variant}.pt") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) < CLOSE


def test_the_replayed_steps_are_as_uneven_as_they_should_be(ddp) -> None:
    """Generations: some fail everywhere, none on rank 1, the critic down on rank 1 alone, none at
    all, some.
    """
    first, second = (read(ddp, "replayed", rank)["base"]["counts"] for rank in (0, 1))
    failed = [
        [counts.get("critique/failed_rollouts", 0) for counts in rank] for rank in (first, second)
    ]
    assert [min(pair) > 0 for pair in zip(*failed, strict=True)] == [True, False, True, False, True]
    assert failed[1][1] == 0 < failed[0][1]
    assert failed[0][3] == failed[1][3] == 0
    assert "critique/failed" not in first[2]
    assert second[2]["critique/failed"] == second[2]["critique/failed_rollouts"] > 0
    assert sum(counts.get("outcome/unscored", 0) for counts in [*first, *second]) > 0
    turns = [read(ddp, "replayed", rank)["turns"]["counts"] for rank in (0, 1)]
    refined = [[counts.get("refine/turn/3/refined", 0) for counts in rank] for rank in turns]
    assert min(map(max, refined)) > 0
    assert any(a != b for a, b in zip(*refined, strict=True))


# ---- free ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", UNEVEN_RUNS)
@pytest.mark.parametrize("backend", ["ddp", "fsdp2"])
def test_uneven_ranks_do_not_wait_for_ever_and_their_counts_add_up(
    request, backend, scenario
) -> None:
    first, second = (
        read(request.getfixturevalue(backend), "free", rank)[scenario] for rank in (0, 1)
    )
    assert first["checksum"] == second["checksum"], "weights stay in step"
    counts_add_up(first, second)


def counts_add_up(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["counts"][0]["critique/failed_rollouts"] > 0
    assert second["counts"][0]["critique/failed_rollouts"] == 0
    logged = [row for row in first["log"] if "critique/failed_rollouts" in row]
    assert len(logged) == len(first["counts"]) == 2, "four steps, two a generation"
    for row, *counts_of_ranks in zip(logged, first["counts"], second["counts"], strict=True):
        asked = sum(row.get(f"critique/{outcome}", 0) for outcome in OUTCOMES)
        failed = row["critique/failed_rollouts"] + row.get("critique/failed_refinements", 0)
        assert failed == asked
        for name in counts_of_ranks[0]:
            if name.startswith(("critique/failed", "refine/turn/")) and name in row:
                assert row[name] == sum(counts.get(name, 0) for counts in counts_of_ranks), name
    assert first["tokens"] == second["tokens"], "every rank knows the total"
    for owner, total in first["tokens"].items():
        counts_of_steps = [*first["counts"], *second["counts"]]
        assert total == sum(counts.get(owner, 0) for counts in counts_of_steps), owner


@pytest.mark.parametrize("backend", ["ddp", "fsdp2"])
def test_the_ranks_of_a_run_with_turns_are_uneven_and_its_turns_add_up(request, backend) -> None:
    for scenario in ("turns", "own_turns"):
        first, second = (
            read(request.getfixturevalue(backend), "free", rank)[scenario] for rank in (0, 1)
        )
        # in the first generation nothing fails on rank 1
        assert first["counts"][0]["refine/turn/2/refined"] > 0
        assert not second["counts"][0].get("refine/turn/2/refined")
        for counts in (*first["counts"], *second["counts"]):
            for kind, owner in (("", "refinement"), ("prompt_", "refinement_prompt")):
                turns = [counts.get(f"refine/turn/{i}/{kind}tokens", 0) for i in (1, 2, 3)]
                assert sum(turns) == counts.get(f"tokens/{owner}", 0)


@pytest.mark.parametrize("backend", ["ddp", "fsdp2"])
def test_ranks_ask_about_a_share_of_all_failures_together(request, backend) -> None:
    first, second = (
        read(request.getfixturevalue(backend), "free", rank)["shared"] for rank in (0, 1)
    )
    assert first["share"] == second["share"], "every rank knows all failures"
    due = asked = 0
    for counts_of_ranks in zip(first["counts"], second["counts"], strict=True):
        for counts in counts_of_ranks:
            due += counts["critique/due"]
            asked += counts["critique/asked"]
        assert asked == due // 2
    assert due == first["share"]["due"]
    # in the first generation nothing fails on rank 1, and everything after it
    assert second["counts"][0]["critique/due"] == 0
    assert second["counts"][1]["critique/asked"] > 0


@pytest.mark.parametrize("scenario", RESUMED)
@pytest.mark.parametrize("backend", ["ddp", "fsdp2"])
def test_two_ranks_go_on_from_a_checkpoint_as_if_they_had_not_stopped(
    request, backend, scenario
) -> None:
    for rank in (0, 1):
        record = read(request.getfixturevalue(backend), "free", rank)[scenario]
        assert record["weights_apart"] == record["teachers_apart"] == 0.0
        assert record["tokens"][0] == record["tokens"][1]
        assert record["turns"][0] == record["turns"][1]
        assert record["shares"][0] == record["shares"][1]
        has_turns = any(row.get("refine/turn/2/refined") for row in record["turns"][0])
        assert rank or has_turns == (scenario == "resumed_turns")


@pytest.mark.parametrize("scenario", SERVED)
def test_every_rank_gets_the_completions_of_its_own_prompts_from_a_vllm_server(
    ddp, scenario
) -> None:
    first, second = (read(ddp, "free", rank)[scenario] for rank in (0, 1))
    assert first["wrong"] == second["wrong"] == 0
    assert first["checksum"] == second["checksum"]
    counts_add_up(first, second)


def test_what_cannot_read_the_head_whole_is_refused_with_a_way_out() -> None:
    zero3 = SimpleNamespace(zero_stage=3)
    fsdp1 = FullyShardedDataParallelPlugin(fsdp_version=1)
    none = SimpleNamespace(distill_weight=0.0, refine_anchor_weight=0.0)
    for deepspeed, fsdp, name in ((zero3, None, "DeepSpeed ZeRO-3"), (None, fsdp1, "FSDP1")):
        state = SimpleNamespace(deepspeed_plugin=deepspeed, fsdp_plugin=fsdp)
        refuse_sharding(state, none)
        with pytest.raises(
            ValueError, match=rf"distill_weight: got 0\.5 under {name}.* Use DDP, ZeRO-2 or FSDP2"
        ):
            refuse_sharding(state, SimpleNamespace(distill_weight=0.5, refine_anchor_weight=0.0))
    zero2 = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=2), fsdp_plugin=None)
    refuse_sharding(zero2, SimpleNamespace(distill_weight=0.5, refine_anchor_weight=0.5))


# ---- what is shipped for GPUs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddp", {"ACCELERATE_MIXED_PRECISION": "bf16"}),
        (
            "fsdp2",
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
            },
        ),
        ("zero1", {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}),
        ("zero2", {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}),
        (
            "zero3",
            {
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
            },
        ),
    ],
)
def test_accelerates_launcher_takes_the_shipped_configs(name, expected) -> None:
    words = [
        "--config_file",
        str(SHIPPED / "accelerate" / f"{name}.yaml"),
        "-m",
        "critique_rl",
        "train",
    ]
    arguments, defaults, _ = launch._validate_launch_command(
        launch.launch_command_parser().parse_args(words)
    )
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    assert arguments.num_processes == 8
    environment = (
        prepare_deepspeed_cmd_env(arguments)[1]
        if name.startswith("zero")
        else prepare_multi_gpu_env(arguments)
    )
    assert {key: environment.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", ["one_gpu", "eight_gpus", "vllm_server"])
def test_the_pipelines_for_gpus_pass_every_check_before_a_run_but_that_of_their_data(name) -> None:
    """Their data are on the Hub, and so in place of them stand problems with numbers for answers
    that need no network.
    """
    pipeline = load_pipeline(SHIPPED / f"{name}.yaml", ["task={name: reasoning-gym/chain_sum}"])
    # Elsewhere: this machine has neither their devices nor vLLM.
    assert setting_refusals(pipeline, is_elsewhere=True) == []


# ---- the command line on two ranks ---------------------------------------------------------------


@pytest.mark.parametrize("backend", [{}, {"FSDP_ON_CPU": "1"}])
def test_a_run_of_two_ranks_stops_at_one_signal_and_the_same_command_finishes_it(
    tiny_policy, tmp_path, backend
) -> None:
    evaluation = {**SMALL["evaluation"], "curve_every": 12}
    # So many that the signal comes long before the last, also where this process gets little time.
    budget = {"optimizer_steps": 24}
    path = write_pipeline(tmp_path, tiny_policy, budget=budget, evaluation=evaluation)
    out = tmp_path / "runs"
    run = PipelineFolder(out / "small").run("critique", 0)
    calls = [
        (
            "command_on_ranks",
            ["train", str(path), "--arm", "critique", "--seed", "0", "--out", str(out)],
        )
    ]
    started = ranks.start(tmp_path / "first", calls, **backend)
    wait_for_steps(run, 3, *started)
    os.kill(started[1].pid, signal.SIGTERM)
    codes = [ended(process, f"rank {number}") for number, process in enumerate(started)]
    assert codes == [130, 130], (tmp_path / "first" / "rank0.log").read_text()[-3000:]
    stopped = read_jsonl(run.metrics)[-1]["step"]
    assert stopped < 24
    assert not run.finished
    ranks.run(tmp_path / "second", calls, **backend)
    assert f"continuing from step {stopped}" in (tmp_path / "second" / "rank0.log").read_text()
    assert [row["step"] for row in read_jsonl(run.metrics)] == list(range(1, 25)), (
        "no step is lost or there twice"
    )
    evaluation = json.loads(run.evaluation.read_text())
    assert evaluation["cost"]["steps"] == 24
    assert evaluation["problems"]
    assert {path.name[-13:] for path in run.rollouts.glob("*")} == {
        "rank0.parquet",
        "rank1.parquet",
    }
