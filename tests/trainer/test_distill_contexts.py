"""Teacher contexts: which text the teacher reads for each row, and which tokens count."""

from __future__ import annotations

import pytest
from known_critics import QUESTIONS, SOLUTIONS, WORDS, Turns, Words, completion_text, generated
from lab_trainers import (
    DISTILL,
    HALF,
    context_tokens,
    critique_trainer,
    move_weights,
    prompt_tokens,
)


def teachers_of(trainer, output) -> list[str | None]:
    """The text that the teacher of each row reads; None for a row without a teacher."""
    texts = [
        trainer.processing_class.decode(context_tokens(output, row))
        for row in range(len(output["completion_ids"]))
    ]
    return [
        text if has else None
        for text, has in zip(texts, output["distill_mask"].tolist(), strict=True)
    ]


def test_a_rollouts_teacher_reads_the_critique_and_not_the_attempt(tiny_policy, tmp_path) -> None:
    trainer = critique_trainer(tiny_policy, tmp_path, Turns(HALF), Words(), **DISTILL)
    output = generated(trainer)
    first, second = (f"<user>{question}\n> {WORDS}<policy>" for question in QUESTIONS)
    assert teachers_of(trainer, output) == [None, first, first, first] + [second] * 4
    # contexts and completions of the seven rows
    read = 3 * len(prompt_tokens(trainer, f"{QUESTIONS[0]}\n> {WORDS}")) + 4 * len(
        prompt_tokens(trainer, f"{QUESTIONS[1]}\n> {WORDS}")
    )
    assert trainer.tokens["tokens/teacher"] == read + output["completion_mask"][1:].sum()
    assert trainer._metrics["train"]["distill/rows"] == [7]


def test_a_rollouts_teacher_reads_a_right_sibling_or_else_a_critique(tiny_policy, tmp_path) -> None:
    for context, wrong in (
        ("sibling", None),
        ("sibling_or_critique", f"<user>{QUESTIONS[1]}\n> {WORDS}<policy>"),
    ):
        trainer = critique_trainer(
            tiny_policy, tmp_path, Turns(HALF), Words(), **DISTILL, distill_context=context
        )
        output = generated(trainer)
        sibling = f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, 0)}\n> <policy>"
        assert teachers_of(trainer, output) == [
            None,
            sibling,
            sibling,
            sibling,
            wrong,
            wrong,
            wrong,
            wrong,
        ]


def test_a_right_rollout_learns_from_another_right_one_and_none_from_itself(
    tiny_policy, tmp_path
) -> None:
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0, 1.0, 0.0, 1.0] + [0.0] * 4),
        **DISTILL,
        distill_context="sibling",
    )
    output = generated(trainer)
    one, three = (
        f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, row)}\n> <policy>"
        for row in (1, 3)
    )
    assert teachers_of(trainer, output) == [one, three, one, one, None, None, None, None]


def test_a_demonstration_is_read_for_every_rollout_without_any_critic(
    tiny_policy, tmp_path
) -> None:
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns(HALF), **DISTILL, distill_context="demonstration"
    )
    first, second = (
        f"<user>{question}\n{solution}\n> <policy>"
        for question, solution in zip(QUESTIONS, SOLUTIONS, strict=True)
    )
    assert teachers_of(trainer, generated(trainer)) == [first] * 4 + [second] * 4


def test_the_bare_question_is_read_for_failed_rollouts_as_it_stands_and_anchors(
    tiny_policy, tmp_path
) -> None:
    settings = {**DISTILL, "distill_context": "question", "distill_teacher": "base"}
    trainer = critique_trainer(tiny_policy, tmp_path, Turns(HALF), **settings)
    output = generated(trainer)
    first, second = (f"<user>{question}<policy>" for question in QUESTIONS)
    # the rows that a critic would have written on: all but the right one
    assert teachers_of(trainer, output) == [None, first, first, first] + [second] * 4
    for row in range(1, 8):
        prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()]
        assert context_tokens(output, row) == prompt.tolist()
    # at the base the anchor holds nothing back; elsewhere it is the divergence from the base
    assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(0, abs=1e-9)
    move_weights(trainer)
    assert trainer._compute_loss(trainer.model, output).item() > 1e-3


def test_the_bare_question_is_nothing_to_the_live_policy_and_refused(tiny_policy, tmp_path) -> None:
    with pytest.raises(ValueError, match="distill_context question: got distill_teacher live"):
        critique_trainer(tiny_policy, tmp_path, Turns(HALF), **DISTILL, distill_context="question")


@pytest.mark.parametrize(
    ("target", "rows"),
    [("refinements", [3]), ("both", [0, 1, 2, 3, 4, 5, 6]), ("rollouts", [0, 1, 2, 4, 5, 6])],
)
def test_a_chosen_refinements_teacher_reads_the_prompt_it_was_sampled_from(
    tiny_policy, tmp_path, target, rows
) -> None:
    # all six rollouts fail; of the candidates the second of the first group is right, none of the
    # second group
    reward = Turns([0.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        reward,
        Words(),
        **{**DISTILL, "refine_slots": 1},
        distill_target=target,
    )
    output = generated(trainer)
    texts = teachers_of(trainer, output)
    assert [row for row, text in enumerate(texts) if text] == rows
    if 3 in rows:
        assert (
            texts[3]
            == f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, 1)}\n> {WORDS}<policy>"
        )
    # a wrong refinement teaches nothing, whatever the target
    assert 7 not in rows
    assert output["distill_tokens"] == output["completion_mask"][rows].sum()
    assert trainer._compute_loss(trainer.model, output).item() > 0


def test_the_term_is_divided_by_its_own_tokens_or_by_those_of_all_rollouts(
    tiny_policy, tmp_path
) -> None:
    # rollouts 0 and 4 are right; the first group's refinement is right, the second's wrong
    turns = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    for normalizer, target, rows in (
        ("own", "rollouts", [1, 2, 5, 6]),
        ("rollouts", "rollouts", [0, 1, 2, 4, 5, 6]),
        ("own", "both", [1, 2, 3, 5, 6]),
        ("rollouts", "both", [0, 1, 2, 3, 4, 5, 6]),
    ):
        settings = {
            **DISTILL,
            "refine_slots": 1,
            "distill_normalizer": normalizer,
            "distill_target": target,
        }
        output = generated(
            critique_trainer(tiny_policy, tmp_path, Turns(*turns), Words(), **settings)
        )
        taught = [1, 2, 3, 5, 6] if target == "both" else [1, 2, 5, 6]
        assert output["distill_mask"].nonzero().flatten().tolist() == taught
        assert output["distill_tokens"] == output["completion_mask"][rows].sum(), (
            normalizer,
            target,
        )


def test_contexts_that_are_too_long_are_counted_and_train_nothing(tiny_policy, tmp_path) -> None:
    # <user>, question, newline, solution, newline, "> ", <policy>: 1 + 9 + 1 + 15 + 1 + 2 + 1 = 30
    # and 1 + 5 + 1 + 10 + 1 + 2 + 1 = 21 tokens
    settings = {**DISTILL, "distill_context": "demonstration", "distill_mode": "full"}
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns(HALF), **settings, max_refine_prompt_length=21
    )
    output = generated(trainer)
    assert output["distill_mask"].tolist() == [False] * 4 + [True] * 4
    assert trainer._metrics["train"]["distill/prompt_too_long"] == [4]
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns(HALF), **settings, max_refine_prompt_length=20
    )
    output = generated(trainer)
    assert trainer._metrics["train"]["distill/prompt_too_long"] == [8]
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    assert loss.item() == 0.0
    assert all(
        parameter.grad is None or parameter.grad.abs().max() == 0
        for parameter in trainer.model.parameters()
    )


def test_a_critique_too_long_to_refine_with_is_still_read_where_nothing_is_refined(
    tiny_policy, tmp_path
) -> None:
    # the teacher's prompt has 1 + 9 + 1 + 2 + 11 + 1 = 25 tokens for the first question; a refine
    # prompt would hold the attempt too
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, max_refine_prompt_length=25
    )
    assert all(generated(trainer)["distill_mask"].tolist())
