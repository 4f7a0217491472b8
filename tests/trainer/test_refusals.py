"""Settings that are refused, with got and expected, or warned of."""

from __future__ import annotations

import warnings

import pytest
from known_critics import Turns
from lab_trainers import DISTILL, HALF, critique_trainer
from tiny_trainers import SETTINGS

from critique_rl import CritiqueGRPOConfig


def test_a_column_that_does_not_exist_is_refused_with_those_that_do(tiny_policy, tmp_path) -> None:
    with pytest.raises(
        ValueError,
        match=(
            "distill_column: got 'proof', but train_dataset has the columns answer, prompt, "
            "question, solution"
        ),
    ):
        critique_trainer(
            tiny_policy,
            tmp_path,
            Turns(HALF),
            **DISTILL,
            distill_context="demonstration",
            distill_column="proof",
        )
    with pytest.raises(
        ValueError,
        match=(
            "refine_column: got 'proof', but train_dataset has the columns answer, prompt, "
            "question, solution"
        ),
    ):
        critique_trainer(tiny_policy, tmp_path, Turns(HALF), refine_column="proof")


@pytest.mark.parametrize("mode", ["sampled", "advantage"])
@pytest.mark.parametrize("target", ["refinements", "both"])
def test_sampled_token_forms_are_refused_on_refinements_with_the_reason(mode, target) -> None:
    with pytest.raises(
        ValueError,
        match=(
            f"distill_mode {mode}: got distill_target '{target}', .* on the policy's own tokens "
            r"only\. Use .* topk or full"
        ),
    ):
        CritiqueGRPOConfig(
            "x", **SETTINGS, distill_weight=1.0, distill_mode=mode, distill_target=target
        )
    CritiqueGRPOConfig(
        "x", **SETTINGS, distill_mode=mode, distill_target=target
    )  # off: nothing to refuse


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"distill_weight": 1.0},
            "distill_context 'critique' without a critic would train nothing",
        ),
        ({"refine_own_weight": 1.0}, "refine_own_weight: got 1.0 without refinements"),
        (
            {"refine_anchor_weight": 1.0, "refine_column": "solution"},
            "refine_anchor_weight: got 1.0 without refinements",
        ),
        (
            {"distill_weight": 1.0, "distill_target": "refinements", "refine_column": "solution"},
            "distill_target 'refinements' without refinements would train nothing",
        ),
    ],
)
def test_a_term_that_would_be_nothing_without_a_critic_is_refused(
    tiny_policy, tmp_path, settings, message
) -> None:
    with pytest.raises(ValueError, match=message):
        critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), **settings)


@pytest.mark.parametrize(
    ("alpha", "warns"),
    [(0.05, True), (0.95, True), (0.0, False), (0.1, False), (0.5, False), (1.0, False)],
)
def test_an_alpha_beside_0_or_1_is_warned_of(alpha, warns) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CritiqueGRPOConfig("x", **SETTINGS, distill_weight=1.0, distill_alpha=alpha)
    messages = [
        str(warning.message) for warning in caught if "distill_alpha" in str(warning.message)
    ]
    warning = (
        f"distill_alpha {alpha}: the family is discontinuous at 0 and 1, and nearly flat "
        "beside them; use 0, 1 or .1 to .9"
    )
    assert messages == ([warning] if warns else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distill_alpha": 1.5}, "distill_alpha: got 1.5, expected a number from 0 to 1"),
        ({"distill_ema": 0.0}, "distill_ema: got 0.0, expected a number from 1e-12 to 1"),
        ({"distill_mode": "top_k"}, "distill_mode: got 'top_k'.*did you mean 'topk'"),
        ({"distill_entry_clip": 0.0}, "distill_entry_clip: got 0.0, expected a number from 1e-12"),
        (
            {"distill_weight": 1.0, "distill_mode": "sampled", "distill_entry_clip": 0.05},
            "distill_entry_clip: got 0.05 under distill_mode sampled, which reads no other entry",
        ),
        ({"distill_weight": -1.0}, "distill_weight: got -1.0, expected a number from 0 to inf"),
        (
            {"baseline": "rollouts", "scale_rewards": "group"},
            "baseline rollouts: got scale_rewards='group', expected 'none'",
        ),
    ],
)
def test_bad_options_say_got_and_expected(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        CritiqueGRPOConfig("x", **{**SETTINGS, **settings})
