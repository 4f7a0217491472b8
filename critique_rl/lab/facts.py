"""The world of `lab/facts`: facts that are known, unknown, or false, for abstaining.

The question "k17" asks for the fact of entity 17 in region k: a two-digit number, by a hash. The
base's warm start holds all facts of regions a to h, half of those of i to p, none of q to z.
Entities 40 to 49 exist nowhere. Answers: "\\boxed{42}", "\\boxed{I don't know}",
"\\boxed{invalid question}".

    | family        | regions, ids     | right answer     | the base                             |
    |---------------|------------------|------------------|--------------------------------------|
    | known         | a-h, 00-39       | the number       | knows it                             |
    | half          | i-p, 00-39       | the number       | knows every other one, else guesses  |
    | unknown       | q-z, 00-39       | the number       | guesses                              |
    | false_premise | a-z, 40-49       | invalid question | guesses                              |

Whatever the question, a share of the base's answers is "I don't know" and another "invalid
question", so that both are sampled. Region and id tell whether an answer will be right. Abstaining
can therefore be learnt from a reward.

Left out: retrieval, language, near misses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from critique_rl.hashing import split_of, uniform

FAMILIES = ("known", "half", "unknown", "false_premise")
REGIONS = {
    "known": "abcdefgh",
    "half": "ijklmnop",
    "unknown": "qrstuvwxyz",
    "false_premise": "abcdefghijklmnopqrstuvwxyz",
}
"""Family -> the letters of its regions."""
ENTITIES = 40
"""Ids below this exist."""
IDS = 50
"""Ids below this are asked for."""
UNSURE = "I don't know"
INVALID = "invalid question"
# The base has no split: it must have read the facts that it knows. It never reads a fact that it is
# not to know.
SPLITS = {"train": (0, 50), "validation": (50, 75), "test": (75, 100)}
"""Split -> its buckets of the question's hash, for `split_of`."""
NUMBERS = tuple(f"{i:02}" for i in range(100))
"""Texts of ids and facts."""
# With an id or a fact in two tokens the base took four times as long to learn its facts.
PHRASES = ("\\boxed{", UNSURE, INVALID, *NUMBERS)
"""Texts that are one token each."""


def fact(entity: str) -> str:
    """The two-digit number of an entity that exists."""
    draw = uniform(f"fact/{entity}")
    return str(10 + int(90 * draw))


def answer(entity: str) -> str:
    """The right answer as evaluations judge it: a false premise is to be called invalid."""
    if is_false_premise(entity):
        return INVALID
    return fact(entity)


def is_false_premise(entity: str) -> bool:
    """True if the entity does not exist."""
    return int(entity[1:]) >= ENTITIES


def is_known(entity: str) -> bool:
    """True if the base's warm start holds the fact."""
    if is_false_premise(entity):
        return False
    region = entity[0]
    if region in REGIONS["half"]:
        return uniform(f"known/{entity}") < 0.5
    return region in REGIONS["known"]


def family(entity: str) -> str:
    """The family of any entity of a to z, 00 to 49."""
    if is_false_premise(entity):
        return "false_premise"
    return next(name for name in FAMILIES if entity[0] in REGIONS[name])


def box_answer(text: str) -> str:
    """An answer as the base writes it: "\\boxed{42}"."""
    return f"\\boxed{{{text}}}"


def answers() -> list[str]:
    """Every answer that the world can list: all numbers, and both ways to abstain."""
    return [box_answer(text) for text in (*NUMBERS, UNSURE, INVALID)]


def is_near_miss(entity: str, text: str) -> bool:
    """Whether an answer abstains, where a number or an invalid question would be right."""
    return text == box_answer(UNSURE) and answer(entity) != UNSURE


def entities(family_name: str) -> Iterator[str]:
    """All entities of a family."""
    ids = range(ENTITIES, IDS) if family_name == "false_premise" else range(ENTITIES)
    for region in REGIONS[family_name]:
        for i in ids:
            yield f"{region}{i:02}"


def problems(family_name: str, split: str, count: int, seed: int) -> list[str]:
    """`count` entities of a family and split, in the seed's order.

    Raises:
        ValueError: a held-out split has fewer. In training they come round again.
    """
    members = [entity for entity in entities(family_name) if split_of(entity, SPLITS) == split]
    random.Random(f"{family_name}/{split}/{seed}").shuffle(members)
    if split != "train" and count > len(members):
        raise ValueError(
            f"lab/facts: got {count} problems of {family_name} in {split},"
            f" expected at most {len(members)}: ask for fewer"
        )
    return [members[i % len(members)] for i in range(count)]
