"""Rows of one source of the user's data: its columns, and which rows can be used.

As in TRL, a column `prompt` (a text, or a conversation) is taken as it is; otherwise the question
becomes a user message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.tasks.data_source import DataOptions, read_dataset
from critique_rl.tasks.row import Row
from critique_rl.types import Message

RESERVED = (
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)
"""Columns that TRL would mistake for its arguments of a reward function; they are dropped."""
DEFAULT_FAMILY = "data"
Prompt = str | list[Message]


def read_rows(source: str, options: DataOptions, needs_answer: bool) -> Iterator[Row | str]:
    """Each row of a source, or the reason why it cannot be used.

    Raises:
        ConfigError: For a source that cannot be read.
    """
    name = getattr(options, source)
    dataset = read_dataset(name, source, options.subset)
    columns = _find_columns(dataset.column_names, options, name, needs_answer)
    try:
        for place, raw in enumerate(dataset):
            row_id = f"{source}/{place}"
            yield _read_row(raw, columns, options.system, row_id, needs_answer)
    # pyarrow takes bytes for text unchecked, and they are decoded when a row is read.
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read {name}: it is no UTF-8 ({error.reason}); "
            "save it as UTF-8, for instance by iconv -f latin1 -t utf-8"
        ) from error


def _find_columns(
    known: Sequence[str], options: DataOptions, name: str, needs_answer: bool
) -> dict[str, str]:
    """Find the columns of a row in a file.

    Returns:
        prompt or question, answer, solution, family -> the file's column. The last three only
        where the file has them, or the user named them.

    Raises:
        ConfigError: For a column that the file does not have.
    """
    question = options.question
    if not question:
        question = "prompt" if "prompt" in known else "question"
    if options.system and question == "prompt":
        raise ConfigError(
            "task.options.system: a prompt is taken as it is; put the system message into it, "
            "or name another column with question:"
        )
    key = "prompt" if question == "prompt" else "question"
    columns = {key: question}
    if needs_answer or options.answer in known:
        columns["answer"] = options.answer
    for key in ("solution", "family"):
        column = getattr(options, key)
        if column or key in known:
            columns[key] = column or key
    for key, column in columns.items():
        if column not in known:
            option = "question" if key == "prompt" else key
            advice = suggest(column, known)
            raise ConfigError(f"task.options.{option}: no column {column!r} in {name}; {advice}")
    return columns


def _read_row(
    raw: Row, columns: Mapping[str, str], system: str, row_id: str, needs_answer: bool
) -> Row | str:
    """A row of the file as a row of the task, or the reason why it cannot be used.

    Raises:
        ConfigError: For a value that no row may hold there.
    """
    texts = {}
    for key, column in columns.items():
        if key != "prompt":
            cell = raw[column]
            texts[key] = _read_text(cell, column)
    if "prompt" in columns:
        prompt = _read_prompt(raw["prompt"])
    else:
        prompt = _chat_prompt(texts["question"], system)
    question = texts.get("question") or _last_text(prompt)
    if not question.strip():
        return "no question"
    if needs_answer and not texts["answer"]:
        return "no answer"
    family = texts.get("family") or DEFAULT_FAMILY
    if family == "all":
        raise ConfigError(
            "task.options.family: 'all' is the name of all families together; "
            "give that family another one"
        )
    row = dict(raw)
    for name in (*columns.values(), *RESERVED):
        row.pop(name, None)
    row |= texts
    row["prompt"] = prompt
    row["question"] = question
    row["answer"] = texts.get("answer", "")
    row["family"] = family
    row["id"] = row_id
    return row


def _read_text(value: Any, column: str) -> str:
    """A cell as text, "" for an empty one. Raises ConfigError for lists, objects and bytes."""
    if isinstance(value, list | dict | bytes):
        shown = str(value)[:60]
        raise ConfigError(
            f"column {column!r}: got {shown!r}, expected a text or a number; "
            "write one column of texts"
        )
    if value is None:
        return ""
    # A file may hold NaN for an empty cell, as pandas writes it.
    if isinstance(value, float) and math.isnan(value):
        return ""
    return str(value).strip()


def _chat_prompt(question: str, system: str) -> Prompt:
    messages = []
    if system:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": question})
    return messages


def _read_prompt(value: Any) -> Prompt:
    """A text, or a conversation that ends with the user, as it is.

    Raises:
        ConfigError: For anything else.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not _is_user_chat(value):
        shown = str(value)[:80]
        raise ConfigError(
            f"column 'prompt': got {shown!r}, expected a text, "
            "or messages (role, content) of which the last is the user's"
        )
    # Without other keys: in a Parquet file each message has the keys of all, some of them None.
    prompt = []
    for message in value:
        role = message.get("role")
        prompt.append({"role": role, "content": message["content"]})
    return prompt


def _is_user_chat(value: Any) -> bool:
    """True for messages (role, content) of which the last is the user's."""
    if not isinstance(value, list) or not value:
        return False
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return False
    return bool(value[-1].get("role") == "user")


def _last_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return prompt[-1]["content"]
