"""Tasks of reasoning-gym as rows of a dataset (pip extra `tasks`).

For tasks whose answer is one number, chain_sum first of all: the prompt asks for a last line
"Answer: <number>", which `verifier.last_number` reads. Left out: reasoning-gym's own scorers, and
tasks with other kinds of answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from critique_rl.hashing import split_of

Split = Literal["train", "validation", "test"]
SPLITS: dict[str, tuple[int, int]] = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
REQUEST = 'Reason briefly, step by step. End with a line "Answer: " followed by the number.'
DRAWS = 200
"""Instances drawn for each row wanted before giving up: a tiny task may not hold enough different
questions.
"""


def gym_rows(
    name: str, size: int, seed: int, split: Split = "train", **config: Any
) -> list[dict[str, Any]]:
    """`size` different problems of the reasoning-gym task `name`; `config` holds the task's own
    settings (min_terms, max_digits, ...).

    Columns: prompt (one user message), question, answer, id, family (= name). A question belongs to
    one split, whatever the seed.
    """
    rows: dict[str, dict[str, Any]] = {}
    for i, item in enumerate(_instances(name, size, seed, split, config)):
        if len(rows) == size:
            break
        question = item["question"]
        if split_of(question, SPLITS) == split and question not in rows:
            rows[question] = _row(name, f"{name}/{split}/{seed}/{i}", question, item["answer"])
    if len(rows) < size:
        raise ValueError(
            f"{name} with {config} has only {len(rows)} different questions for split {split!r}, wanted {size}; lower size or widen it"
        )
    return list(rows.values())


def _row(name: str, identity: str, question: str, answer: object) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"{question}\n{REQUEST}"}]
    return {
        "prompt": prompt,
        "question": question,
        "answer": str(answer),
        "id": identity,
        "family": name,
    }


def _instances(
    name: str, size: int, seed: int, split: str, config: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; choose one of: {', '.join(SPLITS)}")
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(
            f"task reasoning-gym/{name} needs the package reasoning-gym; run: pip install 'critique-rl[tasks]'"
        ) from error
    # reasoning-gym draws instance i from seed + i: neighbouring seeds would share all instances but
    # one.
    mixed = int(hashlib.sha256(f"{name}/{split}/{seed}".encode()).hexdigest(), 16) % 2**31
    try:
        yield from reasoning_gym.create_dataset(name, size=size * DRAWS, seed=mixed, **config)
    except TypeError as error:  # an unknown setting; its message names it
        raise ValueError(f"reasoning-gym/{name} does not take these options: {error}") from error
