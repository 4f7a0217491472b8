"""Values of one row of a log, in the spellings of different trainers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.columns import Columns, Row, number_of
from critique_rl.tasks.messages import content_text, text_of

UNKNOWN = -1
LARGEST = 2**31 - 1
RIGHT_WORDS = {"right", "correct", "true", "pass", "passed", "yes"}
WRONG_WORDS = {"wrong", "incorrect", "false", "fail", "failed", "no", "unreadable", "abstained"}
UNJUDGED_WORDS = {"unscored", "none", "nan", ""}
HELD_OUT = re.compile(
    r"(?:evals?|evaluations?|val|valid|validation|test|dev|held[-_]?out|holdout)(?:[^a-z]|$)"
)
"""The beginning of a folder's or file's name, or of a value of `split`, of held-out answers."""
YES = {"true", "1", "1.0", "yes", "y", "t"}
NO = {"false", "0", "0.0", "no", "n", "f"}
TRAINING_WORDS = {"train", "training", "rollout", "rollouts"}
"""Values of `split` of training answers."""
STEP_NAMED = re.compile(r"(?:step|completions|global_step)[_-]?0*(\d+)")
STEP_LAST = re.compile(r"(?:^|[-_.])0*(\d+)$")
CUT_REASONS = {"length", "max_tokens", "max_length", "max_output_tokens"}


def text(value: Any) -> str:
    """The text of a prompt or a completion; of a conversation that of all messages."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    is_conversation = isinstance(value, list)
    if is_conversation:
        is_conversation = all(isinstance(part, Mapping) for part in value)
    if not is_conversation:
        return str(value)
    roles = {str(part.get("role")) for part in value}
    if roles <= {"assistant", "tool"}:
        return text_of(value)
    lines = []
    for message in value:
        content = content_text(message.get("content"))
        lines.append(f"{message.get('role')}: {content}")
    return "\n".join(lines)


def right_of(value: Any, place: str) -> int:
    """1, 0 or -1 of a verdict in any spelling.

    Raises:
        ConfigError: a word or a number that is no verdict.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return int(value)
    number = number_of(value)
    if number in (0.0, 1.0):
        return int(number or 0)
    word = str(value).strip().lower()
    if word in RIGHT_WORDS:
        return 1
    if word in WRONG_WORDS:
        return 0
    if word in UNJUDGED_WORDS:
        return UNKNOWN
    raise ConfigError(
        f"{place}: got the verdict {str(value)[:40]!r}, expected true or false, 1 or 0, right or "
        'wrong: name another column in a mapping file, columns: {right: NAME}; "" for none'
    )


def tokens_of(value: Any) -> int:
    """Tokens of a completion; -1 where unknown."""
    number = number_of(value)
    if number is None or not 0 <= number <= LARGEST:
        return UNKNOWN
    return int(number)


def step_of(value: Any, names: Sequence[str], place: str) -> int:
    """The step of a row, or the number in a name; -1 where unknown.

    Args:
        value: cell of the column `step`; None for none.
        names: of the file without its suffix, and of its folder within the run.
        place: of the row, for the error.

    Raises:
        ConfigError: a word that holds no step, or a fraction.
    """
    number = number_of(value)
    if isinstance(value, str) and number is None and value.strip():
        match = STEP_NAMED.search(value)
        if match is None:
            raise ConfigError(
                f"{place}: got the step {value[:40]!r}, expected a number: name another column in "
                'a mapping file, columns: {step: NAME}; "" for none'
            )
        number = float(match[1])
    if number is not None and abs(number) <= LARGEST:
        if number != int(number):
            raise ConfigError(
                f"{place}: got the step {number:g}, expected a whole number, where an epoch is "
                "none: name another column in a mapping file, columns: {step: NAME}; "
                '"" for none'
            )
        return int(number)
    for name in names:
        match = STEP_NAMED.search(name) or STEP_LAST.search(name)
        if match and len(match[1]) < 10:
            return int(match[1])
    return UNKNOWN


def is_held_out(path: str) -> bool:
    """Whether a file's path within its run names an evaluation; "" where names do not count."""
    parts = path.lower().split("/")
    return any(HELD_OUT.match(part) for part in parts)


def split_of(value: Any) -> bool | None:
    """Whether a value of the column `split` names an evaluation.

    None where it says neither that nor training, as verl's `mode: greedy`: names then decide.
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in YES or HELD_OUT.match(word):
        return True
    if word in NO | TRAINING_WORDS:
        return False
    return None


def truncated_of(columns: Columns, row: Row, role: Any) -> int:
    """1 where an answer was cut off, 0 where not, -1 unknown."""
    name = str(role)
    if name.startswith("rollout"):
        return int("truncated" in name)
    value = columns.get(row, "truncated")
    if value is not None:
        number = number_of(value)
        if number is not None:
            return int(number != 0)
        word = str(value).strip().lower()
        if word in YES | CUT_REASONS:
            return 1
        return 0 if word in NO else UNKNOWN
    reason = columns.get(row, "finish_reason")
    if isinstance(reason, Mapping):
        # sglang's: {"type": "length", "length": 512}.
        reason = reason.get("type")
    if reason is None:
        return UNKNOWN
    word = str(reason).lower()
    return int(word in CUT_REASONS)
