"""The border to a terminal: everything that is printed passes `printable`.

Names, reasons and texts come from servers, models and files. A terminal obeys what is in them:
escapes that rewrite lines, links, a changed direction of writing. They are shown as escapes, and
secrets are hidden.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import warnings
from types import TracebackType
from typing import Any, TextIO

from critique_rl.config.secrets import without_key, without_secrets

OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls (C0 without tab and line feed, C1), marks of direction, separators of lines, invisible
characters, tags, and half surrogates, at which printing fails.
"""

LONG_WORD = re.compile(r"(\S{300})\S{200,}")


def printable(text: object) -> str:
    """The text with escapes such as \\x1b for what a terminal would obey, without secrets."""
    # A line end of Windows is one.
    plain = str(text).replace("\r\n", "\n")
    return OBEYED.sub(_spell, without_secrets(plain))


def _spell(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")


def without_controls(text: str) -> str:
    """The text without what a terminal would obey, for words that a server sent."""
    return OBEYED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def printable_json(value: Any, indent: int | None = None) -> str:
    """JSON in which letters of all alphabets are themselves, and what a terminal obeys is not."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return OBEYED.sub(lambda match: json.dumps(match.group())[1:-1], text)


def cut_words(text: object) -> str:
    """The text of an error, in which what a user gave as one endless word is cut."""
    return LONG_WORD.sub(lambda match: f"{match[1]}...", str(text))


def say(*texts: object, file: TextIO | None = None) -> None:
    """Print lines for people, on stderr if no file is given."""
    for text in texts:
        print(printable(text), file=file or sys.stderr)


def hide_key_in_logs(key: str, libraries: tuple[str, ...]) -> None:
    """Have the loggers of libraries hide a key, which responses may echo in their headers.

    Args:
        key: the key.
        libraries: first parts of the loggers' names.
    """
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if name.startswith(libraries) and not _hides_key(logger, key):
            logger.addFilter(KeyFilter(key))


def _hides_key(logger: logging.Logger, key: str) -> bool:
    return any(isinstance(item, KeyFilter) and item.key == key for item in logger.filters)


class KeyFilter(logging.Filter):
    """Takes a key out of the records of one logger.

    Args:
        key: the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; it is always kept."""
        record.msg = without_key(record.getMessage(), self.key)
        record.args = ()
        return True


def guard_terminal() -> None:
    """Have logging, warnings and uncaught errors of this process printed as `printable` too."""
    if logging.getLogRecordFactory() is not _PrintableRecord:
        logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _format_warning
    sys.excepthook = _print_error


class _PrintableRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return printable(super().getMessage())


_plain_warning = warnings.formatwarning


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return printable(_plain_warning(message, category, filename, lineno, line))


def _print_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> Any:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))
