"""Equal tuning effort: what is tried, what is chosen, and runs that train with it. Whole pipelines
on a tiny policy.
"""

from __future__ import annotations

import json

import pytest
import yaml
from tiny_runs import SMALL, cli, write_pipeline

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl, write_json
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.sweep import choose, extended, trials, with_chosen

SWEEP = {"values": [1.0e-4, 3.0e-4, 1.0e-3], "seeds": [7, 8], "budget_share": 0.5}


def pipeline(**changes):
    lab = {
        "task": {"name": "lab/chain"},
        "policy": {"model": "lab"},
        "budget": {"generated_tokens": 1001},
        "sweep": SWEEP,
    }
    return parse_pipeline(
        "p", {**lab, "arms": {"scalar": {}, "oracle": {"critic": {"kind": "oracle"}}}, **changes}
    )


def put(folder: PipelineFolder, arm: str, seed: int, score: float) -> None:
    write_json(folder.sweep.run(arm, seed).evaluation, {"metrics": {"pass@1/all": score}})


def test_trials_are_every_arm_with_every_value_and_a_share_of_the_budget() -> None:
    tried = trials(pipeline())
    assert list(tried.arms) == [
        f"{arm}@{value}" for arm in ("scalar", "oracle") for value in ("0.0001", "0.0003", "0.001")
    ]
    one = tried.arms["oracle@0.0003"]
    assert (
        one.trl["learning_rate"],
        one.budget.generated_tokens,
        one.evaluation.split,
        one.critic,
    ) == (3e-4, 500, "validation", {"kind": "oracle"})
    assert tried.seeds == (7, 8)
    assert pipeline().arms["oracle"].evaluation.split == "test"


def test_the_best_mean_over_seeds_is_chosen_and_an_edge_is_told(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    for arm, scores in {
        "scalar": ((0.1, 0.3), (0.4, 0.2), (0.2, 0.2)),
        "oracle": ((0.1, 0.1), (0.2, 0.2), (0.3, 0.1)),
    }.items():
        for value, pair in zip(("0.0001", "0.0003", "0.001"), scores, strict=True):
            for seed, score in zip((7, 8), pair, strict=True):
                put(folder, f"{arm}@{value}", seed, score)
    chosen = choose(pipeline(), folder)
    # means: scalar .2 .3 .2; oracle .1 .2 .2, of which the first
    assert (chosen["arms"]["scalar"]["chosen"], chosen["arms"]["scalar"]["at_edge"]) == (
        3e-4,
        False,
    )
    assert chosen["arms"]["oracle"]["chosen"] == 3e-4
    assert chosen["arms"]["oracle"]["tried"] == pytest.approx(
        {"0.0001": 0.1, "0.0003": 0.2, "0.001": 0.2}
    )
    assert {
        arm: config.trl["learning_rate"]
        for arm, config in with_chosen(pipeline(), folder).arms.items()
    } == {"scalar": 3e-4, "oracle": 3e-4}
    with pytest.raises(ConfigError, match="nothing chosen for arm scalar"):
        with_chosen(pipeline(sweep={"values": [1.0e-4, 1.0e-3]}), folder)


def test_a_value_whose_seeds_fall_apart_is_chosen_only_where_all_do(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    for arm, scores in {
        # .45 on average, and one seed of two took off
        "scalar": ((0.3, 0.3), (0.1, 0.8), (0.2, 0.2)),
        "oracle": ((0.1, 0.5), (0.2, 0.6), (0.0, 0.4)),
    }.items():
        for value, pair in zip(("0.0001", "0.0003", "0.001"), scores, strict=True):
            for seed, score in zip((7, 8), pair, strict=True):
                put(folder, f"{arm}@{value}", seed, score)
    chosen = choose(pipeline(), folder)["arms"]
    assert (chosen["scalar"]["chosen"], chosen["scalar"]["unstable"]) == (1e-4, ["0.0003"])
    assert (chosen["oracle"]["chosen"], len(chosen["oracle"]["unstable"])) == (3e-4, 3)


def test_the_list_grows_beyond_the_end_at_which_an_arm_did_best() -> None:
    def grown(*chosen: float) -> tuple[float, ...] | None:
        arms = {str(i): {"chosen": value} for i, value in enumerate(chosen)}
        longer = extended(pipeline(), {"arms": arms})
        return longer and longer.sweep.values

    assert grown(3e-4, 3e-4) is None
    assert grown(3e-4, 1e-3) == (1e-4, 3e-4, 1e-3, 0.00333)
    assert grown(1e-4, 1e-3) == (1e-4, 3e-4, 1e-3, 3.33e-5, 0.00333)
    assert list(trials(extended(pipeline(), {"arms": {"a": {"chosen": 1e-3}}})).arms)[-1] == (
        "oracle@0.00333"
    )


def test_a_choice_among_a_longer_list_holds_where_the_list_may_grow(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    longer = pipeline(sweep={**SWEEP, "values": [1.0e-4, 3.0e-4, 1.0e-3, 3.33e-3]})
    for arm in ("scalar", "oracle"):
        for value in ("0.0001", "0.0003", "0.001", "0.00333"):
            for seed in (7, 8):
                put(folder, f"{arm}@{value}", seed, float(value))
    choose(longer, folder)
    may_grow = pipeline(sweep={**SWEEP, "extend": 1})
    arms = with_chosen(may_grow, folder).arms
    assert {config.trl["learning_rate"] for config in arms.values()} == {3.33e-3}
    with pytest.raises(ConfigError, match="nothing chosen for arm scalar"):
        with_chosen(pipeline(), folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extend": -1}, "expected 0 or more"),
        ({"extend": 1, "values": [0.0, 1e-4]}, "values above 0"),
        ({"values": [1e-4]}, "two different numbers"),
        ({"values": ["1e-4", "3e-4"]}, "without quotes"),
        ({"values": [1e-4, 1e-4, 3e-4]}, "two different numbers"),
        ({"key": "learning_rate"}, "trl: or method: section"),
        ({"seeds": [0]}, "none of the pipeline's own seeds"),
        ({"budget_share": 0.0}, "above 0"),
        ({"vallues": [1]}, "did you mean 'values'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        pipeline(sweep={**SWEEP, **changes})


def test_a_branching_arm_cannot_be_swept() -> None:
    with pytest.raises(ConfigError, match="branches from another"):
        pipeline(arms={"scalar": {}, "late": {"branch_from": {"arm": "scalar", "at": 4}}})


@pytest.mark.processes
def test_a_pipeline_trains_with_the_chosen_value_and_judges_the_best_policy(
    tiny_policy, tmp_path
) -> None:
    # Of two values one is best, and that is an end of the list.
    sweep = {"values": [1.0e-4, 1.0e-3], "seeds": [9], "extend": 1}
    evaluation = {**SMALL["evaluation"], "curve_every": 1, "best_by": "pass@1/all"}
    path = write_pipeline(tmp_path, tiny_policy, sweep=sweep, evaluation=evaluation)
    out = tmp_path / "runs"
    early = cli("train", path, "--arm", "scalar", "--seed", 0, "--out", out)
    assert (early.returncode, "critique-rl run tries them first" in early.stderr) == (2, True)
    done = cli("run", path, "--out", out, "--jobs", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = PipelineFolder(out / "small")
    chosen = json.loads(folder.sweep_choice.read_text())
    assert json.loads(folder.comparison.read_text())["sweep"] == chosen
    run = folder.run("critique", 0)
    assert (
        yaml.safe_load(run.config.read_text())["trl"]["learning_rate"]
        == chosen["arms"]["critique"]["chosen"]
    )
    best = json.loads(run.evaluation.read_text())["best"]
    curve = [row["eval/pass@1/all"] for row in read_jsonl(run.metrics)]
    # the first of the highest, on a tiny policy that gets all wrong the first step
    assert (best["value"], best["step"]) == (max(curve), curve.index(max(curve)) + 1)
    assert [kept.name for kept in run.best_model.iterdir()] == [f"step{best['step']:05d}"]
    again = cli("run", path, "--out", out, "--jobs", 2)
    assert again.returncode == 0
    assert "runs to do" not in again.stderr
