"""A cell of the user's data: as text for what is asked and judged, as plain data for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from critique_rl.config.checks import ConfigError

HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON can spell and no file of UTF-8 can hold."""
LARGEST_EXACT = 2.0**53
"""From here on a float no longer tells neighbouring integers apart."""


class WrittenNumber(str):
    """A number of a JSON file in the digits of the file, such as 1.50 or 12345678901234567890."""

    @property
    def value(self) -> int | float | str:
        """The number; the text where Python holds no such number, as for 1e999."""
        try:
            if self.lstrip("-").isdecimal():
                return int(self)
            number = float(self)
        # Python refuses to read an integer of more than 4300 digits.
        except ValueError:
            return str(self)
        if math.isfinite(number):
            return number
        return str(self)


def cell_text(value: Any, column: str) -> str:
    """A cell as text, "" for an empty one.

    Numbers of a JSON file keep their digits. Of typed files (Parquet, the Hub) a float that is a
    whole number is written without ".0", because pandas stores integers beside an empty cell so; a
    time at midnight is written as its date.

    Raises:
        ConfigError: For lists, objects and bytes.
    """
    if isinstance(value, list | dict | bytes):
        shown = str(value)[:60]
        raise ConfigError(
            f"column {column!r}: got {shown!r}, expected a text or a number; "
            "write one column of texts"
        )
    if value is None:
        return ""
    return _scalar_text(value).strip()


def _scalar_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _float_text(value: float) -> str:
    # pandas writes NaN for an empty cell.
    if math.isnan(value):
        return ""
    if value.is_integer() and abs(value) < LARGEST_EXACT:
        return str(int(value))
    # Not repr, which names the type of a NumPy float.
    return float.__repr__(value)


def plain(value: Any) -> Any:
    """A cell that nothing here reads as what JSON can hold, which a user's function then reads.

    An empty cell is None, dates and decimals are texts, and bytes are their text or else hex.
    """
    if isinstance(value, WrittenNumber):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        return str(value)
    if isinstance(value, str):
        return HALF_CHARACTER.sub("\ufffd", value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return _bytes_text(value)
    return _scalar_text(value)


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
