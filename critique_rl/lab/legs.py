"""The world of `lab/legs`: reasoning-gym's `leg_counting`, with animals that the policy never met.

Task, questions, facts and answers are reasoning-gym's (package reasoning-gym, pip extra `tasks`),
drawn with 2 to 4 animals of 1 to 5 each:

    Your task is to count how many legs there are in total when given a list of animals.

    Now, how many legs are there in total if you have 3 crabs, 1 wasp?

*Easy* questions hold kinds that the warm start met, *hard* ones 4 kinds that it never met. No wrong
answer is taught: the answers about kinds it never met are the policy's generalisation. A fact
learnt on one hard question helps on another. Held-out hard questions can therefore be learnt, by
any signal that finds the facts.

A working has one line per animal, in the question's order: letter, count * legs = product, running
total. The answer follows (here right):

    A3*10=30 30
    B1*6=6 36
    #36

The oracle goes through the attempt's lines and names errors: "crab A has 10 legs", "B product
wrong", "B sum wrong"; never the answer.

This family was chosen because the gap is one of facts: a critique can name a fact and a scalar
cannot. The sum is checkable line by line, the question is short, and facts carry over. Left out:

- spell_backward, letter_counting, caesar_cipher, chain_sum: a critique would be the answer itself
  or a part of it.
- calendar_arithmetic, gsm_symbolic: more templates than a small policy holds.
- string_manipulation, number_sorting, base_conversion: long questions, or too hard to warm up.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.hashing import split_of
from critique_rl.lab.draws import draw_different
from critique_rl.types import Span

FAMILIES = ("easy", "hard")
LABELS = "ABCDE"
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}
"""Split -> its buckets of the question's hash, for `split_of`."""
SHAPES = {
    "easy": {"min_animals": 2, "max_animals": 4},
    "hard": {"min_animals": 4, "max_animals": 4},
}
"""Family -> numbers of kinds, as reasoning-gym's options."""
INSTANCES = {"min_instances": 1, "max_instances": 5}
"""Numbers of animals per kind, as reasoning-gym's options."""
# Nine digits at most: Python refuses to convert thousands of them.
LINE = re.compile(r"([A-Z])(\d{1,9})\*(\d{1,9})=(\d{1,9}) (\d{1,9})", re.ASCII)
Fault = tuple[str, Span]
"""("count" | "legs" | "product" | "sum", span of the wrong number)."""


@dataclass(frozen=True)
class Problem:
    """A question of reasoning-gym, with its metadata."""

    question: str
    """The question's text."""
    answer: str
    """The number of legs in total."""
    animals: tuple[tuple[str, int], ...]
    """(kind in the singular, count) in the question's order."""

    @property
    def legs(self) -> tuple[int, ...]:
        """Legs of one animal of each kind, in order."""
        return tuple(facts()[kind] for kind, _ in self.animals)


@cache
def leg_counting_module() -> ModuleType:
    """reasoning-gym's module of the task.

    Raises:
        ImportError: the package is not installed; the message says how to install it.
    """
    try:
        from reasoning_gym.arithmetic import leg_counting
    except ImportError as error:
        raise ImportError(
            f"task lab/legs needs the package reasoning-gym; {extra_advice('tasks')}"
        ) from error
    return leg_counting


def facts() -> dict[str, int]:
    """Kind -> legs, as reasoning-gym counts them (a bird has 2, a starfish 5)."""
    module = leg_counting_module()
    return module.ANIMALS


def preamble() -> str:
    """The common start of all questions, up to the list of animals."""
    module = leg_counting_module()
    start, _, _ = module.QUESTION_TEMPLATE.partition("{animals}")
    return start


def phrases() -> tuple[str, ...]:
    """Texts that are one token each: the preamble, the kinds, and words of critiques."""
    # The longest kinds first: "bee" would else be found in "beetle".
    kinds = sorted(facts(), key=len, reverse=True)
    return (preamble(), *kinds, " has ", " legs")


@cache
def met_kinds() -> frozenset[str]:
    """Kinds of easy questions: every second kind of each number of legs, the first included."""
    # A rule over reasoning-gym's order, so that nothing is picked by hand.
    by_legs: dict[int, list[str]] = {}
    for kind, legs in facts().items():
        same_legs = by_legs.setdefault(legs, [])
        same_legs.append(kind)
    met: set[str] = set()
    for kinds in by_legs.values():
        met.update(kinds[::2])
    return frozenset(met)


def from_entry(entry: dict[str, Any]) -> Problem:
    """A problem from an entry of reasoning-gym's dataset."""
    animals = entry["metadata"]["animals"]
    return Problem(entry["question"], entry["answer"], tuple(animals.items()))


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`: "... you have 3 crabs, 1 wasp?" -> crab 3, wasp 1."""
    start = len(preamble())
    listed = re.findall(r"(?<!\d)(\d{1,9}) ([a-z ]+)", question[start:])
    animals = []
    total = 0
    for digits, name in listed:
        count = int(digits)
        # reasoning-gym's plural is an "s", whatever the kind.
        kind = name
        if count > 1:
            kind = name[:-1]
        animals.append((kind, count))
        total += count * facts()[kind]
    return Problem(question, str(total), tuple(animals))


def family(problem: Problem) -> str | None:
    """The family of a problem; None for mixtures, and for answers that one fact could be."""
    # The oracle names facts and never the answer: up to the largest number of legs, a fact might be
    # the answer.
    most_legs = max(facts().values())
    if int(problem.answer) <= most_legs:
        return None
    met = [kind in met_kinds() for kind, _ in problem.animals]
    if all(met):
        return "easy"
    if not any(met) and len(met) == 4:
        return "hard"
    return None


def sample_problem(family_name: str, split: str, rng: random.Random) -> Problem:
    """Draw a problem of a family from a split: reasoning-gym draws, and others are rejected."""
    module = leg_counting_module()
    shape = SHAPES[family_name]
    seed = rng.randrange(2**31)
    config = module.LegCountingConfig(**shape, **INSTANCES, seed=seed, size=2**31)
    dataset = module.LegCountingDataset(config)
    i = 0
    while True:
        problem = from_entry(dataset[i])
        if family(problem) == family_name:
            problem_split = split_of(problem.question, SPLITS)
            if problem_split == split:
                return problem
        i += 1


def problems(family_name: str, split: str, count: int, seed: int) -> list[Problem]:
    """Different problems of a family and split.

    Args:
        family_name: one of FAMILIES.
        split: one of SPLITS.
        count: number of problems.
        seed: the same seed gives the same list.

    Raises:
        ValueError: the family has fewer.
    """
    rng = random.Random(f"legs/{family_name}/{split}/{seed}")
    source = f"lab/legs, {family_name} in {split}"
    return draw_different(lambda known: sample_problem(family_name, split, rng), count, source)


def work(problem: Problem, legs: Sequence[int]) -> str:
    """A working without miscalculations: "A3*10=30 30\\nB1*6=6 36\\n#36".

    Args:
        problem: the question.
        legs: believed legs of one animal of each kind, in order.
    """
    total = 0
    lines = []
    for label, (_, count), number in zip(LABELS, problem.animals, legs, strict=False):
        product = count * number
        total += product
        lines.append(f"{label}{count}*{number}={product} {total}")
    lines.append(f"#{total}")
    return "\n".join(lines)


def workings(problem: Problem) -> list[str]:
    """The right working, and those with one animal's legs wrong and all arithmetic right."""
    listed = [work(problem, problem.legs)]
    numbers = sorted(set(facts().values()))
    for i, right in enumerate(problem.legs):
        for number in numbers:
            if number != right:
                legs = [*problem.legs[:i], number, *problem.legs[i + 1 :]]
                listed.append(work(problem, legs))
    return listed


def is_near_miss(problem: Problem, text: str) -> bool:
    """Whether a working has one animal's legs wrong, and all its arithmetic right."""
    return text in workings(problem)[1:]


def faults(problem: Problem, text: str) -> dict[int, list[Fault]]:
    """The errors of a working, line by line.

    Args:
        problem: the question.
        text: the working.

    Returns:
        {line, counted from 0: its faults}, for wrong lines. A missing or unreadable line has [].
    """
    wrong_lines: dict[int, list[Fault]] = {}
    line_start = 0
    total = 0
    lines = text.split("\n", len(problem.animals))
    for i, (kind, count) in enumerate(problem.animals):
        line = lines[i] if i < len(lines) else ""
        match = LINE.fullmatch(line)
        if match is None or match[1] != LABELS[i]:
            wrong_lines[i] = []
            continue
        numbers = [int(match[group]) for group in range(2, 6)]
        # Product and sum are judged by the numbers of this line and the total of the line before.
        # A mistake is named where it was made, not where it leads to.
        product = numbers[0] * numbers[1]
        legs = facts()[kind]
        running_total = total + numbers[2]
        right = [count, legs, product, running_total]
        line_faults = []
        for k, name in enumerate(("count", "legs", "product", "sum")):
            if numbers[k] != right[k]:
                start, end = match.span(k + 2)
                span = (line_start + start, line_start + end)
                line_faults.append((name, span))
        if line_faults:
            wrong_lines[i] = line_faults
        line_start += len(line) + 1
        total = numbers[3]
    return wrong_lines


def faulty_spans(question: str, text: str) -> tuple[Span, ...]:
    """Spans (start, end) of the wrong numbers of a working, in characters."""
    spans: list[Span] = []
    wrong_lines = faults(parse_problem(question), text)
    for line_faults in wrong_lines.values():
        spans += [span for _, span in line_faults]
    return tuple(spans)


def name_facts(problem: Problem, legs: dict[int, int]) -> str:
    """A critique that names facts: {0: 10} -> "crab A has 10 legs"."""
    # The letter stands beside the number: after the name no small base found it.
    phrases = []
    for i, number in sorted(legs.items()):
        kind, _ = problem.animals[i]
        phrases.append(f"{kind} {LABELS[i]} has {number} legs")
    return "; ".join(phrases)


def oracle_critique(question: str, text: str) -> str:
    """The errors of an attempt in words, line by line, never the answer.

    The fact of a missing or unreadable line is named.
    """
    problem = parse_problem(question)
    phrases = []
    for i, line_faults in faults(problem, text).items():
        names = {name for name, _ in line_faults}
        if "legs" in names or not line_faults:
            legs = problem.legs[i]
            phrases.append(name_facts(problem, {i: legs}))
        for name in ("count", "product", "sum"):
            if name in names:
                phrases.append(f"{LABELS[i]} {name} wrong")
    return "; ".join(phrases) or "last line wrong"
