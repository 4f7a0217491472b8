"""Questions are one where only their typing differs, and two where a sign or a digit does."""

from __future__ import annotations

import pytest

from critique_rl.tasks.rows.question_key import normalise, question_key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 2+3?", "what is 2 + 3"),
        ("Who wrote “Emma”?", 'who wrote "Emma"'),
        ("Who wrote 'Emma'?", "Who wrote Emma"),
        ("Don't stop!", "Dont stop"),
        ("Combien font 2 ?", "Combien font 2?"),
        ("\uff37\uff28\uff21\uff34 is \uff12\uff1f", "what is 2"),
        ("a well-known fact", "A well known fact"),
        ("1,000 + 1", "1000+1"),
        ("x \N{EN DASH} 3", "x-3"),
        ("x \N{MINUS SIGN} 3", "x - 3"),
        ("What\N{RIGHT SINGLE QUOTATION MARK}s up", "What's up"),
        ("caf\u00e9", "cafe\u0301"),
        ("Is 'a' before 'b'?", 'Is "a" before "b"?'),
        ("Straße", "STRASSE"),
        ("so...\nwhat", "so what"),
        ("zero\u200bwidth", "zerowidth"),
        ("It is 5. Why?", "It is 5 why"),
        ("Find the value", "Find\tthe  value."),
        ("What is 5\u00a0kg?", "what is 5 kg"),
        ('He said: "2 + 2 = 4." Right?', "He said 2 + 2 = 4 right"),
        ("¿Cuánto es 2?", "cuánto es 2"),
        ("二加二等于几\uff1f", "二加二等于几"),
    ],
)
def test_one_question_typed_twice(first, second) -> None:
    assert normalise(first) == normalise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 2+3?", "What is 2-3?"),
        ("3.5", "35"),
        (".5", "5"),
        ("1.50", "150"),
        ("0.05", "0.5"),
        ("1,000", "1.000"),
        ("1,2", "12"),
        ("1, 2", "12"),
        ("10:30", "1030"),
        ("1/2", "12"),
        ("3 1/2", "31/2"),
        ("3½", "31/2"),
        ("3²", "32"),
        ("x₂", "x2"),
        ("10⁻³", "10-3"),
        ("2^3", "23"),
        ("2**3", "2*3"),
        ("2*3", "2/3"),
        ("2\N{MULTIPLICATION SIGN}3", "2÷3"),
        ("5!", "5"),
        ("What is 5!?", "What is 5?"),
        ("What is n!?", "What is n?"),
        ("3!!", "3!"),
        ("f'(2)", "f(2)"),
        ("f''(2)", "f'(2)"),
        ("-5", "5"),
        ("a-b", "a b"),
        ("50%", "50"),
        ("$5", "5"),
        ("x>=3", "x>3"),
        ("x = -3", "x = 3"),
        ("(1,2)", "(12)"),
        ("C#", "C"),
        ("É", "E"),
    ],
)
def test_two_questions_stay_two(first, second) -> None:
    assert normalise(first) != normalise(second)


def test_the_last_user_message_counts() -> None:
    asked = {"role": "user", "content": "What is 2?"}
    key = question_key([asked])
    assert question_key("What is 2?") == key
    assert question_key([{"role": "system", "content": "Be kind."}, asked]) == key
    assert question_key([asked, {"role": "assistant", "content": "It is"}]) == key
    parts = {"role": "user", "content": [{"type": "text", "text": "What is 2?"}]}
    assert question_key([parts]) == key
    assert question_key("?!") == "?!"
    earlier = {"role": "user", "content": "Hello"}
    assert question_key([earlier, {"role": "assistant", "content": "Hi"}, asked]) == key


@pytest.mark.parametrize("piece", ["'", '"', "1,111", "a'", "1.", "!", "-", "\u00b2"])
def test_hostile_questions_take_no_time(piece) -> None:
    assert isinstance(normalise(piece * 20_000), str)
