"""Figures of a comparison: what they show, how their files are made."""

import re
import struct
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from paper_runs import ODD

from critique_rl.analysis.comparison import MissingRun
from critique_rl.analysis.learning_curves import MeanCurve
from critique_rl.analysis.paper.curves import PaperCurves, read_curves
from critique_rl.analysis.paper.figures import (
    MOST_TOGETHER,
    band_words,
    draw_arms,
    draw_curves,
    draw_differences,
)
from critique_rl.analysis.paper.files import FIGURES, write_paper
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.paper.style import COLUMN, file_contents, name_lines, paper_style
from critique_rl.analysis.paper.words import differences_on
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import append_jsonl


def texts(figure) -> str:
    """All text of a figure, as its SVG holds it."""
    root = ElementTree.fromstring(file_contents(figure)["svg"])
    return " ".join("".join(element.itertext()) for element in root.iter() if is_text(element))


def is_text(element) -> bool:
    return element.tag.endswith("}text")


def segments(axes) -> set[tuple[float, float, float]]:
    """(width of the line, low, high) of every horizontal line."""
    drawn = set()
    for line in axes.lines:
        x, y = line.get_data()
        if len(set(y)) == 1 and line.get_linestyle() != "None":
            drawn.add((line.get_linewidth(), *np.round(x, 6).tolist()))
    return drawn


def test_differences_are_drawn_with_both_intervals_and_every_seed(comparison):
    with paper_style():
        [axes] = draw_differences(comparison).axes
    pairs = differences_on(comparison, "pass@1/plateau")
    wanted = set()
    for pair in pairs:
        wanted.add((2.2, *np.round(pair.ci95, 6).tolist()))
        wanted.add((0.8, *np.round(pair.together, 6).tolist()))
    assert segments(axes) == wanted
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["critique", name_lines(ODD)]
    seeds, mean, fewer, _ = [
        collection.get_offsets()[:, 0].tolist() for collection in axes.collections
    ]
    assert seeds == list(pairs[0].per_seed.values())
    assert mean == [pairs[0].difference]
    assert len(fewer) == 2


def test_an_arm_before_the_control_has_its_interval_among_all_pairs_turned_round(comparison):
    [critique, _] = differences_on(comparison, "pass@1/plateau")
    turned = []
    for pair in comparison.pairs:
        if {pair.arm, pair.control} == {"critique", "scalar"}:
            low, high = pair.together
            ends = (-high, -low)
            turned.append(replace(pair, arm="scalar", control="critique", together=ends))
        else:
            turned.append(pair)
    [again, _] = differences_on(replace(comparison, pairs=tuple(turned)), "pass@1/plateau")
    assert again.together == critique.together
    assert again.together[0] < again.ci95[0] < again.ci95[1] < again.together[1]


def test_arms_show_the_control_the_loser_and_what_intervals_cover(comparison):
    with paper_style():
        figure = draw_arms(comparison)
        words = texts(figure)
        [axes] = figure.axes
    assert "scalar (control)" in words
    assert "odd_arm" in words
    assert "95% interval for new problems and seeds" in words
    assert "2 to 3 seeds and 8 problems per arm" in words
    # The policy before training: 0.5 of its evaluation.
    vertical = [line.get_xdata() for line in axes.lines if len(set(line.get_ydata())) == 2]
    assert vertical == [[0.5, 0.5]]
    assert figure.get_figwidth() == COLUMN


def test_one_seed_is_not_said_to_speak_of_others(comparison):
    pairs = [
        replace(pair, interval_covers="problems", seeds=(0,)) for pair in comparison.comparisons
    ]
    with paper_style():
        words = texts(draw_differences(replace(comparison, comparisons=tuple(pairs))))
    assert "a single seed says nothing of other seeds" in " ".join(words.split())


def test_curves_are_means_over_seeds_and_say_what_the_band_covers(results, comparison):
    curves = read_curves(results, comparison)
    assert curves.metric == "pass@1/plateau"
    assert curves.spending == "generated tokens"
    assert {arm: mean.seeds for arm, mean in curves.arms.items()} == {
        "scalar": 3,
        "critique": 3,
        ODD: 2,
    }
    # Seeds 0, 1, 2 are .01 apart, so the mean is that of seed 1; step 12: .25 (1 - e^-3) + .01.
    assert curves.arms["scalar"].mean[-1] == pytest.approx(0.2475, abs=2e-3)
    with paper_style():
        words = texts(draw_curves(curves, "scalar"))
    assert "generated tokens" in words
    assert "new seeds" in words
    assert "(2 seeds)" in words


def test_a_curve_of_another_metric_is_named_and_without_one_nothing_is_drawn(results, comparison):
    # pass@4 is not logged while training, pass@1 is.
    arms = {}
    for arm, summary in comparison.arms.items():
        metrics = {"pass@4/plateau": summary.metrics["pass@1/plateau"]}
        arms[arm] = replace(summary, metrics=metrics)
    wider = replace(comparison, primary="pass@4/plateau", arms=arms)
    assert read_curves(results, wider).metric == "pass@1/plateau"
    for arm in comparison.arms:
        for seed in (0, 1, 2):
            path = results.run(arm, seed).metrics
            path.unlink()
            append_jsonl(path, {"step": 1, "loss": 0.5})
    assert read_curves(results, comparison) is None


def mean_of(seeds: int) -> MeanCurve:
    x = np.array([100.0, 200.0])
    y = np.array([0.1, 0.4])
    spread = np.array([0.05, 0.05])
    if seeds == 1:
        spread = spread * np.nan
    return MeanCurve(x=x, mean=y, low=y - spread, high=y + spread, seeds=seeds)


def test_many_arms_have_a_panel_each_with_the_control_behind():
    arms = {f"arm {number}": mean_of(3) for number in range(MOST_TOGETHER)}
    curves = PaperCurves("pass@1/all", "generated tokens", {"scalar": mean_of(2), **arms})
    with paper_style():
        figure = draw_curves(curves, "scalar")
        words = texts(figure)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [f"arm {i} (3 seeds)" for i in range(6)]
    assert all(len(axes.lines) == 2 for axes in panels)
    assert "the control, scalar (2 seeds)" in words


def test_a_single_seed_has_no_band():
    curves = PaperCurves("pass@1/all", "generated tokens", {"a": mean_of(1), "b": mean_of(2)})
    with paper_style():
        [axes] = draw_curves(curves, "a").axes
    assert len(axes.collections) == 1
    assert "A single seed has none." in band_words(curves)
    alone = PaperCurves("pass@1/all", "generated tokens", {"a": mean_of(1)})
    assert band_words(alone) == "One seed per arm, so there is no band."


def test_the_same_comparison_gives_the_same_bytes_without_dates(tmp_path, results, comparison):
    curves = read_curves(results, comparison)
    first = write_paper(tmp_path / "a", comparison, Setup(), curves)
    again = write_paper(tmp_path / "b", comparison, Setup(), curves)
    assert first.notes == again.notes == ()
    names = {path.name for path in first.files}
    figures = {f"{name}.{suffix}" for name in FIGURES for suffix in ("svg", "pdf", "png")}
    assert figures == {name for name in names if not name.startswith("methods")} - {
        "arms.tex",
        "differences.tex",
    }
    assert names == {path.name for path in (tmp_path / "a").iterdir()}
    for one, other in zip(first.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for path in first.files:
        assert not re.search(rb"CreationDate|<dc:date>|tIME", path.read_bytes()), path.name


def test_files_are_what_papers_ask_for(tmp_path, comparison):
    write_paper(tmp_path, comparison, Setup())
    svg = (tmp_path / "arms.svg").read_text()
    assert ">critique</text>" in svg
    pdf = (tmp_path / "arms.pdf").read_bytes()
    # Type 42 is TrueType; matplotlib's default, type 3, is refused by some publishers.
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf
    png = (tmp_path / "arms.png").read_bytes()
    width, _ = struct.unpack(">II", png[16:24])
    assert width == COLUMN * 300


def test_a_users_matplotlibrc_changes_nothing(comparison):
    import matplotlib

    with paper_style():
        plain = file_contents(draw_arms(comparison))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "pdf.fonttype": 3}):
        with paper_style():
            assert file_contents(draw_arms(comparison)) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_what_cannot_be_drawn_is_said_and_an_old_file_of_it_goes(results, comparison):
    folder = results.paper
    write_paper(folder, comparison, Setup(), read_curves(results, comparison))
    (folder / "notes.txt").write_text("the user's")
    alone = replace(
        comparison,
        arms={"scalar": comparison.arms["scalar"]},
        comparisons=(),
        pairs=(),
        missing=(MissingRun("critique", 0),),
    )
    written = write_paper(folder, alone, Setup())
    assert [note.split(":")[0] for note in written.notes] == [
        "differences is not drawn",
        "curves is not drawn",
    ]
    left = {path.name for path in folder.iterdir()}
    assert left == {path.name for path in written.files} | {"notes.txt"}
    assert not {name for name in left if name.startswith("curves")}


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_said_once(tmp_path, comparison):
    arms = {"\N{CJK UNIFIED IDEOGRAPH-6570}": comparison.arms["critique"]}
    odd = replace(comparison, arms={**comparison.arms, **arms})
    written = write_paper(tmp_path, odd, Setup())
    assert [note for note in written.notes if "lacks \N{CJK UNIFIED IDEOGRAPH-6570}:" in note]


def test_names_break_behind_signs_and_inside_of_long_words():
    assert name_lines("critique_oracle_turns", 10) == "critique_\noracle_\nturns"
    assert name_lines("abcdefgh", 3) == "abc\ndef\ngh"
    assert name_lines("a b", 17) == "a b"


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, comparison, monkeypatch):
    # The import system calls a module that is None absent.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"need the package matplotlib; run: .*\[paper\]"):
        write_paper(tmp_path, comparison, Setup())
    assert not list(tmp_path.glob("*.tex"))
