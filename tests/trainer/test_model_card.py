"""The model card says what a run was: TRL's card with the section of critique_rl."""

from __future__ import annotations

import json

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.model_card import add_section, describe_critic, describe_method, section

CPU = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
COSTS = {"generated_tokens": 1200, "total_tokens": 3400, "flops": 5.0e9, "usd": 0.25}


def test_the_method_is_the_terms_that_train(tmp_path) -> None:
    args = CritiqueGRPOConfig(
        str(tmp_path), refine_ratio="nll", distill_weight=0.5, negative_weight=0.3, **CPU
    )
    scalar = "scalar (group credit, weights 1 and 0.3, loss_type dapo)"
    distill = f"0.5 x distill ({args.distill_mode} on {args.distill_target}, live teacher)"
    assert (
        describe_method(args, two_phases=True)
        == f"{scalar} + 1 x refine (nll, 1 of 8 rows) + {distill}"
    )
    args.distill_weight = 0.0
    assert describe_method(args, two_phases=False) == scalar


def test_a_critic_is_named_without_its_address(tmp_path) -> None:
    chat = ApiChat(Endpoint("http://127.0.0.1:9/v1", "judge-7b"), tmp_path)
    assert describe_critic(ChatCritic(chat, knows="answer")) == "api, judge-7b, knows the answer"
    assert describe_critic(None) == "none"


def test_the_section_is_written_once_and_keeps_its_list_whole(tmp_path) -> None:
    args = CritiqueGRPOConfig(str(tmp_path), **CPU)
    (tmp_path / "README.md").write_text("# Card\n\n### Framework versions\n\n- TRL: 1\n")
    for seed in (1, 2):
        add_section(
            tmp_path,
            section(
                args,
                None,
                {"tokens/rollout": 1200, "tokens/teacher": 0},
                COSTS,
                {"arm": "a\n# <b>", "seed": seed},
            ),
        )
    card = (tmp_path / "README.md").read_text()
    assert card.count("### The run") == card.count("### Framework versions") == 1
    assert "- seed: 2\n" in card
    assert "- arm: a # &lt;b>\n" in card
    assert "| rollout | 1,200 |" in card
    assert "teacher |" not in card
    assert "- cost: 1,200 generated tokens, 3,400 tokens in all, 5e+09 FLOPs, 0.25 USD" in card
    assert card.startswith("# Card\n\n### The run")
    assert card.endswith("- TRL: 1\n")


def test_a_trainer_writes_the_card_of_its_paper_with_its_tags(tmp_path, tiny_policy) -> None:
    from datasets import Dataset

    from critique_rl import CritiqueGRPOTrainer
    from critique_rl.critic.controls import RetryCritic
    from critique_rl.policy import load_policy

    model, tokenizer = load_policy(tiny_policy)
    args = CritiqueGRPOConfig(
        str(tmp_path),
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=4,
        **CPU,
    )
    dataset = Dataset.from_list([{"prompt": "3 A-7"}] * 4)
    trainer = CritiqueGRPOTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        args,
        dataset,
        critic=RetryCritic(),
        processing_class=tokenizer,
    )
    trainer.about = {"arm": json.dumps("retry")}
    trainer.create_model_card(model_name="mine", tags=["own"])
    card = (tmp_path / "README.md").read_text()
    assert (
        "trained with Critique-GRPO, a method introduced in [Critique-GRPO: Advancing LLM Reasoning"
        in card
    )
    assert "zhang2025critiquegrpo" in card
    assert all(
        f"- {tag}\n" in card.partition("---\n\n")[0] for tag in ("trl", "critique-grpo", "own")
    )
    assert '- critic: retry\n- arm: "retry"\n' in card
