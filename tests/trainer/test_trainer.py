"""The trainer against stock GRPOTrainer, and with whatever rewards and critics can return."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from tiny_trainers import QUESTIONS, SETTINGS, dataset, even, history, long_words, trainer_of
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat, PolicyChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.controls import RetryCritic, TemplateCritic
from critique_rl.tasks.rewards import group_wise
from critique_rl.trainer.presets import preset
from critique_rl.types import Attempt, Critique, Verdict


@pytest.mark.parametrize(
    "settings",
    [
        {},
        preset("grpo"),
        preset("dr_grpo"),
        {"num_iterations": 2, "gradient_accumulation_steps": 2, "beta": 0.1},
    ],
)
def test_without_a_critic_it_is_grpo_bit_for_bit_over_20_steps(
    tiny_policy, tmp_path, settings
) -> None:
    settings = {"max_steps": 20, **settings}
    stock = trainer_of(
        GRPOTrainer, GRPOConfig, tiny_policy, tmp_path, long_words, settings=settings
    )
    stock.train()
    # Built after the first has trained: each constructor seeds the one global generator.
    ours = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        long_words,
        settings=settings,
    )
    ours.train()
    assert history(ours) == history(stock)
    assert len(history(ours)) == 20
    assert len({row["loss"] for row in history(ours)}) > 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            ours.model.state_dict().values(), stock.model.state_dict().values(), strict=True
        )
    )


@pytest.mark.parametrize("ratio", ["shaped", "nll"])
@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo"])
def test_with_a_critic_losses_are_finite_weights_move_and_counts_add_up(
    tiny_policy, tmp_path, ratio, loss_type
) -> None:
    settings = {
        "refine_ratio": ratio,
        "loss_type": loss_type,
        "refine_template": "lab/refine",
        "grad_norm_steps": 1,
    }
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        settings=settings,
        critic=RetryCritic(),
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    seen = []
    trainer.on_generation = lambda batch, advantages: seen.append((batch, advantages))
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert all(abs(row["loss"]) < 100 and row["grad_norm"] < 1e4 for row in rows)
    assert any(
        not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items()
    )
    for row, (batch, advantages) in zip(rows, seen, strict=True):
        assert row["critique/failed_rollouts"] == row.get("critique/ok", 0) == len(batch.critiques)
        assert len(batch.order) == len(advantages) == 8
        assert len(batch.attempts) == 6
        # rewards of the batch are those of what was scored, in the batch's order
        assert batch.rewards[:, 0].tolist() == [batch.values[i] for i in batch.order]
        assert (
            sum(row[f"tokens/{owner}"] for owner in ("rollout", "refinement"))
            == row["tokens/generated"]
        )


def test_a_refinement_trains_under_the_plain_prompt(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        settings={"refine_template": "lab/refine"},
        critic=RetryCritic(),
    )
    trainer.model.train()
    rows = [row for row in dataset().select(range(2)) for _ in range(4)]
    output = trainer._generate_and_score_completions(rows)
    assert torch.equal(output["prompt_ids"][:4], output["prompt_ids"][:1].expand(4, -1))
    batch = trainer.generation
    assert batch.refined, "an untrained model fails, so something was refined"
    number = {source: refinement for _, source, refinement in batch.refinements}
    for row in batch.refined:
        text = trainer.processing_class.decode(
            output["completion_ids"][row], skip_special_tokens=True
        )
        assert text == number[batch.order[row]].text
    rollouts = [i for i in range(8) if i not in batch.refined]
    assert output["advantages"][batch.refined].abs().sum() == 0
    assert output["refine_credit"][rollouts].abs().sum() == 0
    # the scalar term is divided by the tokens of rollouts only
    assert output["num_items_in_batch"] == output["completion_mask"][rollouts].sum()


def test_rows_that_could_not_be_judged_are_neither_failed_nor_critiqued(
    tiny_policy, tmp_path
) -> None:
    def unsure(completions, **kwargs):
        rewards = [None, 0.0, float("nan")]
        return [rewards[i % 3] for i in range(len(completions))]

    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        unsure,
        settings={"refine_template": "lab/refine"},
        critic=RetryCritic(),
    )
    trainer.train()
    first = trainer.state.log_history[0]
    # of 6 rollouts, rows 1 and 4 are wrong; None and NaN are unscored
    assert (first["critique/failed_rollouts"], first["rollout/unscored"]) == (2, 4)


def test_a_reward_of_the_wrong_length_says_how_many_were_expected(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        lambda completions, **kw: [0.0],
        critic=RetryCritic(),
    )
    with pytest.raises(ValueError, match="returned 1 rewards, but 6"):
        trainer.train()


def test_a_critic_that_returns_the_wrong_number_is_named(tiny_policy, tmp_path) -> None:
    class Mute:
        name = "mute"

        def critique(self, attempts):
            return []

    trainer = trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, critic=Mute()
    )
    with pytest.raises(ValueError, match="critic mute: got 0 critiques for"):
        trainer.train()


def test_failed_and_too_long_critiques_leave_their_slots_to_plain_samples(
    tiny_policy, tmp_path
) -> None:
    class Moody:
        name = "moody"

        def critique(self, attempts):
            texts = [Critique("", self.name, "failed", "timeout"), Critique("x" * 2000, self.name)]
            return [texts[i % 2] for i in range(len(attempts))]

    settings = {"refine_template": "lab/refine"}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        lambda completions, **kw: [0.0] * len(completions),
        settings=settings,
        critic=Moody(),
    )
    trainer.train()
    row = trainer.state.log_history[0]
    assert row["critique/failed_rollouts"] == 6
    assert row["critique/failed/timeout"] == 3
    assert row["critique/skipped/prompt_too_long"] == 3
    assert "refine/candidates" not in row


def test_a_group_wise_reward_is_called_once_on_the_full_group(tiny_policy, tmp_path) -> None:
    sizes = []

    def rank_in_group(completions, **kwargs):
        sizes.append(len(completions))
        return [float(i % 4) for i in range(len(completions))]

    settings = {"refine_template": "lab/refine", "max_steps": 2}
    trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        [even, group_wise(rank_in_group)],
        settings=settings,
        critic=RetryCritic(),
    ).train()
    assert sizes == [8, 8]


def test_extra_columns_of_reward_functions_stay_with_their_rows(tiny_policy, tmp_path) -> None:
    def marked(completions, log_extra, **kwargs):
        log_extra("mark", [c[0]["content"] for c in completions])
        return [0.0] * len(completions)

    settings = {"refine_template": "lab/refine", "max_steps": 1}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        marked,
        settings=settings,
        critic=RetryCritic(),
    )
    trainer.train()
    assert list(trainer._logs["extra"]["mark"]) == [
        c[0]["content"] for c in trainer._logs["completion"]
    ]


def test_plain_string_prompts_work_too(tiny_policy, tmp_path) -> None:
    data = Dataset.from_list([{"prompt": q} for q in QUESTIONS * 2])
    settings = {"refine_template": "lab/refine", "max_steps": 1}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        lambda completions, **kw: [0.0] * len(completions),
        data,
        settings=settings,
        critic=TemplateCritic("indicative", "indicative"),
    )
    trainer.train()
    assert trainer.state.log_history[0]["refine/candidates"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine_slots": 4}, "refine_slots: got 4, expected 0 to 3"),
        ({"refine_candidates": 9}, "refine_candidates: got 9, expected 1"),
        ({"refine_ratio": "shape"}, "did you mean 'shaped'"),
        ({"critique_when": "always"}, "critique_when: got 'always'"),
    ],
)
def test_bad_options_say_got_and_expected(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        CritiqueGRPOConfig("x", **{**SETTINGS, **settings})


@pytest.mark.parametrize("critic", ["oracle", {"kind": "oracle"}, print])
def test_what_is_no_critic_is_refused_at_once(tiny_policy, tmp_path, critic) -> None:
    with pytest.raises(
        TypeError, match=r"expected an object with `name` and `critique\(attempts\)`"
    ):
        trainer_of(CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, critic=critic)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "got a NoneType, expected a list of critiques"),
        (["words"] * 6, "got 'words', expected a Critique"),
        ([Critique("a", "odd", "great")] * 6, "expected a Critique: status 'great'"),
    ],
)
def test_a_critic_that_returns_no_critiques_is_told_so(
    tiny_policy, tmp_path, returned, words
) -> None:
    class Odd:
        name = "odd"

        def critique(self, attempts):
            return returned and returned[: len(attempts)]

    trainer = trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, critic=Odd()
    )
    with pytest.raises(TypeError, match=words):
        trainer.train()


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_what_a_critic_cannot_go_with_is_refused_with_the_reason(
    tiny_policy, tmp_path, name
) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be used with a critic"):
        trainer_of(
            CritiqueGRPOTrainer,
            CritiqueGRPOConfig,
            tiny_policy,
            tmp_path,
            critic=RetryCritic(),
            **{name: [print]},
        )


def test_a_dataset_without_prompts_names_its_columns(tiny_policy, tmp_path) -> None:
    data = Dataset.from_list([{"question": "1+1"}])
    with pytest.raises(ValueError, match="got the columns question, expected one called 'prompt'"):
        trainer_of(
            CritiqueGRPOTrainer,
            CritiqueGRPOConfig,
            tiny_policy,
            tmp_path,
            even,
            data,
            critic=RetryCritic(),
        )


def test_with_the_api_down_training_goes_on_and_every_failure_is_counted(
    tiny_policy, tmp_path
) -> None:
    # nothing listens on port 9 of the loopback address
    critic = ChatCritic(
        ApiChat(Endpoint("http://127.0.0.1:9/v1", "x", deadline=2.0, attempts=2)), "lab/critique"
    )
    settings = {"refine_template": "lab/refine", "max_steps": 2}
    reward = lambda completions, **kw: [0.0] * len(completions)  # noqa: E731
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        reward,
        settings=settings,
        critic=critic,
    )
    trainer.train()
    for row in trainer.state.log_history[:2]:
        assert row["critique/failed_rollouts"] == row["critique/failed"] == 6
        assert "refine/candidates" not in row
        assert row["reward"] == 0.0


def test_groups_split_over_ranks_are_refused(tiny_policy, tmp_path) -> None:
    settings = {"per_device_train_batch_size": 2, "steps_per_generation": 1, "num_generations": 2}
    trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        settings=settings,
        critic=RetryCritic(),
    )
    settings = {
        "per_device_train_batch_size": 6,
        "num_generations": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 1,
    }
    with pytest.raises(ValueError, match=r"multiple of num_generations|divisible by"):
        trainer_of(
            CritiqueGRPOTrainer,
            CritiqueGRPOConfig,
            tiny_policy,
            tmp_path,
            settings=settings,
            critic=RetryCritic(),
        )


def test_with_a_budget_the_schedule_runs_over_what_was_spent(tiny_policy, tmp_path) -> None:
    settings = {"lr_scheduler_type": "linear", "max_steps": 5}
    trainer = trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, settings=settings
    )
    trainer.budget = ("generated_tokens", 300)
    used = []
    trainer.on_generation = lambda batch, advantages: used.append(trainer.generated_tokens)
    trainer.train()
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert used[-2] > 0
    assert used[-2] != used[0]
    # TRL logs a step's rate before it is taken: the first is whole, each later one is by the tokens
    # of the steps before it
    assert rates == pytest.approx([1e-2 * max(0.0, 1 - tokens / 300) for tokens in [0, *used[:-1]]])


def test_spent_tokens_are_counted_by_owner_and_trained_once_an_iteration(
    tiny_policy, tmp_path
) -> None:
    settings = {"max_steps": 4, "num_iterations": 2, "lr_scheduler_type": "linear"}
    trainer = trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, tmp_path, settings=settings
    )
    trainer.budget = ("flops", 1e12)
    rows = []
    trainer.on_generation = lambda batch, advantages: rows.append(dict(batch.counts))
    trainer.train()
    generated, prompts = (
        sum(row[f"tokens/{owner}"] for row in rows) for owner in ("rollout", "rollout_prompt")
    )
    spent = trainer.costs()
    assert (spent["generated_tokens"], spent["total_tokens"]) == (generated, generated + prompts)
    assert trainer.tokens["tokens/trained"] == 2 * (generated + prompts), (
        "two iterations on each generation"
    )
    scored = trainer.tokens["tokens/scored"]
    assert scored == generated + prompts, "two iterations need the log-probs of before"
    # 2 a parameter and token forward (sampled, prompts, scored), 6 trained
    assert spent["flops"] == trainer.parameters * (
        2 * 2 * (generated + prompts) + 6 * 2 * (generated + prompts)
    )
    assert [row["cost/flops"] for row in trainer.state.log_history if "cost/flops" in row][
        -1
    ] == spent["flops"]
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert rates[0] == 1e-2
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-2


def test_the_policy_as_its_critic_is_asked_once_per_failure_and_pays_for_it(
    tiny_policy, tmp_path
) -> None:
    critic = ChatCritic(PolicyChat(), "lab/critique", "self")
    settings = {"refine_template": "lab/refine", "max_steps": 2}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        lambda completions, **kw: [0.0] * len(completions),
        settings=settings,
        critic=critic,
    )
    batches = []
    trainer.on_generation = lambda batch, advantages: batches.append(batch)
    trainer.train()
    returned = [critique for batch in batches for critique in batch.critiques.values()]
    assert len(returned) == sum(len(batch.attempts) for batch in batches), "everything failed"
    assert any(critique.status == "ok" and critique.text for critique in returned)
    assert 0 < trainer.tokens["tokens/self_critique"] < trainer.generated_tokens
    assert (
        trainer.tokens["tokens/self_critique_prompt"] > trainer.tokens["tokens/rollout_prompt"]
    ), "it reads the question and the attempt"
    owners = ("rollout", "refinement", "self_critique")
    assert trainer.generated_tokens == sum(trainer.tokens[f"tokens/{owner}"] for owner in owners)


def test_the_self_critic_outside_a_trainer_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="CritiqueGRPOTrainer"):
        ChatCritic(PolicyChat(), "lab/critique", "self").critique(
            [Attempt("q", "a", Verdict("wrong"))]
        )
