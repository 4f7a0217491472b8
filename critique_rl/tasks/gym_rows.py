"""Tasks of reasoning-gym as rows of a dataset (pip extra `tasks`).

For tasks whose answer is one number, chain_sum first of all: the prompt asks for a last line
"Answer: <number>", which `verifiers.last_number` reads. Left out: reasoning-gym's scorers, and
tasks with other kinds of answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.hashing import split_of
from critique_rl.tasks.row import SPLITS, Row

REQUEST = 'Reason briefly, step by step. End with a line "Answer: " followed by the number.'
DRAWS = 200
"""Instances drawn for each row wanted before giving up: a tiny task may not hold enough different
questions.
"""


def gym_rows(name: str, size: int, seed: int, split: str = "train", **config: Any) -> list[Row]:
    """Draw `size` different problems of the reasoning-gym task `name`.

    Args:
        name: A dataset of reasoning-gym, such as chain_sum.
        size: How many rows.
        seed: Other seeds draw other problems.
        split: train, validation or test. A question belongs to one split, whatever the seed.
        config: Settings of the dataset (min_terms, max_digits, ...).

    Returns:
        Rows with prompt (one user message), question, answer, id and family (= name).

    Raises:
        ValueError: For an unknown split or setting, and for a task with too few questions.
        ImportError: Without the package reasoning-gym.
    """
    rows: dict[str, Row] = {}
    for i, instance in enumerate(_instances(name, size, seed, split, config)):
        if len(rows) == size:
            break
        question = instance["question"]
        if split_of(question, SPLITS) == split and question not in rows:
            row_id = f"{name}/{split}/{seed}/{i}"
            rows[question] = _row(name, row_id, question, instance["answer"])
    if len(rows) < size:
        raise ValueError(
            f"{name} with {config} has only {len(rows)} different questions for split {split!r}, "
            f"wanted {size}; lower size or widen it"
        )
    return list(rows.values())


def _row(name: str, row_id: str, question: str, answer: object) -> Row:
    return {
        "prompt": [{"role": "user", "content": f"{question}\n{REQUEST}"}],
        "question": question,
        "answer": str(answer),
        "id": row_id,
        "family": name,
    }


def _instances(
    name: str, size: int, seed: int, split: str, config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Draw instances of a dataset. Raises ValueError and ImportError as `gym_rows` does."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; choose one of: {', '.join(SPLITS)}")
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(
            f"task reasoning-gym/{name} needs the package reasoning-gym; {extra_advice('tasks')}"
        ) from error
    # reasoning-gym draws instance i from seed + i: neighbouring seeds would share all instances but
    # one.
    key = f"{name}/{split}/{seed}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    mixed_seed = int(digest, 16) % 2**31
    draws = size * DRAWS
    try:
        yield from reasoning_gym.create_dataset(name, size=draws, seed=mixed_seed, **config)
    # An unknown setting, which the message names, or one out of its range.
    except (TypeError, AssertionError) as error:
        raise ValueError(f"reasoning-gym/{name} does not take these options: {error}") from error
