"""The words and tables about a comparison: verdict, what is left out and why, 80 columns."""

from dataclasses import replace

from arm_evaluations import compared, printed, put, two_arms

from critique_rl.analysis.comparison import LeftOut
from critique_rl.analysis.verdict import left_out, verdict


def often(right, times=20):
    """The same problems so many times: two problems alone could show nothing."""
    return {f"{name}{i}": count for name, count in right.items() for i in range(times)}


def test_one_seed_covers_problems_only_and_the_verdict_says_so(tmp_path):
    put(tmp_path, "scalar", 0, often({"a": 0, "b": 0}))
    put(tmp_path, "critique", 0, often({"a": 4, "b": 4}))
    comparison = compared(tmp_path, seeds=[0])
    assert comparison.comparisons[0].interval_covers == "problems"
    assert "over 1 seed and 40 problems (one seed says nothing of other seeds)" in verdict(
        comparison
    )


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


def test_the_verdict_names_difference_interval_and_cost(tmp_path):
    for seed in range(3):
        put(tmp_path, "scalar", seed, often({"a": 0, "b": 0, "c": 0}))
        put(
            tmp_path,
            "critique",
            seed,
            often({"a": 2, "b": 2, "c": 2}),
            cost={"critic_tokens": 31_000, "usd": 0.12},
        )
    expected = (
        "critique - scalar on pass@1/plateau: +0.50 [0.42, 0.54] over 3 seeds and 60 problems; "
    )
    spent = (
        "at 150k generated tokens an arm, plus 31k critic tokens for critique; $0.12 for critique "
        "in all."
    )
    assert verdict(compared(tmp_path, seeds=range(3))) == expected + spent


def test_the_verdict_admits_no_difference_and_unequal_tokens(tmp_path):
    put(tmp_path, "scalar", 0, often({"a": 0, "b": 2}), cost={"generated_tokens": 100_000})
    put(tmp_path, "critique", 0, often({"a": 1, "b": 1}))
    sentence = verdict(compared(tmp_path, seeds=[0]))
    assert "the interval contains 0" in sentence
    assert "unequal generated tokens (scalar 100k, critique 150k)" in sentence


def test_the_tables_fit_80_columns(tmp_path):
    metrics = [f"pass@1/{family}" for family in ("plateau", "ladder", "all", "deep")]
    families = {f"{name}{i}": name for name in ("plateau", "ladder", "deep") for i in range(2)}
    for arm in ("scalar", "retry", "critique", "critique_distilled"):
        for seed in (0, 1):
            right = dict.fromkeys(families, seed)
            cost = {"critic_tokens": 3_210_000, "usd": 10.5}
            put(tmp_path, arm, seed, right, families=families, metrics=metrics, cost=cost)
    lines = printed(
        compared(tmp_path, arms=("scalar", "retry", "critique", "critique_distilled"))
    ).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any("retry" in line and "pass@1/deep" in line for line in lines)


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
        "at 300k tokens in all an arm, of which 5k critic tokens for critique; $0.04 for "
        "scalar and $0.02 for critique in all."
    )


def test_many_arms_without_a_difference_are_one_clause_of_the_verdict(tmp_path):
    for seed in (0, 1):
        put(tmp_path, "scalar", seed, often({"a": 0, "b": 1}))
    for arm in ("retry", "shuffled", "nsr"):
        for seed in (0, 1):
            right = often({"a": 0, "b": 1})
            if arm == "nsr" and seed == 1:
                right["b0"] = 2
            put(tmp_path, arm, seed, right)
    words = verdict(compared(tmp_path, arms=("scalar", "retry", "shuffled", "nsr")))
    assert words.startswith(
        "no difference from scalar shown for retry, shuffled, nsr (intervals within ["
    )
    assert "] over 2 seeds and 40 problems); at" in words
    once = verdict(compared(tmp_path, arms=("scalar", "retry", "shuffled", "nsr"), seeds=[0]))
    assert "over 1 seed and 40 problems; one seed says nothing of other seeds)" in once


def test_where_several_arms_are_highest_none_is_called_the_best(tmp_path):
    two_arms(tmp_path)
    for arm in ("retry", "nsr"):
        for seed in (0, 1):
            put(tmp_path, arm, seed, {"a": 4, "b": 4})
    assert "best on" not in printed(compared(tmp_path, arms=("scalar", "retry", "nsr")))


def test_an_arm_without_an_interval_says_so_in_every_table(tmp_path):
    for arm, right in (("scalar", 0), ("retry", 1), ("critique", 4)):
        put(tmp_path, arm, 0, {"a": right})
    text = printed(compared(tmp_path, arms=("scalar", "retry", "critique"), seeds=[0]))
    assert "critique, best on pass@1/plateau" in text
    # 3 arms, 2 differences from the control, 2 from the best arm
    assert text.count("[no interval]") == 7


def test_seeds_are_named_only_where_seeds_would_decide(tmp_path):
    # 30 problems; seeds differ by far more than problems do
    for seed, right in enumerate((4, 1, 3, 2)):
        put(tmp_path, "scalar", seed, often({"a": 1}, 30))
        put(tmp_path, "critique", seed, often({"a": right}, 30))
    comparison = compared(tmp_path, seeds=range(4))
    (pair,) = comparison.comparisons
    assert pair.ci95[0] < 0 < pair.ci95[1]
    assert pair.seeds_to_decide > 4
    words = f"about {pair.seeds_to_decide} seeds would tell"
    assert words in verdict(replace(comparison, delta=0.9))
    # Nearly nothing varies: the interval is as wide as 30 problems make it.
    few = tmp_path / "few"
    for seed in range(4):
        put(few, "scalar", seed, often({"a": 0}, 30))
        put(few, "critique", seed, {**often({"a": 0}, 30), "a0": int(seed == 0)})
    (pair,) = compared(few, seeds=range(4)).comparisons
    assert pair.ci95[0] < 0 < pair.ci95[1]
    assert pair.seeds_to_decide is None
