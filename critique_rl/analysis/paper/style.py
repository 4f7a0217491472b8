"""How figures look and how they become files. matplotlib is imported here and in `figures` only,
and only when something is drawn: it is an optional package.

The same figure gives the same bytes: no dates, fixed ids. Fonts are embedded as type 42, and the
text of an SVG stays text. Colours are Okabe and Ito's, which the colour-blind tell apart; line
styles and markers tell arms apart in grey.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from critique_rl._lazy import extra_advice
from critique_rl.config.checks import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN = 3.3
"""Width of a column of a paper, in inches."""
PAGE = 6.8
"""Width of both columns."""
INK = "#1a1a1a"
ACCENT = "#0072B2"
NOTE = "#404040"
FONT = "DejaVu Sans"
"""Comes with matplotlib, so that all machines draw alike."""
SOFT = "#7a7a7a"
"""For what stands behind the numbers: zero, the control, single seeds."""
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v")
"""Of other lengths than `COLOURS` and each other, so that 140 arms differ."""
NAME_WIDTH = 17
"""Characters of an arm's name on one line."""
NAME_PARTS = re.compile(r"[^\s_./-]*(?:[\s_./-]+|$)")
"""Behind these signs a name is broken first."""
NOTE_WIDTH = 69
"""Characters of a note of 6 points on one line of a column."""
OPTIONS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "critique_rl",
    # A dollar sign in a name is a dollar sign.
    "text.parse_math": False,
}
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""File format -> the entries that matplotlib would write, and that would change."""


def check_matplotlib() -> None:
    """Check before anything is read or written that figures can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(f"figures need the package matplotlib; {extra_advice('paper')}")


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and save with `OPTIONS`, whatever the user's matplotlibrc says."""
    import matplotlib.style

    # The style "default" leaves the backend alone, which a notebook may have set.
    with matplotlib.style.context(["default", OPTIONS]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, outside of pyplot, which would keep it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def file_contents(figure: Figure) -> dict[str, bytes]:
    """The figure as SVG, PDF and PNG: suffix -> content."""
    contents = {}
    with warnings.catch_warnings():
        # One warning per letter, format and place: `missing_letters` says it once.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        for suffix, metadata in METADATA.items():
            buffer = BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            contents[suffix] = buffer.getvalue()
    return contents


def missing_letters(text: str) -> str:
    """The letters of a text that the figures' font lacks, each once; "" where it has all."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    known = FT2Font(findfont(FONT)).get_charmap()
    return "".join(sign for sign in dict.fromkeys(text) if ord(sign) not in known)


def name_lines(name: str, width: int = NAME_WIDTH) -> str:
    """A name broken into lines, inside of words where they are too long."""
    lines = [""]
    for part in NAME_PARTS.findall(name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.rstrip() for line in lines)


def note_lines(words: str, width: float = COLUMN) -> str:
    """A note broken into lines that fit a figure of that width."""
    return "\n".join(wrap(words, int(NOTE_WIDTH * width / COLUMN)))


def colour_of(arm: int) -> str:
    """The colour of an arm by its index."""
    return COLOURS[arm % len(COLOURS)]
