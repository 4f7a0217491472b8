"""Critics of the user's own: an error at one attempt is that attempt's alone, and nothing they do
ends or stalls a step.
"""

from __future__ import annotations

import pytest
import user_critics
from waiting import SECONDS, wait_until, within

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt, Verdict

TASK = load_task(TaskConfig("lab/chain", size=3), 0)


def attempts(*texts):
    return [
        Attempt(
            "3 A-7 B+9 C+8",
            text,
            Verdict("wrong", "1"),
            {"question": "3 A-7 B+9 C+8", "answer": "13"},
        )
        for text in texts
    ]


def user_critic(name, **options):
    return build_critic({"kind": "python", "target": f"user_critics:{name}", **options}, TASK)


def outcomes(critiques):
    return [(critique.text, critique.status, critique.reason) for critique in critiques]


def test_a_function_of_one_attempt_is_a_critic() -> None:
    [critique] = user_critic("says_length").critique(attempts("abc"))
    assert (critique.text, critique.critic, critique.status) == ("3 characters", "python", "ok")
    assert user_critic("says_length").critique([]) == []


def test_each_item_fails_alone_with_its_reason() -> None:
    critiques = user_critic("by_text").critique(
        attempts("raise", "none", "empty", "number", "leak", "surrogate", "failed", "fine")
    )
    assert outcomes(critiques) == [
        ("", "failed", "error KeyError"),
        ("", "skipped", "nothing_to_say"),
        ("", "failed", "empty"),
        ("", "failed", "bad reply: int"),
        ("The answer is 13.", "ok", ""),
        ("a?bc", "ok", ""),
        ("", "failed", "no idea"),
        ("look at line 2", "ok", ""),
    ]
    assert [critique.leaked for critique in critiques].count(True) == 1
    assert {critique.critic for critique in critiques} == {"python"}


def test_what_is_no_critique_fails_alone_whatever_its_fields_hold() -> None:
    critiques = user_critic("by_text").critique(
        attempts("blank", "blank critique", "no text", "status", "usage", "nan", "notes", "fine")
    )
    assert [(critique.status, critique.reason) for critique in critiques] == [
        ("failed", "empty"),
        ("failed", "empty"),
        ("failed", "bad reply: text is a NoneType"),
        ("failed", "bad reply: status 'great'"),
        ("failed", "bad reply: usage is a NoneType"),
        ("failed", "bad reply: usage is (0, 0, 0.0, nan, 0, 0)"),
        ("failed", "bad reply: notes is a NoneType"),
        ("ok", ""),
    ]


def test_a_class_gets_its_options_and_a_batch_that_raises_is_tried_one_by_one() -> None:
    critic = user_critic("Model", options={"word": "column"})
    assert outcomes(critic.critique(attempts("a", "raise", "b"))) == [
        ("column", "ok", ""),
        ("", "failed", "error RuntimeError"),
        ("column", "ok", ""),
    ]
    assert {reason for _, _, reason in outcomes(critic.critique(attempts("too few", "b")))} == {
        "error ValueError"
    }


@pytest.mark.processes
def test_a_critic_that_hangs_or_exits_fails_attempts_until_it_is_back() -> None:
    critic = user_critic("by_text", deadline=0.3)
    fine = [("look at line 2", "ok", "")]
    user_critics.awake.clear()
    try:
        with within("a critic that hangs"):
            both = outcomes(critic.critique(attempts("sleep", "fine")))
            assert both == [("", "failed", "timeout")] * 2
            critic.deadline = 2 * SECONDS  # later ones do not wait for it
            assert outcomes(critic.critique(attempts("fine"))) == [("", "failed", "timeout")]
    finally:
        user_critics.awake.set()
    wait_until(lambda: outcomes(critic.critique(attempts("fine"))) == fine, "the critic to be back")
    assert outcomes(critic.critique(attempts("exit"))) == [("", "failed", "error RuntimeError")]


@pytest.mark.parametrize(
    ("on_leak", "expected"),
    [
        ("keep", ("The answer is 13.", "ok", "")),
        ("redact", ("The answer is [...].", "ok", "")),
        ("drop", ("", "skipped", "leak")),
    ],
)
def test_a_leak_is_counted_and_kept_redacted_or_dropped(on_leak, expected) -> None:
    [critique] = user_critic("by_text", on_leak=on_leak).critique(attempts("leak"))
    assert outcomes([critique]) == [expected]
    assert critique.leaked
    assert critique.notes == (("redacted",) if on_leak == "redact" else ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "user_critics:nothing"}, "has no 'nothing'; it has Critique, Model"),
        ({"target": "user_critics:NoMethod"}, "no method critique"),
        ({"target": "user_critics:number"}, "is a int, expected a class"),
        ({"target": "user_critics"}, "expected module:name"),
        (
            {"target": "user_critics:Model", "options": {"wordd": "x"}},
            "unexpected keyword argument 'wordd'",
        ),
        ({}, "critic python: .*target"),
        ({"target": "user_critics:Model", "deadline": 0}, "deadline: got 0"),
        (
            {"target": "user_critics:Model", "on_leak": "hide"},
            "on_leak: got 'hide'; known: drop, keep, redact",
        ),
    ],
)
def test_a_mistake_in_the_section_is_named(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_critic({"kind": "python", **options}, TASK)
