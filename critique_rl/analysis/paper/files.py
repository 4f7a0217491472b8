"""All files of a paper from one comparison, and which of them could not be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.paper.curves import PaperCurves
from critique_rl.analysis.paper.figures import draw_arms, draw_curves, draw_differences
from critique_rl.analysis.paper.methods import methods_latex, methods_markdown
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.paper.style import (
    FONT,
    METADATA,
    check_matplotlib,
    file_contents,
    missing_letters,
    paper_style,
)
from critique_rl.analysis.paper.tables import arms_latex, differences_latex
from critique_rl.config.durable_files import write_bytes, write_text

FIGURES = ("differences", "arms", "curves")


@dataclass(frozen=True)
class PaperFiles:
    """The files that one call wrote."""

    files: tuple[Path, ...]
    """In the order of the figures, then tables and text."""
    notes: tuple[str, ...]
    """What figures lack, a line each: those that were not drawn, letters that no font has."""


def write_paper(
    folder: Path, comparison: Comparison, setup: Setup, curves: PaperCurves | None = None
) -> PaperFiles:
    """Write figures (SVG, PDF, PNG), tables (LaTeX) and the methods paragraph (LaTeX, Markdown).

    Args:
        folder: is made where it is missing. Files of other names in it stay.
        comparison: of finished runs, from whatever logs.
        setup: how they were trained and judged, as far as it is known.
        curves: their learning curves; None where none were logged.

    Returns:
        The files, and what figures lack. An earlier file of a figure that is not drawn now is
        deleted, for it would belong to other numbers.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    check_matplotlib()
    contents, notes = _figures(comparison, curves)
    texts = {
        "arms.tex": arms_latex(comparison, setup),
        "differences.tex": differences_latex(comparison, setup),
        "methods.tex": methods_latex(comparison, setup),
        "methods.md": methods_markdown(comparison, setup),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content)
    for name, text in texts.items():
        write_text(folder / name, text)
    for figure in FIGURES:
        for suffix in METADATA:
            name = f"{figure}.{suffix}"
            if name not in contents:
                (folder / name).unlink(missing_ok=True)
    return PaperFiles(tuple(folder / name for name in (*contents, *texts)), tuple(notes))


def _figures(
    comparison: Comparison, curves: PaperCurves | None
) -> tuple[dict[str, bytes], list[str]]:
    """File name -> content of all figures, and what they lack."""
    reasons = {
        "differences": f"no arm can be compared with {comparison.control}",
        "arms": f"no arm has {comparison.primary}",
        "curves": f"no run logged a learning curve of {comparison.primary} or of pass@1",
    }
    contents = {}
    notes = []
    with paper_style():
        drawn = {"differences": draw_differences(comparison), "arms": draw_arms(comparison)}
        drawn["curves"] = draw_curves(curves, comparison.control) if curves else None
        for name, figure in drawn.items():
            if figure is None:
                notes.append(f"{name} is not drawn: {reasons[name]}")
                continue
            for suffix, content in file_contents(figure).items():
                contents[f"{name}.{suffix}"] = content
    missing = missing_letters("".join((comparison.primary, *comparison.arms)))
    if missing:
        notes.append(
            f"the font {FONT} lacks {' '.join(missing)}: boxes stand for them in PDF and PNG, and "
            "the SVG keeps the letters"
        )
    return contents, notes
