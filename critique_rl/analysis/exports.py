"""The comparison for papers and other programs, beside the page: Markdown tables, LaTeX tables
(booktabs), and every number in long form as CSV.

Everything comes from the comparison; no text of a model gets here. Left out: formats that need a
package to write.
"""

from __future__ import annotations

from collections.abc import Sequence

from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.comparison_tables import (
    PAPER,
    arms_table,
    boundary_table,
    critiques_table,
    differences_table,
    second_table,
    seeds_table,
)
from critique_rl.analysis.flow.series import Flow
from critique_rl.analysis.flow.table import flow_tables
from critique_rl.analysis.numbers_csv import numbers_csv
from critique_rl.analysis.page.reader_warnings import accepted_sentences
from critique_rl.analysis.table import Table, escape_markdown, to_latex, to_markdown
from critique_rl.analysis.verdict import verdict
from critique_rl.config.durable_files import write_text
from critique_rl.config.run_folder import PipelineFolder


def write_exports(folder: PipelineFolder, comparison: Comparison, flow: Flow | None = None) -> None:
    """Write report.md, tables.tex and numbers.csv into the pipeline's folder.

    Args:
        folder: its name is the title of report.md.
        comparison: report.md and tables.tex have the metrics that fit, numbers.csv has all.
        flow: series of masses, which have a table per family.
    """
    flow = flow or {}
    shown = paper_tables(comparison)
    if flow:
        shown += flow_tables(flow)
    sentence = verdict(comparison)
    sentences = [sentence, *accepted_sentences(comparison)]
    document = markdown(folder.path.name, "\n\n".join(sentences), shown)
    latex = [to_latex(table) for table in shown]
    write_text(folder.markdown, document)
    write_text(folder.latex, "".join(latex))
    write_text(folder.numbers, numbers_csv(comparison, flow))


def paper_tables(comparison: Comparison) -> list[Table]:
    """The tables of report.md and tables.tex.

    Returns:
        Arms with their cost; then differences from the control, the second template, the boundary,
        the seeds and the critiques, where the comparison holds them.
    """
    tables = [arms_table(comparison, PAPER)]
    differences = differences_table(comparison, PAPER)
    if differences.rows:
        tables.append(differences)
    if comparison.second:
        tables.append(second_table(comparison, comparison.second, PAPER))
    if comparison.boundary:
        tables.append(boundary_table(comparison.boundary, PAPER))
    seeds = seeds_table(comparison)
    if seeds:
        tables.append(seeds)
    critiques = critiques_table(comparison)
    if critiques.rows:
        tables.append(critiques)
    return tables


def markdown(name: str, sentence: str, tables: Sequence[Table]) -> str:
    """A document in GitHub-flavoured Markdown.

    Args:
        name: the title.
        sentence: the verdict, below the title.
        tables: a section each.
    """
    parts = [f"# {escape_markdown(name)}", escape_markdown(sentence)]
    parts += [to_markdown(table) for table in tables]
    return "\n\n".join(parts) + "\n"
