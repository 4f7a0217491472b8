"""OPSA's advantage on unlikely tokens, against numbers worked by hand and plain forward passes."""

from __future__ import annotations

import pytest
import torch
from known_critics import DATA, Turns, Words, generated
from lab_trainers import (
    completion_tokens,
    critique_trainer,
    logits_of,
    move_weights,
    prompt_tokens,
    same_gradient,
)
from tiny_trainers import SETTINGS

from critique_rl import CritiqueGRPOConfig
from critique_rl.objective import unlikely_advantages
from critique_rl.trainer import trl_seams
from critique_rl.trainer.presets import preset

LOGPS = torch.tensor([[-1.0, -0.1, -3.0, -0.2, -2.0], [-9.0, -0.5, -0.4, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])


def live_logps(trainer, output: dict) -> torch.Tensor:
    """Log-probs (B, T) of the policy as it is, 0 on padding."""
    ids, attention = (
        torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], 1)
        for part in ("ids", "mask")
    )
    with torch.no_grad():
        length = output["completion_ids"].shape[1]
        logps = trl_seams.token_logps(trainer, trainer.model, ids, attention, length)
    return logps * output["completion_mask"]


def test_the_least_likely_tokens_of_a_row_get_the_advantage_and_no_others() -> None:
    # floor(.4 * 5) = 2 of five tokens: -3 and -2, each -.5 * 5 / 2; of two at least one, -.5 * 2
    expected = [[0, 0, -1.25, 0, -1.25], [0, -1.0, 0, 0, 0]]
    assert unlikely_advantages(LOGPS, MASK, 0.4, -0.5).tolist() == expected
    # all of them: the row's mean over its tokens is the advantage itself
    everything = unlikely_advantages(LOGPS, MASK, 1.0, -0.5)
    assert torch.equal(everything, -0.5 * MASK.float())
    empty = unlikely_advantages(LOGPS, torch.zeros_like(MASK), 0.2, -0.5)
    assert torch.equal(empty, torch.zeros_like(LOGPS))


def test_of_equally_likely_tokens_the_first_ones_are_taken() -> None:
    taken = unlikely_advantages(torch.zeros(1, 4), torch.ones(1, 4), 0.5, -1.0)
    assert taken.tolist() == [[-2.0, -2.0, 0.0, 0.0]]


def test_with_entropies_the_advantage_doubles_from_the_lowest_to_the_highest() -> None:
    entropies = torch.tensor([[0.5, 9.0, 1.5, 9.0, 1.0], [0.0, 0.3, 0.3, 0.0, 0.0]])
    # three of five: -1, -3, -2 with entropies .5, 1.5, 1, so (H - .5) / 1 = 0, 1, .5
    taken = unlikely_advantages(LOGPS, MASK, 0.6, -0.5, entropies)
    scale = 5 / 3
    assert taken[0].tolist() == pytest.approx([-0.5 * scale, 0, -1.0 * scale, 0, -0.75 * scale])
    # equal entropies: all are the highest
    assert taken[1].tolist() == [0, -2.0, 0, 0, 0]


@pytest.mark.parametrize("name", ["opsa", "opsa_entropy"])
@pytest.mark.parametrize("iterated", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_formula(
    tiny_policy, tmp_path, name, iterated
) -> None:
    trainer = critique_trainer(tiny_policy, tmp_path, Turns([1.0, 0.0] * 4), **preset(name))
    output = generated(trainer)
    assert trainer.tokens["tokens/teacher"] == 0
    move_weights(trainer)
    if iterated:
        # In a later iteration the tokens are those that were unlikely when they were sampled.
        noise = torch.linspace(-0.3, 0.3, output["completion_ids"].numel()).flip(0)
        output["old_per_token_logps"] = live_logps(trainer, output) + noise.view_as(
            output["completion_ids"]
        )
    loss = trainer._compute_loss(trainer.model, output)
    terms = []
    for row in range(8):
        completion = completion_tokens(output, row)
        prompt = prompt_tokens(trainer, DATA[row // 4]["question"])
        distributions = torch.log_softmax(logits_of(trainer.model, prompt, completion), -1)
        logps = distributions[range(len(completion)), completion]
        old = logps.detach()
        if iterated:
            old = output["old_per_token_logps"][row, : len(completion)].double()
        chosen = old.sort(stable=True).indices[: max(1, int(0.2 * len(completion)))]
        advantage = torch.full((len(chosen),), -0.5).double()
        if name == "opsa_entropy":
            entropy = -(distributions.exp() * distributions).sum(-1).detach()[chosen]
            spread = entropy.max() - entropy.min()
            place = torch.ones_like(entropy)
            if spread > 0:
                place = (entropy - entropy.min()) / spread
            advantage = -0.5 - 0.5 * place
        ratio = (logps - old)[chosen].exp()
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        terms.append(-surrogate.mean())
    naive = torch.stack(terms).mean()
    assert loss.item() == pytest.approx(naive.item(), rel=1e-4)
    same_gradient(loss, naive.float(), trainer.model)


def test_a_refinement_is_no_rollout_and_gets_none(tiny_policy, tmp_path) -> None:
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 6),
        Words(),
        **{**preset("opsa"), "refine_slots": 1},
    )
    output = generated(trainer)
    assert output["rollout_mask"].tolist() == [True, True, True, False] * 2
    # six rows of the eight: the losses by rows divide by those of the term
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx(0.5, rel=1e-4)


def test_a_positive_advantage_and_an_empty_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unlikely_advantage: got 0\.5, expected a number from"):
        CritiqueGRPOConfig("x", **SETTINGS, unlikely_advantage=0.5)
    with pytest.raises(ValueError, match=r"unlikely_share: got 0\.0, expected a number from"):
        CritiqueGRPOConfig("x", **SETTINGS, unlikely_share=0.0)
