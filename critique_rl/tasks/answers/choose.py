"""The verifier that reads all gold answers of a data set, and examples of how it judges.

    choice         every gold answer is a letter from A to J
    last_number    every one is a number, perhaps with a unit
    math           some are formulas, lists, intervals or sets
    boxed_answer   all others: words, names, dates, codes

Nothing here runs a verifier: the caller judges the examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from critique_rl.prompts import LONGEST_TEXT
from critique_rl.tasks.answers.formulas import is_phrase
from critique_rl.tasks.answers.letters import LETTER_ALONE
from critique_rl.tasks.answers.marked import LONGEST, marked_part
from critique_rl.tasks.answers.numbers import Quantity, read_quantity
from critique_rl.tasks.answers.phrases import LEADING_ZERO, tokens
from critique_rl.tasks.answers.plain import plain_text

COUNT = 20
"""Examples that `init` shows."""
MOST_UNIT_WORDS = 3
"""Words after a number that may be its unit; more are a sentence."""
FORMULA_SIGN = re.compile(
    r"\\[A-Za-z{]|[\^=<>]|\d\s?[a-z](?![a-z])|(?<![A-Za-z])[a-z\d)]\s?[-+*/]\s?[a-z\d(](?![A-Za-z])"
    r"|^[(\[][^,\n]*,.*[)\]]$|^\d[^A-Za-z]*,\s?[-\d]"
)
"""What formulas, lists and intervals have and words do not."""


def choose_verifier(golds: Sequence[str]) -> str:
    """The name of the verifier that reads all of these gold answers."""
    if all(LETTER_ALONE.fullmatch(gold) for gold in golds):
        return "choice"
    if all(is_quantity(gold) for gold in golds):
        return "last_number"
    if any(is_formula(gold) for gold in golds):
        return "math"
    return "boxed_answer"


def is_quantity(gold: str) -> bool:
    """Whether a gold answer is a number, perhaps with a unit, and no code, date or equation."""
    part = _marked(gold)
    if LEADING_ZERO.fullmatch(part):
        return False
    if "=" in part:
        return False
    if is_phrase(plain_text(part).strip()):
        return False
    quantity = read_quantity(part)
    if quantity is None or not quantity.is_certain:
        return False
    starts_with_word = re.match(r"\s*[^\W\d_]{2}", plain_text(part)) is not None
    return not starts_with_word and len(quantity.unit.name.split()) <= MOST_UNIT_WORDS


def is_formula(gold: str) -> bool:
    """Whether a gold answer is a formula, a list of numbers, an interval or a set."""
    if is_quantity(gold):
        return False
    plain = plain_text(_marked(gold)).strip()
    return not is_phrase(plain) and FORMULA_SIGN.search(plain) is not None


def _marked(gold: str) -> str:
    """The part of a gold answer that is compared; a longer one than any answer is cut."""
    gold = gold[:LONGEST_TEXT]
    part = marked_part(gold)
    return (gold if part is None else part).strip()[:LONGEST]


@dataclass(frozen=True)
class Example:
    """A completion made from a gold answer, and whether it is right."""

    kind: str
    """What was done to the gold answer."""
    completion: str
    gold: str
    is_right: bool


def judged_examples(golds: Sequence[str], verifier: str) -> list[Example]:
    """Twenty completions made from real gold answers: right ones, and perturbed ones.

    Args:
        golds: The gold answers.
        verifier: Its name decides the form: "Answer: ..." or a box.

    Returns:
        Fewer than twenty where the gold answers allow no more.
    """
    different = list(dict.fromkeys(golds))
    if not different:
        return []
    step = max(1, len(different) // 5)
    picked = different[::step][:5]
    examples: list[Example] = []
    for place, gold in enumerate(picked):
        examples += _examples_of(gold, _another(gold, different, place), verifier, place)
    return _balanced(examples)


def _balanced(examples: Sequence[Example]) -> list[Example]:
    """At most `COUNT` examples, of each gold answer as many as of the others."""
    by_gold: dict[str, list[Example]] = {}
    for example in examples:
        by_gold.setdefault(example.gold, []).append(example)
    share = -(-COUNT // max(1, len(by_gold)))
    kept: list[Example] = []
    for group in by_gold.values():
        kept += group[:share]
    return kept[:COUNT]


def _examples_of(gold: str, another: str, verifier: str, place: int) -> list[Example]:
    """Examples of one gold answer, the most telling first."""
    part = _marked(gold)
    asked = asked_form(verifier)
    perturbed_parts = perturbations(part, verifier)
    # Other golds show other perturbations.
    turn = place % max(1, len(perturbed_parts))
    perturbed_parts = perturbed_parts[turn:] + perturbed_parts[:turn]
    examples = [Example("as asked", asked(part), gold, True)]
    for kind, perturbed in perturbed_parts:
        examples.append(Example(kind, asked(perturbed), gold, False))
    if another:
        examples.insert(2, Example("another row's answer", asked(_marked(another)), gold, False))
    working = f"First I thought of 17, which is not it.\n\n{asked(part)}"
    examples.insert(2, Example("after working", working, gold, True))
    cut = asked(part)[:-2]
    if verifier not in ("last_number", "choice"):
        examples.insert(4, Example("cut off", cut, gold, False))
    return examples


def asked_form(verifier: str) -> Callable[[str], str]:
    """The form in which `init` asks the model for an answer."""
    if verifier in ("last_number", "choice"):
        return "Answer: {}".format
    return "The answer is \\boxed{{{}}}.".format


def _another(gold: str, golds: Sequence[str], place: int) -> str:
    """A gold answer that surely differs from the given one; "" where there is none."""
    for offset in range(1, len(golds)):
        other = golds[(place + offset) % len(golds)]
        if _differ(gold, other):
            return other
    return ""


def _differ(gold: str, other: str) -> bool:
    quantity = read_quantity(_marked(gold))
    other_quantity = read_quantity(_marked(other))
    if quantity is None or other_quantity is None:
        words = tokens(plain_text(_marked(gold)))
        return words != tokens(plain_text(_marked(other)))
    return not set(_values(quantity)) & set(_values(other_quantity))


def _values(quantity: Quantity) -> tuple[object, ...]:
    return (quantity.value, quantity.scaled, *quantity.others)


def _number_perturbations(part: str, end: int, verifier: str) -> list[tuple[str, str]]:
    """`perturbations` of a text whose first number ends at a place."""
    changed = []
    is_number = verifier == "last_number" and read_quantity(part) is not None
    if is_number and re.search(r"[1-9]", part):
        flipped = f"-{part}"
        digits = part.lstrip()
        if digits.startswith(("-", "\u2212")):
            flipped = digits[1:]
        changed.append(("the sign flipped", flipped))
    rest = part[end:]
    without_last = part[: end - 1]
    last = int(part[end - 1])
    another = (last + 1) % 10
    changed.append(("a digit changed", f"{without_last}{another}{rest}"))
    changed.append(("a digit more", f"{part[:end]}7{rest}"))
    return changed


def perturbations(part: str, verifier: str) -> list[tuple[str, str]]:
    """(kind, text) of answers that differ from a gold answer in one thing that matters."""
    if verifier == "choice":
        match = LETTER_ALONE.fullmatch(part)
        letter = match[1] if match else "A"
        other = "B" if letter == "A" else "A"
        return [("another letter", other), ("two letters", f"{letter} and {other}")]
    number = re.search(r"\d+", part, re.ASCII)
    if number is not None:
        return _number_perturbations(part, number.end(), verifier)
    changed = []
    word = re.search(r"[^\W\d_]{3,}", part)
    if word is not None and not part.startswith("\\"):
        changed.append(("words turned", f"not {part}"))
    changed.append(("something added", f"{part} or 17"))
    return changed
