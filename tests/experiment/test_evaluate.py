"""Sampling and judging a policy: counts, pass@k per family, and no trace left in the caller's
random state.
"""

from __future__ import annotations

import pytest
import torch

from critique_rl.config.schema import EvaluationConfig, PolicyConfig, RunConfig, TaskConfig
from critique_rl.experiment.evaluate import final_evaluation, judge
from critique_rl.experiment.evaluation_metrics import (
    exact_metrics,
    pass_metrics,
    self_metrics,
    share_metrics,
    tally,
)
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.sampling.tokens import prompts_digest
from critique_rl.tasks.task import Task
from critique_rl.types import Verdict

ROWS = [
    {
        "prompt": [{"role": "user", "content": question}],
        "id": question,
        "family": family,
        "answer": "1",
    }
    for question, family in (("1+1", "a"), ("2+2+2+2", "a"), ("3", "b"))
]


def test_judging_counts_right_and_leaves_unscored_out_of_n(tiny_policy) -> None:
    verdicts = {"1+1": "right", "2+2+2+2": "wrong", "3": "unscored"}
    judged = judge(
        *load_policy(tiny_policy),
        ROWS,
        lambda text, row: Verdict(verdicts[row["id"]]),
        3,
        Sampling(max_new_tokens=4),
    )
    counts = [(p["id"], p["n"], p["right"], p["unscored"]) for p in judged["problems"]]
    assert counts == [("1+1", 3, 3, 0), ("2+2+2+2", 3, 0, 0), ("3", 0, 0, 3)]
    # family b has no judged sample: it has no metric, and so neither has "all"
    assert pass_metrics(judged["problems"], (1, 4)) == {"pass@1/a": 0.5}


def test_agreement_is_the_commonest_answers_share_of_what_was_judged() -> None:
    right, wrong, none = Verdict("right", "7"), Verdict("wrong", "8"), Verdict("unreadable")
    counts = tally(ROWS[0], [right, wrong, wrong, none, Verdict("unscored", "7")])
    assert (counts["n"], counts["unscored"], counts["agreement"], counts["agreed_right"]) == (
        4,
        1,
        0.5,
        False,
    )
    assert tally(ROWS[0], [right, right, wrong])["agreed_right"] is True
    assert "timeouts" not in counts
    slow = tally(ROWS[0], [right, Verdict("wrong", reason="timeout")])
    assert (slow["n"], slow["right"], slow["timeouts"]) == (2, 1, 1)
    assert tally(ROWS[0], [none, none])["agreement"] is None


def test_stated_confidences_and_abstentions_have_metrics_of_their_own() -> None:
    sure = Verdict("right", "7", confidence=0.9)
    unsure = Verdict("wrong", "8", confidence=0.2)
    silent = Verdict("abstained", "?")
    counts = tally(ROWS[0], [sure, unsure, silent, Verdict("wrong", "9")])
    assert (counts["abstained"], counts["stated"]) == (1, [[0.9, 1], [0.2, 0]])
    # of 4: 1 right, 1 abstained, 2 hallucinated; Brier (.01 + .04) / 2; ECE (.1 + .2) / 2
    assert self_metrics([counts]) == pytest.approx(
        {
            "ece": 0.15,
            "brier": 0.025,
            "auroc": 1.0,
            "abstention": 0.25,
            "hallucination": 0.5,
            "truthfulness": -0.25,
        }
    )
    assert self_metrics([tally(ROWS[0], [Verdict("right", "7")])]) == {}


def test_other_prompts_have_another_digest(tiny_policy) -> None:
    tokenizer = load_policy(tiny_policy)[1]
    changed = [{**ROWS[0], "prompt": [{"role": "user", "content": "1+1?"}]}, *ROWS[1:]]
    digests = []
    for rows in (ROWS, list(ROWS), changed):
        prompts = [row["prompt"] for row in rows]
        digests.append(prompts_digest(tokenizer, prompts))
    assert digests[0] == digests[1] != digests[2]


def test_exact_at_k_is_the_mean_over_problems_then_over_families() -> None:
    problems = []
    for family, chance in (("a", 0.0), ("a", 1.0), ("b", 0.5)):
        problems.append({**tally({"id": chance, "family": family}, []), "chance": chance})
    metrics = exact_metrics(problems, [1, 2])
    assert metrics["exact@1/a"] == 0.5
    assert metrics["exact@2/b"] == pytest.approx(0.75)
    assert metrics["exact@2/all"] == pytest.approx(0.625)
    assert exact_metrics([tally({"id": "x", "family": "a"}, [])], [1]) == {}


def test_pass_at_k_is_the_mean_over_problems_then_over_families() -> None:
    problems = [
        {"family": "a", "n": 4, "right": 2},
        {"family": "a", "n": 4, "right": 0},
        {"family": "b", "n": 4, "right": 4},
    ]
    # pass@1: a (.5 + 0)/2 = .25, b 1; pass@2 of 2 in 4 is 1 - C(2,2)/C(4,2) = 5/6, a 5/12
    metrics = pass_metrics(problems, (1, 2, 8))
    assert metrics == pytest.approx(
        {
            "pass@1/a": 0.25,
            "pass@1/b": 1.0,
            "pass@1/all": 0.625,
            "pass@2/a": 5 / 12,
            "pass@2/b": 1.0,
            "pass@2/all": 17 / 24,
        }
    )


def test_sampling_restores_mode_and_random_state_and_repeats_itself(tiny_policy) -> None:
    model, tokenizer = load_policy(tiny_policy)
    model.train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    prompts = [row["prompt"] for row in ROWS] * 4
    first = sample(model, tokenizer, prompts, Sampling(max_new_tokens=6, batch=5))
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == sample(model, tokenizer, prompts, Sampling(max_new_tokens=6, batch=5))
    assert [s.prompt for s in first] == list(range(12))
    assert len({s.text for s in first}) > 1


def test_shares_are_means_over_problems_and_no_abstention_is_a_share_of_0() -> None:
    right, wrong, silent = Verdict("right", "7"), Verdict("wrong", "8"), Verdict("abstained", "?")
    tallies = [
        tally(row, verdicts, abstains=True)
        for row, verdicts in zip(
            ROWS, ([right, wrong, silent, silent], [right] * 4, [wrong] * 4), strict=True
        )
    ]
    metrics = share_metrics(tallies)
    # family a: hallucination (1/4 + 0) / 2, abstention (2/4 + 0) / 2, truthfulness (0 + 1) / 2,
    # agreement (2/4 + 1) / 2; b: 1, 0, -1, 1; all: mean of both
    assert {name: value for name, value in metrics.items() if name.endswith("/a")} == pytest.approx(
        {"hallucination/a": 0.125, "abstention/a": 0.25, "truthfulness/a": 0.5, "agreement/a": 0.75}
    )
    assert (metrics["hallucination/b"], metrics["abstention/b"], metrics["truthfulness/b"]) == (
        1.0,
        0.0,
        -1.0,
    )
    assert metrics["truthfulness/all"] == pytest.approx(-0.25)
    # nobody abstained: 4 of 8 wrong
    assert self_metrics(tallies[1:]) == pytest.approx(
        {"abstention": 0.0, "hallucination": 0.5, "truthfulness": 0.0}
    )
    assert share_metrics([tally(ROWS[0], [right])]) == {"agreement/a": 1.0, "agreement/all": 1.0}


def test_a_second_template_asks_the_same_problems_in_other_words(tiny_policy) -> None:
    asked = []

    def judges(text, row) -> Verdict:
        asked.append(row["prompt"][0]["content"])
        return Verdict("right", "1")

    rows = [{**row, "question": row["id"]} for row in ROWS]
    evaluation = EvaluationConfig(problems=2, samples=2, ks=(1,), second_template="lab/second")
    config = RunConfig(
        TaskConfig("t"), PolicyConfig("p"), trl={"max_completion_length": 4}, evaluation=evaluation
    )
    task = Task(
        "t", [], lambda split, count: rows, lambda text, row: Verdict("wrong"), evaluator=judges
    )
    metrics = final_evaluation(*load_policy(tiny_policy), task, config, {"cost": {}})
    assert asked == [row["id"] for row in ROWS for _ in range(2)] + [
        f"say {row['id']}" for row in ROWS for _ in range(2)
    ]
    assert metrics["second"]["template"] == "lab/second"
    assert metrics["second"]["prompts"] != metrics["prompts"]
    assert (
        metrics["metrics"]["pass@1/all"] == metrics["second"]["metrics"]["pass@1/all"] == 1.0
    )  # the evaluator judges, not the verifier
    assert [p["id"] for p in metrics["second"]["problems"]] == [
        p["id"] for p in metrics["problems"]
    ]
