"""Rows of one source of the user's data: its columns, and which rows can be used.

As in TRL, a column `prompt` (a text, or a conversation) is taken as it is; otherwise the question
becomes a user message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.names import family_fault, shown
from critique_rl.tasks.answer_text import final_answer
from critique_rl.tasks.data_source import DataOptions, read_dataset, utf8_error
from critique_rl.tasks.messages import content_text, prompt_fault, question_of
from critique_rl.tasks.row import TRL_ARGUMENTS, Row
from critique_rl.tasks.rows.cells import HALF_CHARACTER, cell_text, plain
from critique_rl.tasks.rows.choices import LETTERS, Choices, find_choices
from critique_rl.types import Message

PICTURES = ("image", "images")
"""Columns that TRL would show to a policy that sees."""
DEFAULT_FAMILY = "data"
Prompt = str | list[Message]


@dataclass(frozen=True)
class Reading:
    """How the rows of one source are read."""

    source: str
    """train, validation or test."""
    names: Sequence[str]
    """All columns of the source."""
    columns: Mapping[str, str]
    """prompt or question, answer, solution, family -> the source's column."""
    choices: Choices | None
    system: str
    needs_answer: bool


def read_rows(
    source: str, options: DataOptions, needs_answer: bool, readings: set[str]
) -> Iterator[Row | str]:
    """Each row of a source, or the reason why it cannot be used.

    Args:
        source: train, validation or test.
        options: Where the rows are.
        needs_answer: Rows without an answer are left out.
        readings: How earlier sources named a choice; this one's reading is added.

    Raises:
        ConfigError: For a source that cannot be read, or whose places of choices count from
            another number than those of an earlier source.
    """
    name = getattr(options, source)
    dataset = read_dataset(name, source, options.subset)
    names = dataset.column_names
    columns = _find_columns(names, options, name, needs_answer)
    try:
        choices = find_choices(
            dataset, name, options.choices, columns.get("answer"), columns.values()
        )
        if choices is not None:
            readings.add(choices.reading)
            _check_same_place(readings, name)
        reading = Reading(source, names, columns, choices, options.system, needs_answer)
        for place, raw in enumerate(dataset):
            yield _read_row(raw, reading, place)
    # pyarrow takes bytes for text unchecked, and they are decoded when a row is read.
    except UnicodeDecodeError as error:
        raise utf8_error(name, error) from error


def _check_same_place(readings: set[str], name: str) -> None:
    """Raise ConfigError where one file counts its choices from 0, another one from 1."""
    if {"place from 0", "place from 1"} <= readings:
        raise ConfigError(
            f"{name}: the places of choices seem to count from 0 in one file and from 1 in "
            "another; write the letters A, B, ... as answers"
        )


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


def _read_row(raw: Row, reading: Reading, place: int) -> Row | str:
    """A row of the file as a row of the task, or the reason why it cannot be used.

    Raises:
        ConfigError: For a value that no row may hold there.
    """
    columns = reading.columns
    texts = _cell_texts(raw, columns)
    if any(HALF_CHARACTER.search(text) for text in texts.values()):
        return "half of a character (a lone surrogate)"
    given = _read_prompt(plain(raw.get("prompt"))) if "prompt" in columns else ""
    question = texts.get("question") or question_of(given)
    if not question.strip():
        return "no question"
    if reading.needs_answer and not texts["answer"]:
        return "no answer"
    if reading.choices is not None:
        asked = _ask_choices(question, texts, raw, reading)
        if isinstance(asked, str):
            return asked
        texts |= asked
        question = asked["question"]
    # A family is part of a metric's name, which is one line.
    family = " ".join(texts.get("family", "").split()) or DEFAULT_FAMILY
    fault = family_fault(family)
    if fault:
        raise ConfigError(
            f"task.options.family: {shown(family)} {fault}; give that family another name"
        )
    row = _other_columns(raw, reading)
    row |= texts
    row["prompt"] = given or _chat_prompt(question, reading.system)
    row["question"] = question
    row["answer"] = texts.get("answer", "")
    row["family"] = family
    row["id"] = f"{reading.source}/{place}"
    return row


def _cell_texts(raw: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that are read here, but for a prompt, as texts.

    Raises:
        ConfigError: For a question or an answer that is no text.
    """
    texts = {}
    for key, column in columns.items():
        value = raw.get(column)
        # These two may have been found by their names only, and nobody may need them.
        if key in ("solution", "family") and isinstance(value, list | dict):
            value = json.dumps(plain(value), ensure_ascii=False)
        if key != "prompt":
            texts[key] = cell_text(value, column)
    if "answer" in texts:
        texts |= _without_working(texts)
    return texts


def _other_columns(raw: Row, reading: Reading) -> dict[str, Any]:
    """The columns that are not read here, for a user's function.

    Raises:
        ConfigError: For a picture, which TRL would show to the policy, and nobody else could see.
    """
    left_out = {*reading.columns.values(), *TRL_ARGUMENTS, *PICTURES}
    for column in PICTURES:
        if raw.get(column):
            raise ConfigError(
                f"column {column!r} holds pictures, and questions are asked as text only; "
                "remove the column if they can be answered without it"
            )
    names = [name for name in reading.names if name not in left_out]
    return {name: plain(raw.get(name)) for name in names}


def _without_working(texts: Mapping[str, str]) -> dict[str, str]:
    """The final answer of a worked one (GSM8K: "so it is 42\n#### 42"); the rest is a solution."""
    answer = texts["answer"]
    final = final_answer(answer)
    if final == answer:
        return {}
    solution = texts.get("solution") or answer
    return {"answer": final, "solution": solution}


def _ask_choices(
    question: str, texts: Mapping[str, str], raw: Row, reading: Reading
) -> dict[str, str] | str:
    """The question with its choices and the letter of its answer, or why it cannot be asked.

    Raises:
        ConfigError: For a prompt that does not show its choices.
    """
    assert reading.choices is not None
    listed = reading.choices.of_row(raw)
    if listed is None:
        return {"question": question}
    if not 2 <= len(listed.texts) <= len(LETTERS):
        return f"fewer than 2 choices, or more than {len(LETTERS)}"
    answer = texts.get("answer", "")
    if answer:
        letter = reading.choices.letter(listed, answer)
        if letter is None:
            return "its answer is none of its choices"
        answer = letter
    if listed.stand_in(question):
        return {"question": question, "answer": answer}
    if "prompt" in reading.columns:
        columns = ", ".join(reading.choices.columns)
        raise ConfigError(
            f"column 'prompt' is asked as it is, and lacks the choices of column {columns}; write "
            "them into it as A. ..., B. ..., or name another column with question:, or set "
            "task.options.choices: none"
        )
    return {"question": f"{question}\n\n{listed.lines}", "answer": answer}


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
    fault = prompt_fault(value)
    if not fault and value[-1]["role"] != "user":
        fault = f"got a last message of {value[-1]['role']!r}, expected the user's"
    if fault:
        raise ConfigError(
            f"column 'prompt': {fault}. A prompt is a text, or messages (role, content) of which "
            "the last is the user's"
        )
    # Without other keys: in a Parquet file each message has the keys of all, some of them None.
    prompt = []
    for message in value:
        role = message.get("role")
        # Parts become one text: not every chat template reads them.
        prompt.append({"role": role, "content": content_text(message["content"])})
    return prompt
