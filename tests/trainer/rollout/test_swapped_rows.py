"""The matched control of refinements: traces in the rows of right refinements, and nothing else
that differs.
"""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from known_critics import DATA, SOLUTIONS, Turns, Words, completion_text, generated
from lab_trainers import critique_trainer

from critique_rl.experiment.rollout_log import rollout_rows
from critique_rl.trainer.rollout.refine import swap_right
from critique_rl.types import Verdict

SWAPPED = {"refine_column": "solution", "refine_traces": "rescued"}
COMMON = {"max_completion_length": 20, "refine_ratio": "nll", "scale_rewards": "none"}


def batches(policy: str, folder, refined: Turns, swapped: Turns, rows=None, **settings):
    """One generation batch of an arm with refinements, and one of its control, from one seed."""
    made = []
    for reward, options in ((refined, {}), (swapped, SWAPPED)):
        data = Dataset.from_list((rows or list(DATA.select(range(2)))) * 4)
        trainer = critique_trainer(
            policy, folder, reward, Words(), data=data, **{**COMMON, **settings, **options}
        )
        torch.manual_seed(3)
        made.append((trainer, generated(trainer, rows)))
    return made


def test_the_batch_is_that_of_refinements_but_for_the_text_of_right_rows(
    tiny_policy, tmp_path
) -> None:
    # each group has three refinements: of the first the second is right, of the second none is; the
    # control judges the trace after them
    (refine, refined), (control, swapped) = batches(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [0.0, 1.0, 0.0] + [0.0] * 3),
        Turns([0.0] * 6, [0.0, 1.0, 0.0, 1.0] + [0.0] * 3 + [1.0]),
    )
    texts = [completion_text(refine, refined, row) for row in range(8)]
    assert [completion_text(control, swapped, row) for row in range(8)] == [
        *texts[:3],
        SOLUTIONS[0],
        *texts[4:],
    ]
    assert refine.generation.refined == control.generation.refined == [3, 7]
    for key in ("advantages", "refine_credit"):
        assert torch.equal(refined[key], swapped[key])
    assert swapped["refine_credit"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    # the same tokens were sampled, of the same owners; the trace is read on top
    spent = dict(control.tokens)
    assert spent.pop("tokens/expert") == len(SOLUTIONS[0]) + 1
    spent.pop("tokens/expert_prompt")
    trained = spent.pop("tokens/trained") - refine.tokens["tokens/trained"]
    assert trained == swapped["completion_mask"].sum() - refined["completion_mask"].sum()
    assert {name: spent[name] for name in spent if spent[name]} == {
        name: tokens
        for name, tokens in refine.tokens.items()
        if tokens and name != "tokens/trained"
    }
    metrics = control._metrics["train"]
    assert metrics["refine/swapped"] == metrics["refine/experts"] == [1]
    assert "refine/unmatched" not in metrics
    # the table of rollouts: the trace is chosen, the refinement that it replaced is not
    table = rollout_rows(1, control.generation, swapped["advantages"].tolist())
    chosen = [(row["role"], row["text"]) for row in table if row["chosen"]]
    assert chosen == [("expert", SOLUTIONS[0]), ("candidate", texts[7])]


def test_the_loss_is_the_nll_of_the_trace_where_that_of_the_refinement_was(
    tiny_policy, tmp_path
) -> None:
    (refine, refined), (control, swapped) = batches(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 6),
        Turns([0.0] * 6, [1.0] * 8),
        refine_normalizer="tokens",
    )
    losses = []
    for trainer, output in ((refine, refined), (control, swapped)):
        trainer._compute_loss(trainer.model, output)
        losses.append(trainer._metrics["train"]["loss/refine"][0])
        rows = output["completion_mask"][[3, 7]]
        logps = trainer._metrics["train"]["refine/logps"][0]
        assert losses[-1] == pytest.approx(-logps, rel=1e-5)
        assert output["refine_tokens"] == rows.sum()
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("solution", "verdict", "counted"),
    [
        (None, [], "refine/traces_missing"),
        ("x" * 21, [], "refine/traces_too_long"),
        ("#4", [0.0], ""),
    ],
)
def test_a_right_refinement_without_a_right_trace_trains_nothing_and_is_counted(
    tiny_policy, tmp_path, solution, verdict, counted
) -> None:
    rows = [{**row, "solution": solution} for row in DATA.select(range(2))]
    rows[1]["solution"] = SOLUTIONS[1]
    _, (control, swapped) = batches(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 6),
        Turns([0.0] * 6, [1.0] * 3 + verdict + [1.0] * 4),
        rows,
    )
    assert control.generation.refined == [7]
    assert control.generation.off_policy == [3]
    assert swapped["refine_credit"].tolist() == [0] * 7 + [1]
    metrics = control._metrics["train"]
    assert metrics["refine/unmatched"] == metrics["refine/swapped"] == [1]
    if counted:
        assert metrics[counted] == [1]


def test_without_failures_there_is_no_trace(tiny_policy, tmp_path) -> None:
    _, (control, _) = batches(
        tiny_policy, tmp_path, Turns([1.0] * 6, [1.0] * 2), Turns([1.0] * 6, [1.0] * 2)
    )
    assert control.generation.refined == []
    assert control.tokens["tokens/expert"] == 0


def test_of_two_slots_both_right_refinements_give_way_and_a_wrong_one_stays() -> None:
    right, wrong = Verdict("right"), Verdict("wrong")
    verdicts = [right, wrong, right, right]
    assert swap_right([0, 2], [3], verdicts) == ([3, 3], [])
    assert swap_right([0, 1], [3], verdicts) == ([3, 1], [])
    assert swap_right([0, 1], [], verdicts) == ([1], [0])


@pytest.mark.parametrize(
    ("settings", "critic"), [({"refine_traces": "rescued"}, Words()), (SWAPPED, None)]
)
def test_traces_that_have_no_refinement_to_replace_are_refused(
    tiny_policy, tmp_path, settings, critic
) -> None:
    with pytest.raises(ValueError, match="refine_traces 'rescued': got no refinements"):
        critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), critic, **settings)
