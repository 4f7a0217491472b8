"""Learning curves and what it took to reach a target, by hand."""

import math

import pytest

from critique_rl.curves import curve, spent_to_target, to_target
from critique_rl.metrics import t_quantile
from critique_rl.runs import PipelineFolder, append_jsonl


def rows(*points):
    """A generation every other step: its spending is logged before the metric of the step that follows."""
    return [row for i, (x, y) in enumerate(points) for row in ({"step": 2 * i + 1, "tokens/generated": x}, {"step": 2 * i + 2, "eval/m": y})]


def test_a_metric_stands_over_the_last_spending_known() -> None:
    x, y = curve([{"step": 0, "eval/m": 0.9}, *rows((10, 0.1), (20, 0.3))], "eval/m")
    assert (x.tolist(), y.tolist()) == ([10, 20], [0.1, 0.3]), "the first came before anything was known to be spent"


def test_the_target_is_reached_between_two_points() -> None:
    points = curve(rows((10, 0.1), (20, 0.3), (30, 0.2), (40, 0.8)), "eval/m")
    assert spent_to_target(points, 0.2) == pytest.approx(15)
    assert spent_to_target(points, 0.5) == pytest.approx(35)
    assert spent_to_target(points, 0.05) == 10
    assert spent_to_target(points, 0.9) is None


def test_the_mean_is_over_logarithms_and_missing_where_a_seed_never_got_there(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    for seed, x in ((0, 100), (1, 400)):
        for row in rows((x, 0.6)):
            append_jsonl(folder.run("a", seed).metrics, {key.replace("eval/m", "eval/pass@1/all"): value for key, value in row.items()})
    found = to_target({seed: folder.run("a", seed) for seed in (0, 1)}, "pass@1/all", 0.5)
    # logs 4.605 and 5.991: mean log 200, standard deviation .9803, standard error .6931, t of one degree 12.706
    half = t_quantile(0.975, 1) * math.log(2)
    assert (found["reached"], found["mean"]) == (2, pytest.approx(200))
    assert found["ci95"] == [pytest.approx(200 * math.exp(-half)), pytest.approx(200 * math.exp(half))]
    missing = to_target({seed: folder.run("a", seed) for seed in (0, 1, 2)}, "pass@1/all", 0.5)
    assert (missing["reached"], missing["mean"], missing["per_seed"]["2"]) == (2, None, None)
