"""Failed rollouts in training: by the reward that says what is right, whatever else is paid; those
that were cut; and the alarm when a reward says otherwise.
"""

from __future__ import annotations

import logging

import pytest
import user_verifiers
from known_critics import DATA, Turns, Words
from lab_trainers import critique_trainer
from tiny_trainers import trainer_of
from waiting import within

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer, VerifierReward, build_verifier
from critique_rl.rewards import group_wise, rlcr
from critique_rl.types import Verdict


def accuracy(completions, **columns):
    """Right if the last token's code is even: half of what a random model writes."""
    texts = [completion[0]["content"] for completion in completions]
    return [float(bool(text) and ord(text[-1]) % 2 == 0) for text in texts]


def length_penalty(completion_ids, **columns):
    return [-len(ids) / 100 for ids in completion_ids]


def judged_by_code(text, row) -> Verdict:
    right = bool(text) and ord(text[-1]) % 2 == 0
    return Verdict("right" if right else "wrong")


def trained(trainer: CritiqueGRPOTrainer):
    batches = []
    trainer.on_generation = lambda batch, advantages: batches.append(batch)
    trainer.train()
    return batches


@pytest.mark.parametrize(
    ("rewards", "settings"),
    [
        ([accuracy], {}),
        ([accuracy, length_penalty], {"success_reward": "accuracy"}),
        ([length_penalty, accuracy], {"success_reward": "accuracy", "reward_weights": [5.0, 0.5]}),
        ([length_penalty, VerifierReward(judged_by_code)], {}),
    ],
)
def test_failed_rollouts_are_the_wrong_ones_whatever_else_is_paid(
    tiny_policy, tmp_path, rewards, settings
) -> None:
    settings = {"max_steps": 1, "learning_rate": 0.0, "seed": 3, **settings}
    trainer = critique_trainer(tiny_policy, tmp_path, rewards, Words(), **settings)
    [batch] = trained(trainer)
    outcomes = [attempt.verdict.outcome for attempt in batch.attempts]
    expected = [judged_by_code(attempt.text, {}).outcome for attempt in batch.attempts]
    assert outcomes == expected
    assert {"right", "wrong"} == set(outcomes)
    assert sorted(batch.critiques) == [i for i, kind in enumerate(outcomes) if kind == "wrong"]
    # the same seed has the same rollouts and the same rescues as without the penalty
    rescued = [refinement.verdict.outcome for _, _, refinement in batch.refinements]
    alone = trained(
        critique_trainer(
            tiny_policy, tmp_path, accuracy, Words(), max_steps=1, learning_rate=0.0, seed=3
        )
    )[0]
    assert [refinement.verdict.outcome for _, _, refinement in alone.refinements] == rescued


def test_several_rewards_without_a_name_are_refused_with_a_critic_alone(
    tiny_policy, tmp_path
) -> None:
    rewards = [accuracy, length_penalty]
    with pytest.raises(ValueError, match=r"Name the one .*success_reward='accuracy'"):
        critique_trainer(tiny_policy, tmp_path, rewards, Words())
    with pytest.raises(ValueError, match="refine_column needs to know"):
        critique_trainer(tiny_policy, tmp_path, rewards, refine_column="solution")
    with pytest.raises(ValueError, match="credit signed needs to know"):
        critique_trainer(tiny_policy, tmp_path, rewards, credit="signed")
    with pytest.raises(ValueError, match=r"credit signed: .* would ignore the reward length_pen"):
        critique_trainer(tiny_policy, tmp_path, rewards, credit="signed", success_reward="accuracy")
    with pytest.raises(ValueError, match=r"credit signed: .* reward rlcr pays something else"):
        critique_trainer(tiny_policy, tmp_path, rlcr(judged_by_code), credit="signed")
    plain = critique_trainer(tiny_policy, tmp_path, rewards, max_steps=1)
    [batch] = trained(plain)
    assert {verdict.reason for verdict in batch.verdicts} == {"no success_reward"}
    log = plain.state.log_history[0]
    assert log["rollout/unscored/no success_reward"] == log["rollout/unscored"] == 8


def test_a_baseline_that_would_ignore_a_group_wise_reward_is_refused(tiny_policy, tmp_path) -> None:
    @group_wise
    def rank(completions, **columns):
        return [float(i % 4) for i in range(len(completions))]

    settings = {"baseline": "rollouts", "scale_rewards": "none"}
    with pytest.raises(ValueError, match=r"baseline rollouts: got .* \(rank\), .* would ignore"):
        critique_trainer(tiny_policy, tmp_path, [accuracy, rank], Words(), **settings)


@pytest.mark.parametrize(
    ("value", "message"), [("", "got ''"), ([], r"got \[\]"), (["a", 3], "got"), (3, "got 3")]
)
def test_a_success_reward_is_a_name_or_names(tmp_path, value, message) -> None:
    with pytest.raises(ValueError, match=f"success_reward: {message}.*expected the name"):
        CritiqueGRPOConfig(str(tmp_path), bf16=False, use_cpu=True, success_reward=value)


# ---- truncated -----------------------------------------------------------------------------------


@pytest.mark.parametrize("critiqued", [True, False])
def test_a_cut_rollout_is_a_reason_of_its_own_and_critiqued_by_choice(
    tiny_policy, tmp_path, critiqued
) -> None:
    never = Turns([0.0] * 8)
    settings = {"max_steps": 1, "max_completion_length": 48}
    trainer = critique_trainer(
        tiny_policy, tmp_path, never, Words(), **settings, critique_truncated=critiqued
    )
    [batch] = trained(trainer)
    cut = [i for i, attempt in enumerate(batch.attempts) if attempt.truncated]
    limit = trainer.max_completion_length
    ids = [batch.columns["completion_ids"][row] for row in range(8) if row % 4 < 3]
    end = trainer.processing_class.eos_token_id
    assert cut == [i for i, row in enumerate(ids) if len(row) == limit and row[-1] != end]
    assert 0 < len(cut) < 6, "the seed gives both kinds"
    log = trainer.state.log_history[0]
    assert log["rollout/wrong/truncated"] == len(cut)
    if critiqued:
        assert log["critique/ok"] == 6
        assert "critique/skipped" not in log
    else:
        assert log["critique/skipped/truncated"] == log["critique/skipped"] == len(cut)
        assert log["critique/ok"] == 6 - len(cut)
        assert {i for i, _, _ in batch.refinements} == set(range(6)) - set(cut)
    told = log.get("critique/not_asked", 0) + log.get("critique/skipped", 0) + log["critique/ok"]
    assert log["critique/failed_rollouts"] == told == 6


# ---- the alarm -----------------------------------------------------------------------------------


def graded(completions, **columns):
    """What is right gets .9, which a threshold of 1 never takes for right."""
    return [0.9 * reward for reward in accuracy(completions)]


def test_the_run_says_once_that_a_reward_contradicts_the_failures(
    tiny_policy, tmp_path, caplog
) -> None:
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        [graded, accuracy],
        Words(),
        success_reward="graded",
        max_steps=3,
        learning_rate=0.0,
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    given = [record.getMessage() for record in caplog.records if "count as failed" in record.msg]
    assert len(given) == 1
    assert given[0].startswith("step 1: 100 % of the rollouts count as failed, but the reward acc")
    assert "success_reward and success_threshold" in given[0]
    logged = [row.get("alarm/failed_rollouts") for row in trainer.state.log_history[:3]]
    assert logged == [1.0, None, None]


def test_no_alarm_where_the_reward_agrees(tiny_policy, tmp_path, caplog) -> None:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        [accuracy, length_penalty],
        DATA,
        settings={"max_steps": 2, "success_reward": "accuracy", "refine_template": "lab/refine"},
        critic=Words(),
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert not [record for record in caplog.records if "count as failed" in record.msg]


def test_a_verifier_that_hangs_costs_a_step_its_deadline_and_no_more(
    tiny_policy, tmp_path, caplog
) -> None:
    verifier = build_verifier(
        {
            "kind": "python",
            "target": user_verifiers.by_last_letter,
            "deadline": 0.2,
            "step_deadline": 1.5,
        }
    )
    reward = VerifierReward(verifier)
    trainer = critique_trainer(tiny_policy, tmp_path, [reward], Words(), max_steps=1, seed=3)
    with within("a step of answers that hang"):
        [batch] = trained(trainer)
    verifier.worker.stop()
    pairs = [(attempt.text, attempt.verdict) for attempt in batch.attempts]
    pairs += [(refined.text, refined.verdict) for _, _, refined in batch.refinements]
    hanging = [verdict for text, verdict in pairs if user_verifiers.hangs_on(text)]
    kinds = {(verdict.outcome, verdict.reason) for verdict in hanging}
    assert len(hanging) >= 2
    assert kinds <= {("wrong", "timeout"), ("unscored", "step deadline")}
    [row] = [row for row in trainer.state.log_history if "loss" in row]
    timeouts = sum(verdict.outcome == "wrong" for verdict in hanging)
    late = sum(verdict.reason == "step deadline" for _, verdict in pairs)
    assert row.get("verification/timeout", 0) == timeouts
    assert row.get("verification/unscored/step deadline", 0) == late
    assert any(name.startswith("alarm/verification/") for name in row)
    assert "answers" in caplog.text
