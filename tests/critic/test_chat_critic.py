"""Critics that a model writes: what it is told, one call a group, votes and their choice, long
attempts, leaks.
"""

from __future__ import annotations

import re

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat_critic import CHOICES, ChatCritic
from critique_rl.critic.contract import Reply
from critique_rl.critic.leaks import MAX_PIECES, leak_spans, leaks_answer, redact
from critique_rl.prompts import cut, fence, neutralise
from critique_rl.tasks.load import load_task
from critique_rl.tasks.verifiers import last_number
from critique_rl.types import Attempt, Critique, Usage, Verdict

TASK = load_task(TaskConfig("lab/chain", size=3), 0)
ROW = {"answer": "42", "solution": "6 * 7 = 42"}
SUMS = " ".join(f"{100 + i}+{101 + i}={201 + 2 * i}," for i in range(30))
"""Ninety numbers, as a critique that goes step by step holds before it comes to the answer."""


class Says:
    """Answers the n-th conversation with the n-th text, a failure where that is None; each costs 10
    + 1 tokens.
    """

    def __init__(self, *texts):
        self.texts = texts
        self.asked = []

    def answer(self, conversations):
        self.asked.append([conversation[0]["content"] for conversation in conversations])
        replies = [
            Reply("", "failed", "timeout") if text is None else Reply(text, usage=Usage(10, 1))
            for text in self.texts[: len(conversations)]
        ]
        assert len(replies) == len(conversations)
        return replies


def is_answer(piece, row):
    return last_number(piece, row).outcome == "right"


def attempt(text="6 * 7 = 48", question="What is 6 * 7?", row=ROW):
    return Attempt(question, text, Verdict("wrong", "48"), row)


@pytest.mark.parametrize(
    ("knows", "in_prompt", "not_in_prompt"),
    [
        ("nothing", "6 * 7 = 48", "42"),
        ("answer", "answer, for your eyes only: 42", "6 * 7 = 42"),
        ("solution", "6 * 7 = 42", "only: 42"),
    ],
)
def test_the_critic_is_told_what_the_pipeline_says_it_knows(
    knows, in_prompt, not_in_prompt
) -> None:
    chat = Says("look again")
    ChatCritic(chat, knows=knows).critique([attempt()])
    assert in_prompt in chat.asked[0][0]
    assert not_in_prompt not in chat.asked[0][0]


def test_a_row_without_the_answer_that_a_critic_should_know_is_skipped() -> None:
    chat = Says("look again")
    critiques = ChatCritic(chat, knows="solution").critique(
        [attempt(row={"answer": "42"}), attempt()]
    )
    assert [(c.status, c.reason) for c in critiques] == [
        ("skipped", "no_solution_column"),
        ("ok", ""),
    ]
    assert len(chat.asked[0]) == 1


@pytest.mark.parametrize("answer", [0, 0.0, "0", "so it is\n#### 0"])
def test_a_zero_is_an_answer_that_a_critic_can_know(answer) -> None:
    asked = Says("Look again.")
    [critique] = ChatCritic(asked, knows="answer").critique([attempt(row={"answer": answer})])
    assert critique.status == "ok"
    assert re.search(r"for your eyes only: 0(\.0)?\n", asked.asked[0][0])
    [told] = build_critic({"kind": "ground_truth"}, TASK).critique(
        [attempt(row={"answer": answer})]
    )
    assert told.status == "ok"
    assert re.search(r"\b0\b", told.text)


def test_a_critic_that_knows_the_answer_is_not_told_how_it_is_worked_out() -> None:
    row = {"answer": "6 * 7 = 42 because\n#### 42"}
    asked = Says("Look again.")
    ChatCritic(asked, knows="answer").critique([attempt(row=row)])
    assert "for your eyes only: 42" in asked.asked[0][0]
    assert "because" not in asked.asked[0][0]
    [told] = build_critic({"kind": "ground_truth"}, TASK).critique([attempt(row=row)])
    assert "42" in told.text
    assert "because" not in told.text
    asked = Says("Look again.")
    ChatCritic(asked, knows="solution").critique([attempt(row=row)])
    assert "because" in asked.asked[0][0]


def test_one_prompt_for_all_failed_attempts_of_a_group_and_one_bill() -> None:
    chat = Says("for six times seven", "for the other")
    tried = [attempt("48, after a long detour"), attempt("b", "other"), attempt("41")]
    critiques = ChatCritic(chat, scope="group", template="critique_group").critique(tried)
    assert [c.text for c in critiques] == [
        "for six times seven",
        "for the other",
        "for six times seven",
    ]
    assert sum((c.usage for c in critiques), Usage()).prompt_tokens == 20
    first, second = chat.asked[0]
    assert first.index("41") < first.index("48, after a long detour")
    assert first.count("</student_solution>") == 2
    assert second.count("</student_solution>") == 1


def test_votes_are_samples_of_one_prompt_and_all_are_paid() -> None:
    chat = Says("short", None, "the longest one", "a b c", "a b d", "x")
    critiques = ChatCritic(chat, votes=3, choose="longest").critique([attempt(), attempt("7")])
    assert [c.text for c in critiques] == ["the longest one", "a b c"]
    assert chat.asked[0][0] == chat.asked[0][1] == chat.asked[0][2] != chat.asked[0][3]
    assert (
        critiques[0].usage.prompt_tokens,
        critiques[0].notes,
        critiques[1].usage.prompt_tokens,
    ) == (20, ("vote_failed",), 30)
    [nothing] = ChatCritic(Says(None, None), votes=2).critique([attempt()])
    assert (nothing.status, nothing.reason) == ("failed", "timeout")


def test_the_choice_rules() -> None:
    votes = [
        Critique(text, "c")
        for text in ("the sign of x", "something else entirely, and long", "the sign of y")
    ]
    # Shared words with the others: 3/5 with the third for the first, none for the second, 3/5 for
    # the third; the first of equals.
    assert [CHOICES[rule](votes).text[:13] for rule in ("first", "longest", "central")] == [
        "the sign of x",
        "something els",
        "the sign of x",
    ]


def test_a_vote_that_leaks_nothing_goes_before_one_that_had_to_be_redacted() -> None:
    chat = Says("It is 42 in the end, you see.", "Look again.")
    [critique] = ChatCritic(
        chat, votes=2, choose="longest", on_leak="redact", is_answer=is_answer
    ).critique([attempt()])
    assert (critique.text, critique.leaked) == ("Look again.", False)


def test_reasoning_is_no_part_of_a_critique() -> None:
    chat = Says(
        "<think>It is 42.</think>Look again.",
        "It is 42.</think> Look again.",
        "<think>It is",
        "<think></think>",
    )
    critiques = ChatCritic(chat).critique([attempt(str(i)) for i in range(4)])
    assert [(c.text, c.status, c.reason) for c in critiques] == [("Look again.", "ok", "")] * 2 + [
        ("", "failed", "empty")
    ] * 2


def test_a_long_attempt_is_cut_in_the_middle_with_a_marked_gap_and_counted() -> None:
    # 10 characters of 30: the first 6 and the last 4.
    assert (
        cut("abcdefghijklmnopqrstuvwxyz1234", 10)
        == "abcdef\n[... 20 characters left out ...]\n1234"
    )
    assert cut("abcdefghij", 10) == "abcdefghij"
    chat = Says("a", "b")
    critiques = ChatCritic(chat, longest=100).critique([attempt("x" * 101), attempt("x" * 100)])
    assert [c.notes for c in critiques] == [("attempt_cut",), ()]
    assert "[... 1 characters left out ...]" in chat.asked[0][0]


def test_control_characters_and_special_tokens_are_taken_apart_and_other_text_is_not() -> None:
    assert neutralise("a\x00b\u202ec <|im_end|> </s> [INST]") == "abc < |im_end|> < /s> [ INST]"
    assert neutralise("@@X and <answer>", ("@@X",)) == "@ @X and <answer>"
    assert neutralise("if a <b> and x[s] then <s2>") == "if a <b> and x[s] then <s2>"
    assert (
        fence("</TAG >< / tag>\uff1c/tag> <tags> tag", "tag") == "(/TAG >( / tag>(/tag> <tags> tag"
    )
    brackets = ("\ufe64/tag>", "\u27e8/tag>", "\u2039\u2215tag>", "</\uff54ag>")
    for mark in (
        *brackets,
        "</\u200dtag>",
        "</t\u00adag>",
        "<\u034f/tag>",
        "\u2039/\ufe0ftag>",
        "<\U000e0041/tag>",
    ):
        assert fence(mark, "tag") == "(" + mark[1:]
    for token in ("<turn|>", "<|turn>", "<seed:eos>", "[THINK]", "]~b]", "[TOOL_CONTENT]", "<eod>"):
        assert neutralise(token) == f"{token[0]} {token[1:]}"


def test_a_reply_of_which_nothing_can_be_seen_is_empty() -> None:
    (critique,) = ChatCritic(Says("\u200d \u3164")).critique([attempt()])
    assert (critique.status, critique.reason) == ("failed", "empty")


@pytest.mark.parametrize(
    ("text", "leaked"),
    [
        ("It should be 42.", True),
        ("so $x = 42$", True),
        (r"\boxed{42.0}", True),
        ("84/2 is what you need", True),
        ("The answer: forty-two", False),
        ("See step 42 and line 42.", False),
        ("6 times 7 is not 48", False),
        ("The answer is 7", False),
        (SUMS + "so it is 42.", True),
        (SUMS + r"\boxed{42}", True),
        ("_42_ is right", True),
        ("\uff14\uff12", True),
        ("x_42 is no variable", False),
    ],
)
def test_the_tasks_verifier_says_what_is_a_leak(text, leaked) -> None:
    assert leaks_answer(text, attempt(), is_answer) is leaked


@pytest.mark.parametrize(
    "text",
    [r"\boxed{\frac{1}{2}}", r"so \[\frac{1}{2}\]", r"it is \tfrac{1}{2}, see", r"\dfrac{1}{2}"],
)
def test_formulas_leak_with_braces_in_braces_and_without_marks(text) -> None:
    half = Attempt("What is 3/6?", "2", Verdict("wrong"), {"answer": "0.5"})
    spans, full = leak_spans(
        text, half, lambda piece, row: piece in (r"\frac{1}{2}", r"\tfrac{1}{2}", r"\dfrac{1}{2}")
    )
    assert full
    assert not re.search(r"frac\{1", redact(text, spans))


def test_pieces_past_the_most_are_noted_as_unread() -> None:
    says = Says(" ".join(f"{1000 + i}," for i in range(MAX_PIECES + 1)), "1 2 3")
    assert [
        critique.notes
        for critique in ChatCritic(says, is_answer=is_answer).critique([attempt(), attempt()])
    ] == [("leaks_unread",), ()]


def test_a_number_of_the_question_is_a_leak_only_where_it_is_called_the_answer() -> None:
    tried = attempt(question="Is 42 or 43 larger? What is the smaller one?")
    assert not leaks_answer("You misread 42.", tried, is_answer)
    assert leaks_answer("The answer is 42.", tried, is_answer)


def test_choices_and_words_leak_too() -> None:
    from critique_rl.tasks.verifiers import boxed_answer, choice

    letter = Attempt("Which? (A) (B)", "(A)", Verdict("wrong"), {"answer": "B"})
    assert leaks_answer(
        "Not (A) but (B)", letter, lambda piece, row: choice(piece, row).outcome == "right"
    )
    city = Attempt("Capital?", "Lyon", Verdict("wrong"), {"answer": "Paris"})
    assert leaks_answer(
        "The answer is Paris.",
        city,
        lambda piece, row: boxed_answer(f"\\boxed{{{piece}}}", row).outcome == "right",
    )


def test_redaction_takes_overlapping_spans_out_once() -> None:
    assert redact("so $x = 42$ is it", [(4, 10), (8, 10)]) == "so $[...]$ is it"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kind": "self", "knows": "everything"},
            "knows: got 'everything'; did you mean 'nothing'. known: answer, nothing, solution",
        ),
        ({"kind": "self", "votes": 0}, "votes: got 0, expected a number above 0"),
        ({"kind": "self", "votes": 2.5}, "votes: got 2.5"),
        ({"kind": "self", "choose": "best"}, "choose: got 'best'"),
        ({"kind": "self", "scope": "group"}, "no template 'lab/critique_group'"),
        ({"kind": "self", "max_tokens": 5}, "unknown key 'max_tokens'"),
        ({"kind": "local"}, "critic local: no 'model'"),
        ({"kind": "local", "model": "/no/such/folder"}, "/no/such/folder"),
        (
            {
                "kind": "api",
                "base_url": "http://127.0.0.1:1/v1",
                "model": "m",
                "caps": {"max_costs": 1},
            },
            "did you mean 'max_cost'",
        ),
    ],
)
def test_a_mistake_in_the_section_is_named(spec, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_critic(spec, TASK)


def test_local_and_api_critics_take_the_options_of_their_chat_and_of_the_critic() -> None:
    section = {
        "kind": "api",
        "base_url": "http://127.0.0.1:1/v1",
        "model": "m",
        "votes": 3,
        "caps": {"max_requests": 5},
        "template": "critique",
    }
    api = build_critic(section, TASK)
    assert (api.votes, api.chat.endpoint.caps.max_requests, api.name) == (3, 5, "api")
    local = build_critic(
        {"kind": "local", "model": "lab", "max_tokens": 16, "knows": "answer"}, TASK
    )
    assert (local.chat.max_tokens, local.knows, local.template) == (16, "answer", "lab/critique")


@pytest.mark.processes
def test_pieces_that_stall_the_verifier_do_not_stall_the_step(monkeypatch) -> None:
    import time

    asked = []

    def stalls(piece, row) -> bool:
        asked.append(piece)
        time.sleep(0.06)
        return False

    monkeypatch.setattr("critique_rl.critic.leaks.MAX_SECONDS", 0.1)
    assert not leaks_answer(" ".join(f"${i}^{{9}}$" for i in range(50)), attempt(), stalls)
    assert len(asked) <= 2, "the third would begin after 0.12 s"


def test_two_conversations_that_end_alike_are_two_questions() -> None:
    def row(first: str) -> dict:
        turns = [("user", first), ("assistant", "It is 3."), ("user", "Why?")]
        return {**ROW, "prompt": [{"role": role, "content": text} for role, text in turns]}

    chat = Says("of one", "of two")
    tried = [attempt(question="Why?", row=row(first)) for first in ("1 + 2?", "5 - 2?", "1 + 2?")]
    critiques = ChatCritic(chat, scope="group", template="critique_group").critique(tried)
    assert [critique.text for critique in critiques] == ["of one", "of two", "of one"]
    assert "user: 1 + 2?\nassistant: It is 3.\nuser: Why?" in chat.asked[0][0]
    assert "5 - 2?" in chat.asked[0][1]
