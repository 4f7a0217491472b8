"""The comparison for papers and other programs, beside the page: Markdown tables, LaTeX tables
(booktabs), and every number in long form as CSV.

All of it comes from `compare.compare`'s result. Names of arms and metrics are the user's own and
are escaped for each format; no text of a model gets here. Left out: formats that need a package to
write.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

from critique_rl.analysis.formats import bracket, short, shown_metrics, signed
from critique_rl.analysis.summary import verdict
from critique_rl.config.durable_files import write_text
from critique_rl.config.run_folder import PipelineFolder

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: rf"\{c}" for c in "&%$#_{}"},
}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
NOISE = "base again"
"""The row of `boundary` that compares the base with itself."""


@dataclass(frozen=True)
class Number:
    """A row of numbers.csv: one number of the comparison with its interval; "" where a column says
    nothing of it.
    """

    kind: str
    arm: str = ""
    control: str = ""
    metric: str = ""
    seed: str = ""
    value: Any = ""
    low: Any = ""
    high: Any = ""
    problems: Any = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, the heads of the columns, and rows of text; the first column names the row."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_exports(folder: PipelineFolder, comparison: Mapping[str, Any]) -> None:
    """Write report.md, tables.tex and numbers.csv into the pipeline's folder."""
    found = tables(comparison)
    write_text(folder.markdown, markdown(folder.path.name, verdict(comparison), found))
    write_text(folder.latex, "".join(latex(table) for table in found))
    write_text(folder.numbers, numbers_csv(comparison))


def tables(comparison: Mapping[str, Any]) -> list[Table]:
    """Arms with their cost, differences from the control, and the boundary where there is a base.
    Metrics are those that fit; the CSV has all.
    """
    differences = [
        pair for pair in comparison["comparisons"] if pair["metric"] in shown_metrics(comparison)
    ]
    found = [_arms(comparison)]
    found += [_differences(comparison["control"], differences)] if differences else []
    found += [_second(comparison, comparison["second"])] if comparison.get("second") else []
    return found + ([_boundary(comparison["boundary"])] if comparison["boundary"] else [])


def _arms(comparison: Mapping[str, Any]) -> Table:
    metrics, rows = shown_metrics(comparison), []
    if comparison["base"]:
        values = (comparison["base"].get(name) for name in metrics)
        rows.append(
            [
                "before training",
                *("" if value is None else f"{value:.2f}" for value in values),
                "",
                "",
                "",
                "",
            ]
        )
    for arm, summary in comparison["arms"].items():
        cells = (
            f"{m['mean']:.2f} {bracket(m['ci95'])}" if (m := summary["metrics"].get(name)) else ""
            for name in metrics
        )
        cost = summary["cost"]
        spent = (
            short(cost["generated_tokens"]),
            short(cost["critic_tokens"]),
            f"{cost['usd']:.2f}",
            f"{cost['wall_seconds'] / 60:.1f}",
        )
        rows.append([arm, *cells, *spent])
    heads = ["arm", *metrics, "generated tokens", "critic tokens", "usd", "minutes"]
    return Table(
        "Arms: mean over seeds and problems with its 95% interval; cost is the mean of a run",
        heads,
        rows,
    )


def _second(comparison: Mapping[str, Any], second: Mapping[str, Any]) -> Table:
    """The arms under the other template: the same columns, without the cost."""
    metrics, rows = shown_metrics(comparison), []
    if second["base"]:
        rows.append(
            [
                "before training",
                *(
                    "" if (value := second["base"].get(name)) is None else f"{value:.2f}"
                    for name in metrics
                ),
            ]
        )
    for arm, summary in second["arms"].items():
        rows.append(
            [
                arm,
                *(
                    f"{m['mean']:.2f} {bracket(m['ci95'])}"
                    if (m := summary["metrics"].get(name))
                    else ""
                    for name in metrics
                ),
            ]
        )
    return Table(
        f"The same problems asked by the template {second['template']}", ["arm", *metrics], rows
    )


def _differences(control: str, pairs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            c["arm"],
            c["metric"],
            signed(c["difference"]),
            bracket(c["ci95"]),
            str(len(c["seeds"])),
            str(c["problems"]),
        ]
        for c in pairs
    ]
    return Table(
        f"Differences from {control}, paired on problems and seeds",
        ["arm", "metric", "difference", "95% interval", "seeds", "problems"],
        rows,
    )


def _boundary(boundary: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        [
            "base again (noise)" if arm == NOISE else arm,
            f"{r['solved']:.1f}",
            f"{r['lost']:.1f}",
            f"{r['problems']:.0f}",
        ]
        for arm, r in boundary.items()
    ]
    caption = "Against the base, a run: problems with a right sample that had none, and the reverse"
    return Table(caption, ["arm", "newly solved", "newly lost", "problems"], rows)


def markdown(name: str, sentence: str, found: Sequence[Table]) -> str:
    """A title, the verdict, and GitHub-flavoured tables."""
    parts = [f"# {_markdown(name)}", _markdown(sentence)]
    return "\n\n".join([*parts, *map(markdown_table, found)]) + "\n"


def markdown_table(table: Table) -> str:
    """A heading and a GitHub-flavoured table."""
    lines = [table.heads, [":---", *["---:"] * (len(table.heads) - 1)], *table.rows]
    body = "\n".join(
        f"| {' | '.join(cell if line is lines[1] else _markdown(cell) for cell in line)} |"
        for line in lines
    )
    return f"## {_markdown(table.caption)}\n\n{body}"


def _markdown(text: str) -> str:
    """Neither a cell's end, nor a tag, nor emphasis. Brackets stay: without a parenthesis behind
    them they are text.
    """
    return re.sub(r"([\\`*_|<>])", r"\\\1", " ".join(text.split())).replace("](", "]\\(")


def latex(table: Table) -> str:
    """A table environment; its document needs \\usepackage{booktabs}."""
    rows = [table.heads, *table.rows]
    lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(table.heads) - 1)
    head = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
    ]
    return "\n".join([*head, *lines[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", "", ""])


def _latex(text: str) -> str:
    """Braces around a leading bracket, which would else be an optional argument of the row before."""
    escaped = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped


def numbers_csv(comparison: Mapping[str, Any]) -> str:
    """Every number of the comparison, full precision, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Number))
    writer.writerows(
        ["" if value is None else value for value in astuple(number)]
        for number in numbers(comparison)
    )
    return out.getvalue()


def numbers(comparison: Mapping[str, Any]) -> Iterator[Number]:
    """Rows by kind: base, arm, cost, difference (from the control), pair (of any two arms),
    boundary, second (template); then the rest, by its path.
    """
    yield from (
        Number("base", metric=name, value=value)
        for name, value in (comparison["base"] or {}).items()
        if value is not None
    )
    for arm, summary in comparison["arms"].items():
        yield from _of_arm(arm, summary)
    for kind, name in (("difference", "comparisons"), ("pair", "pairs")):
        for pair in comparison.get(name) or ():
            yield from _of_pair(kind, pair)
    for arm, row in (comparison["boundary"] or {}).items():
        yield from (
            Number("boundary", arm=arm, metric=name, value=value) for name, value in row.items()
        )
    if second := comparison.get("second"):
        for arm, summary in second["arms"].items():
            yield from (
                replace(number, kind="second") for number in _of_arm(arm, {"cost": {}, **summary})
            )
        yield from (
            replace(number, kind="second difference")
            for pair in second["comparisons"]
            for number in _of_pair("", pair)
        )
    for item in (*comparison["missing"], *comparison["incomparable"]):
        seed = "" if item["seed"] is None else str(item["seed"])
        yield Number(
            "missing" if "reason" not in item else "incomparable",
            arm=item["arm"],
            seed=seed,
            note=item.get("reason", "not evaluated"),
        )
    yield from _others(
        "other",
        "",
        comparison,
        "",
        ("base", "arms", "comparisons", "pairs", "boundary", "second", "missing", "incomparable"),
    )


def _of_arm(arm: str, summary: Mapping[str, Any]) -> Iterator[Number]:
    for metric, m in summary["metrics"].items():
        low, high = m["ci95"] or ("", "")
        yield Number(
            "arm",
            arm=arm,
            metric=metric,
            value=m["mean"],
            low=low,
            high=high,
            problems=m.get("problems", ""),
        )
        yield from (
            Number(
                "arm",
                arm=arm,
                metric=metric,
                seed=seed,
                value=value,
                problems=m.get("problems", ""),
            )
            for seed, value in m["per_seed"].items()
        )
    yield from (
        Number("cost", arm=arm, metric=name, value=value, note="mean of a run")
        for name, value in summary["cost"].items()
    )
    yield from _others("arm", arm, summary, "", ("metrics", "cost"))


def _of_pair(kind: str, pair: Mapping[str, Any]) -> Iterator[Number]:
    low, high = pair["ci95"] or ("", "")
    about = {"arm": pair["arm"], "control": pair["control"], "metric": pair["metric"]}
    p = "" if pair.get("p") is None else f", sign-flip p {pair['p']!r}"
    yield Number(
        kind,
        **about,
        value=pair["difference"],
        low=low,
        high=high,
        problems=pair["problems"],
        note=f"{len(pair['seeds'])} seeds{p}",
    )
    yield from (
        Number(kind, **about, seed=seed, value=value, problems=pair["problems"])
        for seed, value in pair["per_seed"].items()
    )


def _others(
    kind: str, arm: str, data: Mapping[str, Any], prefix: str, known: Sequence[str]
) -> Iterator[Number]:
    """The numbers under keys that have no columns of their own: `metric` is their path."""
    for path, value in _leaves({key: value for key, value in data.items() if key not in known}):
        yield Number(kind, arm=arm, metric=f"{prefix}{path}", value=value)


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(data, Mapping | list):
        for key, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, data
