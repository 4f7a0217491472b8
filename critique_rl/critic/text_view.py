"""A text as a reader of marks sees it, and the parts of it that quote.

Models and proxies write a mark such as <think> with brackets of full width, as HTML entities, or
with invisible characters in it. The view has them in plain form, and knows where each of its
characters stands in the text. Left out: what the marks mean.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO

from critique_rl.prompts import UNSEEN

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_BRACKETS = dict.fromkeys("\u2039\u2329\u3008\u27e8\ufe64\u276c\u276e\u2770\u02c2\u25c1", "<")
_BRACKETS |= dict.fromkeys("\u203a\u232a\u3009\u27e9\ufe65\u276d\u276f\u2771\u02c3\u25b7", ">")
_BRACKETS |= dict.fromkeys("\u3010\u27e6\u3014", "[") | dict.fromkeys("\u3011\u27e7\u3015", "]")
_OTHERS = dict.fromkeys("\u2215\u2044\u29f8", "/") | dict.fromkeys("\u2223\u2502\u01c0", "|")
_OTHERS |= {"\u2581": "_", "\u2010": "-", "\u2011": "-", "\u00a0": " ", "\u3000": " "}
_LINE_ENDS = dict.fromkeys("\r\x0b\x0c\x85\u2028\u2029", "\n")
PLAIN = str.maketrans(_FULL_WIDTH | _BRACKETS | _OTHERS | _LINE_ENDS)
ENTITIES = {"lt": "<", "gt": ">", "lsqb": "[", "lbrack": "[", "rsqb": "]", "rbrack": "]"}
ENTITIES |= {"sol": "/", "vert": "|", "lowbar": "_"}
CODES = {ord(sign): sign for sign in "<>[]/|_"}
SPELT = re.compile(
    rf"[{UNSEEN}\x00-\x08\x0e-\x1f\x7f]+"
    r"|&(?:amp;){0,3}(?P<name>lt|gt|lsqb|lbrack|rsqb|rbrack|sol|vert|lowbar);?"
    r"|&(?:amp;){0,3}\#(?:0{0,6}(?P<decimal>\d{2,3})|x0{0,6}(?P<hex>[0-9a-f]{2}));?"
    r"|(?:\\u00|\\x|%)(?P<escaped>3c|3e|5b|5d|2f|7c)|\\(?=[<>])",
    re.IGNORECASE,
)
"""Signs of marks spelt with more than one character, and characters that nobody sees."""
QUOTATION = re.compile(
    r"(?P<ticks>`{1,2})(?!`)[^`\n]{1,200}(?P=ticks)(?!`)"
    r"|(?<![\w\"])\"[^\"\n]{1,200}\"(?!\w)|(?<!\w)'[^'\n]{1,200}'(?!\w)"
    r"|[\u201c\u201e][^\u201c\u201d\n]{1,200}[\u201c\u201d]|\u2018[^\u2019\n]{1,200}\u2019"
    r"|\u00ab[^\u00bb\n]{1,200}\u00bb|\u300c[^\u300d\n]{1,200}\u300d"
    r"|\u300e[^\u300f\n]{1,200}\u300f|<code>[^\n]{1,200}?</code>"
)
"""Code and quotations within a line. Marks in them are spoken of."""
FENCE = re.compile(
    r"^[ \t>]{0,12}(?P<ticks>`{3,20}|~{3,20})[ \t]{0,4}(?P<info>[^\n`]{0,80})$", re.MULTILINE
)
WINDOW = 200
"""Characters beside a mark that say what it is."""
DECORATION = " \t*_#~|"
"""White space, and signs of emphasis, headings and tables."""


def _places() -> array[int]:
    # A list of a million places would take 100 MB with those of the other fields.
    return array("q")


@dataclass(frozen=True)
class View:
    """A text with its marks in plain form."""

    text: str
    """The plain form."""
    starts: array[int] = field(default_factory=_places)
    """Places in the plain form behind a change of length, in order."""
    origins: array[int] = field(default_factory=_places)
    """The places in the text that belong to `starts`."""
    ends: array[int] = field(default_factory=_places)
    """The same, but before what nobody sees at such a place."""

    def origin_of_start(self, place: int) -> int:
        """Where in the text begins what begins at a place in the plain form."""
        i = bisect_left(self.starts, place)
        if i < len(self.starts) and self.starts[i] == place:
            return self.ends[i]
        return self.origin_of_end(place)

    def origin_of_end(self, place: int) -> int:
        """Where in the text ends what ends at a place in the plain form."""
        i = bisect_right(self.starts, place) - 1
        if i < 0:
            return place
        return self.origins[i] + place - self.starts[i]

    @cached_property
    def quotations(self) -> list[tuple[int, int]]:
        """Where code and quotations within a line begin and end, in order."""
        return [match.span() for match in QUOTATION.finditer(self.text)]

    @cached_property
    def fences(self) -> list[Fence]:
        """The fences of code, in order."""
        return find_fences(self.text)

    @cached_property
    def visible(self) -> tuple[int, int]:
        """Where the text begins and ends without white space and emphasis."""
        rest = self.text.lstrip(DECORATION + "\n")
        return len(self.text) - len(rest), len(self.text.rstrip(DECORATION + "\n"))

    def line_before(self, place: int) -> str:
        """The line of a place up to it, at most `WINDOW` characters."""
        start = max(0, place - WINDOW)
        return self.text[max(start, self.text.rfind("\n", start, place) + 1) : place]


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence of code with its two lines of ticks."""

    start: int
    inner_start: int
    inner_end: int
    end: int
    info: str
    """What stands behind the opening ticks, in lower case."""
    is_closed: bool
    is_sure: bool
    """Whether it is closed and no other fence seems to begin in it."""


def view_of(text: str) -> View:
    """The plain form of a text."""
    if text.isascii() and SPELT.search(text) is None:
        return View(text.translate(PLAIN) if "\r" in text else text)
    plain = text.translate(PLAIN)
    pieces = StringIO()
    view = View("")
    position = 0
    length = 0
    for match in SPELT.finditer(plain):
        sign = _sign(match)
        if sign == match[0]:
            continue
        pieces.write(plain[position : match.start()])
        pieces.write(sign)
        length += match.start() - position + len(sign)
        position = match.end()
        view.starts.append(length)
        view.origins.append(position)
        view.ends.append(position if sign else match.start())
    pieces.write(plain[position:])
    return View(pieces.getvalue(), view.starts, view.origins, view.ends)


def _sign(match: re.Match[str]) -> str:
    """The sign that a spelling means; the spelling itself where it is of no mark."""
    if match["name"]:
        return ENTITIES[match["name"].lower()]
    code = match["hex"] or match["escaped"]
    if code:
        return CODES.get(int(code, 16), match[0])
    if match["decimal"]:
        return CODES.get(int(match["decimal"]), match[0])
    return ""


def find_fences(text: str) -> list[Fence]:
    """The fences of code in a text. One that nothing closes reaches to the end."""
    fences = []
    opening: re.Match[str] | None = None
    is_sure = True
    for match in FENCE.finditer(text):
        if opening is None:
            opening = match
            is_sure = True
        elif match["info"].strip():
            is_sure = False
        elif match["ticks"].startswith(opening["ticks"]):
            fences.append(_fence(opening, match.span(), True, is_sure))
            opening = None
    if opening is not None:
        fences.append(_fence(opening, (len(text), len(text)), False, False))
    return fences


def _fence(
    opening: re.Match[str], closing: tuple[int, int], is_closed: bool, is_sure: bool
) -> Fence:
    info = opening["info"].strip().lower()
    return Fence(opening.start(), opening.end(), *closing, info, is_closed, is_sure)
