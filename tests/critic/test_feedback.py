"""A verifier's reasons as critiques, and which verifiers have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.critic.build import build_critic
from critique_rl.tasks.task import Task
from critique_rl.tasks.verifiers import last_number
from critique_rl.types import Attempt, Verdict

ROWS = [
    {"question": f"question {i}", "answer": str(i), "family": "ab"[i % 2], "id": str(i)}
    for i in range(6)
]


def explain(text: str, row) -> Verdict:
    if text == row["answer"]:
        return Verdict("right", text)
    details = {"got": text, "expected": row["answer"], "error": "TooSmall", "test": "test 1"}
    return Verdict("wrong", text, f"got {text}, expected {row['answer']}", details=details)


TASK = Task("data", ROWS, lambda split, count: ROWS, explain)


def attempts(texts: list[str]) -> list[Attempt]:
    pairs = zip(texts, ROWS, strict=False)
    return [Attempt(row["question"], text, explain(text, row), row) for text, row in pairs]


@pytest.mark.parametrize(
    ("show", "words"),
    [
        (None, "got x, expected 0"),
        ("values", "got x, expected 0"),
        ("message", "TooSmall"),
        ("name", "test 1 failed"),
        ("verdict", "wrong"),
    ],
)
def test_the_oracle_tells_what_the_verdict_says(show: str | None, words: str) -> None:
    critic = build_critic({"kind": "oracle", "show": show}, TASK)
    [critique] = critic.critique(attempts(["x"]))
    assert (critique.text, critique.status, critique.leaked) == (words, "ok", False)


def test_a_reason_that_gives_the_answer_away_is_a_leak() -> None:
    task = replace(TASK, verifier=lambda text, row: replace(explain(text, row), reason="x"))
    critic = build_critic({"kind": "oracle"}, task)
    row = {"question": "q", "answer": "17", "family": "a"}
    verdict = Verdict("wrong", "3", "3 is wrong, the answer is 17")
    [critique] = critic.critique([Attempt("q", "3", verdict, row)])
    assert critique.leaked


def test_verdicts_without_parts_skip_what_tells_parts() -> None:
    critic = build_critic({"kind": "oracle", "show": "message"}, TASK)
    attempt = Attempt("q", "x", Verdict("wrong", "x", "no"), ROWS[0])
    [critique] = critic.critique([attempt])
    assert (critique.status, critique.reason) == ("skipped", "oracle_has_no_words")


def test_shuffled_feedback_is_another_attempts_at_another_question_of_the_family() -> None:
    critic = build_critic({"kind": "shuffled"}, TASK, seed=3)
    asked = attempts(["x", "y", "z", "u", "v", "w"])
    reasons = {attempt.verdict.reason: attempt for attempt in asked}
    for attempt, critique in zip(asked, critic.critique(asked), strict=True):
        other = reasons[critique.text]
        assert other.question != attempt.question
        assert other.row["family"] == attempt.row["family"]
    assert critic.critique(asked) == critic.critique(asked)


def test_a_lone_attempt_has_no_other_feedback() -> None:
    [critique] = build_critic({"kind": "shuffled"}, TASK).critique(attempts(["x"]))
    assert (critique.status, critique.reason) == ("skipped", "no_other_problem")


@pytest.mark.parametrize(
    "verifier",
    [last_number, lambda text, row: Verdict("right" if text == row["answer"] else "wrong")],
)
def test_a_verifier_without_reasons_is_refused(verifier) -> None:
    for kind in ("oracle", "shuffled"):
        with pytest.raises(ConfigError, match="no oracle"):
            build_critic({"kind": kind}, replace(TASK, verifier=verifier))


def test_a_verifier_that_judges_nothing_is_told_as_such() -> None:
    lost = replace(TASK, verifier=lambda text, row: Verdict("unscored", reason="error KeyError"))
    with pytest.raises(ConfigError, match="judged no row that it was tried on"):
        build_critic({"kind": "oracle"}, lost)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"show": "value"}, "did you mean 'values'"),
        ({"show": "values", "reworded": True}, "one of them"),
    ],
)
def test_options_that_say_nothing_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_critic({"kind": "oracle", **options}, TASK)


def test_a_tasks_checker_comes_before_its_verifier() -> None:
    task = replace(TASK, oracle=lambda attempt: "the checker's words")
    [critique] = build_critic({"kind": "oracle"}, task).critique(attempts(["x"]))
    assert critique.text == "the checker's words"
    shown = build_critic({"kind": "oracle", "show": "values"}, task)
    assert shown.critique(attempts(["x"]))[0].text == "got x, expected 0"
