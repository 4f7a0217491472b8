"""Evaluations in, paired differences out: numbers by hand, what is left out and why, and the words
about it.
"""

import json
import math

import pytest
from arm_evaluations import compared, printed, put, two_arms

from critique_rl.analysis.comparison import Boundary, MissingRun
from critique_rl.analysis.exports import paper_tables
from critique_rl.analysis.numbers_csv import numbers
from critique_rl.analysis.page.configs import Configs
from critique_rl.analysis.page.reader_warnings import reader_warnings
from critique_rl.analysis.verdict import verdict
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.intervals import share_contrast_interval, t_quantile


def test_the_difference_is_paired_on_problems_and_seeds(tmp_path):
    two_arms(tmp_path)
    (pair,) = compared(tmp_path).comparisons
    # differences in quarters: seed 0: a 1, b 2; seed 1: a 3, b 3
    shares = [[[2 / 4, 2 / 4], [3 / 4, 4 / 4]], [[1 / 4, 0 / 4], [0 / 4, 1 / 4]]]
    interval = share_contrast_interval((1, -1), shares, tries=4)
    assert pair.difference == pytest.approx(9 / 16)
    assert pair.ci95 == (pytest.approx(interval.low), pytest.approx(interval.high))
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
    evaluation["problems"][0] |= {"n": 3, "unscored": 1, "timeouts": 2}
    path.write_text(json.dumps(evaluation))
    comparison = compared(tmp_path, seeds=[0])
    assert [pair.problems for pair in comparison.comparisons] == [2, 1]
    arm = comparison.arms["scalar"]
    assert (arm.unscored, arm.timeouts, arm.samples) == (1, 2, 8)
    warnings = "\n".join(reader_warnings(comparison, {}, Configs({}, {})))
    assert "wrong: scalar 1. That is over 5% of the answers of scalar 12%." in warnings
    assert "too long twice, and count as wrong: scalar 2. That is over 5%" in warnings


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


MATH = {"kind": "math", "deadline": 2}


@pytest.mark.parametrize(
    ("verifier", "is_compared"),
    [
        ({**MATH, "workers": 8, "memory_gb": 4}, True),
        ({**MATH, "deadline": 3}, False),
        ({**MATH, "step_deadline": 60}, False),
        ("math", False),
    ],
)
def test_workers_and_memory_of_a_verifier_make_no_other_protocol(tmp_path, verifier, is_compared):
    two_arms(tmp_path)
    for arm, other in (("scalar", MATH), ("critique", verifier)):
        for seed in (0, 1):
            put(tmp_path, arm, seed, {"a": 1}, task={"name": "lab/chain", "verifier": other})
    assert len(compared(tmp_path).incomparable) == (0 if is_compared else 2)


UNJUDGED = [{"id": "a", "family": "plateau", "n": 0, "right": 0, "unscored": 4}]


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ({"crash": 3, "error KeyError": 1}, "its reasons: crash (6), error KeyError (2)"),
        ({}, "its reasons: not kept by the version that evaluated"),
    ],
)
def test_where_nothing_was_judged_the_verifier_is_named_and_not_the_metric(
    tmp_path, reasons, words
):
    task = {"name": "data", "verifier": {"kind": "python", "target": "my:judge", "workers": 2}}
    for arm in ("scalar", "critique"):
        put(tmp_path, arm, 0, {"a": 0}, metrics=(), task=task)
        path = PipelineFolder(tmp_path).run(arm, 0).evaluation
        raw = json.loads(path.read_text())
        path.write_text(json.dumps({**raw, "problems": UNJUDGED, "unscored_reasons": reasons}))
    with pytest.raises(ConfigError) as refusal:
        compared(tmp_path, seeds=[0])
    message = str(refusal.value)
    assert "the verifier python my:judge could not judge 8 of 8 answers" in message
    assert words in message
    assert "critique-rl judge" in message
    assert "correct `primary`" not in message
    # A metric that no evaluation could have is still the pipeline's fault.
    with pytest.raises(ConfigError, match="correct `primary`"):
        compared(tmp_path, seeds=[0], primary="pass@1/no_such_family")


def test_one_odd_seed_of_the_control_does_not_throw_out_the_others(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "scalar", 0, {"a": 0, "b": 0}, temperature=0.6)
    put(tmp_path, "scalar", 2, {"a": 0, "b": 0})
    comparison = compared(tmp_path, seeds=[0, 1, 2])
    assert [(item.arm, item.seed) for item in comparison.incomparable] == [("scalar", 0)]


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
        match=(
            f"it is of arm '{arm}' with seed {seed}, and lies where that of 'critique' with seed "
            "0 belongs"
        ),
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
    if not changes:
        raw["cost"]["usd"] = math.nan
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=words):
        compared(tmp_path)


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
    assert left_out.reason == (
        "evaluated with prompts abd instead of abc, versions.trl 1.15.0 instead of 1.16.0: "
        "evaluate it again as the control was"
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
