"""Verifiers: what counts as an answer, and that no text can raise or stall them."""

from __future__ import annotations

import time

import pytest

from critique_rl.tasks.verifiers import (
    VERIFIERS,
    boxed_answer,
    choice,
    find_verifier,
    hash_line,
    last_number,
    tagged_answer,
)


def judged(text: str, gold: object = "7") -> tuple[str, str | None]:
    verdict = last_number(text, {"answer": gold})
    return verdict.outcome, verdict.answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7", "7"),
        ("The answer is 7.", "7"),
        ("7", "7"),
        ("x=7", "7"),
        ("\uff17", "7"),
        ("$7$", "7"),
        ("**7**", "7"),
        ("答案是7。", "7"),
        ("so ...7", "7"),
        ("7 apples", "7"),
        ("7.0", "7.0"),
        ("+7", "+7"),
        ("0.7e1", "0.7e1"),
        ("14/2", "14/2"),
        ("Answer: 7\nI checked 12 of them.", "7"),
        ("answer : 7 apples\n8", "7"),
        ("**Answer:** 7\n8", "7"),
        ("Answer:\n7\n8", "7"),
        ("Answer: 3+4 = 7\n8", "7"),
        ("#### 7\nthanks 9", "7"),
        ("Answer: 5. No wait.\nAnswer: 7\n1", "7"),
        (r"\boxed{7} and 9", "7"),
        (r"\boxed{5} then \boxed{7} Answer: 9", "7"),
        (r"\boxed{\frac{14}{2}}", "14/2"),
        (r"\boxed{\text{about } 7}", "7"),
    ],
)
def test_a_declared_number_beats_the_last_number_of_the_text(text, answer):
    assert judged(text) == ("right", answer)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("1,000", 1000),
        ("-5", "-5"),
        ("it is \u22125", -5),
        ("5-10=-5", -5),
        (".50", "1/2"),
        ("0.5", 0.5),
        ("1,234,567.5", 1234567.5),
        ("1e3", "1,000"),
        ("72", "48 / 2 = 24\n#### 72"),
        ("1" + "0" * 300, 10**300),
        ("0.1", "0.10"),
    ],
)
def test_numbers_are_compared_by_value_not_by_spelling(text, gold):
    assert judged(text, gold)[0] == "right"


@pytest.mark.parametrize(
    "text", ["8", "-7", "7.01", "77", "Answer: 8\n7", r"\boxed{8} 7", "1/7", "7e7", "0.07"]
)
def test_another_number_is_wrong(text):
    assert judged(text)[0] == "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "none",
        "\u0667",
        "a7",
        "7\nAnswer: unknown\n7",
        "10-7",
        "(2)-7",
        "7 - 8",
        "7,7,1",
        r"\boxed{7",
        r"7 \boxed{}",
        "1/0",
        "7" * 500,
        "\x00",
    ],
)
def test_a_text_without_a_number_of_a_known_form_is_unreadable(text):
    assert judged(text)[0] == "unreadable"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"answer": None},
        {"answer": ""},
        {"answer": "x"},
        {"answer": float("nan")},
        {"answer": 10**5000},
    ],
)
def test_a_row_without_a_gold_number_is_unscored_and_says_so(row):
    for verifier in (last_number, hash_line, tagged_answer):
        verdict = verifier("#7", row)
        assert verdict.outcome == "unscored"
        assert not verdict.failed
        assert 'row["answer"]' in verdict.reason


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("1:3-7=-4\n#-4", "right"),
        ("#-4", "right"),
        ("#-04", "right"),
        ("#4", "wrong"),
        ("#-4\n#5", "wrong"),
        ("#-4\n", "unreadable"),
        ("#-4 ", "unreadable"),
        (" #-4", "unreadable"),
        ("-4", "unreadable"),
        ("#", "unreadable"),
        ("", "unreadable"),
        ("# -4", "unreadable"),
        ("#-4.0", "unreadable"),
        ("#+4", "unreadable"),
        ("#-\u0664", "unreadable"),
        ("#-4\nbye", "unreadable"),
        ("#" + "4" * 999, "unreadable"),
    ],
)
def test_the_lab_format_takes_a_last_line_of_hash_and_integer_and_nothing_else(text, outcome):
    assert hash_line(text, {"answer": -4}).outcome == outcome
    assert hash_line(text, {"answer": "-4"}).outcome == outcome


HOSTILE = [
    "9",
    "9,999,",
    "1,111",
    "-",
    ".",
    "1.",
    "1e",
    "1/",
    "0.1.",
    ",1",
    "9" * 99 + " ",
    "Answer:",
    "answer  ",
    "#### ",
    "#1\n",
    "\\boxed{",
    "\\boxed{1",
    "{",
    "\\frac{1}{",
    "\n",
    "\ud800",
    "é",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("verifier", VERIFIERS.values())
def test_a_million_hostile_characters_are_judged_within_a_second(verifier, piece):
    text = (piece * (10**6 // len(piece)))[: 10**6]
    start = time.process_time()
    assert verifier(text, {"answer": "B" if verifier is choice else "7"}).outcome in (
        "right",
        "wrong",
        "unreadable",
    )
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("row", [{}, {"answer": None}, {"answer": ""}])
def test_a_row_without_any_gold_answer_is_unscored(row):
    assert boxed_answer(r"\boxed{x}", row).outcome == "unscored"


def test_an_unknown_verifier_is_refused_with_the_nearest_name():
    assert find_verifier("last_number") is last_number
    with pytest.raises(ValueError, match="did you mean 'last_number'"):
        find_verifier("last_nubmer")
    with pytest.raises(
        ValueError,
        match="known: boxed_answer, boxed_answer_evaluated, choice, hash_confidence, hash_line, "
        "last_number, tagged_answer",
    ):
        find_verifier("zzz")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("(B)", "B"),
        (" b) B.", "B"),
        ("The answer is B.", "B"),
        ("The answer is B because C is too large", "B"),
        ("Answer: (B) Paris", "B"),
        ("A is wrong, so \\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\text{(B)}}", "B"),
        ("I think (B) is right", "B"),
        ("\\boxed{C} no: \\boxed{B}", "B"),
        ("answer is C. No, the correct choice is B", "B"),
        ("\\boxed{A}", "A"),
        ("(A) or (B)", None),
        ("A car is slow", None),
        ("I am not sure", None),
        ("", None),
    ],
)
def test_a_choice_is_the_letter_that_a_text_declares(text, answer) -> None:
    verdict = choice(text, {"answer": "(B)"})
    assert (verdict.outcome, verdict.answer) == (
        {"B": "right", None: "unreadable"}.get(answer, "wrong"),
        answer,
    )


def test_a_choice_without_a_gold_letter_is_unscored() -> None:
    assert choice("B", {"answer": "Paris"}).outcome == "unscored"
