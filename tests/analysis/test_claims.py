"""Claims: what a test says of an interval, contrasts against values worked by hand, and what a
claim: section may not hold.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import cli, write_pipeline

from critique_rl.analysis.claims.claim import Test as ClaimTest
from critique_rl.analysis.claims.claim import judge, largest_loss, parse_claim, quick_overrides
from critique_rl.analysis.claims.reports import ArmMeans, markdown, report_claim
from critique_rl.analysis.claims.rules import Check, Evidence, Room, decide, failed_check, overall
from critique_rl.analysis.claims.stored import claim_changes, keep_claim
from critique_rl.analysis.comparison import Cost
from critique_rl.analysis.evaluations import Evaluation, JudgedProblem
from critique_rl.analysis.records import to_json
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.preflight import check_arms, check_primary, setting_refusals
from critique_rl.experiment.sweep import trials
from critique_rl.intervals import Interval, share_contrast_interval

FOLDER = Path(__file__).parents[2] / "pipelines" / "claims"
DATA = {
    "task": {"name": "lab/tiers"},
    "policy": {"model": "lab/tiers"},
    "budget": {"total_tokens": 60000},
    "seeds": [0, 1],
    "arms": {"a": {}, "b": {"budget": {"total_tokens": 1000}}},
}
TEST = {"metric": "pass@1/x", "contrast": {"a": 1, "base": -1}, "above": 0}


def pipeline(**changes):
    return parse_pipeline("p", {**DATA, **changes})


def evaluation(*right: int, **metrics: float) -> Evaluation:
    """Problems of 4 samples, that many right."""
    problems = {str(i): JudgedProblem("x", 4, count) for i, count in enumerate(right)}
    return Evaluation({}, problems, metrics, Cost(), 0)


def evidence(low: float, high: float, room: Room | None = None) -> Evidence:
    """A 95% interval; the 90% one is a sixth narrower."""
    middle = (low + high) / 2
    half = (high - low) / 2 * 1.645 / 1.96
    narrow = Interval(middle, middle - half, middle + half)
    return Evidence(Interval(middle, low, high), narrow, room)


@pytest.mark.parametrize(
    ("bound", "number", "low", "high", "verdict"),
    [
        ("delta", 0.1, 0.11, 0.2, "reproduced"),
        ("delta", 0.1, 0.1, 0.2, "undecided"),  # bounds are open
        ("delta", 0.1, 0.02, 0.09, "weaker"),
        ("delta", 0.1, 0.02, 0.2, "undecided"),
        ("delta", 0.1, -0.05, 0.09, "refuted"),
        ("delta", 0.1, 0, 0.09, "refuted"),
        ("delta", 0.1, -0.3, -0.2, "refuted"),
        ("delta", 0.1, -0.05, 0.2, "undecided"),
        ("delta", 0.1, 0, 0, "cannot show"),  # no width
        ("above", 0, 0.1, 0.2, "reproduced"),
        ("above", 0, -0.2, -0.1, "refuted"),
        ("above", 0, -0.1, 0.1, "undecided"),
        ("above", 0, -0.1, 0, "refuted"),  # no difference at all is not above 0
        ("below", -0.1, -0.3, -0.2, "reproduced"),
        ("below", -0.1, -0.1, 0.2, "refuted"),
        ("below", -0.1, -0.2, 0.0, "undecided"),
        ("within", 0.02, -0.01, 0.01, "reproduced"),
        ("within", 0.02, -0.0205, 0.0205, "reproduced"),  # two one-sided tests
        ("within", 0.02, -0.01, 0.03, "undecided"),
        ("within", 0.02, 0.02, 0.05, "refuted"),
        ("within", 0.02, -0.05, -0.03, "refuted"),
        ("within", 0.02, -0.05, 0.05, "undecided"),
    ],
)
def test_a_test_is_decided_by_its_whole_interval(bound, number, low, high, verdict) -> None:
    assert decide(bound, number, evidence(low, high))[0] == verdict


def test_where_the_reference_leaves_no_room_nothing_can_be_shown() -> None:
    verdict, reason = decide("delta", 0.1, evidence(-0.02, 0.05, Room("ceiling", 0.97, 0.03)))
    assert verdict == "cannot show"
    assert reason == "ceiling: the reference is at 0.97, which leaves 0.03 for a move of 0.1"
    # A base that has nothing to lose: the contrast is base minus arm.
    verdict, reason = decide("delta", 0.1, evidence(-0.02, 0.01, Room("floor", 0.01, 0.01)))
    assert (verdict, reason.partition(":")[0]) == ("cannot show", "floor")
    # An arm that stays at 0 beside a control at 0 had all the room there is.
    assert decide("delta", 0.1, evidence(-0.02, 0.02, Room("ceiling", 0.0, 1.0)))[0] == "refuted"


def test_a_claim_is_as_strong_as_its_weakest_test() -> None:
    assert overall(["reproduced", "reproduced"]) == "reproduced"
    assert overall(["reproduced", "weaker"]) == "weaker"
    assert overall(["weaker", "undecided"]) == "undecided"
    assert overall(["undecided", "cannot show"]) == "cannot show"
    assert overall(["undecided", "refuted", "cannot show"]) == "refuted"
    assert overall(["reproduced", "no verdict", "refuted"]) == "no verdict"


@pytest.mark.parametrize(
    ("bound", "number", "words"),
    [
        ("above", 0.15, ""),
        ("above", 0.25, "above 0.25 (got 0.2)"),
        ("below", 0.1, "below 0.1 (got 0.2)"),
        ("moves", 0.15, ""),
        ("moves", 0.3, "moves 0.3 (got 0.2)"),
    ],
)
def test_a_check_reads_what_was_logged(bound, number, words) -> None:
    logged = {0: [0.1, *[0.2] * 18, 0.3]}
    # Means of two steps: .15 at the start and .25 at the end move by .1; with ten steps by .2.
    if bound == "moves":
        logged = {0: [0.1, *[0.2] * 8, 0.3]}
    reason = failed_check(Check("a", "entropy", bound, number), logged)
    assert reason.endswith(words)
    assert bool(reason) == bool(words)
    assert "logged no entropy" in failed_check(Check("a", "entropy", bound, number), {0: []})


def test_a_contrast_is_taken_problem_by_problem_and_seed_by_seed() -> None:
    test = ClaimTest("pass@1/x", {"a": 1, "b": -0.5, "base": -1}, "above", 0.1)
    runs = {
        "a": {0: evaluation(4, 2), 1: evaluation(4, 4), 7: evaluation(0, 0)},
        "b": {0: evaluation(0, 0), 1: evaluation(2, 2)},
    }
    finding = judge(test, runs, evaluation(1, 1))
    # seed 0: 1 - 0 - .25 and .5 - 0 - .25; seed 1: 1 - .25 - .25 twice; seed 7 is of one arm only
    assert finding.per_seed == pytest.approx({0: 0.5, 1: 0.5})
    assert finding.interval.mean == pytest.approx(0.5)
    arms = [[[1, 0.5], [1, 1]], [[0, 0], [0.5, 0.5]], [[0.25, 0.25], [0.25, 0.25]]]
    assert finding.interval == share_contrast_interval((1, -0.5, -1), arms)
    assert finding.verdict == "undecided"


def test_a_metric_of_whole_evaluations_is_taken_over_seeds() -> None:
    test = ClaimTest("ece", {"a": 1, "b": -0.5}, "below", 0)
    runs = {
        "a": {s: evaluation(1, ece=v) for s, v in enumerate((0.1, 0.12, 0.14))},
        "b": {s: evaluation(1, ece=0.4) for s in range(3)},
    }
    finding = judge(test, runs, None)
    # -.1, -.08, -.06: mean -.08, sd .02, t(2 df) 4.30265
    assert (finding.interval.mean, finding.verdict) == (pytest.approx(-0.08), "reproduced")
    assert finding.interval.low == pytest.approx(-0.08 - 4.30265 * 0.02 / 3**0.5, abs=1e-6)


def test_one_seed_a_missing_arm_and_a_missing_metric_have_no_verdict() -> None:
    test = ClaimTest("pass@1/x", {"a": 1, "base": -1}, "above", 0)
    assert (
        judge(test, {"a": {0: evaluation(4, 4)}}, evaluation(0, 0)).reason
        == "one seed says nothing of other seeds"
    )
    assert judge(test, {"a": {0: evaluation(4)}, "b": {}}, None).reason == "runs are missing"
    assert judge(test, {}, evaluation(0)).reason == "runs are missing"
    absent = judge(
        ClaimTest("pass@8/x", {"a": 1}, "above", 0),
        {"a": {0: evaluation(4), 1: evaluation(4)}},
        None,
    )
    assert (absent.verdict, absent.reason) == (
        "no verdict",
        "no evaluation of all these arms holds pass@8/x",
    )


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"says": "x"}, "expected says, source and tests"),
        ({"tests": [TEST], "say": "x"}, "did you mean 'says'"),
        ({"tests": [{**TEST, "metric": "pass1"}]}, "metric: got 'pass1'"),
        ({"tests": [{**TEST, "metric": "pass@0/x"}]}, "expected a k of evaluation.ks"),
        ({"tests": [{**TEST, "metric": "pass@64/x"}]}, "at most 16 samples"),
        ({"tests": [{**TEST, "metric": "exact@4/x"}]}, "expected evaluation.exact"),
        ({"tests": [{**TEST, "contrast": {"c": 1}}]}, "no arm 'c'"),
        ({"tests": [{**TEST, "contrast": {"a": "1"}}]}, "coefficients"),
        ({"tests": [{**TEST, "below": 0}]}, "above, below, expected one"),
        ({"tests": [{**TEST, "above": None}]}, "with a number"),
        ({"tests": [{**TEST, "above": 0, "delta": 0}]}, "got delta, above, expected one"),
        ({"tests": [TEST], "checks": [{"arm": "c", "log": "x", "above": 0}]}, "no arm 'c'"),
        ({"tests": [TEST], "checks": 3}, "checks: got 3, expected a list"),
        ({"tests": [TEST], "checks": [{"arm": "a", "above": 0}]}, "such as {arm: a, log: entropy"),
        ({"tests": [TEST], "checks": [{"arm": "a", "log": "x"}]}, "above, below, moves with"),
        ({"tests": [{"metric": "ece", "contrast": {"a": 1}, "within": 0}]}, "within: above 0"),
    ],
)
def test_a_claim_that_could_not_be_judged_is_refused(claim, words) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_claim(pipeline(claim=claim))


def test_a_report_names_arms_seeds_and_means_and_the_table_has_the_verdict() -> None:
    claimed = pipeline(claim={"says": "a gains", "source": "arXiv 1", "tests": [TEST]})
    solved = [4] * 40
    runs = {"a": {0: evaluation(*solved), 1: evaluation(*solved)}, "b": {}}
    report = report_claim(claimed, parse_claim(claimed), runs, evaluation(*[0] * 40))
    assert report.verdict == "reproduced"
    assert report.arms == {
        "base": ArmMeans((), {"pass@1/x": 0.0}),
        "a": ArmMeans((0, 1), {"pass@1/x": 1.0}),
        "b": ArmMeans((), {"pass@1/x": None}),
    }
    text = markdown([report])
    assert "| a gains | arXiv 1 | 1 of 1 | reproduced |" in text
    row = "+1 a -1 base | pass@1/x | above 0 | +1.000 [+0.846, +1.000] | reproduced | - |"
    assert row in text
    data = to_json(report)
    fields = ["pipeline", "says", "source", "verdict", "tests", "arms", "sweep", "changes"]
    assert list(data) == fields
    assert data["arms"]["a"] == {"seeds": [0, 1], "means": {"pass@1/x": 1.0}}
    assert data["tests"][0]["ci95"] == [pytest.approx(0.846, abs=1e-3), 1.0]
    json.dumps(data, allow_nan=False)


def two_families(x: int, y: int) -> Evaluation:
    """Twenty problems of 4 samples in each of two families."""
    problems = {}
    for family, right in (("x", x), ("y", y)):
        for i in range(20):
            problems[f"{family}{i}"] = JudgedProblem(family, 4, right)
    return Evaluation({}, problems, {}, Cost(), 0)


def test_a_failed_check_leaves_nothing_to_show_and_the_largest_loss_is_named() -> None:
    test = {"metric": "pass@1/x", "contrast": {"a": 1, "base": -1}, "delta": 0.2, "reason": "half"}
    check = {"arm": "a", "log": "clip_ratio", "above": 0.01}
    claimed = pipeline(claim={"tests": [test], "checks": [check]})
    runs = {"a": {seed: two_families(4, 1) for seed in range(3)}, "b": {}}
    base = two_families(1, 2)
    values = {"clip_ratio": {0: [0.0], 1: [0.02], 2: [0.02]}}

    def logged(arm, metric):
        return values[metric]

    report = report_claim(claimed, parse_claim(claimed), runs, base, logged=logged)
    assert report.verdict == "cannot show"
    assert report.tests[0].reason.startswith("a check fails: a, seed 0: clip_ratio above 0.01")
    values["clip_ratio"][0] = [0.02]
    report = report_claim(claimed, parse_claim(claimed), runs, base, logged=logged)
    assert report.verdict == "reproduced"
    loss = report.tests[0].loss
    assert (loss.arm, loss.reference, loss.metric) == ("a", "base", "pass@1/y")
    assert loss.difference == pytest.approx(-0.25)
    assert loss.ci95[0] < -0.25 < loss.ci95[1]
    text = markdown([report])
    assert "above 0, worth it from 0.2 (half)" in text
    assert "a - base, pass@1/y: -0.250 [" in text
    assert largest_loss(parse_claim(claimed).tests[0], {"a": {}}, base) is None


def test_the_room_is_that_of_the_arm_the_others_are_held_against() -> None:
    likely = evaluation(*[3] * 200)
    runs = {arm: dict.fromkeys(range(3), likely) for arm in ("a", "b")}
    rises = ClaimTest("pass@1/x", {"a": 1, "b": -1}, "delta", 0.3)
    finding = judge(rises, runs, None)
    assert finding.verdict == "cannot show"
    assert finding.reason.startswith("ceiling: the reference is at 0.75, which leaves 0.25")
    # From .75 there is room to fall by .3, and nothing fell.
    falls = ClaimTest("pass@1/x", {"base": 1, "a": -1}, "delta", 0.3)
    assert judge(falls, runs, likely).verdict == "refuted"
    # Truthfulness ends at -1, and so -.5 can fall by .3 too.
    problem = JudgedProblem("x", 4, 0, shares={"truthfulness": -0.5})
    untrue = Evaluation({}, {str(i): problem for i in range(200)}, {}, Cost(), 0)
    falls = ClaimTest("truthfulness/x", {"base": 1, "a": -1}, "delta", 0.3)
    assert judge(falls, {"a": dict.fromkeys(range(3), untrue)}, untrue).verdict == "refuted"


def arm_of(right: int, problems: int = 200, seeds: int = 3) -> dict[int, Evaluation]:
    """One arm: so many of 4 samples right on each problem and seed."""
    return dict.fromkeys(range(seeds), evaluation(*[right] * problems))


def few_right(problems: int, number: int = 200) -> dict[int, Evaluation]:
    return dict.fromkeys(range(3), evaluation(*[4] * problems, *[0] * (number - problems)))


def test_the_control_is_the_reference_of_a_claim_that_something_falls() -> None:
    runs = {"control": few_right(6), "arm": few_right(4)}
    falls = ClaimTest("pass@1/x", {"control": 1, "arm": -1}, "delta", 0.1, control="control")
    finding = judge(falls, runs, None)
    assert finding.verdict == "cannot show"
    assert finding.reason.startswith("floor: the reference is at 0.03, which leaves 0.03")
    # The same figures where the arm was said to rise: the control leaves room for that.
    rises = ClaimTest("pass@1/x", {"arm": 1, "control": -1}, "delta", 0.1, control="control")
    assert judge(rises, runs, None).verdict == "refuted"
    # The loss is that of the arm, not of the control.
    pair = {"control": {0: two_families(4, 2)}, "arm": {0: two_families(1, 1)}}
    loss = largest_loss(falls, pair, None)
    assert (loss.arm, loss.reference, loss.metric) == ("arm", "control", "pass@1/y")
    assert loss.difference == pytest.approx(-0.25)
    assert largest_loss(rises, pair, None) == loss


@pytest.mark.parametrize(
    ("bound", "number", "base", "arm", "verdict"),
    [
        # The arm lost all that the base had, which is less than what is tolerated.
        ("above", -0.1, 6, 0, "cannot show"),
        ("above", -0.1, 0, 0, "cannot show"),
        ("above", -0.1, 100, 98, "reproduced"),
        ("above", -0.1, 100, 0, "refuted"),
        ("below", 0.1, 194, 200, "cannot show"),
        ("below", 0.1, 100, 102, "reproduced"),
        # An effect that is there needs no further room.
        ("above", 0.2, 0, 200, "reproduced"),
        ("above", 0.2, 190, 195, "cannot show"),
        # A move to the other side would show.
        ("within", 0.1, 0, 0, "reproduced"),
    ],
)
def test_a_loss_is_not_kept_away_where_nothing_could_be_lost(
    bound, number, base, arm, verdict
) -> None:
    test = ClaimTest("pass@1/x", {"arm": 1, "base": -1}, bound, number)
    assert judge(test, {"arm": few_right(arm)}, few_right(base)[0]).verdict == verdict


def test_metrics_of_whole_evaluations_have_room_too() -> None:
    def with_metric(name, *values):
        return {seed: evaluation(1, **{name: value}) for seed, value in enumerate(values)}

    falls = ClaimTest("ece", {"a": 1, "b": -1}, "delta", 0.17, control="a")
    runs = {"a": with_metric("ece", 0.05, 0.05, 0.05), "b": with_metric("ece", 0.03, 0.04, 0.02)}
    assert judge(falls, runs, None).reason.startswith("floor: the reference is at 0.05")
    rises = ClaimTest("auroc", {"b": 1, "a": -1}, "delta", 0.1, control="a")
    runs = {"a": with_metric("auroc", 0.97, 0.97, 0.96), "b": with_metric("auroc", 0.98, 1, 0.99)}
    assert judge(rises, runs, None).reason.startswith("ceiling: the reference is at 0.967")


def test_a_refutation_says_which_chance_of_a_seed_that_takes_off_it_leaves() -> None:
    test = ClaimTest("pass@1/x", {"a": 1, "b": -1}, "delta", 0.3)
    runs = {"a": arm_of(1, seeds=5), "b": arm_of(1, seeds=5)}
    finding = judge(test, runs, None)
    assert finding.verdict == "refuted"
    # 1 - .05^(1/5) = .4507 = 1 / 2.2
    words = "none of 5 seeds is above the bound, which excludes that one in 2.2 is"
    assert finding.note == words
    claim = {"tests": [{"metric": "pass@1/x", "contrast": test.contrast, "delta": 0.3}]}
    claimed = pipeline(claim=claim, seeds=[0, 1, 2, 3, 4], control="b")
    assert f"| refuted ({words}) |" in markdown(
        [report_claim(claimed, parse_claim(claimed), runs, None)]
    )


def test_there_is_no_verdict_before_all_seeds_have_finished() -> None:
    claimed = pipeline(claim={"tests": [TEST]}, seeds=[0, 1, 2])
    runs = {"a": arm_of(4, seeds=2), "b": {}}
    report = report_claim(claimed, parse_claim(claimed), runs, evaluation(*[0] * 200))
    assert report.verdict == "no verdict"
    assert report.tests[0].reason == "2 of 3 seeds have finished in all of its arms"
    assert report.tests[0].mean == 1.0


def test_a_claim_that_was_changed_after_its_first_run_says_so(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    check = {"arm": "a", "log": "entropy", "above": 0}
    before = pipeline(claim={"tests": [{**TEST, "says": "one"}]})
    keep_claim(before, folder)
    # Other words are no change.
    same = pipeline(claim={"tests": [{**TEST, "says": "two"}]})
    assert claim_changes(same, parse_claim(same), folder) == []
    after = pipeline(claim={"tests": [{**TEST, "above": -0.1}], "checks": [check]}, seeds=[0])
    keep_claim(after, folder)
    changes = claim_changes(after, parse_claim(after), folder)
    assert changes == [
        "seeds, from [0, 1] to [0]",
        "test 1, from [pass@1/x, +1 a -1 base, above 0] to [pass@1/x, +1 a -1 base, above -0.1]",
        "check 1, from [nothing] to [a, entropy above 0]",
    ]
    report = report_claim(after, parse_claim(after), {"a": {}}, None, changes=changes)
    assert "Changed since its runs began: seeds, from [0, 1] to [0]." in markdown([report])


def test_a_metric_of_a_claim_that_no_evaluation_will_hold_is_refused_before_training() -> None:
    for metric, words in (
        ("pass@1/tier9", "claim, test 1: no metric 'pass@1/tier9'"),
        ("pass@1/tier0", ""),
    ):
        claimed = pipeline(
            claim={"tests": [{**TEST, "metric": metric}]}, primary="pass@1/tier0", control="a"
        )
        assert "".join(setting_refusals(claimed))[: len(words) or None] == words


def test_an_undecided_test_says_how_many_seeds_would_decide_it() -> None:
    test = ClaimTest("pass@1/x", {"a": 1, "b": -1}, "delta", 0.2)
    runs = {"a": {}, "b": {}}
    for seed, right in enumerate((1, 4, 2, 3)):
        runs["a"][seed] = evaluation(*[right] * 30)
        runs["b"][seed] = evaluation(*[1] * 30)
    finding = judge(test, runs, None)
    assert finding.verdict == "undecided"
    assert finding.seeds_to_decide > 4


def test_a_quick_look_has_one_seed_no_sweep_and_small_budgets() -> None:
    sweep = {"values": [1.0e-4, 3.0e-4], "seeds": [900]}
    overrides = quick_overrides(pipeline(sweep=sweep))
    assert overrides == [
        "seeds=[0]",
        "sweep=null",
        "evaluation.problems=10",
        "arms.a.budget.total_tokens=9000",
        "arms.b.budget.total_tokens=150",
    ]


def has_committed_policies(pipeline) -> bool:
    models = [config.policy.model for config in pipeline.arms.values()]
    return not any(model.startswith("runs/") for model in models)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_published_claim_can_be_run_and_judged(path) -> None:
    pipeline = load_pipeline(path)
    overrides = []
    if not has_committed_policies(pipeline):
        # Its base is built first, which takes minutes.
        overrides = ["policy.model=lab"]
        pipeline = load_pipeline(path, overrides)
    claim = parse_claim(pipeline)
    assert len(pipeline.seeds) >= 5
    assert all(300 <= seed < 900 for seed in pipeline.seeds), "no seed that was looked at before"
    for test in claim.tests:
        assert test.reason, f"{test.says}: why is {test.number} the bound?"
    if pipeline.sweep is None:
        assert all("learning_rate" in config.trl for config in pipeline.arms.values())
    assert claim.says
    assert claim.source
    check_arms(dict(pipeline.arms))
    for config in pipeline.arms.values():
        for metric in (pipeline.primary, *(test.metric for test in claim.tests)):
            check_primary(metric, config)
    if pipeline.sweep is not None:
        check_arms(dict(trials(pipeline).arms))
    load_pipeline(path, [*overrides, *quick_overrides(pipeline)])


def test_the_command_refuses_folders_without_claims(tmp_path, capsys) -> None:
    assert main(["claims", str(tmp_path)]) == 2
    (tmp_path / "x.yaml").write_text("task: {name: lab/tiers}\npolicy: {model: lab/tiers}\n")
    assert main(["claims", str(tmp_path)]) == 2
    assert "no claim: section" in capsys.readouterr().err
    assert main(["claims", str(FOLDER), "--only", "nsrr"]) == 2
    assert "no pipeline 'nsrr'; did you mean 'nsr'" in capsys.readouterr().err


@pytest.mark.trains
@pytest.mark.processes
def test_a_stopped_campaign_keeps_the_verdicts_of_others(
    tmp_path, tiny_policy, monkeypatch, capsys
) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    test = {"metric": "pass@1/all", "contrast": {"scalar": 1, "base": -1}, "above": 0}
    claim = {"says": "training helps", "source": "a paper", "tests": [test]}
    changes = {"claim": claim, "budget": {"optimizer_steps": 1}, "arms": {"scalar": {}}}
    for name in ("first", "second", "third"):
        write_pipeline(folder, tiny_policy, **changes).rename(folder / f"{name}.yaml")
    # Of a pipeline that is not asked for, nothing has to be there yet.
    write_pipeline(folder, "no/such/policy", **changes).rename(folder / "unbuilt.yaml")
    out = tmp_path / "out"
    words = ["claims", str(folder), "--out", str(out)]
    done = cli(*words, "--only", "third")
    assert done.returncode == 0, done.stderr
    assert "## third: no verdict" in done.stdout
    assert (out / "third" / "claim.json").exists()

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("critique_rl.experiment.campaigns.campaign.run_all", stopped)
    assert main([*words, "--only", "second"]) == 130
    [left] = json.loads((out / "claims.json").read_text())["claims"]
    assert left["pipeline"] == "third"
    # A damaged file of another pipeline is told, and holds up nobody.
    damaged = next((out / "third").glob("scalar/seed*/eval.json"))
    damaged.write_text("{")
    capsys.readouterr()
    assert main([*words, "--only", "second"]) == 130
    assert "third: not judged:" in capsys.readouterr().err
