"""Which failures the critic is asked about: the rule by hand, its count over steps, its reasons."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from listed_rollouts import PROMPTS, ROWS, ListSampler, rollout_of
from test_turns import Scripted

from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.choose_failures import (
    REASONS,
    Failure,
    Quota,
    choose_failures,
    failures_of,
    quota_of,
)
from critique_rl.trainer.rollout.critique_share import MOST_FAMILIES, CritiqueShare
from critique_rl.trainer.rollout.generation import count_generation, generation_rates
from critique_rl.types import Attempt, Verdict


def failure(number: int, group: int, fault: str, family: str = "f", solved: bool = False):
    return Failure(number, group, ("wrong", fault), family, solved)


def choose(failures, asked: int, explored: int = 0, slots: int = 1, draw=lambda n: 0, **rates):
    return choose_failures(
        failures, Quota(asked, explored), slots, lambda family: rates.get(family, 1.0), draw
    )


FAILURES = [
    failure(0, 0, "4"),
    failure(1, 0, "4"),
    failure(2, 0, "5"),
    failure(7, 1, "4", solved=True),
    failure(8, 1, "9", solved=True),
    failure(14, 2, "4", "hard"),
]
"""Group 0 shows the fault 4 twice, and 5. Group 1 has a right rollout. Group 2 is of a family whose
refinements were right half as often.
"""


def test_the_order_is_distinct_faults_then_groups_then_families() -> None:
    # One a group: group 0, then group 2 (its family), then group 1 (solved). Then the second
    # faults of groups 0 and 1, and at last the repeat.
    order = [0, 14, 7, 2, 8, 1]
    for asked in range(len(order) + 1):
        choice = choose(FAILURES, asked, hard=0.5)
        assert choice.asked == sorted(order[:asked])


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (5, {1: "repeated_fault"}),
        (3, {1: "repeated_fault", 2: "group_asked", 8: "group_asked"}),
        (2, {1: "repeated_fault", 2: "group_asked", 7: "group_solved", 8: "group_asked"}),
        (
            1,
            {
                1: "repeated_fault",
                2: "group_asked",
                7: "group_solved",
                8: "group_asked",
                14: "family",
            },
        ),
    ],
)
def test_what_is_left_names_the_first_rule_by_which_it_is_behind(asked, left) -> None:
    assert choose(FAILURES, asked, hard=0.5).left == left


def test_a_group_has_as_many_turns_at_once_as_reserved_rows() -> None:
    failures = [failure(i, 0, str(i)) for i in range(4)] + [failure(4, 1, "0", solved=True)]
    assert choose(failures, 2, slots=1).asked == [0, 4]
    assert choose(failures, 2, slots=2).asked == [0, 1]
    assert choose(failures, 3, slots=2).asked == [0, 1, 4]


def test_rates_are_compared_in_tenths_and_lots_decide_between_equals() -> None:
    failures = [failure(0, 0, "a", "low"), failure(1, 1, "a", "high")]
    # By the last lot of two, then of one: 1, 0.
    assert choose(failures, 1, draw=lambda n: n - 1, low=0.84, high=0.81).asked == [1]
    assert choose(failures, 1, draw=lambda n: 0, low=0.84, high=0.81).asked == [0]
    assert choose(failures, 1, draw=lambda n: 0, low=0.74, high=0.81).asked == [1]
    assert choose(failures, 1, draw=lambda n: 0, low=0.84, high=0.81).left == {1: "share"}


def test_explored_ones_are_drawn_from_all_that_the_rule_leaves() -> None:
    # The rule takes 0; of 14, 7, 2, 8, 1 the last is drawn.
    choice = choose(FAILURES, 2, explored=1, hard=0.5, draw=lambda n: n - 1)
    assert choice.asked == [0, 1]
    everywhere = Counter()
    for seed in range(600):
        draw = random.Random(seed).randrange
        choice = choose(FAILURES, 2, explored=2, hard=0.5, draw=draw)
        everywhere.update(choice.asked)
        assert set(choice.left.values()) == {"share"}
    # Each of six is among two in a third of 600: 200, with a standard deviation of 12.
    assert len(everywhere) == 6
    assert all(150 < count < 250 for count in everywhere.values())


def test_every_failure_is_asked_once_or_left_with_a_reason() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        failures = []
        for number in range(rng.randrange(30)):
            fault = rng.choice("abc")
            family = rng.choice("fgh")
            group = number // 7
            failures.append(failure(number, group, fault, family, solved=group % 2 == 0))
        asked = rng.randint(0, len(failures))
        explored = rng.randint(0, asked)
        rates = {"f": rng.random(), "g": rng.random()}
        choice = choose(failures, asked, explored, rng.randrange(3), rng.randrange, **rates)
        assert len(choice.asked) == asked
        assert sorted([*choice.asked, *choice.left]) == list(range(len(failures)))
        assert choice.asked == sorted(choice.asked)
        assert set(choice.left.values()) <= set(REASONS)


def test_all_of_them_are_asked_about_in_todays_order() -> None:
    draw = random.Random(0).randrange
    choice = choose(FAILURES, 6, explored=2, hard=0.5, draw=draw)
    assert choice.asked == [failure.number for failure in FAILURES]
    assert choice.left == {}


# ---- counts over steps and ranks -----------------------------------------------------------------


def test_what_a_step_leaves_over_is_carried_on() -> None:
    share = Fraction("0.05")
    asked = [quota_of(share, Fraction(0), step * 30, 30).asked for step in range(6)]
    assert asked == [1, 2, 1, 2, 1, 2]
    # .29 as a float times 100 is 28.999...
    assert quota_of(Fraction("0.29"), Fraction(0), 0, 100).asked == 29


def test_every_tenth_that_is_asked_about_is_drawn_by_lot() -> None:
    share, explore = Fraction("0.5"), Fraction("0.1")
    quotas = [quota_of(share, explore, step * 8, 8) for step in range(5)]
    assert [quota.asked for quota in quotas] == [4] * 5
    # 4, 8, 12, 16, 20 asked so far: 0, 0, 1, 1, 2 by lot
    assert [quota.explored for quota in quotas] == [0, 0, 1, 0, 1]


def test_ranks_share_the_count_out_and_ask_no_more_than_they_have() -> None:
    rng = random.Random(1)
    for _ in range(300):
        share = Fraction(rng.randint(1, 99), 100)
        dues = [rng.randrange(5) for _ in range(12)]
        ends = [0]
        for due in dues:
            ends.append(ends[-1] + due)
        quotas = [quota_of(share, share, start, end - start) for start, end in pairwise(ends)]
        assert sum(quota.asked for quota in quotas) == int(share * ends[-1])
        for due, quota in zip(dues, quotas, strict=True):
            assert 0 <= quota.explored <= quota.asked <= due


# ---- a fault ----------------------------------------------------------------------------------


def test_one_reason_is_one_fault_and_without_reasons_one_answer_is() -> None:
    verdicts = [
        Verdict("wrong", "def f(): 1", "f(1) gave 2"),
        Verdict("wrong", "def f(): 2", "f(1) gave 2"),
        Verdict("wrong", "12"),
        Verdict("wrong", "13"),
        Verdict("unreadable"),
        Verdict("right", "14"),
    ]
    attempts = [Attempt("q", "", verdict, {"family": "f"}) for verdict in verdicts]
    first, second, third, fourth, fifth = failures_of(attempts, range(5), 3)
    assert first.fault == second.fault
    assert len({each.fault for each in (first, third, fourth, fifth)}) == 4
    assert [each.group_solved for each in (third, fourth)] == [False, True]
    assert first.family == "f"


def test_rows_without_families_are_one_family() -> None:
    attempts = [Attempt("q", "", Verdict("wrong")), Attempt("r", "", Verdict("wrong"))]
    families = [each.family for each in failures_of(attempts, [0, 1], 1)]
    assert families == ["None", "None"]


# ---- what is kept between steps ------------------------------------------------------------------


def share_of(**settings) -> CritiqueShare:
    args = CritiqueGRPOConfig(
        "x",
        num_generations=4,
        per_device_train_batch_size=4,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        **settings,
    )
    return CritiqueShare(args, lambda n: 0)


def test_an_unseen_family_counts_as_rescued_until_it_is_not() -> None:
    share = share_of(critique_share=0.5)
    assert share.rescue_rate("a") == 1
    share.count_refined(Counter({"refined/a": 3, "rescued/a": 1, "refined/b": 1, "refine/x": 9}))
    assert share.rescue_rate("a") == 2 / 4
    assert share.rescue_rate("b") == 1 / 2
    again = share_of(critique_share=0.5)
    again.load_state_dict(share.state_dict())
    assert again.rescue_rate("a") == 2 / 4


def test_a_family_per_row_takes_no_more_memory_than_a_thousand() -> None:
    share = share_of(critique_share=0.5)
    for number in range(MOST_FAMILIES + 50):
        share.count_refined(Counter({f"refined/{number}": 1}))
    assert len(share.refined) <= MOST_FAMILIES + 1
    assert share.rescue_rate("0") == 1 / 2
    # Fifty later ones share a count: 1 of 51.
    assert share.rescue_rate("a new one") == 1 / 51


# ---- in a rollout --------------------------------------------------------------------------------


def test_the_critic_is_asked_about_the_share_and_all_counts_add_up() -> None:
    # Group q: both fail. Group r: one fails, one is right.
    critic = Scripted("one", "two")
    sampler = ListSampler("a", "b", "c", "d+", "e+", "f+")
    rollout, _ = rollout_of(sampler, critic, critique_share=0.67)
    batch = rollout.run(PROMPTS, ROWS)
    # 67 % of three are two. PlusScorer gives no answer: both failures of q are one fault.
    assert critic.asked == [["a", "c"]]
    assert sampler.asked[1] == ["q\na\n> one", "r\nc\n> two"]
    counts = batch.counts + count_generation(batch, group_size=3, slots=1)
    assert counts["critique/failed_rollouts"] == 3
    assert (counts["critique/ok"], counts["critique/not_asked"]) == (2, 1)
    assert (counts["critique/due"], counts["critique/asked"]) == (3, 2)
    assert counts["critique/not_asked/repeated_fault"] == 1
    assert generation_rates(counts)["critique/asked_share"] == 2 / 3


def test_what_nobody_would_be_asked_about_is_counted_apart() -> None:
    critic = Scripted("one")
    sampler = ListSampler("a", "b", "c", "d", "e+", "f")
    rollout, _ = rollout_of(sampler, critic, critique_share=0.5, refine_candidates=1)
    batch = rollout.run(PROMPTS, ROWS)
    # One a group is due, and half of two are asked about, by lot.
    assert critic.asked in ([["a"]], [["c"]])
    reasons = {
        name: count for name, count in (+batch.counts).items() if name.startswith("critique/not_a")
    }
    assert reasons == {
        "critique/not_asked": 3,
        "critique/not_asked/share": 1,
        "critique/not_asked/not_due": 2,
    }


def test_further_turns_refine_what_was_asked_about() -> None:
    critic = Scripted("one", "two", "three", "four")
    sampler = ListSampler("a", "b", "c", "d", "e", "f", "g+", "h")
    rollout, _ = rollout_of(sampler, critic, critique_share=0.5, refine_turns=2)
    batch = rollout.run(PROMPTS, ROWS)
    assert critic.asked == [["a", "c"], ["e", "f"]]
    counts = batch.counts + count_generation(batch, group_size=3, slots=1)
    failed = counts["critique/failed_rollouts"] + counts["critique/failed_refinements"]
    assert failed == 6
    assert failed == counts["critique/ok"] + counts["critique/not_asked"]
    by_reason = [c for name, c in counts.items() if name.startswith("critique/not_asked/")]
    assert sum(by_reason) == counts["critique/not_asked"] == 2


def test_a_copy_of_a_text_takes_its_critique_without_a_call() -> None:
    # Group q: "a" twice and "b"; group r: "a" again, and one is right.
    critic = Scripted("one", "two", None)
    sampler = ListSampler("a", "b", "a", "a", "c+", "d+", "e", "f", "g+", "h")
    rows = [{"prompt": question} for question in ("q", "r") for _ in range(4)]
    rollout, _ = rollout_of(
        sampler, critic, critique_reuse=True, num_generations=4, per_device_train_batch_size=8
    )
    batch = rollout.run([row["prompt"] for row in rows], rows)
    # Another group's "a" answers another question: it is asked about, and has no words.
    assert critic.asked == [["a", "b", "a"]]
    assert sampler.asked[1] == ["q\na\n> one", "q\nb\n> two", "q\na\n> one", "r"]
    counts = batch.counts + count_generation(batch, group_size=4, slots=1)
    assert counts["critique/failed_rollouts"] == 4
    assert (counts["critique/ok"], counts["critique/cached"]) == (2, 1)
    assert (counts["critique/skipped"], counts["critique/not_asked"]) == (1, 0)
    # Two answers of 10 and 2 tokens: the copy costs nothing.
    assert (counts["tokens/critic_prompt"], counts["tokens/critic_completion"]) == (20, 4)


def test_a_copy_of_a_text_without_a_critique_is_not_asked_about() -> None:
    critic = Scripted(None, "two")
    sampler = ListSampler("a", "a", "b", "c+", "d+", "e+")
    rollout, _ = rollout_of(sampler, critic, critique_reuse=True, critique_share=0.99)
    batch = rollout.run(PROMPTS, ROWS)
    # Two texts are due, and 99 % of them are one. It has no words, so its copy has none.
    assert critic.asked in ([["a"]], [["c"]])
    counts = +batch.counts + count_generation(batch, group_size=3, slots=1)
    named = {name: n for name, n in counts.items() if name.startswith("critique/")}
    assert named == {
        "critique/failed_rollouts": 3,
        "critique/due": 2,
        "critique/asked": 1,
        "critique/skipped": 1,
        "critique/skipped/nothing to say": 1,
        "critique/not_asked": 2,
        "critique/not_asked/group_solved": 1,
        "critique/not_asked/not_due": 1,
        "critique/seconds": counts["critique/seconds"],
    }


def drawn_by(share: float) -> tuple[bool, list[str], list[list[str]]]:
    """Whether random numbers were drawn, the counters of the choice, and what the critic read."""
    critic = Scripted("one", "two", "three")
    sampler = ListSampler("a", "b", "c", "d+", "e+", "f+", "g+")
    rollout, _ = rollout_of(sampler, critic, critique_share=share)
    before = torch.get_rng_state()
    counts = rollout.run(PROMPTS, ROWS).counts
    names = [name for name in counts if name.startswith(("critique/due", "critique/not_asked/"))]
    return not torch.equal(before, torch.get_rng_state()), names, critic.asked


def test_with_the_full_share_nothing_is_drawn_and_nothing_is_counted() -> None:
    assert drawn_by(1.0) == (False, [], [["a", "b", "c"]])
    is_drawn, names, asked = drawn_by(0.4)
    assert (is_drawn, len(asked[0])) == (True, 1)
    assert names


@pytest.mark.parametrize("value", [0, -0.1, 1.1, True, "all", float("nan")])
def test_a_share_is_a_number_above_0_to_1(value) -> None:
    with pytest.raises(ValueError, match=r"critique_share: got .* a number from 1e-12 to 1"):
        share_of(critique_share=value)
