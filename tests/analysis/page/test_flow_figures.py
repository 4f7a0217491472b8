"""Figures of masses: their coordinates and numbers are those of the series, and what cannot be
shown is said to be so.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import Point, Series
from critique_rl.analysis.flow.trajectories import trajectories
from critique_rl.analysis.page.flow.areas import BOX, AreaPanel, area_panels
from critique_rl.analysis.page.flow.arrows import BOX as ARROW_BOX
from critique_rl.analysis.page.flow.arrows import MOST, arrow_panel
from critique_rl.analysis.page.flow.bars import MIDDLE, REACH, bar_panels
from critique_rl.analysis.page.flow.captions import area_caption, bar_caption
from critique_rl.analysis.page.flow.section import flow_section
from critique_rl.analysis.page.flow.svg_file import flow_svg
from critique_rl.config.checks import ConfigError

SVG = "{http://www.w3.org/2000/svg}"
BEFORE = (0.1, 0.8, 0.04, 0.01, 0.05)
MIDWAY = (0.2, 0.6, 0.08, 0.02, 0.1)
AFTER = (0.5, 0.2, 0.1, 0.05, 0.15)


def series(*masses, sizes=(), problems=("p", "q"), listed=True, family="plateau"):
    """A run whose problems all have the same masses; `sizes` are effective samples by point."""
    points = []
    for i, values in enumerate(masses):
        by_class = dict(zip(CLASSES, values, strict=True))
        sample_size = dict.fromkeys(problems, sizes[i]) if sizes and sizes[i] else {}
        points.append(Point(i, 1000 * i, dict.fromkeys(problems, by_class), sample_size))
    return Series(tuple(points), dict.fromkeys(problems, family), listed, 64, "one step wrong")


def panel(*runs) -> AreaPanel:
    flow = {"arm": dict(enumerate(runs))}
    return area_panels(trajectories(flow, {}))["arm"]["plateau"]


def texts(svg: str) -> list[str]:
    return [item.text for item in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def edges(path: str) -> list[tuple[float, float]]:
    corners = path.removeprefix("M").removesuffix(" Z").split(" L")
    return [tuple(float(value) for value in corner.split(",")) for corner in corners]


def shares_drawn(areas, point: int) -> list[float]:
    """The thickness of each area at a point, as a share of the plot's height."""
    height = BOX.bottom - BOX.top
    shares = []
    for area in areas:
        corners = edges(area.path)
        upper, lower = corners[point], corners[-1 - point]
        assert upper[0] == lower[0]
        shares.append((lower[1] - upper[1]) / height)
    return shares


def test_areas_are_as_thick_as_masses_and_right_is_at_the_bottom():
    later = (0.7, 0.0, 0.1, 0.05, 0.15)
    drawn = panel(series(BEFORE, MIDWAY, AFTER), series(BEFORE, MIDWAY, later))
    assert shares_drawn(drawn.areas, 0) == pytest.approx(BEFORE, abs=2e-4)
    assert shares_drawn(drawn.areas, 1) == pytest.approx(MIDWAY, abs=2e-4)
    mean = [(a + b) / 2 for a, b in zip(AFTER, later, strict=True)]
    assert shares_drawn(drawn.areas, 2) == pytest.approx(mean, abs=2e-4)
    right = edges(drawn.areas[0].path)
    assert right[-1] == (BOX.left, BOX.bottom)
    assert [corner[0] for corner in right[:3]] == [BOX.left, (BOX.left + BOX.right) / 2, BOX.right]
    assert edges(drawn.areas[-1].path)[0][1] == BOX.top
    assert [label.words for label in drawn.labels] == [
        "right .60",
        "base's wrong .10",
        "near miss .10",
        "other wrong .05",
        "rest .15",
    ]


def test_labels_keep_apart_and_within_the_plot():
    for masses in ((1, 0, 0, 0, 0), (0, 0, 0, 0, 1), (0.5, 0, 0, 0, 0.5), (0, 1, 0, 0, 0)):
        heights = [label.y for label in panel(series(BEFORE, masses)).labels]
        gaps = [low - high for low, high in pairwise(heights)]
        assert min(gaps) >= 14
        assert BOX.top <= min(heights) <= max(heights) <= BOX.bottom


def test_points_with_too_few_effective_samples_leave_a_gap_that_says_so():
    estimated = series(BEFORE, MIDWAY, AFTER, sizes=(None, 9.9, 40), listed=False)
    drawn = panel(estimated)
    [gap] = drawn.gaps
    assert (gap.x, gap.width) == (BOX.left, BOX.right - BOX.left)
    # The base and the end are shown, each on its own.
    assert len(drawn.areas) == 2 * len(CLASSES)
    assert len(drawn.points) == 2
    assert "cannot show" in texts(flow_svg({"arm": {0: estimated}}))
    lost = panel(series(BEFORE, AFTER, sizes=(None, 4), listed=False))
    assert [label.words for label in lost.labels][:2] == ["right", "base's wrong"]
    assert {label.edge for label in lost.labels} == {None}
    assert "cannot be shown" in lost.summary


def test_runs_of_unlike_lengths_are_read_at_the_points_of_the_shortest():
    long = series(BEFORE, MIDWAY, AFTER)
    short = Series((long.points[0], long.points[2]), long.families)
    [trajectory] = trajectories({"arm": {0: long, 1: short}}, {})["plateau"].values()
    assert trajectory.tokens == (0, 2000)
    assert list(trajectory.masses[1].values()) == pytest.approx(AFTER)


def live_rows(terms=None):
    rows = []
    for step in (1, 2, 3):
        row = {"step": step, "tokens/generated": 100.0 * step}
        for kind, mass in zip(CLASSES, AFTER, strict=True):
            row[f"flow/a/b/{kind}"] = mass
        rows.append(row | (terms or {}))
    return rows


def test_without_snapshots_the_areas_are_drawn_from_the_log_and_the_caption_says_so():
    flow = {"scored": {0: series(BEFORE, AFTER, family="a/b")}}
    drawn = trajectories(flow, {"scored": {0: []}, "logged": {0: live_rows()}})
    assert list(drawn) == ["a/b"]
    logged = drawn["a/b"]["logged"]
    assert logged.live
    assert logged.tokens == (100, 200, 300)
    assert list(logged.masses[0].values()) == list(AFTER)
    caption = area_caption(flow, drawn)
    assert "logged while training: logged." in caption
    assert "2 of a/b" in caption


def test_the_caption_says_classes_counts_method_and_the_rest():
    flow = {"arm": {0: series(BEFORE, AFTER), 1: series(BEFORE, AFTER)}}
    caption = area_caption(flow, trajectories(flow, {}))
    for words in (
        "among 64 samples",
        "near misses (one step wrong)",
        "(2 of plateau) and 2 seeds",
        "Masses are exact",
        "The rest holds at most 0.150",
        "went from 0.80 to 0.20, right ones from 0.10 to 0.50",
    ):
        assert words in caption
    estimated = {"arm": {0: series(BEFORE, AFTER, sizes=(None, 12), listed=False)}}
    caption = area_caption(estimated, trajectories(estimated, {}))
    assert "importance weights" in caption
    assert "exact" not in caption


def test_the_caption_of_bars_names_the_family_of_the_account():
    assert bar_caption(["", "plateau", "plateau"]).endswith("problems of plateau.")
    assert bar_caption(["all"]).endswith("problems of all families.")
    assert bar_caption([""]) == bar_caption([])


def test_bars_are_means_per_third_on_one_scale_of_a_class():
    rows = {"small": {0: [], 1: []}, "large": {0: []}}
    for step in range(1, 7):
        phase = (step - 1) // 2
        for seed in (0, 1):
            values = {"flow/right/negative": 0.1 * phase + 0.02 * seed, "flow/right/refine": None}
            rows["small"][seed].append({"step": step, **values})
        rows["large"][0].append({"step": step, "flow/right/refine": -0.42})
    panels = bar_panels(rows)
    [small] = panels["small"]
    widths = [bar.width for bar in small.bars]
    scale = REACH / 0.42
    assert widths == pytest.approx([0.01 * scale, 0.11 * scale, 0.21 * scale], abs=0.01)
    assert all(bar.x == MIDDLE for bar in small.bars)
    assert [bar.words for bar in small.bars] == ["+0.01", "+0.11", "+0.21"]
    [large] = panels["large"]
    assert {(bar.x, bar.width, bar.anchor) for bar in large.bars} == {
        (MIDDLE - REACH, REACH, "end")
    }


def test_arrows_run_from_before_to_after_and_few_are_drawn():
    before = dict(zip(CLASSES, BEFORE, strict=True))
    after = dict(zip(CLASSES, AFTER, strict=True))
    names = [f"p{i}" for i in range(100)]
    families = dict.fromkeys(names, "plateau")
    changed = dict.fromkeys(names[:-1], after) | {"p99": before}
    sizes = dict.fromkeys(names, 50.0) | {"p0": 3.0}
    points = (Point(0, 0, dict.fromkeys(names, before), {}), Point(1, 9, changed, sizes))
    drawn = arrow_panel("arm", "plateau", {0: Series(points, families)})
    assert len(drawn.arrows) == MOST
    assert drawn.note == "1 of 100 cannot be shown; 60 of 99 are drawn"
    still, moved = drawn.arrows[0], drawn.arrows[-1]
    assert not still.moved
    assert (moved.x, moved.y) == (ARROW_BOX.across(0.8, 1), ARROW_BOX.up(0.1))
    assert (moved.to_x, moved.to_y) == (ARROW_BOX.across(0.2, 1), ARROW_BOX.up(0.5))


def test_the_file_is_well_formed_and_its_numbers_are_those_of_the_series():
    name = 'a"<&\x01' + "x" * 60
    flow = {name: {0: series(BEFORE, AFTER)}, "nsr": {0: series(BEFORE, BEFORE)}}
    root = ElementTree.fromstring(flow_svg(flow))
    points = [item.text for item in root.iter(f"{SVG}title") if "generated tokens" in item.text]
    words = "right 0.100, base's wrong 0.800, near miss 0.040, other wrong 0.010, rest 0.050"
    assert points.count(f"0 generated tokens: {words}") == 2
    words = texts(flow_svg(flow))
    assert "right .50" in words
    assert any(text.startswith('a"<&[U+0001]x') and text.endswith("...") for text in words)
    assert "right .50" not in texts(flow_svg(flow, ["nsr"], "plateau"))
    with pytest.raises(ConfigError, match="family missing has no masses to draw"):
        flow_svg(flow, ["nsr"], "missing")
    with pytest.raises(ConfigError, match="arm grpo has no masses to draw"):
        flow_svg(flow, ["grpo"])


def test_a_report_without_masses_has_no_section():
    assert flow_section({}, {"arm": {0: [{"step": 1, "flow/other": 1.0}]}}) is None


def test_the_family_of_the_primary_metric_comes_first_and_four_are_drawn():
    points = series(BEFORE, AFTER, problems=tuple("abcdef"))
    families = {name: f"family {name}" for name in "abcdef"}
    section = flow_section({"arm": {0: Series(points.points, families)}}, {}, "family e")
    assert section.families == ["family e", "family a", "family b", "family c"]
    assert section.not_drawn == "Not drawn: family d, family f."
    assert len(section.masses) == 6


def test_rounding_below_zero_is_no_negative_mass():
    svg = flow_svg({"arm": {0: series(BEFORE, (1.0000001, -1e-7, 0, 0, 0))}})
    assert "-0.0" not in svg
    assert "base's wrong .00" in texts(svg)
