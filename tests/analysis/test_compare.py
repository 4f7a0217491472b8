"""Evaluations in, paired differences out: numbers by hand, what is left out and why, and the words
about it.
"""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Boundary, Comparison, LeftOut, MissingRun
from critique_rl.analysis.exports import paper_tables
from critique_rl.analysis.numbers_csv import numbers
from critique_rl.analysis.problem_matrix import stratified
from critique_rl.analysis.summary import left_out, table, verdict
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.metrics import crossed_interval
from critique_rl.student_t import t_quantile

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


def test_the_difference_is_paired_on_problems_and_seeds(tmp_path):
    two_arms(tmp_path)
    (pair,) = compared(tmp_path).comparisons
    # differences in quarters: seed 0: a 1, b 2; seed 1: a 3, b 3. mean 9/4 quarters; in quarters:
    # row means 1.5, 3: MS_seed = 2 * 1.125 = 2.25;
    # column means 2, 2.5: MS_problem = 2 * .125 = .25; residuals +-.25: MS_residual = .25. Var =
    # (2.25 + .25 - .25) / 4 = .5625 quarters squared
    half = t_quantile(0.975, 2.25**2 / (2.25**2 + 0.25**2 + 0.25**2)) * math.sqrt(0.5625) / 4
    assert pair.difference == pytest.approx(9 / 16)
    assert pair.ci95 == (pytest.approx(9 / 16 - half), pytest.approx(9 / 16 + half))
    assert pair.per_seed == {"0": pytest.approx(1.5 / 4), "1": pytest.approx(3 / 4)}
    assert (pair.seeds, pair.problems, pair.interval_covers) == ((0, 1), 2, "problems and seeds")


def test_every_arm_gets_its_mean_its_seeds_and_its_cost(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "base", None, {"a": 0, "b": 0})
    comparison = compared(tmp_path)
    critique = comparison.arms["critique"]
    assert critique.metrics["pass@1/plateau"].mean == pytest.approx(11 / 16)
    assert critique.metrics["pass@1/plateau"].per_seed == {"0": 0.5, "1": 0.875}
    assert critique.cost.generated_tokens == 151_000  # mean of 152k and 150k
    assert comparison.base == {"pass@1/plateau": 0.5}
    json.dumps(comparison.to_json(), allow_nan=False)


def test_all_weighs_families_not_problems(tmp_path):
    families = {"a": "plateau", "b": "plateau", "c": "ladder"}
    for arm, right in (
        ("scalar", {"a": 0, "b": 0, "c": 0}),
        ("critique", {"a": 4, "b": 2, "c": 1}),
    ):
        put(tmp_path, arm, 0, right, families=families, metrics=("pass@1/all",))
    (pair,) = compared(tmp_path, seeds=[0], primary="pass@1/all").comparisons
    assert pair.difference == pytest.approx(0.5)  # plateau (1 + .5) / 2 = .75, ladder .25


def test_one_seed_covers_problems_only_and_the_verdict_says_so(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0, "b": 0})
    put(tmp_path, "critique", 0, {"a": 4, "b": 4})
    comparison = compared(tmp_path, seeds=[0])
    assert comparison.comparisons[0].interval_covers == "problems"
    assert "over 1 seed and 2 problems (one seed says nothing of other seeds)" in verdict(
        comparison
    )


def test_a_single_problem_and_seed_has_a_null_interval(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0})
    put(tmp_path, "critique", 0, {"a": 4})
    comparison = compared(tmp_path, seeds=[0])
    assert comparison.comparisons[0].ci95 is None
    assert "too few for an interval" in verdict(comparison)


def test_problems_and_seeds_only_one_side_has_drop_out(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0, "b": 0, "c": 0})
    put(tmp_path, "critique", 0, {"b": 1, "c": 3, "d": 4})
    put(tmp_path, "critique", 1, {"b": 4, "c": 4, "d": 4})
    comparison = compared(tmp_path)
    (pair,) = comparison.comparisons
    assert (pair.seeds, pair.problems, pair.difference) == ((0,), 2, 0.5)  # b 1/4, c 3/4
    assert comparison.missing == (MissingRun("scalar", 1),)
    assert "1 run without an evaluation" in verdict(comparison)


def test_problems_without_enough_judged_samples_drop_out_of_that_metric(tmp_path):
    for arm, right in (("scalar", 0), ("critique", 1)):
        put(
            tmp_path, arm, 0, {"a": right, "b": right}, metrics=("pass@1/plateau", "pass@4/plateau")
        )
    path = PipelineFolder(tmp_path).run("scalar", 0).evaluation
    evaluation = json.loads(path.read_text())
    evaluation["problems"][0] |= {"n": 3, "unscored": 1}
    path.write_text(json.dumps(evaluation))
    comparison = compared(tmp_path, seeds=[0])
    assert [pair.problems for pair in comparison.comparisons] == [2, 1]
    assert comparison.arms["scalar"].unscored == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"temperature": 0.6}, "temperature 0.6 instead of 1.0"),
        ({"top_p": 0.9}, "top_p 0.9 instead of 1.0"),
        ({"samples": 8}, "samples 8 instead of 4"),
        ({"task": {"name": "lab/chain", "depth": 3}}, "task.depth 3 instead of None"),
    ],
)
def test_evaluations_taken_another_way_are_left_out_with_the_reason(tmp_path, change, reason):
    two_arms(tmp_path)
    put(tmp_path, "critique", 1, {"a": 4, "b": 4}, **change)
    comparison = compared(tmp_path)
    (left_out,) = comparison.incomparable
    assert (left_out.arm, left_out.seed) == ("critique", 1)
    assert reason in left_out.reason
    assert comparison.comparisons[0].seeds == (0,)


def test_one_odd_seed_of_the_control_does_not_throw_out_the_others(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "scalar", 0, {"a": 0, "b": 0}, temperature=0.6)
    put(tmp_path, "scalar", 2, {"a": 0, "b": 0})
    comparison = compared(tmp_path, seeds=[0, 1, 2])
    assert [(item.arm, item.seed) for item in comparison.incomparable] == [("scalar", 0)]


def test_what_is_left_out_is_told_with_its_reason_and_counted_by_run(tmp_path):
    two_arms(tmp_path)
    for seed in (0, 1):
        put(tmp_path, "critique", seed, {"z": 4}, metrics=("pass@1/plateau", "pass@4/plateau"))
        put(tmp_path, "retry", seed, {"a": 4}, temperature=0.1 * seed)
    comparison = compared(tmp_path, arms=("scalar", "critique", "retry"))
    lines = left_out(comparison)
    assert [line.split(": ")[1] for line in lines] == [
        "critique/seed0",
        "critique/seed1",
        "retry/seed0",
        "retry/seed1",
    ]
    assert "temperature 0.1 instead of 1.0" in lines[-1]
    assert "4 left out as incomparable" in verdict(comparison)
    reasons = [f"pass@{k}/all: too few" for k in range(12)]
    unpaired = tuple(LeftOut("retry", None, reason) for reason in reasons)
    comparison = replace(comparison, incomparable=unpaired)
    assert "1 left out as incomparable" in verdict(comparison)
    assert left_out(comparison)[-2:] == [
        "left out: retry: pass@7/all: too few",
        "left out: 4 more, in compare.json",
    ]


def test_other_problems_are_incomparable(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0})
    put(tmp_path, "critique", 0, {"z": 4})
    comparison = compared(tmp_path, seeds=[0])
    assert comparison.comparisons == ()
    assert "none of its problems" in comparison.incomparable[0].reason
    assert verdict(comparison).startswith("No arm can be compared with scalar")


def test_arms_without_a_common_seed_are_incomparable(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0})
    put(tmp_path, "critique", 1, {"a": 4})
    (left_out,) = compared(tmp_path).incomparable
    assert "no seed that scalar has too" in left_out.reason


def test_nothing_to_compare_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="train the arms first"):
        compared(tmp_path)
    two_arms(tmp_path)
    with pytest.raises(
        ConfigError, match=r"got primary 'pass@1/plateu', expected one of pass@1/plateau"
    ):
        compared(tmp_path, primary="pass@1/plateu")
    with pytest.raises(
        ConfigError, match="got control 'scalar', expected one of the arms critique"
    ):
        compared(tmp_path, arms=["critique"])


@pytest.mark.parametrize("text", ["{", "[]", '{"problems": []}', '{"problems": [{"id": "a"}]}'])
def test_a_broken_evaluation_is_named(tmp_path, text):
    two_arms(tmp_path)
    path = PipelineFolder(tmp_path).run("critique", 0).evaluation
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"seed0/eval\.json is no evaluation"):
        compared(tmp_path)


@pytest.mark.parametrize(("arm", "seed"), [("scalar", 0), ("critique", 1)])
def test_an_evaluation_in_the_place_of_another_is_refused(tmp_path, arm, seed):
    two_arms(tmp_path)
    folder = PipelineFolder(tmp_path)
    folder.run("critique", 0).evaluation.write_text(folder.run(arm, seed).evaluation.read_text())
    with pytest.raises(
        ConfigError,
        match=f"it is of arm '{arm}' with seed {seed}, and lies where that of 'critique' with seed 0 belongs",
    ):
        compared(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"right": 9}, "'a' has 9 right of 4"),
        ({"right": -1}, "'a' has -1 right of 4"),
        ({"n": 9}, "'a' has 9 judged and 0 unscored of 4 samples"),
        ({}, "cost usd is nan"),
    ],
)
def test_numbers_that_cannot_be_are_named(tmp_path, changes, words):
    two_arms(tmp_path)
    path = PipelineFolder(tmp_path).run("critique", 0).evaluation
    raw = json.loads(path.read_text())
    raw["problems"][0] |= changes
    raw["cost"] |= {} if changes else {"usd": math.nan}
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=words):
        compared(tmp_path)


def test_the_verdict_names_difference_interval_and_cost(tmp_path):
    for seed in range(3):
        put(tmp_path, "scalar", seed, {"a": 0, "b": 0, "c": 0})
        put(
            tmp_path,
            "critique",
            seed,
            {"a": 2, "b": 2, "c": 2},
            cost={"critic_tokens": 31_000, "usd": 0.12},
        )
    expected = (
        "critique - scalar on pass@1/plateau: +0.50 [0.50, 0.50] over 3 seeds and 3 problems; "
    )
    spent = "at 150k generated tokens an arm, plus 31k critic tokens for critique; $0.12 for critique in all."
    assert verdict(compared(tmp_path, seeds=range(3))) == expected + spent


def test_the_verdict_admits_no_difference_and_unequal_tokens(tmp_path):
    put(tmp_path, "scalar", 0, {"a": 0, "b": 2}, cost={"generated_tokens": 100_000})
    put(tmp_path, "critique", 0, {"a": 2, "b": 1})
    sentence = verdict(compared(tmp_path, seeds=[0]))
    assert "the interval contains 0" in sentence
    assert "unequal generated tokens (scalar 100k, critique 150k)" in sentence


def test_the_tables_fit_80_columns(tmp_path):
    metrics = [f"pass@1/{family}" for family in ("plateau", "ladder", "all", "deep")]
    families = {f"{name}{i}": name for name in ("plateau", "ladder", "deep") for i in range(2)}
    for arm in ("scalar", "retry", "critique", "critique_distilled"):
        for seed in (0, 1):
            right, cost = dict.fromkeys(families, seed), {"critic_tokens": 3_210_000, "usd": 10.5}
            put(tmp_path, arm, seed, right, families=families, metrics=metrics, cost=cost)
    lines = printed(
        compared(tmp_path, arms=("scalar", "retry", "critique", "critique_distilled"))
    ).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any("retry" in line and "pass@1/deep" in line for line in lines)


def test_newly_solved_and_lost_stand_beside_the_noise_of_the_base(tmp_path):
    two_arms(tmp_path)  # scalar a 0, b 1; critique a 1 and b 3, then a 3 and b 4
    put(tmp_path, "base", None, {"a": 0, "b": 2})
    assert compared(tmp_path).boundary == {
        "scalar": Boundary(0, 0, 2),
        "critique": Boundary(1, 0, 2),
    }
    write_json(
        PipelineFolder(tmp_path).base_again.evaluation,
        json.loads(PipelineFolder(tmp_path).base.evaluation.read_text()),
    )
    put(tmp_path, "base", None, {"a": 1, "b": 0})
    boundary = compared(tmp_path).boundary
    assert boundary["base again"] == Boundary(1, 1, 2)  # again: a 0, b 2
    assert boundary["scalar"] == Boundary(1, 1, 2)


def test_without_a_base_there_is_no_boundary(tmp_path):
    two_arms(tmp_path)
    assert compared(tmp_path).boundary is None


def test_other_versions_and_other_prompts_are_refused_with_the_part_that_differs(tmp_path):
    two_arms(tmp_path)
    versions = {"trl": "1.16.0", "torch": "2.13.0"}
    for arm, seed in (("scalar", 0), ("scalar", 1), ("critique", 0)):
        put(tmp_path, arm, seed, {"a": 0, "b": 1}, versions=versions, prompts="abc")
    put(
        tmp_path,
        "critique",
        1,
        {"a": 0, "b": 1},
        versions={**versions, "trl": "1.15.0"},
        prompts="abd",
    )
    (left_out,) = compared(tmp_path).incomparable
    assert (
        left_out.reason
        == "evaluated with prompts abd instead of abc, versions.trl 1.15.0 instead of 1.16.0: evaluate it again as the control was"
    )


def test_every_arm_is_paired_with_every_earlier_one(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "cheap", 0, {"a": 1, "b": 3})
    put(tmp_path, "cheap", 1, {"a": 3, "b": 3})
    comparison = compared(tmp_path, arms=("scalar", "cheap", "critique"))
    pairs = {(pair.arm, pair.control): pair.difference for pair in comparison.pairs}
    # quarters: cheap 1 3 3 3, critique 1 3 3 4
    assert pairs == {
        ("cheap", "scalar"): pytest.approx(2 / 4),
        ("critique", "scalar"): pytest.approx(9 / 16),
        ("critique", "cheap"): pytest.approx(1 / 16),
    }
    assert "critique, best on pass@1/plateau" in printed(comparison)
    assert all(pair.p is None for pair in comparison.pairs), "two seeds have no p-value"


def test_reliability_is_over_all_problems_and_seeds_that_hold_votes(tmp_path):
    two_arms(tmp_path)
    assert compared(tmp_path).arms["scalar"].reliability is None
    path = PipelineFolder(tmp_path).run("scalar", 0).evaluation
    raw = json.loads(path.read_text())
    raw["problems"][0] |= {"agreement": 0.5, "agreed_right": False}
    raw["problems"][1] |= {"agreement": 1.0, "agreed_right": True}
    path.write_text(json.dumps(raw))
    reliability = compared(tmp_path).arms["scalar"].reliability
    assert reliability.ece == pytest.approx(0.25)  # half of the answers half sure and wrong
    assert [(part.high, part.right, part.count) for part in reliability.bins] == [
        (0.5, 0.0, 1),
        (1.0, 1.0, 1),
    ]


def test_spending_is_told_by_the_measure_that_agrees(tmp_path):
    for arm, generated in (("scalar", 150_000), ("critique", 90_000)):
        put(
            tmp_path,
            arm,
            0,
            {"a": 0, "b": 1},
            cost={"generated_tokens": generated, "total_tokens": 300_000},
        )
    assert "at 300k tokens in all an arm." in verdict(compared(tmp_path, seeds=[0]))


def test_the_policys_own_dollars_are_no_critics(tmp_path):
    put(
        tmp_path,
        "scalar",
        0,
        {"a": 0, "b": 1},
        cost={"total_tokens": 300_000, "generated_tokens": 1, "usd": 0.04},
    )
    put(
        tmp_path,
        "critique",
        0,
        {"a": 0, "b": 1},
        cost={"total_tokens": 300_000, "usd": 0.02, "critic_tokens": 5_000},
    )
    words = verdict(compared(tmp_path, seeds=[0]))
    assert words.endswith(
        "at 300k tokens in all an arm, of which 5k critic tokens for critique; $0.04 for scalar and $0.02 for critique in all."
    )


def test_many_arms_without_a_difference_are_one_clause_of_the_verdict(tmp_path):
    two_arms(tmp_path)
    for arm in ("retry", "shuffled", "nsr"):
        for seed in (0, 1):
            put(tmp_path, arm, seed, {"a": 0, "b": 1 + seed * (arm == "nsr")})
    words = verdict(compared(tmp_path, arms=("scalar", "retry", "shuffled", "nsr")))
    # nsr - scalar: 0 0 / 0 1 quarters, an interval around 1/16
    assert words.startswith(
        "no difference from scalar shown for retry, shuffled, nsr (intervals within ["
    )
    assert "] over 2 seeds and 2 problems); at" in words
    once = verdict(compared(tmp_path, arms=("scalar", "retry", "shuffled", "nsr"), seeds=[0]))
    assert "over 1 seed and 2 problems; one seed says nothing of other seeds)" in once


def test_where_several_arms_are_highest_none_is_called_the_best(tmp_path):
    two_arms(tmp_path)
    for arm in ("retry", "nsr"):
        for seed in (0, 1):
            put(tmp_path, arm, seed, {"a": 4, "b": 4})
    assert "best on" not in printed(compared(tmp_path, arms=("scalar", "retry", "nsr")))


def test_metrics_of_whole_evaluations_are_compared_over_seeds_alone(tmp_path):
    two_arms(tmp_path)
    for arm, values in (("scalar", (0.4, 0.5)), ("critique", (0.1, 0.3))):
        for seed, value in enumerate(values):
            path = PipelineFolder(tmp_path).run(arm, seed).evaluation
            raw = json.loads(path.read_text())
            raw["metrics"]["ece"] = value
            path.write_text(json.dumps(raw))
    pair = compared(tmp_path, primary="ece").comparisons[0]
    assert (pair.metric, pair.interval_covers, pair.per_seed) == (
        "ece",
        "seeds",
        {"0": pytest.approx(-0.3), "1": pytest.approx(-0.2)},
    )
    half = t_quantile(0.975, 1) * 0.05  # -.3 and -.2: standard error .05
    assert pair.ci95 == (pytest.approx(-0.25 - half), pytest.approx(-0.25 + half))


def test_shares_of_a_problem_are_compared_over_problems_and_seeds(tmp_path):
    for arm, abstained in (("scalar", 0), ("critique", 2)):
        for seed in (0, 1):
            put(
                tmp_path,
                arm,
                seed,
                {"a": 1, "b": 1},
                metrics=("pass@1/plateau", "hallucination/plateau"),
            )
            path = PipelineFolder(tmp_path).run(arm, seed).evaluation
            raw = json.loads(path.read_text())
            raw["problems"][0]["abstained"] = abstained
            path.write_text(json.dumps(raw))
    comparison = compared(tmp_path)
    # of 4: 3 wrong, or 1 wrong and 2 abstained, on one of two problems: (.75 + .75) / 2 against
    # (.25 + .75) / 2
    assert comparison.arms["scalar"].metrics["hallucination/plateau"].mean == 0.75
    pair = next(pair for pair in comparison.comparisons if pair.metric == "hallucination/plateau")
    assert (pair.difference, pair.problems, pair.interval_covers) == (
        -0.25,
        2,
        "problems and seeds",
    )


def test_the_second_template_has_arms_and_differences_of_its_own(tmp_path):
    two_arms(tmp_path)
    for arm, right in (("scalar", 0), ("critique", 4)):
        for seed in (0, 1):
            path = PipelineFolder(tmp_path).run(arm, seed).evaluation
            raw = json.loads(path.read_text())
            raw["second"] = {
                "template": "lab/second",
                "metrics": {"pass@1/plateau": right / 4},
                "prompts": "x",
            }
            raw["second"]["problems"] = [{**problem, "right": right} for problem in raw["problems"]]
            path.write_text(json.dumps(raw))
    comparison = compared(tmp_path)
    second = comparison.second
    assert (
        second.template,
        second.arms["critique"].metrics["pass@1/plateau"].mean,
        second.comparisons[0].difference,
    ) == ("lab/second", 1, 1)
    assert comparison.comparisons[0].difference == pytest.approx(9 / 16)  # as without it
    assert "The same problems asked by the template lab/second" in " ".join(
        printed(comparison).split()
    )
    titles = [part.caption for part in paper_tables(comparison)]
    assert "The same problems asked by the template lab/second" in titles
    kinds = {number.kind for number in numbers(comparison)}
    assert {"second", "second difference"} <= kinds
    json.dumps(comparison.to_json(), allow_nan=False)


def test_families_of_any_size_count_alike_and_what_they_differ_by_is_no_error():
    # means of the first three problems: 2 and 4, of the last: 8 and 0
    assert stratified(np.array([[1.0, 2, 3, 8], [4, 4, 4, 0]]), list("aaab")).mean(
        axis=1
    ).tolist() == pytest.approx([5, 2])
    interval = crossed_interval(
        stratified(np.array([[0.2, 0.2, 0.2, 0.9, 0.9]] * 3), list("aaabb"))
    )
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.55,) * 3)


@pytest.mark.parametrize(
    ("sizes", "seeds", "most"),
    [
        ((100, 100), 1, 975),
        ((5, 5), 5, 975),
        ((60, 60, 20), 3, 975),
        ((190, 10), 1, 1000),
        ((190, 10), 5, 1000),
    ],
)
def test_the_interval_over_families_holds_the_truth_as_often_as_it_says(sizes, seeds, most):
    draw, held = np.random.default_rng(0), 0
    families = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    middle = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(1000):
        seed, problem = (draw.normal(size=(seeds, 1)), draw.normal(size=len(families)))
        values = (
            middle
            + 0.05 * (seeds > 1) * seed
            + problem
            + 0.5 * draw.normal(size=(seeds, len(families)))
        )
        interval = crossed_interval(stratified(values, families))
        held += interval.low <= np.mean(range(len(sizes))) <= interval.high
    # 950 of 1,000 are wanted; a standard error is 7. Where families are too unequal the interval is
    # wide, and holds it more often
    assert 930 <= held <= most, held


def test_a_comparison_is_read_as_it_was_written(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "base", None, {"a": 0, "b": 2})
    sweep = {"key": "trl.learning_rate", "metric": "pass@1/all"}
    sweep |= {"arms": {"scalar": {"chosen": 0.1, "tried": {"0.1": 0.5}}}}
    write_json(PipelineFolder(tmp_path).sweep_choice, sweep)
    folder = PipelineFolder(tmp_path)
    comparison = compare(folder, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1, 2), 0.5)
    text = json.dumps(comparison.to_json())
    again = Comparison.from_json(json.loads(text))
    assert again == comparison
    assert json.dumps(again.to_json()) == text
    assert json.loads(text)["sweep"] == sweep


def test_keys_that_others_added_to_a_comparison_are_kept(tmp_path):
    two_arms(tmp_path)
    data = compared(tmp_path).to_json()
    data["reviewed_by"] = "a person"
    data["arms"]["critique"]["power"] = 0.9
    data["arms"]["critique"]["cost"]["joules"] = 3.5e6
    data["comparisons"][0]["effect_size"] = {"cohen": 1.25}
    comparison = Comparison.from_json(data)
    assert comparison.extra == {"reviewed_by": "a person"}
    assert comparison.comparisons[0].extra == {"effect_size": {"cohen": 1.25}}
    assert comparison.to_json() == data
    assert verdict(comparison) == verdict(compared(tmp_path))
    values = {(number.metric, number.value) for number in numbers(comparison)}
    assert {("power", 0.9), ("joules", 3.5e6)} <= values


def test_a_comparison_without_a_key_is_refused_and_later_keys_have_defaults(tmp_path):
    two_arms(tmp_path)
    data = compared(tmp_path).to_json()
    for key in ("target", "measure", "pairs", "second", "sweep"):
        del data[key]
    assert Comparison.from_json(data).measure == "generated_tokens"
    del data["arms"]["scalar"]["cost"]
    with pytest.raises(ConfigError, match="ArmSummary: got no cost, expected an object with"):
        Comparison.from_json(data)
    with pytest.raises(ConfigError, match=r"Comparison: got \[\], expected an object with target"):
        Comparison.from_json([])


def test_an_arm_without_an_interval_says_so_in_every_table(tmp_path):
    for arm, right in (("scalar", 0), ("retry", 1), ("critique", 4)):
        put(tmp_path, arm, 0, {"a": right})
    text = printed(compared(tmp_path, arms=("scalar", "retry", "critique"), seeds=[0]))
    assert "critique, best on pass@1/plateau" in text
    # 3 arms, 2 differences from the control, 2 from the best arm
    assert text.count("[no interval]") == 7
