"""Learning curves and what it took to reach a target, by hand."""

import math

import numpy as np
import pytest

from critique_rl.analysis.learning_curves import (
    completions_curve,
    curve,
    mean_curve,
    spent_to_target,
    to_target,
    with_rates,
)
from critique_rl.config.durable_files import append_jsonl
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.intervals import t_quantile


def rows(*points):
    """A generation every other step: its spending is logged before the metric of the step that
    follows.
    """
    return [
        row
        for i, (x, y) in enumerate(points)
        for row in ({"step": 2 * i + 1, "tokens/generated": x}, {"step": 2 * i + 2, "eval/m": y})
    ]


def test_a_metric_stands_over_the_last_spending_known() -> None:
    x, y = curve([{"step": 0, "eval/m": 0.9}, *rows((10, 0.1), (20, 0.3))], "eval/m")
    assert (x.tolist(), y.tolist()) == ([10, 20], [0.1, 0.3]), (
        "the first came before anything was known to be spent"
    )


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
            append_jsonl(
                folder.run("a", seed).metrics,
                {key.replace("eval/m", "eval/pass@1/all"): value for key, value in row.items()},
            )
    tokens_to_target = to_target(
        {seed: folder.run("a", seed) for seed in (0, 1)}, "pass@1/all", 0.5
    )
    # logs 4.605 and 5.991: mean log 200, standard deviation .9803, standard error .6931, t of one
    # degree 12.706
    half = t_quantile(0.975, 1) * math.log(2)
    assert (tokens_to_target.reached, tokens_to_target.mean) == (2, pytest.approx(200))
    assert tokens_to_target.ci95 == (
        pytest.approx(200 * math.exp(-half)),
        pytest.approx(200 * math.exp(half)),
    )
    missing = to_target({seed: folder.run("a", seed) for seed in (0, 1, 2)}, "pass@1/all", 0.5)
    assert (missing.reached, missing.mean, missing.per_seed["2"]) == (2, None, None)


def test_the_mean_curve_covers_what_all_seeds_cover_with_a_t_interval() -> None:
    # seed a: 0 at 0, 1 at 10; seed b: 0 at 5, 1 at 15. Both exist on [5, 10]: (.5 + 0) / 2, (1 +
    # .5) / 2
    curve = mean_curve(
        [
            (np.array([0.0, 10.0]), np.array([0.0, 1.0])),
            (np.array([5.0, 15.0]), np.array([0.0, 1.0])),
        ]
    )
    assert (curve.x.tolist(), curve.seeds) == ([5, 10], 2)
    np.testing.assert_allclose(curve.mean, [0.25, 0.75])
    # standard deviation of (.5, 0) is .5 / sqrt(2), of its mean .25; t of one degree 12.706
    np.testing.assert_allclose(curve.high - curve.mean, 12.7062 * 0.25, rtol=1e-4)
    np.testing.assert_allclose(curve.mean - curve.low, curve.high - curve.mean)
    assert (
        mean_curve([(np.array([0.0]), np.array([1.0])), (np.array([5.0]), np.array([1.0]))]) is None
    )


def test_one_seed_has_no_band_and_long_curves_are_thinned() -> None:
    x = np.arange(1000.0)
    curve = mean_curve([(x, 2 * x)], most=11)
    assert len(curve.x) == 11
    assert curve.mean.tolist() == (2 * curve.x).tolist()
    assert np.isnan(curve.low).all()
    assert np.isnan(curve.high).all()


def test_rates_count_what_was_not_logged_as_none_and_need_a_denominator() -> None:
    leaked, quiet, nobody = with_rates(
        [
            {"critique/ok": 3, "critique/leaked": 1, "critique/skipped": 1},
            {"critique/failed": 2},
            {"loss": 1.0},
        ]
    )
    assert (leaked["critique/leak_rate"], leaked["critique/failure_rate"]) == (
        pytest.approx(1 / 3),
        0.25,  # 1 skipped of 3 + 1
    )
    assert quiet["critique/failure_rate"] == 1
    assert "critique/leak_rate" not in quiet
    assert nobody == {"loss": 1.0}


def test_the_completions_of_a_plain_trl_run_are_a_curve(tiny_policy, tmp_path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    logged = []

    def length(completions, **_):
        return [len(c[0]["content"]) / 10 for c in completions]

    def even(completions, **_):
        logged.append([len(c[0]["content"]) / 10 + len(c[0]["content"]) % 2 for c in completions])
        return [float(len(c[0]["content"]) % 2) for c in completions]

    arguments = GRPOConfig(
        str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        max_steps=2,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        log_completions=True,
        num_completions_to_print=0,
    )
    data = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": q}]} for q in ("1+2", "3-4", "5+6", "7-8")]
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    GRPOTrainer(
        model, [length, even], arguments, train_dataset=data, processing_class=tokenizer
    ).train()
    x, y = completions_curve(tmp_path)
    assert x.tolist() == [1, 2]
    np.testing.assert_allclose(y, [np.mean(rewards) for rewards in logged])
    assert [part.tolist() for part in completions_curve(tmp_path / "completions")] == [
        x.tolist(),
        y.tolist(),
    ]
    assert [len(part) for part in completions_curve(tmp_path / "nowhere")] == [0, 0]
