"""The files beside the page: numbers.csv, report.md and tables.tex."""

import csv
import io
import re

from report_pages import report

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.exports import markdown
from critique_rl.analysis.report import write_report
from critique_rl.analysis.table import Table, to_latex


def leaves(data):
    if isinstance(data, dict | list):
        values = data.values() if isinstance(data, dict) else data
        for value in values:
            yield from leaves(value)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield float(data)


def test_numbers_csv_holds_every_number_of_the_comparison(full):
    report(full)
    comparison = compare(full, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1), 0.2)
    added = {"new_key": {"of": [0.123456789, {"later": 42}]}}
    comparison = Comparison.from_json(comparison.to_json() | added)
    write_report(full, comparison)
    rows = list(csv.DictReader(io.StringIO((full.path / "numbers.csv").read_text())))
    written = {
        float(row[column])
        for row in rows
        for column in ("value", "low", "high", "seed", "problems")
        if row[column]
    }
    assert set(leaves(comparison.to_json())) <= written
    (difference,) = [
        row
        for row in rows
        if row["kind"] == "difference" and row["metric"] == "pass@1/plateau" and not row["seed"]
    ]
    (pair,) = comparison.comparisons
    assert [float(difference[column]) for column in ("value", "low", "high")] == [
        pair.difference,
        *pair.ci95,
    ]


def test_report_md_and_tables_tex_parse_back(full):
    report(full)
    lines = (full.path / "report.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert [row[0] for row in rows] == [
        "arm",
        ":---",
        "before training",
        "scalar",
        "critique",
        "arm",
        ":---",
        "critique",
        "arm",
        ":---",
        "scalar",
        "critique",
        "arm",
        ":---",
        "scalar",
        "critique",
    ]
    tex = (full.path / "tables.tex").read_text()
    tables = re.findall(
        r"\\begin\{tabular\}\{(l?r+)\}\n\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL
    )
    assert len(tables) == 4
    for columns, body in tables:
        cells = [line.split("&") for line in body.splitlines() if line.endswith(r"\\")]
        assert len(cells) > 1
        assert {len(row) for row in cells} == {len(columns)}


def test_names_are_escaped_in_markdown_and_latex():
    table = Table("50% of a_b & c", ["arm", "x"], [["a|b_c*<i>", "[1, 2]"], ["{\\~^$#", "1"]])
    assert r"| a\|b\_c\*\<i\> | [1, 2] |" in markdown("t", "v", [table])
    text = to_latex(table)
    assert r"\caption{50\% of a\_b \& c}" in text
    assert r"a\textbar{}b\_c*\textless{}i\textgreater{} & {[1, 2]} \\" in text
    assert r"\{\textbackslash{}\textasciitilde{}\textasciicircum{}\$\# & 1 \\" in text
