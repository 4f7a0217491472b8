"""No wrong answer is right and no right one wrong, over the forms of public data sets and over
random numbers; unreadable right ones are few.
"""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest
from answer_forms import judge_forms, read_forms

from critique_rl.tasks.answers.choose import choose_verifier, judged_examples
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.verifiers import boxed_answer, choice, last_number

pytestmark = pytest.mark.processes
MOST_UNREADABLE = 0.03


@pytest.mark.parametrize("name", ["public.jsonl", "reported.jsonl", "signs_and_words.jsonl"])
def test_forms_are_judged_right_by_the_verifier_that_init_chooses(name) -> None:
    judged = judge_forms(name)
    assert [form for form in judged if form.is_wrong_called_right] == []
    assert [form for form in judged if form.is_right_called_wrong] == []
    unread = [form for form in judged if form.is_right_unread]
    right = [form for form in judged if form.row["right"]]
    assert len(unread) <= MOST_UNREADABLE * len(right), unread


def test_there_are_two_hundred_public_forms_of_all_kinds() -> None:
    kinds = read_forms("public.jsonl")
    rows = [row for group in kinds.values() for row in group]
    assert len(rows) >= 200
    assert {choose_verifier([row["answer"] for row in group]) for group in kinds.values()} == {
        "last_number",
        "choice",
        "math",
        "boxed_answer",
    }
    assert len({(row["completion"], row["answer"]) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("golds", "verifier"),
    [
        (["18", "1,200", "-3.5"], "last_number"),
        (["so\n#### 72", "so\n#### 5"], "last_number"),
        (["\\frac{3}{4}", "7/2", "3 1/2"], "last_number"),
        (["12 cm", "54 \\text{ cm}^2"], "last_number"),
        (["A", "(B)", "I"], "choice"),
        (["A", "Paris"], "boxed_answer"),
        (["A", "7"], "boxed_answer"),
        (["x^2", "7"], "math"),
        (["(1,2)", "7"], "math"),
        (["3, 5", "7"], "math"),
        (["x-1", "7"], "math"),
        (["2\\sqrt{3}"], "math"),
        (["2021-05-01"], "boxed_answer"),
        (["10:30", "5:15"], "boxed_answer"),
        (["007", "010"], "boxed_answer"),
        (["None", "N/A", "null", "nan"], "boxed_answer"),
        (["well-known", "COVID-19"], "boxed_answer"),
        (["3:4", "5:6"], "boxed_answer"),
        (["True", "2.5"], "boxed_answer"),
    ],
)
def test_the_verifier_reads_all_gold_answers(golds, verifier) -> None:
    assert choose_verifier(golds) == verifier
    judge = build_verifier(verifier)
    for gold in golds:
        for example in judged_examples(golds, verifier):
            verdict = judge(example.completion, {"answer": example.gold})
            assert (verdict.outcome == "right") == example.is_right, example
        assert judge("", {"answer": gold}).outcome == "unreadable"


def spellings(value: Fraction) -> list[str]:
    """Right spellings of a number with at most three decimals."""
    sign = "-" if value < 0 else ""
    size = abs(value)
    texts = [f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}", f"{value}"]
    decimal = f"{float(size):.3f}".rstrip("0").rstrip(".")
    texts += [f"{sign}{decimal}", f"${sign}{decimal}$", f"\\text{{{sign}{decimal}}}"]
    grouped = f"{float(size):,.3f}".rstrip("0").rstrip(".")
    texts += [
        sign + grouped,
        sign + grouped.replace(",", "{,}"),
        sign + grouped.replace(",", "\\,"),
    ]
    whole, rest = divmod(size, 1)
    if whole and rest:
        texts.append(f"{sign}{whole}\\frac{{{rest.numerator}}}{{{rest.denominator}}}")
        texts.append(f"{sign}{whole} {rest}")
    texts += [
        f"x = {sign}{decimal}",
        f"{sign}{decimal} \\text{{ cm}}^2",
        f"{sign}{decimal}\\times10^0",
    ]
    return texts


def perturbed(value: Fraction, generator: random.Random) -> list[str]:
    """Answers that are another number, or no single number."""
    other = value + generator.choice([-10, -1, 1, 10, Fraction(1, 2), Fraction(-1, 4)])
    texts = spellings(other)
    decimal = f"{float(value):.3f}".rstrip("0").rstrip(".")
    if value:
        texts += spellings(-value)
    texts += [
        f"{decimal}7",
        f"7, {decimal}",
        f"(1, {decimal})",
        f"1 \\text{{ or }} {decimal}",
        f"9:{decimal}",
        f"\\sqrt{{{decimal}}} + 1",
        f"{decimal}x",
        f"x^{{{decimal}}}",
        f"x_{{{decimal}}}",
        f"9-{decimal}",
        f">{decimal}",
        f"{decimal}!+1",
        f"{decimal} \\text{{ million}}",
        f"\\{{1, {decimal}\\}}",
        f"9/{decimal}+1",
    ]
    return texts


@pytest.mark.parametrize("name", ["last_number", "boxed_answer", "math"])
def test_random_numbers_are_right_in_each_spelling_and_never_when_perturbed(name) -> None:
    generator = random.Random(19)
    judge = build_verifier(name)
    unread = []
    count = 25 if name == "math" else 200
    for _ in range(count):
        size = generator.choice([10, 1000, 10**6])
        value = Fraction(generator.randint(-size, size), generator.choice([1, 1, 2, 4, 8]))
        row = {"answer": str(value) if generator.random() < 0.5 else spellings(value)[2]}
        for text in spellings(value):
            verdict = judge(f"so \\boxed{{{text}}}", row)
            assert verdict.outcome in ("right", "unreadable"), (text, row, verdict)
            if verdict.outcome == "unreadable":
                unread.append((text, row, verdict.reason))
        if value == 0:
            continue
        for text in perturbed(value, generator):
            verdict = judge(f"so \\boxed{{{text}}}", row)
            assert verdict.outcome in ("wrong", "unreadable"), (text, row, verdict)
    assert len(unread) <= MOST_UNREADABLE * 12 * count, unread[:5]


def test_random_texts_around_a_number_never_make_another_one_right() -> None:
    generator = random.Random(7)
    pieces = [
        "0",
        "1",
        "2",
        "5",
        "12",
        "3.5",
        ",",
        ".",
        "-",
        "+",
        "/",
        ":",
        "(",
        ")",
        "^",
        "_",
        "=",
        "%",
        "\\frac",
        "{",
        "}",
        "\\sqrt",
        "x",
        "or",
        "and",
        "not",
        "Answer:",
        "$",
        "\n",
    ]
    for _ in range(4000):
        words = generator.choices(pieces, k=generator.randint(1, 7))
        text = generator.choice(["", " "]).join(words)
        # No piece holds these digits.
        for gold in ("7", "98", "6/7"):
            assert last_number(text, {"answer": gold}).outcome != "right", text


def test_letters_are_read_for_a_and_i_wherever_b_is_read() -> None:
    templates = [row["completion"] for row in read_forms("public.jsonl")["letter"]]
    templates += [row["completion"] for row in read_forms("reported.jsonl")["choice"]]
    for template in templates:
        if template.count("B") == 1 and "A" not in template and "I" not in template:
            outcomes = {
                choice(template.replace("B", letter), {"answer": letter}).outcome
                for letter in "ABCDEFGHIJ"
            }
            assert len(outcomes) == 1, template


HOSTILE = [
    "a ", "A. ", "(A) ", "answer is ", "Answer: 1, ", "1 or ", "$1$ ", "**", "*a*", "_a_", "`",
    "\\text{", "\\text{a}", "\\frac{1}{2}", "{,}", "\\,", "1 000 ", "1,000", "1'000", "=", "x=1,",
    "\\boxed{1} and ", "\\boxed ", "\\fbox{", "\\sqrt{", "^{", "½", "²", "½ ", "(", "((1)", "\\(1",
    "\\[", "Wait ", "not ", "1.000.", "0.\\overline{3}", "May 1, 2021 ", "10:30 ", "or, and ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("verifier", [last_number, choice, boxed_answer])
@pytest.mark.parametrize("frame", ["{}", "\\boxed{{{}}}", "Answer: {}"])
def test_long_hostile_texts_are_judged_within_a_second(verifier, piece, frame) -> None:
    text = frame.format(piece * (300_000 // len(piece)))
    start = time.process_time()
    verdict = verifier(text, {"answer": "B" if verifier is choice else "7"})
    assert verdict.outcome in ("right", "wrong", "unreadable")
    assert time.process_time() - start < 1.5
