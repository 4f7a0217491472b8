"""Learning curves of the page: their axes, their points, and runs outside the comparison."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_pages import HOSTILE, Page, report

from critique_rl.analysis.compare import compare
from critique_rl.analysis.report import write_report
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import append_jsonl


def test_every_axis_along_which_something_was_spent_can_be_chosen(full):
    for seed in (0, 1):
        for step in (4, 5):
            spent = {
                "tokens/generated": 400 * step,
                "tokens/total": 900 * step,
                "cost/flops": 2e15 * step,
                "cost/usd": 0.0,
                "seconds": 9.0 * step,
            }
            append_jsonl(
                full.run("critique", seed).metrics,
                {"step": step, "eval/pass@1/plateau": 0.4, **spent},
            )
    text = report(full)
    page = Page(text)
    assert len(page.having("input", name="axis")) == 5, "dollars, which nobody paid, are left out"
    assert [("checked" in element) for element in page.having("input", name="axis")] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert "US dollars" not in text
    assert "1e16" in text


def test_a_run_outside_the_comparison_has_a_panel_of_its_own(full, tmp_path):
    folder = tmp_path / "outside" / "completions"
    folder.mkdir(parents=True)
    for step in (1, 2):
        rows = [
            {
                "step": step,
                "prompt": "p",
                "completion": HOSTILE,
                "correct": 0.5 * step,
                "advantage": 0.0,
            }
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"completions_{step:05d}.parquet")
    comparison = compare(full, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1))
    text = write_report(
        full, comparison, {"plain": str(folder.parent), "nothing": str(tmp_path)}
    ).read_text()
    assert "runs outside this comparison" in text
    assert "plain over optimizer steps" in text
    assert "nothing: no completions with a reward in its folder" in text
    (folder / "completions_00003.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match=r"external: .*completions_00003\.parquet cannot be read"):
        write_report(full, comparison, {"plain": str(folder.parent)})
    assert "plain" not in (full.path / "report.md").read_text()


def test_values_that_are_missing_or_not_finite_are_no_points(bare):
    run = bare.run("critique", 0)
    for step, value in enumerate((0.1, None, float("nan"), 0.2)):
        append_jsonl(
            run.metrics,
            {"step": step, "tokens/generated": 100 * step, "eval/pass@1/plateau": value},
        )
    assert [
        len(element["points"].split())
        for element in Page(report(bare)).having("polyline", class_="m ")
    ] == [2, 2]


def test_a_step_logged_twice_counts_once_with_its_later_value(bare):
    run = bare.run("critique", 0)
    for step, tokens in ((1, 100), (2, 200), (2, 210)):
        append_jsonl(
            run.metrics, {"step": step, "tokens/generated": tokens, "eval/pass@1/plateau": 0.2}
        )
    assert [
        len(element["points"].split())
        for element in Page(report(bare)).having("polyline", class_="m ")
    ] == [2, 2]
