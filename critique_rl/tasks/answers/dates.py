"""Dates and times of a day in their usual spellings; an ambiguous one has several readings."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from critique_rl.tasks.answers.vocabulary import MONTHS
from critique_rl.types import Outcome

NUMBER_OF = {name[:3]: number for number, name in enumerate(MONTHS, 1)}
MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
YEAR = r"(?P<year>\d{3,4})(?:\s?(?:ad|ce))?"
WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thurs?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s)?"
CLOCK = r"(?:[t ]\s?00:00(?::00(?:\.0+)?)?(?:z|\+00:00)?)?"
SPELLINGS = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        rf"{WEEKDAY}(?P<year>\d{{4}})[-/.](?P<number>\d{{1,2}})[-/.]{DAY}{CLOCK}",
        rf"{WEEKDAY}(?:the )?{DAY}(?: of)?[ -]{MONTH},?[ -]{YEAR}",
        rf"{WEEKDAY}{MONTH} {DAY},? {YEAR}",
        rf"(?P<year>\d{{4}})[ -]{MONTH}[ -]{DAY}",
    )
)
NUMERIC = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", re.ASCII)
TIME = re.compile(
    r"(?:at\s)?(?P<hour>\d{1,2})(?:[:.](?P<minute>\d{2}))?(?::(?P<second>\d{2}))?"
    r"\s?(?P<half>[ap]\.?\s?m\.?)?(?:\s?(?:o'clock|h|hrs?|hours))?",
    re.IGNORECASE | re.ASCII,
)


def read_dates(text: str) -> set[datetime.date]:
    """The dates that a text may mean: two for "05/04/2021", none for another text."""
    for spelling in SPELLINGS:
        match = spelling.fullmatch(text.strip())
        if match is not None:
            groups = match.groupdict()
            month = groups.get("number") or NUMBER_OF[groups["month"][:3].lower()]
            return _dates((groups["year"], month, groups["day"]))
    match = NUMERIC.fullmatch(text.strip())
    if match is None:
        return set()
    first, _, second, year = match.groups()
    return _dates((year, first, second), (year, second, first))


def _dates(*readings: tuple[str | int, str | int, str | int]) -> set[datetime.date]:
    dates = set()
    for year, month, day in readings:
        try:
            dates.add(datetime.date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return dates


def compare_dates(gold: set[datetime.date], answer: set[datetime.date]) -> tuple[Outcome, str]:
    """Compare the readings of two dates."""
    if not answer:
        return "unreadable", "no date"
    if not gold & answer:
        return "wrong", ""
    if len(gold) > 1 or len(answer) > 1:
        return "unreadable", "day or month first"
    return "right", ""


@dataclass(frozen=True)
class Time:
    """A time of a day."""

    minutes: int
    """Minutes since midnight as written; half a day more where `is_open` and pm is meant."""
    is_open: bool
    """True where the text does not say which half of the day is meant."""
    seconds: int = 0

    def compare(self, answer: Time | None) -> tuple[Outcome, str]:
        """Compare an answer with this time."""
        if answer is None:
            return "unreadable", "no time"
        if self.seconds != answer.seconds or (self.minutes - answer.minutes) % 720:
            return "wrong", ""
        if self.minutes == answer.minutes and self.is_open == answer.is_open:
            return "right", ""
        if self.is_open or answer.is_open:
            return "unreadable", "am or pm"
        return "wrong", ""


def read_time(text: str) -> Time | None:
    """A time such as "10:30", "10:30 pm", "5 p.m." or "22:30"; None for another text."""
    match = TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour = int(match["hour"])
    minute = int(match["minute"] or 0)
    half = (match["half"] or "").lower()
    if match["minute"] is None and not half:
        return None
    if hour > 24:
        return None
    if minute > 59:
        return None
    if half and not 1 <= hour <= 12:
        return None
    if "." in text.replace(".m", "m").rstrip(".") and not half:
        return None
    if half:
        hour = hour % 12
        if half.startswith("p"):
            hour += 12
    is_open = not half and 1 <= hour <= 12 and not match["hour"].startswith("0")
    return Time(60 * hour + minute, is_open, int(match["second"] or 0))
