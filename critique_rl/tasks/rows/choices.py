"""Choices of a multiple choice: found in the columns, written below the question, and the letter.

A source has them in one column (a list, labels beside texts, or label -> text), or in a column per
choice (A, B, C, D; option_a, ...; ending0, ...). The gold answer is a label, the place from 0 or
from 1, or the text of a choice: the reading that fits the rows is taken for all of them. A source
whose answers fit none is refused: its questions would be asked without their choices.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.tasks.rows.cells import WrittenNumber, cell_text, plain

LETTERS = "ABCDEFGHIJ"
"""The letters that the verifier `choice` reads."""
LIST_COLUMNS = ("choices", "options", "endings", "answer_choices", "answer_options")
PREFIXES = ("option", "choice", "ending", "answer", "op", "sol")
"""Names of columns with one choice each begin so, as option_a, option1, opa, sol2."""
TEXT_KEYS = ("text", "texts", "choices", "options")
LABEL_KEYS = ("label", "labels", "key", "keys")
LABEL = re.compile(r"[A-Ja-j]|\d{1,2}", re.ASCII)
"""A key of an object of choices. Other objects, such as settings, hold none."""
INLINE_CHOICE = re.compile(r"(?<!\w)[A-Ea-e1-5]\s?[).:]")
INLINE_LABEL = re.compile(r"\(?([A-J])\s?[).:]\s*")
BRACKETS = ("[", "{")
LONGEST_LIST = 20_000
"""Characters of the longest cell that may be a list of choices; Python's reader of lists takes a
thousand bytes per character.
"""
LABEL_MARKS = "().:[] \t\n"
LEAST_SHARE = 0.9
"""Share of the rows that a reading has to fit."""
ENOUGH_ROWS = 20
"""Rows with three different places or more among which a 0 should occur."""
READINGS = ("label", "text", "place from 0", "place from 1")


@dataclass(frozen=True)
class Listed:
    """The choices of one row."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """The file's labels; (): it has none, and the letters count."""

    @property
    def lines(self) -> str:
        """The choices as they are asked."""
        pairs = zip(LETTERS, self.texts, strict=False)
        return "\n".join(f"{letter}. {text}" for letter, text in pairs)

    def stand_in(self, question: str) -> bool:
        """True where a question lists its choices by letter already."""
        pairs = zip(LETTERS, self.texts, strict=False)
        for letter, text in pairs:
            escaped = re.escape(text)
            if not re.search(rf"{letter}\s?[).:\]]\s*{escaped}", question):
                return False
        return True

    def place(self, gold: str, reading: str) -> int | None:
        """Which choice a gold answer is by a reading; None: none, or several."""
        if reading.startswith("place"):
            start = int(reading[-1])
            return _digits_place(gold, start, len(self.texts))
        if reading == "label":
            labels = self.labels or LETTERS[: len(self.texts)]
            label = gold.strip(LABEL_MARKS)
            return _single(labels, label)
        return _single(self.texts, gold)


def _digits_place(gold: str, start: int, count: int) -> int | None:
    if not re.fullmatch(r"\d{1,3}", gold, re.ASCII):
        return None
    place = int(gold) - start
    if 0 <= place < count:
        return place
    return None


def _single(texts: Iterable[str], wanted: str) -> int | None:
    lower = wanted.casefold()
    places = [i for i, text in enumerate(texts) if text.casefold() == lower]
    if len(places) != 1:
        return None
    return places[0]


@dataclass(frozen=True)
class Choices:
    """The columns of a source that hold choices, and how its gold answers name one."""

    columns: tuple[str, ...]
    reading: str

    def of_row(self, raw: Mapping[str, Any]) -> Listed | None:
        """The choices of a row; None where it has none. Raises ConfigError for other values."""
        return _listed(raw, self.columns)

    def letter(self, listed: Listed, gold: str) -> str | None:
        """The letter of the gold answer; None where it names no choice."""
        place = listed.place(gold, self.reading)
        if place is None:
            return None
        return LETTERS[place]


def find_choices(
    source: Any, name: str, wanted: str, answer: str | None, used: Iterable[str]
) -> Choices | None:
    """Find the columns that hold choices.

    Args:
        source: Its rows are read once if there are such columns.
        name: The source, for messages.
        wanted: `task.options.choices`.
        answer: The column of the gold answer; None: there is none.
        used: Columns that are read as something else.

    Raises:
        ConfigError: For a column that is not there, and for answers that name no choice.
    """
    if wanted.strip().lower() == "none":
        return None
    taken = set(used)
    known = [column for column in source.column_names if column not in taken]
    columns = _wanted_columns(wanted, known, name)
    if not columns:
        columns = _columns_by_name(known)
    if not columns:
        return None
    is_bare = not wanted and all(len(column) == 1 for column in columns)
    fits = _Fits(columns, is_bare)
    for raw in source:
        fits.add(raw, answer)
    if not fits.rows and wanted:
        raise ConfigError(f"task.options.choices: {wanted} holds no choices in {name}")
    if not fits.rows:
        return None
    if answer is None:
        return Choices(columns, "label")
    reading = fits.reading(name)
    if not reading:
        return None
    return Choices(columns, reading)


def _wanted_columns(wanted: str, known: Sequence[str], name: str) -> tuple[str, ...]:
    """The columns that the user named. Raises ConfigError for one that is not there."""
    parts = [part.strip() for part in wanted.split(",")]
    columns = tuple(part for part in parts if part)
    for column in columns:
        if column not in known:
            advice = suggest(column, known)
            raise ConfigError(f"task.options.choices: no column {column!r} in {name}; {advice}")
    return columns


def _columns_by_name(known: Sequence[str]) -> tuple[str, ...]:
    for name in LIST_COLUMNS:
        for column in known:
            if column.lower() == name:
                return (column,)
    return max(_column_groups(known), key=len, default=())


def _column_groups(known: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns with one choice each: a common beginning, then a, b, ... or 0 or 1, 2, ..."""
    by_form: dict[tuple[str, str], str] = {}
    for column in known:
        match = re.fullmatch(r"(.*?)[ _-]?([A-Ja-j]|\d)", column)
        if match is None:
            continue
        prefix = match[1].lower()
        suffix = match[2].lower()
        if prefix in PREFIXES:
            by_form[prefix, suffix] = column
        elif column.isalpha() and not prefix:
            # A and a are not one group: those are choices, these may be coefficients.
            case = "lower" if column.islower() else ""
            by_form[case, suffix] = column
    prefixes = dict.fromkeys(prefix for prefix, _ in by_form)
    groups = []
    for prefix in prefixes:
        for suffixes in (LETTERS.lower(), "0123456789", "123456789"):
            group = _unbroken_group(by_form, prefix, suffixes)
            if len(group) > 1:
                groups.append(group)
    return groups


def _unbroken_group(
    by_form: Mapping[tuple[str, str], str], prefix: str, suffixes: str
) -> tuple[str, ...]:
    """Columns of one prefix, up to the first suffix that none has."""
    group = []
    for suffix in suffixes:
        column = by_form.get((prefix, suffix))
        if column is None:
            break
        group.append(column)
    return tuple(group)


def _listed(raw: Mapping[str, Any], columns: Sequence[str]) -> Listed | None:
    """The choices of a row; None where it has none. Raises ConfigError for other values."""
    if len(columns) == 1:
        [column] = columns
        cell = plain_texts(raw.get(column))
        return _listed_in_column(cell, column)
    texts = [cell_text(raw.get(column), column) for column in columns]
    # The last choices may be empty: a question with four of five.
    while texts and not texts[-1]:
        texts.pop()
    if not texts:
        return None
    labels = [column[-1].upper() for column in columns]
    labels = labels[: len(texts)]
    return Listed(tuple(texts), tuple(labels))


def plain_texts(value: Any) -> Any:
    """A cell with its numbers as they are written. A text that is a JSON list is that list."""
    if isinstance(value, WrittenNumber):
        return str(value)
    if isinstance(value, str) and value.lstrip().startswith(BRACKETS):
        return _parsed(value)
    if isinstance(value, list | tuple):
        return [plain_texts(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain_texts(item) for key, item in value.items()}
    return value


def _parsed(text: str) -> Any:
    """The list or object that a cell of CSV holds, as JSON or pandas write it; else the text."""
    if len(text) > LONGEST_LIST:
        return text
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        pass
    # NumPy writes no commas, and Python would read ['3' '2'] as one text.
    if re.search(r"['\"]\s+['\"]", text):
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _listed_in_column(value: Any, column: str) -> Listed | None:
    """Raises ConfigError for anything but a list, labels beside texts, or label -> text."""
    if value is None or value == "":
        return None
    if isinstance(value, Mapping):
        return _listed_in_object(value, column)
    are_objects = isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
    if are_objects and value:
        texts = [_first_value(item, TEXT_KEYS, column) for item in value]
        labels = [_first_value(item, LABEL_KEYS, column) for item in value]
        return _labelled(texts, labels, column)
    if isinstance(value, list):
        return _labelled(value, (), column)
    # Texts such as "a ) 24 , b ) 120" hold choices, others do not.
    text = str(value).lstrip()
    inline = INLINE_CHOICE.findall(text)
    if len(inline) < 2 and not text.startswith(BRACKETS):
        return None
    shown = text[:60]
    raise ConfigError(
        f"column {column!r}: got {shown!r}, expected a list of choices, which are asked below the "
        "question; write a list, or set task.options.choices: none if it holds no choices"
    )


def _first_value(item: Mapping[str, Any], keys: Iterable[str], column: str) -> Any:
    """Raises ConfigError where none of the keys is there."""
    for key in keys:
        if item.get(key) is not None:
            return item[key]
    shown = str(plain(item))[:60]
    raise ConfigError(f"column {column!r}: got the choice {shown}, expected a label and a text")


def _listed_in_object(value: Mapping[str, Any], column: str) -> Listed | None:
    """{"text": [...], "label": [...]}, or label -> text. Raises ConfigError for other values."""
    texts = _first_list(value, TEXT_KEYS)
    if texts is not None:
        labels = _first_list(value, LABEL_KEYS) or []
        return _labelled(texts, labels, column)
    # In a Parquet file each object has the keys of all rows, some of them None.
    filled = {key: text for key, text in value.items() if text is not None}
    for key in filled:
        label = key.strip(LABEL_MARKS)
        if not LABEL.fullmatch(label):
            return None
    return _labelled(list(filled.values()), list(filled), column)


def _first_list(value: Mapping[str, Any], keys: Iterable[str]) -> list[Any] | None:
    """The list under the first of the keys that has one."""
    for key in keys:
        cell = value.get(key)
        if isinstance(cell, list):
            return cell
    return None


def _labelled(texts: Sequence[Any], labels: Sequence[Any], column: str) -> Listed | None:
    """Raises ConfigError for a choice that is no text."""
    words = [cell_text(text, column) for text in texts]
    if not words:
        return None
    names = [cell_text(label, column) for label in labels]
    names = [name.strip(LABEL_MARKS) for name in names]
    if len(names) != len(words):
        names = []
    inline = [INLINE_LABEL.match(text) for text in words]
    letters = "".join(match[1] for match in inline if match)
    # "A)21", "B)22": the letter is no part of the text.
    if letters == LETTERS[: len(words)]:
        names = list(letters)
        words = [INLINE_LABEL.sub("", text, count=1) for text in words]
    return Listed(tuple(words), tuple(names))


def _holds_number(value: Any) -> bool:
    """True for a number, and for a list or an object with one."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return any(_holds_number(item) for item in value)
    return isinstance(value, int | float | WrittenNumber)


class _Fits:
    """How many rows each reading of the gold answers fits."""

    def __init__(self, columns: tuple[str, ...], is_bare: bool):
        self.columns = columns
        self.is_bare = is_bare
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.conflicts: set[tuple[str, str]] = set()
        self.example = ""
        self.golds: set[str] = set()
        self.is_numeric = True
        self.are_texts = True
        self.has_labels = False

    def add(self, raw: Mapping[str, Any], answer: str | None) -> None:
        """Count a row. Raises ConfigError for a value that holds no choices."""
        listed = _listed(raw, self.columns)
        if listed is None:
            return
        if answer is None:
            self.rows += 1
            return
        value = raw.get(answer)
        gold = cell_text(value, answer)
        if not gold:
            return
        self.rows += 1
        self.example = self.example or gold
        if len(self.golds) <= len(LETTERS):
            self.golds.add(gold)
        self.has_labels |= bool(listed.labels)
        self.is_numeric &= _holds_number(value)
        self.are_texts &= not any(_holds_number(raw.get(column)) for column in self.columns)
        places = {reading: listed.place(gold, reading) for reading in READINGS}
        for reading, place in places.items():
            self.counts[reading] += place is not None
            for other, other_place in places.items():
                if None not in (place, other_place) and place != other_place:
                    self.conflicts.add((reading, other))

    def reading(self, name: str) -> str:
        """The reading that fits; "" where columns of one letter are no choices.

        Raises:
            ConfigError: Where none fits, or two do.
        """
        least = LEAST_SHARE * self.rows
        fitting = [reading for reading in READINGS if self.counts[reading] >= least]
        if self.is_bare and (len(self.columns) < 3 or self.columns[0].islower()):
            # They may be the numbers of the question: "a", "b" of a sum.
            if "label" in fitting:
                return "label"
            return ""
        shown = ", ".join(self.columns)
        if not fitting:
            raise ConfigError(
                f"{name}: column {shown} holds choices, but answers such as {self.example[:40]!r} "
                "name none of them; give the letter, the place or the text of a choice as answer, "
                "or set task.options.choices: none"
            )
        best = max(self.counts[reading] for reading in fitting)
        fitting = [reading for reading in fitting if self.counts[reading] == best]
        return self._preferred(fitting, name, shown)

    def _preferred(self, fitting: Sequence[str], name: str, shown: str) -> str:
        """Raises ConfigError where two readings fit as well, and mean other choices."""
        first, *others = fitting
        if first == "label" and self.has_labels:
            return first
        # Places count from 0 where nothing speaks for 1. Of many answers one would then be 0.
        speaks_for_1 = self.rows >= ENOUGH_ROWS and len(self.golds) > 2
        if "place from 0" in fitting and not speaks_for_1:
            others = [other for other in others if other != "place from 1"]
        rivals = [other for other in others if (first, other) in self.conflicts]
        if not rivals:
            return first
        # A number beside choices that are texts is a place, whatever the texts are.
        is_place = self.is_numeric and self.are_texts and "place from 0" in rivals
        if first == "text" and is_place:
            return "place from 0"
        raise ConfigError(
            f"{name}: answers such as {self.example[:40]!r} can be the {first} or the {rivals[0]} "
            f"of the choices in column {shown}; write the letters A, B, ... as answers"
        )
