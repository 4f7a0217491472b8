"""CritiqueGRPO trainers with the lab's templates for tests, and plain log-probs to check them
against.
"""

from __future__ import annotations

import torch
from known_critics import DATA
from tiny_trainers import trainer_of
from torch import Tensor, nn

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer

LAB = {"refine_template": "lab/refine", "distill_template": "lab/teacher", "grad_norm_steps": 0}
OFF = {"positive_weight": 0.0, "negative_weight": 0.0, "refine_weight": 0.0}
"""Nothing but what a test switches on."""
DISTILL = {**OFF, "refine_slots": 0, "distill_weight": 1.0, "learning_rate": 1e-2}


def critique_trainer(
    policy: str, folder, reward, critic=None, data=DATA, teacher_folder=None, **settings
) -> CritiqueGRPOTrainer:
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        reward,
        data,
        settings={**LAB, **settings},
        critic=critic,
        teacher_folder=teacher_folder,
    )


def move_weights(trainer: CritiqueGRPOTrainer) -> None:
    """A policy some way from where it started, so that the base is another teacher than the policy
    itself.
    """
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def prompt_tokens(trainer: CritiqueGRPOTrainer, text: str) -> list[int]:
    return trainer.processing_class.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True
    )["input_ids"]


def context_tokens(output: dict, row: int) -> list[int]:
    return output["context_ids"][row][output["context_mask"][row].bool()].tolist()


def completion_tokens(output: dict, row: int) -> list[int]:
    return output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()


def logits_of(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """(completion, vocabulary) from one plain forward pass without padding."""
    return model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()


def logps_of(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    return (
        torch.log_softmax(logits_of(model, prompt, completion), -1)
        .gather(-1, torch.tensor(completion).unsqueeze(-1))
        .squeeze(-1)
    )


def same_gradient(loss: Tensor, naive: Tensor, model: nn.Module) -> None:
    parameters = list(model.parameters())
    expected = torch.autograd.grad(naive, parameters)
    actual = torch.autograd.grad(loss, parameters)
    assert max(g.abs().max() for g in expected) > 1e-3, "a gradient of nothing proves nothing"
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


HALF = [1.0, 0.0, 0.0, 0.0] + [0.0] * 4
"""One right rollout of the first question, none of the second."""
