"""Published methods as settings: each trains, those that are plain GRPO are TRL's GRPO bit for bit,
and each says what it is.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from datasets import Dataset
from known_critics import Turns, WordsPerProblem, completion_text, generated
from tiny_trainers import trainer_of

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.load import load_task
from critique_rl.trainer import trl_seams
from critique_rl.trainer.critique_grpo_config import CHOICES
from critique_rl.trainer.presets import PRESETS, deviations, preset

LAB = {
    "refine_template": "lab/refine",
    "distill_template": "lab/teacher",
    "num_generations": 8,
    "grad_norm_steps": 0,
}
CRITIC = {
    "critique_grpo",
    "critique_grpo_as_released",
    "rltf_sd",
    "raft_refine",
    "opd",
    "opd_as_released",
    "rlcsd",
    "openclaw_combined",
    "openclaw_combined_as_released",
    "sdpo",
    "sdpo_rich_feedback",
    "distil",
    "mixed",
}
TAUGHT = ("opd", "opd_as_released", "rlcsd", "openclaw_combined", "openclaw_combined_as_released")
TERMS = {
    **dict.fromkeys(
        ("critique_grpo", "critique_grpo_as_released", "luffy", "rltf_sd", "raft_refine"),
        ("refine",),
    ),
    **dict.fromkeys(("sdpo", "sdpo_rich_feedback", "distil"), ("distill",)),
    **dict.fromkeys(("sdft", "sdft_as_released", "sdft_trl", "opsd", "opsd_v1"), ("distill",)),
    "mixed": ("refine", "distill"),
}
"""Terms beside the scalar one; those of TAUGHT, opsa and opsa_entropy work through the advantages.
"""
HARD, EASY = "3 A-7 B+9", "1 A+1 B+1"
# Two groups of eight: one where some rollouts are right, one where all failed. Candidates are
# right, then wrong.
ROLLOUTS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0] + [0.0] * 8
CANDIDATES = [1.0, 0.0, 0.0, 1.0] * 4


def rows() -> Dataset:
    solutions = {HARD: "A-7=-4\nB+9=5\n#5", EASY: "A+1=2\nB+1=3\n#3"}
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": q}],
                "question": q,
                "answer": s[-1],
                "solution": s,
            }
            for q, s in solutions.items()
        ]
        * 4
    )


def built(name: str, policy: str, folder, reward, **explicit) -> CritiqueGRPOTrainer:
    settings = {**preset(name), **LAB, **explicit}
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        reward,
        rows(),
        settings=settings,
        critic=WordsPerProblem() if name in CRITIC else None,
    )


def rewards_of(name: str) -> Turns:
    options = preset(name)
    slots = options.get("refine_slots", 1) if name in CRITIC or name == "luffy" else 0
    first = [reward for i, reward in enumerate(ROLLOUTS) if i % 8 < 8 - slots]
    return Turns(first, CANDIDATES) if slots else Turns(first)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_trains_with_finite_moving_losses(name, tiny_policy, tmp_path) -> None:
    # a group of each question a step; 20 tokens hold an expert's trace
    settings = {
        "per_device_train_batch_size": 16,
        "max_completion_length": 20 if name == "luffy" else 8,
    }
    trainer = built(name, tiny_policy, tmp_path, rewards_of(name), **settings)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    added = []
    if trainer.distillation is not None:
        read = trainer.distillation.token_advantages
        trainer.distillation.token_advantages = lambda *batch: (
            added.append(read(*batch)) or added[-1]
        )
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert len(log) == 3
    assert all(math.isfinite(row["loss"]) and 0 < row["grad_norm"] < 1e4 for row in log), [
        row["grad_norm"] for row in log
    ]
    assert len({row["grad_norm"] for row in log}) == 3
    assert any(
        not torch.equal(old, new)
        for old, new in zip(before, trainer.model.parameters(), strict=True)
    )
    # the terms that a preset switches on are there and move, and no others
    for term in ("refine", "distill"):
        values = [row.get(f"loss/{term}", 0.0) for row in log]
        assert (any(values) and len(set(values)) > 1) == (term in TERMS.get(name, ())), (
            f"loss/{term}: {values}"
        )
        assert all(map(math.isfinite, values))
    assert any(tensor.abs().max() > 0 for tensor in added) == (name in TAUGHT)


# ---- what a preset is ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_cites_its_paper_and_says_where_it_differs(name) -> None:
    words = PRESETS[name].__doc__ or ""
    options = preset(name)
    assert re.search(r"arXiv \d{4}\.\d{5}", words)
    assert "Differences" in words
    assert {"loss_type", "scale_rewards", "beta"} <= set(options)
    assert all(value in CHOICES[key] for key, value in options.items() if key in CHOICES)
    config = CritiqueGRPOConfig.from_preset(
        name, "out", num_generations=8, bf16=False, use_cpu=True
    )
    assert all(getattr(config, key) == value for key, value in options.items())


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match="preset: unknown name 'critique-grpo'; did you mean 'critique_grpo'"
    ):
        preset("critique-grpo")
    with pytest.raises(ConfigError, match="did you mean 'w_reinforce'"):
        CritiqueGRPOConfig.from_preset("w_reinforc", "out")


def test_a_preset_is_made_anew_each_time() -> None:
    preset("nsr")["beta"] = 7
    assert preset("nsr")["beta"] == preset("psr")["beta"] == 0.0


def test_deviations_are_keys_that_beat_the_preset_with_another_value() -> None:
    # beta is stated and changed; loss_type is stated and the same; learning_rate is not stated
    changed = deviations("nsr", {"beta": 0.04, "loss_type": "dapo", "learning_rate": 1e-6})
    assert changed == {"beta": {"preset": 0.0, "run": 0.04}}
    assert deviations("nsr", {}) == {}


def test_explicit_keys_win_over_the_preset() -> None:
    config = CritiqueGRPOConfig.from_preset(
        "nsr", "out", beta=0.04, positive_weight=0.5, bf16=False, use_cpu=True
    )
    assert (
        config.beta,
        config.positive_weight,
        config.negative_weight,
        config.scalar_normalizer,
    ) == (0.04, 0.5, 1.0, "subset")
    assert config.output_dir == "out"


# ---- PSR, NSR, W-REINFORCE by hand ---------------------------------------------------------------


def lengths(output: dict, chosen: list[int]) -> int:
    return int(output["completion_mask"][chosen].sum())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("psr", [1.0, 0.0, 0.0, 0.0]),
        ("nsr", [0.0, -1.0, -1.0, 0.0]),
        ("w_reinforce", [0.1, -1.0, -1.0, 0.0]),
        ("openclaw_combined", [1.0, -1.0, -1.0, 0.0]),
    ],
)
def test_signed_credit_is_raw_and_unscored_rows_have_none(
    name, expected, tiny_policy, tmp_path
) -> None:
    trainer = built(name, tiny_policy, tmp_path, Turns([1.0, 0.0, 0.0, None] * 2))
    assert generated(trainer, rows().select(range(1)))["advantages"].tolist() == pytest.approx(
        expected * 2
    )


def test_nsr_and_psr_divide_by_the_tokens_of_their_own_rows(tiny_policy, tmp_path) -> None:
    # two of eight rollouts are wrong: a share of about 1/4 is over the floor of 1/8
    reward, wrong, right = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [2, 5], [0, 1, 3, 4, 6, 7]
    for name, trained, sign in (("nsr", wrong, -1.0), ("psr", right, 1.0)):
        trainer = built(name, tiny_policy, tmp_path, Turns(reward))
        output = generated(trainer, rows().select(range(1)))
        assert output["advantages"].tolist() == [
            sign if row in trained else 0.0 for row in range(8)
        ]
        assert output["num_items_in_batch"] == lengths(output, trained)
        # ratio 1: the loss is the mean of -A over its own tokens
        assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(-sign)


def test_a_lone_row_counts_as_the_floors_share_of_all_tokens(tiny_policy, tmp_path) -> None:
    # one of 16 wrong: its tokens are about 1/16 of all, the floor is 1/8
    for name, alone, sign in (("nsr", 0.0, 1.0), ("psr", 1.0, -1.0)):
        trainer = built(
            name,
            tiny_policy,
            tmp_path,
            Turns([alone] + [1.0 - alone] * 15),
            per_device_train_batch_size=16,
        )
        output = generated(trainer)
        everything = lengths(output, list(range(16)))
        assert output["num_items_in_batch"] == pytest.approx(everything / 8)
        share = lengths(output, [0]) / (everything / 8)
        assert 0 < share < 1
        assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(sign * share)
    output = generated(
        built(
            "nsr",
            tiny_policy,
            tmp_path,
            Turns([0.0] + [1.0] * 15),
            per_device_train_batch_size=16,
            subset_floor=0.5,
        )
    )
    assert output["num_items_in_batch"] == 0.5 * output["completion_mask"].sum()


def test_the_subset_holds_under_a_loss_by_rows_too(tiny_policy, tmp_path) -> None:
    # dr_grpo divides by rows * max_completion_length (8): 2 of 8 rows, so the sum over wrong tokens
    # is over 2 * 8; with one of 8 the floor gives 1 * 8
    for reward, trained in (([1.0] * 6 + [0.0] * 2, [6, 7]), ([1.0] * 7 + [0.0], [7])):
        trainer = built("nsr", tiny_policy, tmp_path, Turns(reward), loss_type="dr_grpo")
        output = generated(trainer, rows().select(range(1)))
        assert output["scalar_share"] == len(trained) / 8
        assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(
            lengths(output, trained) / (len(trained) * 8)
        )


def test_the_subset_leaves_trls_kl_and_entropy_as_they_are(tiny_policy, tmp_path) -> None:
    # nothing is wrong, so nothing but the KL to the reference and the entropy bonus is left: over
    # all rows, whatever the subset's share
    for loss_type in ("dr_grpo", "grpo"):
        settings = {"loss_type": loss_type, "beta": 0.1, "entropy_coef": 0.01}
        losses = []
        for share in ({"scalar_normalizer": "subset"}, {"scalar_normalizer": "rollouts"}):
            trainer = built("nsr", tiny_policy, tmp_path, Turns([1.0] * 8), **settings, **share)
            torch.manual_seed(0)
            losses.append(
                trainer._compute_loss(
                    trainer.model, generated(trainer, rows().select(range(1)))
                ).item()
            )
        assert losses[0] == pytest.approx(losses[1])
        assert losses[0] != 0


def test_w_reinforce_weighs_right_by_a_tenth_and_wrong_by_one_over_all_rows(
    tiny_policy, tmp_path
) -> None:
    trainer = built(
        "w_reinforce", tiny_policy, tmp_path, Turns([1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    )
    output = generated(trainer, rows().select(range(1)))
    assert output["advantages"].tolist() == pytest.approx(
        [0.1, 0.1, -1.0, 0.1, 0.1, -1.0, 0.1, 0.1]
    )
    assert output["num_items_in_batch"] == lengths(output, list(range(8)))
    wrong, right = lengths(output, [2, 5]), lengths(output, [0, 1, 3, 4, 6, 7])
    assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(
        (wrong - 0.1 * right) / (wrong + right)
    )


# ---- Critique-GRPO, paper and code ---------------------------------------------------------------


def test_the_paper_clips_both_terms_and_the_released_code_neither(tiny_policy, tmp_path) -> None:
    # seven rollouts fail, the refinement is right; without std the advantages are -1/8 and 7/8,
    # with it (.35355 + 1e-4) -.35346 and 2.47418
    low = 0.8
    high = 1.2
    ratio = math.exp(0.5)
    for name, advantage, credit in (
        ("critique_grpo", -0.125, 0.875),
        ("critique_grpo_as_released", -0.35346, 2.47418),
    ):
        trainer = built(name, tiny_policy, tmp_path, Turns([0.0] * 7, [1.0] * 7))
        output = generated(trainer, rows().select(range(1)))
        assert output["advantages"].tolist() == pytest.approx([advantage] * 7 + [0.0], abs=1e-4)
        assert output["refine_credit"].tolist() == pytest.approx([0.0] * 7 + [credit], abs=1e-4)
        released = name.endswith("released")
        clip = (math.inf, math.inf) if released else (0.2, 0.2)
        ratio_clip = None if released else (0.2, 0.2)
        assert (trainer.epsilon_low, trainer.epsilon_high) == clip
        assert trainer.args.ratio_clip == ratio_clip
        with torch.no_grad():
            ids, attention = (
                torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], 1)
                for part in ("ids", "mask")
            )
            logps = trl_seams.token_logps(
                trainer, trainer.model, ids, attention, output["completion_ids"].shape[1]
            )
        # p / p_old is e^-.5 on every token: with A < 0 the clip holds at .8, where the code goes on
        # with .6065
        loss = trainer._compute_loss(trainer.model, {**output, "old_per_token_logps": logps + 0.5})
        metrics = trainer._metrics["train"]
        weight = 1 / ratio if released else low
        scalar = -advantage * lengths(output, list(range(7))) * weight / (7 * 8)
        assert metrics["loss/scalar"] == [pytest.approx(scalar, rel=1e-3)]
        # p / (p + .1) of a random model is near .01 / .11, under .8: min(f A, .8 A) is f A for A >
        # 0, so both are the same but for credit and divisor
        shares = torch.sigmoid(logps[7] - math.log(0.1)) * output["completion_mask"][7]
        shaped = shares.sum().item()
        # the paper: over the one slot's 8 tokens; the code: over all seven rollouts' 56, as every
        # row weighs the same
        divisor = 56 if released else 8
        assert metrics["loss/refine"] == [pytest.approx(-credit * shaped / divisor, rel=1e-3)]
        assert loss.item() == pytest.approx(metrics["loss/scalar"][0] + metrics["loss/refine"][0])
        assert shaped / lengths(output, [7]) < high


def test_a_wrong_refinement_has_a_gradient_in_the_released_code_alone(
    tiny_policy, tmp_path
) -> None:
    # one rollout is right, so the group is critiqued by the code alone; the wrong refinement's
    # credit is -1/8, or -.35346 over std
    for clip, moves in ((True, False), (False, True)):
        settings = {"refine_clip": clip, "positive_weight": 0.0, "negative_weight": 0.0}
        trainer = built(
            "critique_grpo_as_released",
            tiny_policy,
            tmp_path,
            Turns([1.0] + [0.0] * 6, [0.0] * 7),
            **settings,
        )
        output = generated(trainer, rows().select(range(1)))
        assert output["refine_credit"][7].item() == pytest.approx(-0.35346, abs=1e-4)
        trainer._compute_loss(trainer.model, output).backward()
        # f = p / (p + .1) < .8 on every token here: min(f A, .8 A) with A < 0 is .8 A, a constant
        gradient = max(
            p.grad.abs().max().item() for p in trainer.model.parameters() if p.grad is not None
        )
        assert (gradient > 0) == moves


def test_the_paper_critiques_failed_groups_and_the_released_code_failed_rollouts(
    tiny_policy, tmp_path
) -> None:
    # attempts 0 to 6 are the mixed group (0, 3 and 6 right), 7 to 13 the failed one
    for name, asked in (
        ("critique_grpo", range(7, 14)),
        ("critique_grpo_as_released", [1, 2, 4, 5, *range(7, 14)]),
    ):
        trainer = built(
            name, tiny_policy, tmp_path, rewards_of(name), per_device_train_batch_size=16
        )
        generated(trainer)
        assert sorted(trainer.generation.critiques) == list(asked)


# ---- the others ----------------------------------------------------------------------------------


def test_luffys_trace_earns_its_distance_from_the_rollouts_mean(tiny_policy, tmp_path) -> None:
    # two of seven rollouts right: mean 2/7; the trace earns 5/7
    trainer = built(
        "luffy",
        tiny_policy,
        tmp_path,
        Turns([1.0, 1.0] + [0.0] * 5, [1.0]),
        max_completion_length=20,
    )
    output = generated(trainer, rows().select(range(1)))
    assert completion_text(trainer, output, 7) == rows()[0]["solution"]
    assert output["advantages"].tolist() == pytest.approx([5 / 7] * 2 + [-2 / 7] * 5 + [0.0])
    assert output["refine_credit"][7].item() == pytest.approx(5 / 7)
    assert (trainer.epsilon_low, trainer.args.ratio_clip) == (math.inf, None)


def test_rltf_sd_fills_half_a_group_and_masks_unlikely_tokens(tiny_policy, tmp_path) -> None:
    trainer = built("rltf_sd", tiny_policy, tmp_path, Turns([1.0, 0.0, 0.0, 0.0], [1.0] * 4))
    output = generated(trainer, rows().select(range(1)))
    # three rollouts failed, so three refinements and a plain sample fill the four slots; the
    # rollouts' mean counts the plain sample: (1 + 1) / 5
    assert trainer.generation.refined == [4, 5, 6]
    assert output["advantages"].tolist() == pytest.approx(
        [0.6, -0.4, -0.4, -0.4, 0.0, 0.0, 0.0, 0.6]
    )
    assert output["refine_credit"].tolist() == pytest.approx([0.0] * 4 + [0.6] * 3 + [0.0])
    old = torch.full(output["completion_ids"].shape, -4.0)
    old[5] = -5.1
    old[:, 4:] = -5.1
    with torch.no_grad():
        ids, attention = (
            torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], 1)
            for part in ("ids", "mask")
        )
        logps = trl_seams.token_logps(
            trainer, trainer.model, ids, attention, output["completion_ids"].shape[1]
        )
    trainer._compute_loss(trainer.model, {**output, "old_per_token_logps": old})
    # rows 4 and 6, their first four tokens: p / p_old under PPO's clip (credit is positive: 1.2 at
    # most), over the tokens of rows that are rollouts, times .1
    kept = (
        (torch.exp(logps - old).clamp(max=1.2) * output["completion_mask"])[[4, 6], :4].sum().item()
    )
    expected = -0.1 * 0.6 * kept / lengths(output, [0, 1, 2, 3, 7])
    assert trainer._metrics["train"]["loss/refine"] == [pytest.approx(expected, rel=1e-3)]


def test_opd_counts_the_tokens_that_have_a_teacher(tiny_policy, tmp_path) -> None:
    trainer = built("opd", tiny_policy, tmp_path, Turns([1.0] * 5 + [0.0] * 3))
    output = generated(trainer, rows().select(range(1)))
    assert output["advantages"].abs().sum() == 0
    assert output["distill_mask"].nonzero().flatten().tolist() == [5, 6, 7]
    assert output["num_items_in_batch"] == lengths(output, [5, 6, 7])


def test_the_lab_has_every_column_that_a_preset_reads() -> None:
    task = load_task(TaskConfig("lab/chain", {"no-trap": 1}, 2), 0)
    assert {"prompt", "question", "answer", "solution"} <= set(task.train[0])
    assert all(task.verifier(row["solution"], row).outcome == "right" for row in task.train)
