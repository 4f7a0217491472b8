"""Shares of the freed mass: they add up, keep within 0 and 1, and cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.flow.series import Point, Series, as_json
from critique_rl.analysis.flow.shares import GAINED, freed_mass, share_interval
from critique_rl.analysis.flow.table import CANNOT, flow_tables

BEFORE = {"right": 0.1, "base_wrong": 0.8, "near_miss": 0.0, "other_wrong": 0.0, "rest": 0.1}
AFTER = {"right": 0.5, "base_wrong": 0.2, "near_miss": 0.1, "other_wrong": 0.05, "rest": 0.15}


def series(after: dict[str, float], sample_size: float = 0.0) -> Series:
    sizes = {"p": sample_size, "q": sample_size} if sample_size else {}
    first = Point(0, 0, {"p": BEFORE, "q": BEFORE}, {})
    last = Point(9, 900, {"p": after, "q": after}, sizes)
    return Series((first, last), {"p": "plateau", "q": "plateau"})


def test_freed_mass_is_shared_out_completely() -> None:
    masses = freed_mass({0: series(AFTER), 1: series(AFTER)}, "plateau")
    assert masses.freed.mean == pytest.approx(0.6)
    shares = {kind: masses.shares[kind].mean for kind in GAINED}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["right"] == pytest.approx(0.4 / 0.6)
    assert masses.log10_right == pytest.approx((np.log10(0.1), np.log10(0.5)))


def test_without_freed_mass_on_every_seed_there_are_no_shares() -> None:
    masses = freed_mass({0: series(AFTER), 1: series({**BEFORE})}, "plateau")
    assert masses.least == 0
    assert masses.shares == {}
    assert masses.gained["right"].mean == pytest.approx(0.2)


def test_an_estimate_of_too_few_effective_samples_is_not_shown() -> None:
    [table] = flow_tables({"lost": {0: series(AFTER, 4.0)}, "kept": {0: series(AFTER, 40.0)}})
    assert table.rows[0][1:] == (CANNOT,) * (len(table.heads) - 1)
    assert table.rows[1][1].startswith("0.600")


def test_arms_with_other_families_and_bases_stand_where_they_belong() -> None:
    other = series(AFTER)
    other = Series(tuple(reversed(other.points)), {"p": "plateau", "q": "easy"})
    plateau, easy = flow_tables({"first": {0: series(AFTER)}, "second": {0: other}})
    assert [row[0] for row in plateau.rows] == ["first", "second"]
    assert [row[0] for row in easy.rows] == ["second"]
    assert "the rest 0.100 (first); right 0.500" in plateau.caption


def test_json_has_the_base_and_every_later_point() -> None:
    data = as_json({"scalar": {3: series(AFTER)}})
    assert data["base"]["families"]["plateau"] == pytest.approx(BEFORE)
    [point] = data["arms"]["scalar"]["3"]
    assert point["step"] == 9
    assert list(point["families"]["plateau"]) == list(CLASSES)
    assert "bases" not in data


def test_json_has_a_base_per_arm_where_arms_start_from_other_policies() -> None:
    other = series(AFTER)
    other = Series(tuple(reversed(other.points)), other.families)
    data = as_json({"scalar": {3: series(AFTER)}, "larger": {3: other}})
    assert data["base"]["families"]["plateau"] == pytest.approx(BEFORE)
    assert data["bases"]["larger"]["families"]["plateau"] == pytest.approx(AFTER)


def test_freed_mass_near_1_stays_within_bounds_and_no_change_has_a_width() -> None:
    nothing = {**BEFORE, "base_wrong": 0.0, "rest": 0.9}
    everything = {"p": {**nothing, "base_wrong": 1.0, "rest": 0.0, "right": 0.0}}
    everything["q"] = {**everything["p"], "base_wrong": 0.96, "rest": 0.04}
    runs = {}
    for seed in range(3):
        last = Point(9, 900, {"p": nothing, "q": nothing}, {})
        runs[seed] = Series((Point(0, 0, everything, {}), last), {"p": "plateau", "q": "plateau"})
    masses = freed_mass(runs, "plateau")
    assert masses.freed.mean == pytest.approx(0.98)
    assert masses.freed.low < 0.9 < masses.freed.high <= 1
    # No problem changed in near misses. New ones may.
    assert masses.gained["near_miss"].mean == 0
    assert masses.gained["near_miss"].low < 0 < masses.gained["near_miss"].high


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_intervals_of_shares_cover_the_truth_and_stay_within_bounds(share: float) -> None:
    generator = np.random.default_rng(0)
    covered = 0
    repeats = 400
    for _ in range(repeats):
        freed_SP = 0.5 + 0.05 * generator.standard_normal((5, 1)) + np.zeros((1, 40))
        freed_SP = freed_SP + 0.1 * generator.standard_normal((1, 40))
        seeds = generator.beta(40 * share, 40 * (1 - share), (5, 1))
        problems = generator.beta(40 * share, 40 * (1 - share), (1, 40)) - share
        gained_SP = freed_SP * np.clip(seeds + problems, 0, 1)
        interval = share_interval(gained_SP, freed_SP)
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        covered += interval.low <= share <= interval.high
    assert covered / repeats >= 0.9


def test_a_share_near_0_of_a_class_that_lost_mass_on_a_seed_has_a_narrow_interval() -> None:
    # On the scale of log-odds this one reached from 0 to 1.
    gained_SP = np.array([[0.003, 0.001], [-0.002, -0.001], [0.001, -0.001]])
    freed_SP = np.full((3, 2), 0.3)
    interval = share_interval(gained_SP, freed_SP)
    assert 0 < interval.mean < 0.01
    assert -0.05 < interval.low < 0 < interval.high < 0.05
