"""Critics: one critique an attempt, controls that are what they claim, and mistakes in a config
that are named.
"""

from __future__ import annotations

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.critic.controls import ShuffledCritic
from critique_rl.critic.leaks import leaks_answer
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt, Verdict

TASK = load_task(TaskConfig("lab/chain", size=60), 0)
ROW = {"question": "3 A-7 B+9 C+8", "answer": "13", "family": "plateau"}
ATTEMPT = Attempt("3 A-7 B+9 C+8", "A-7=4\nB+9=3\nC+8=1\n#1", Verdict("wrong", "1"), ROW)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("retry", ""),
        ("indicative", "wrong"),
        ("ground_truth", "wrong, the answer is 13"),
        ("oracle", "A sign lost; B minus kept; C carry lost"),
    ],
)
def test_each_kind_says_what_it_should(kind, text) -> None:
    [critique] = build_critic({"kind": kind}, TASK).critique([ATTEMPT])
    assert (critique.text, critique.critic, critique.status) == (text, kind, "ok")
    assert critique.leaked == (kind == "ground_truth")


def test_shuffled_is_another_problem_of_the_family_and_repeats_itself() -> None:
    critic = build_critic({"kind": "shuffled"}, TASK)
    oracle = build_critic({"kind": "oracle"}, TASK)
    critique = oracle.critique([ATTEMPT])[0].text
    texts = [critique.text for critique in critic.critique([ATTEMPT] * 3)]
    assert texts[0] == texts[1] == texts[2] != critique
    others = {
        oracle.critique([Attempt(row["question"], "", Verdict("wrong"), row)])[0].text
        for row in TASK.train
        if row["family"] == "plateau"
    }
    assert texts[0] in others


def test_shuffled_never_speaks_of_the_attempts_own_problem() -> None:
    # An oracle that reads the attempt says other words about a blank attempt on the same problem.
    rows = [
        {"question": "1 A+1", "family": "easy", "answer": "2", "id": number} for number in range(9)
    ]
    rows.append({"question": "2 A+2", "family": "easy", "answer": "4", "id": 9})

    def words(attempt: Attempt) -> str:
        return f"{attempt.question}: {attempt.text or 'nothing written'}"

    attempts = [Attempt("1 A+1", f"#{i}", Verdict("wrong"), rows[0]) for i in range(20)]
    critiques = ShuffledCritic(words, rows).critique(attempts)
    assert {critique.text for critique in critiques} == {"2 A+2: nothing written"}
    [alone] = ShuffledCritic(words, rows[:9]).critique(attempts[:1])
    assert (alone.status, alone.reason) == ("skipped", "no_other_problem")


@pytest.mark.parametrize(("wrong", "low", "high"), [(0, 0, 0), (0.25, 0.15, 0.35), (1, 1, 1)])
def test_noisy_is_wrong_as_often_as_asked_and_repeats_itself(wrong, low, high) -> None:
    attempts = [
        Attempt(row["question"], f"#{i}", Verdict("wrong"), row)
        for i, row in enumerate(TASK.train * 5)
        if row["family"] == "plateau"
    ]
    noisy = build_critic({"kind": "noisy", "wrong": wrong, "critic": {"kind": "oracle"}}, TASK)
    oracle = build_critic({"kind": "oracle"}, TASK)
    first, again, true = (critic.critique(attempts) for critic in (noisy, noisy, oracle))
    assert first == again
    assert {critique.critic for critique in first} == {"noisy"}
    assert (
        low
        <= sum(s.text != t.text for s, t in zip(first, true, strict=True)) / len(attempts)
        <= high
    )


def test_the_oracle_can_speak_in_words_that_no_base_read() -> None:
    [critique] = build_critic({"kind": "oracle", "reworded": True}, TASK).critique([ATTEMPT])
    assert critique.text == "A dropped its minus; B is still negative; C ten too few"
    with pytest.raises(ConfigError, match="expected true or false"):
        build_critic({"kind": "oracle", "reworded": "yes"}, TASK)


def test_none_is_no_critic() -> None:
    assert build_critic({"kind": "none"}, TASK) is None


def test_ground_truth_without_an_answer_column_is_a_counted_skip() -> None:
    [critique] = build_critic({"kind": "ground_truth"}, TASK).critique(
        [Attempt("q", "a", Verdict("wrong"), {})]
    )
    assert (critique.status, critique.reason) == ("skipped", "no_answer_column")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "orcale"}, "unknown kind 'orcale'; did you mean 'oracle'"),
        ({"kind": "retry", "model": "x"}, "critic retry: unknown key 'model'"),
        ({"kind": "api", "base_urll": "x"}, "unknown key 'base_urll'; did you mean 'base_url'"),
        ({"kind": "api"}, "critic api: .*base_url"),
        ({"kind": "noisy", "wrong": 0.5}, "critic noisy: .*critic"),
        (
            {"kind": "noisy", "wrong": 1.5, "critic": {"kind": "oracle"}},
            "critic noisy, wrong: got 1.5",
        ),
        ({"kind": "noisy", "wrong": 0.5, "critic": "oracle"}, "expected another critic's section"),
        ({"kind": "noisy", "wrong": 0.5, "critic": {"kind": "orcale"}}, "did you mean 'oracle'"),
    ],
)
def test_a_mistake_in_the_critic_section_is_named(spec, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_critic(spec, TASK)


@pytest.mark.parametrize(
    ("text", "leaked"),
    [
        ("it is 13", True),
        ("step 13: sign lost", False),
        ("113 or 1.13", False),
        ("-13", False),
        ("=13.", True),
        ("13", True),
    ],
)
def test_a_leak_is_the_answer_as_a_token_of_its_own(text, leaked) -> None:
    assert leaks_answer(text, ATTEMPT, TASK.is_answer) is leaked
