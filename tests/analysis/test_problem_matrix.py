"""Weights of families of unequal size, and how often the interval over them holds the truth."""

import numpy as np
import pytest

from critique_rl.analysis.problem_matrix import stratified
from critique_rl.intervals import crossed_interval


def test_families_of_any_size_count_alike_and_what_they_differ_by_is_no_error():
    # means of the first three problems: 2 and 4, of the last: 8 and 0
    assert stratified(np.array([[1.0, 2, 3, 8], [4, 4, 4, 0]]), list("aaab")).mean(
        axis=1
    ).tolist() == pytest.approx([5, 2])
    interval = crossed_interval(
        stratified(np.array([[0.2, 0.2, 0.2, 0.9, 0.9]] * 3), list("aaabb"))
    )
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.55,) * 3)


@pytest.mark.parametrize(
    ("sizes", "seeds", "most"),
    [
        ((100, 100), 1, 975),
        ((5, 5), 5, 975),
        ((60, 60, 20), 3, 975),
        ((190, 10), 1, 1000),
        ((190, 10), 5, 1000),
    ],
)
def test_the_interval_over_families_holds_the_truth_as_often_as_it_says(sizes, seeds, most):
    draw = np.random.default_rng(0)
    held = 0
    families = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    middle = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(1000):
        seed, problem = (draw.normal(size=(seeds, 1)), draw.normal(size=len(families)))
        values = (
            middle
            + 0.05 * (seeds > 1) * seed
            + problem
            + 0.5 * draw.normal(size=(seeds, len(families)))
        )
        interval = crossed_interval(stratified(values, families))
        held += interval.low <= np.mean(range(len(sizes))) <= interval.high
    # 950 of 1,000 are wanted; a standard error is 7. Where families are too unequal the interval is
    # wide, and holds it more often
    assert 930 <= held <= most, held
