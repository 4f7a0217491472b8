"""Colours, dashes and ticks of the plots."""

from itertools import pairwise

from critique_rl.analysis.page.plots import look, ticks


def test_16_arms_differ_in_hue_or_dashes_and_neighbours_in_both():
    looks = [look(arm) for arm in range(16)]
    assert len(set(looks)) == 16
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks))


def test_ticks_are_round_and_hold_what_is_drawn():
    assert ticks(0, 0.83) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 0.5) == [-0.4, -0.2, 0, 0.2, 0.4, 0.6]
    assert ticks(0, 0) == [0, 1]
