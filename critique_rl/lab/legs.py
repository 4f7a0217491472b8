"""The world of `lab/legs`: reasoning-gym's `leg_counting`, where a policy that met some animals is
asked about the others.

Task, questions, facts and answers are reasoning-gym's (package reasoning-gym, pip extra `tasks`),
drawn with 2 to 4 animals of 1 to 5 each:

    Your task is to count how many legs there are in total when given a list of animals.

    Now, how many legs are there in total if you have 3 crabs, 1 wasp?

*Easy* questions hold met kinds only, *hard* ones 4 kinds that the warm start never met. Every
second kind of each number of legs, in reasoning-gym's own order, is met: a rule, so that nothing is
picked. No wrong answer is taught: what the policy answers for a kind it never met is its own
generalisation. A fact learnt on one hard question helps on another, so held-out hard questions can
be learnt, by any signal that finds the facts.

A working has one line an animal, in the question's order: letter, count * legs = product, running
total; then the answer (here right):

    A3*10=30 30
    B1*6=6 36
    #36

The oracle goes through the attempt's lines and says what is wrong: "crab A has 10 legs", "B product
wrong", "B sum wrong"; never the answer. Why this family: the gap is one of facts, which a critique
can name and a scalar cannot, the sum is checkable line by line, the question is short, and the
facts carry over. Looked at and left: spell_backward, letter_counting, caesar_cipher, chain_sum
(what to say in words is the answer itself, or a part of it), calendar_arithmetic and gsm_symbolic
(many templates, more than a small policy holds), string_manipulation, number_sorting and
base_conversion (long questions, or too hard to warm up).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from critique_rl.hashing import split_of

FAMILIES = ("easy", "hard")
LABELS = "ABCDE"
SPLITS = {"base": (0, 50), "train": (50, 80), "validation": (80, 90), "test": (90, 100)}
SHAPES = {
    "easy": {"min_animals": 2, "max_animals": 4},
    "hard": {"min_animals": 4, "max_animals": 4},
}
INSTANCES = {"min_instances": 1, "max_instances": 5}
LINE = re.compile(r"([A-Z])(\d{1,9})\*(\d{1,9})=(\d{1,9}) (\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Problem:
    """A question of reasoning-gym with what its metadata says: kinds (singular) and their counts,
    in order.
    """

    question: str
    answer: str
    animals: tuple[tuple[str, int], ...]

    @property
    def legs(self) -> tuple[int, ...]:
        """Legs of one animal of each kind, in order."""
        return tuple(facts()[kind] for kind, _ in self.animals)


@cache
def leg_counting_module() -> ModuleType:
    """reasoning-gym's module of the task. ImportError that says what to install where there is
    none.
    """
    try:
        from reasoning_gym.arithmetic import leg_counting
    except ImportError as error:
        raise ImportError(
            "task lab/legs needs the package reasoning-gym; run: pip install 'critique-rl[tasks]'"
        ) from error
    return leg_counting


def facts() -> dict[str, int]:
    """Kind -> legs, as reasoning-gym counts them (a bird has 2, a starfish 5)."""
    return leg_counting_module().ANIMALS


def preamble() -> str:
    """What every question begins with, up to its list of animals."""
    return leg_counting_module().QUESTION_TEMPLATE.partition("{animals}")[0]


def phrases() -> tuple[str, ...]:
    """What is one token: the preamble, the kinds (longest first, "beetle" before "bee"), and the
    words critiques are made of.
    """
    return (preamble(), *sorted(facts(), key=len, reverse=True), " has ", " legs")


@cache
def met_kinds() -> frozenset[str]:
    """Kinds that easy questions hold: the first, third, fifth, ... of each number of legs, in
    reasoning-gym's order.
    """
    by_legs: dict[int, list[str]] = {}
    for kind, legs in facts().items():
        by_legs.setdefault(legs, []).append(kind)
    return frozenset(kind for kinds in by_legs.values() for kind in kinds[::2])


def from_entry(entry: dict[str, Any]) -> Problem:
    """A problem from an entry of reasoning-gym's dataset."""
    return Problem(entry["question"], entry["answer"], tuple(entry["metadata"]["animals"].items()))


def parse_problem(question: str) -> Problem:
    """The inverse of `Problem.question`: "... you have 3 crabs, 1 wasp?" -> crab 3, wasp 1."""
    listed = re.findall(r"(\d+) ([a-z ]+)", question[len(preamble()) :])
    animals = tuple((name[:-1] if int(count) > 1 else name, int(count)) for count, name in listed)
    return Problem(question, str(sum(count * facts()[kind] for kind, count in animals)), animals)


def family(problem: Problem) -> str | None:
    """The family a problem belongs to, None for mixtures. An answer up to the largest number of
    legs belongs to none: a fact would give it away.
    """
    if int(problem.answer) <= max(facts().values()):
        return None
    known = [kind in met_kinds() for kind, _ in problem.animals]
    return "easy" if all(known) else "hard" if not any(known) and len(known) == 4 else None


def sample_problem(wanted: str, split: str, rng: random.Random) -> Problem:
    """Draw a problem of one family from one split: reasoning-gym draws, others are rejected."""
    config = leg_counting_module().LegCountingConfig(
        **SHAPES[wanted], **INSTANCES, seed=rng.randrange(2**31), size=2**31
    )
    dataset, i = leg_counting_module().LegCountingDataset(config), 0
    while True:
        problem = from_entry(dataset[i])
        if family(problem) == wanted and split_of(problem.question, SPLITS) == split:
            return problem
        i += 1


def problems(wanted: str, split: str, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a family and split; the same seed gives the same list."""
    rng, found = random.Random(f"legs/{wanted}/{split}/{seed}"), {}
    while len(found) < count:
        problem = sample_problem(wanted, split, rng)
        found[problem.question] = problem
    return list(found.values())


def work(problem: Problem, legs: Sequence[int]) -> str:
    """The working that believes in these `legs` and makes no other mistake: "A3*10=30 30\\nB1*6=6
    36\\n#36".
    """
    total, lines = 0, []
    for label, (_, count), number in zip(LABELS, problem.animals, legs, strict=False):
        total += count * number
        lines.append(f"{label}{count}*{number}={count * number} {total}")
    return "\n".join([*lines, f"#{total}"])


def faults(problem: Problem, text: str) -> dict[int, list[tuple[str, tuple[int, int]]]]:
    """What is wrong in a working: {line, counted from 0: [(count | legs | product | sum, span of
    the wrong number)]}; [] for a line that is none.

    Product and sum are judged by what the line itself and the line before say, so that a mistake is
    named where it was made.
    """
    found, at, total, lines = {}, 0, 0, text.split("\n")
    for i, (kind, count) in enumerate(problem.animals):
        line = lines[i] if i < len(lines) else ""
        match = LINE.fullmatch(line)
        if match is None or match[1] != LABELS[i]:
            found[i] = []
            continue
        wrote = [int(match[k]) for k in range(2, 6)]
        right = [count, facts()[kind], wrote[0] * wrote[1], total + wrote[2]]
        spans = [
            (name, (at + match.start(k), at + match.end(k)))
            for k, name in enumerate(("count", "legs", "product", "sum"), start=2)
        ]
        if wrote != right:
            found[i] = [
                span for span, got, want in zip(spans, wrote, right, strict=True) if got != want
            ]
        at, total = at + len(line) + 1, wrote[3]
    return found


def faulty_spans(question: str, text: str) -> tuple[tuple[int, int], ...]:
    """Spans (start, end) of the wrong numbers of a working."""
    return tuple(
        span for line in faults(parse_problem(question), text).values() for _, span in line
    )


def name_facts(problem: Problem, legs: dict[int, int]) -> str:
    """A critique that names facts: {0: 10} -> "crab A has 10 legs". The letter stands beside the
    number: after the name no small base found it.
    """
    return "; ".join(
        f"{problem.animals[i][0]} {LABELS[i]} has {number} legs"
        for i, number in sorted(legs.items())
    )


def oracle_critique(question: str, text: str) -> str:
    """What is wrong in the attempt, line by line, and never the answer; a missing or unreadable
    line has its fact named.
    """
    problem, said = parse_problem(question), []
    for i, wrong in faults(problem, text).items():
        names = {name for name, _ in wrong}
        said += [name_facts(problem, {i: problem.legs[i]})] if "legs" in names or not wrong else []
        said += [
            f"{LABELS[i]} {name} wrong" for name in ("count", "product", "sum") if name in names
        ]
    return "; ".join(said) or "last line wrong"
