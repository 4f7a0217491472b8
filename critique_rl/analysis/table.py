"""A table of text, and its form on a terminal, in Markdown and in LaTeX.

Names of arms and metrics are the user's and are escaped for each format.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table as TerminalTable
from rich.text import Text

from critique_rl.config.terminal import printable

MARKDOWN_ESCAPES = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_|<>"})
LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "`": r"\textasciigrave{}",
    }
)
DASHES = re.compile("-(?=-)")
"""LaTeX would draw two hyphens as one dash."""
JUSTIFY: dict[str, Literal["left", "right"]] = {"l": "left", "r": "right"}
"""A letter of `Table.alignment` -> rich's word."""
RULES = {"l": ":---", "r": "---:"}
"""A letter of `Table.alignment` -> Markdown's rule under the heads."""


@dataclass(frozen=True)
class Table:
    """A caption, the heads of the columns, and rows of text; the first column names the row.

    A line break in a cell stays on a terminal and is a space in Markdown and LaTeX.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    alignment: str = ""
    """A letter per column, "l" or "r", as LaTeX has it; "" for "lrr...r"."""
    bold: Collection[int] = ()
    """Indices of the rows that a terminal prints bold."""

    @property
    def columns(self) -> str:
        """The alignment with its default filled in."""
        return self.alignment or "l" + "r" * (len(self.heads) - 1)


def to_terminal(table: Table) -> TerminalTable:
    """The table as rich prints it.

    Returns:
        A table whose texts are folded where the terminal is narrow, and never cut.
    """
    # `Text`, and not str: rich would read a bracket in a name or an interval as its own markup.
    printed = TerminalTable(
        box=box.SIMPLE_HEAD,
        title=Text(printable(table.caption)),
        title_justify="left",
        padding=(0, 1),
    )
    for head, letter in zip(table.heads, table.columns, strict=True):
        # A metric's name breaks behind its first slash, so that four metrics fit 80 columns.
        words = Text(printable(head).replace("/", "/\n", 1))
        printed.add_column(words, justify=JUSTIFY[letter], overflow="fold")
    for i, row in enumerate(table.rows):
        cells = [Text(printable(cell)) for cell in row]
        printed.add_row(*cells, style="bold" if i in table.bold else "")
    return printed


def to_markdown(table: Table) -> str:
    """A heading and a GitHub-flavoured table."""
    lines = [[escape_markdown(cell) for cell in table.heads]]
    lines.append([RULES[letter] for letter in table.columns])
    for row in table.rows:
        lines.append([escape_markdown(cell) for cell in row])
    heading = f"## {escape_markdown(table.caption)}"
    printed = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([heading, "", *printed])


def escape_markdown(text: str) -> str:
    """Text on one line that ends no cell, opens no tag and emphasises nothing."""
    line = " ".join(text.split())
    escaped = line.translate(MARKDOWN_ESCAPES)
    # Brackets stay: without a parenthesis behind them they are no link.
    return escaped.replace("](", "]\\(")


def to_latex(table: Table) -> str:
    """The table in LaTeX.

    Returns:
        A table environment. Its document needs \\usepackage{booktabs}.
    """
    body = [_latex_row(row) for row in table.rows]
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{table.columns}}}",
        r"\toprule",
        _latex_row(table.heads),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    # An empty line keeps a table apart from the next one of the file.
    return "\n".join(lines) + "\n\n"


def _latex_row(cells: Sequence[str]) -> str:
    escaped = [escape_latex(cell) for cell in cells]
    return " & ".join(escaped) + r" \\"


def escape_latex(text: str) -> str:
    """Text on one line in which no character commands anything."""
    line = " ".join(text.split())
    escaped = DASHES.sub("-{}", line.translate(LATEX_ESCAPES))
    if escaped.startswith(("[", "*")):
        # Behind the \\ of the row before, a bracket would open its optional argument, and a star
        # would belong to it.
        return f"{{{escaped}}}"
    return escaped
