"""Published methods as presets: each trains, says where it comes from, and those that are GRPO are TRL's, bit for bit."""

from __future__ import annotations

import math
import re

import pytest
import torch
from test_distill import DATA, LAB, Turns, Words, generated
from test_trainer import SETTINGS, history, long_words, trainer_of
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config import ConfigError
from critique_rl.options import CHOICES
from critique_rl.presets import PRESETS, deviations, preset

CRITIC = {"critique_grpo", "critique_grpo_as_released", "rltf_sd", "raft_refine", "opd", "openclaw_combined", "sdpo", "mixed"}
TERMS = {
    **dict.fromkeys(("critique_grpo", "critique_grpo_as_released", "luffy", "rltf_sd", "raft_refine"), ("refine",)),
    **dict.fromkeys(("sdpo", "sdft", "opsd"), ("distill",)),
    "mixed": ("refine", "distill"),
}
"""Terms beside the scalar one; opd and openclaw_combined work through the advantages."""
# Two groups of eight: one where some rollouts are right, one where all failed. Candidates are right, then wrong.
ROLLOUTS, CANDIDATES = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0] + [0.0] * 8, [1.0, 0.0, 0.0, 1.0] * 4


def built(name: str, policy: str, folder, reward, **explicit) -> CritiqueGRPOTrainer:
    settings = {**SETTINGS, **LAB, "num_generations": 8, "per_device_train_batch_size": 16, "max_completion_length": 18, **preset(name), **explicit}
    return trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, policy, folder, reward, DATA, settings=settings, critic=Words() if name in CRITIC else None)


def rewards_of(name: str) -> Turns:
    options = preset(name)
    slots = options.get("refine_slots", 1) if name in CRITIC or name == "luffy" else 0
    first = [reward for i, reward in enumerate(ROLLOUTS) if i % 8 < 8 - slots]
    return Turns(first, CANDIDATES) if slots else Turns(first)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_trains_with_finite_moving_losses(name, tiny_policy, tmp_path) -> None:
    trainer = built(name, tiny_policy, tmp_path, rewards_of(name))
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 3
    assert all(math.isfinite(row["loss"]) and 0 < row["grad_norm"] < 1e4 for row in rows), [row["grad_norm"] for row in rows]
    assert len({row["grad_norm"] for row in rows}) == 3
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))
    for term in TERMS.get(name, ()):
        values = [row[f"loss/{term}"] for row in rows]
        assert any(values) and len(set(values)) > 1, f"loss/{term}: {values}"


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_names_its_source_and_its_differences_and_states_what_trl_might_change(name) -> None:
    words = PRESETS[name].__doc__ or ""
    assert re.search(r"arXiv \d{4}\.\d{5}", words)
    assert "Differences" in words
    options = preset(name)
    assert {"loss_type", "scale_rewards", "beta"} <= set(options)
    assert all(value in CHOICES[key] for key, value in options.items() if key in CHOICES)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_the_grpo_family_is_trls_bit_for_bit(name, tiny_policy, tmp_path) -> None:
    settings = {"max_steps": 10, **preset(name)}
    stock = trainer_of(GRPOTrainer, GRPOConfig, tiny_policy, tmp_path, long_words, settings=settings)
    stock.train()
    # Built after the first has trained: each constructor seeds the one global generator.
    ours = trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, long_words, settings=settings)
    ours.train()
    assert history(ours) == history(stock)
    assert len({row["loss"] for row in history(ours)}) > 1
    assert all(torch.equal(a, b) for a, b in zip(ours.model.state_dict().values(), stock.model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("psr", [1.0, 0.0, 0.0, 0.0]), ("nsr", [0.0, -1.0, -1.0, 0.0]), ("w_reinforce", [0.1, -1.0, -1.0, 0.0]), ("openclaw_combined", [1.0, -1.0, -1.0, 0.0])],
)
def test_signed_credit_is_raw_and_unscored_rows_have_none(name, expected, tiny_policy, tmp_path) -> None:
    trainer = built(name, tiny_policy, tmp_path, Turns([1.0, 0.0, 0.0, None] * 4))
    assert generated(trainer)["advantages"][:4].tolist() == pytest.approx(expected)


def test_nsr_and_psr_are_divided_by_their_own_subset_with_a_floor(tiny_policy, tmp_path) -> None:
    # four wrong of 16 rows: their tokens; one wrong of 16 with a floor of 1/2: half of all tokens
    for name, reward in (("nsr", [0.0] * 4 + [1.0] * 12), ("psr", [1.0] * 4 + [0.0] * 12)):
        output = generated(built(name, tiny_policy, tmp_path, Turns(reward)))
        assert output["num_items_in_batch"] == output["completion_mask"][:4].sum()
    output = generated(built("nsr", tiny_policy, tmp_path, Turns([0.0] + [1.0] * 15), subset_floor=0.5))
    assert output["num_items_in_batch"] == 0.5 * output["completion_mask"].sum()


def test_w_reinforce_is_divided_by_all_rows(tiny_policy, tmp_path) -> None:
    output = generated(built("w_reinforce", tiny_policy, tmp_path, Turns([0.0] * 4 + [1.0] * 12)))
    assert output["num_items_in_batch"] == output["completion_mask"].sum()


def test_the_released_critique_grpo_clips_nothing_and_the_papers_clips_both_ratios(tiny_policy, tmp_path) -> None:
    released = built("critique_grpo_as_released", tiny_policy, tmp_path, rewards_of("critique_grpo_as_released"))
    paper = built("critique_grpo", tiny_policy, tmp_path, rewards_of("critique_grpo"))
    assert (released.epsilon_low, released.epsilon_high, released.args.ratio_clip) == (math.inf, math.inf, None)
    assert (paper.epsilon_low, paper.epsilon_high, paper.args.ratio_clip) == (0.2, 0.2, (0.2, 0.2))


def test_the_papers_critique_grpo_critiques_groups_that_failed_whole(tiny_policy, tmp_path) -> None:
    trainer = built("critique_grpo", tiny_policy, tmp_path, rewards_of("critique_grpo"))
    generated(trainer)
    # attempts 0 to 6 are the mixed group, 7 to 13 the failed one
    assert sorted(trainer.generation.critiques) == list(range(7, 14))


def test_explicit_keys_beat_the_preset_and_are_listed() -> None:
    assert CritiqueGRPOConfig.from_preset("nsr", "x", **SETTINGS, loss_type="grpo").loss_type == "grpo"
    assert deviations("nsr", {"loss_type": "grpo", "beta": 0.0, "learning_rate": 1.0}) == {"loss_type": {"preset": "dapo", "run": "grpo"}}


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'w_reinforce'"):
        preset("w_reinforc")
