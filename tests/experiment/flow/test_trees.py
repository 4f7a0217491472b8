"""Completions scored as a tree have the log-probs that they have one by one."""

from __future__ import annotations

import pytest
import torch
from tiny_models import alibi, gpt2, llama, qwen2, windowed
from transformers import PreTrainedModel

from critique_rl.experiment.flow.masses import log_probs
from critique_rl.experiment.flow.trees import can_branch, trees_of

FIRST, SECOND = (3, 4), (5, 6, 7)
PROMPTS = [FIRST, SECOND, FIRST, FIRST, SECOND, FIRST]
# One is another's prefix, two are equal, one is a single token.
COMPLETIONS = [(8, 9, 1), (8, 9, 1), (8, 9, 10, 11, 1), (8, 9), (12,), (8, 9, 1)]


def one_by_one(model: PreTrainedModel) -> torch.Tensor:
    sums = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
        logps = logits.log_softmax(-1)
        total = torch.zeros(())
        for place, token in enumerate(completion, start=len(prompt)):
            total = total + logps[place - 1, token]
        sums.append(total)
    return torch.stack(sums)


@pytest.mark.parametrize("build", [llama, lambda: llama("eager"), qwen2, gpt2, windowed, alibi])
def test_log_probs_and_gradients_are_those_of_one_completion_at_a_time(build) -> None:
    torch.manual_seed(0)
    model = build().eval()
    assert can_branch(model) == (build not in (windowed, alibi))
    parameters = list(model.parameters())
    expected = one_by_one(model)
    weights = torch.arange(1.0, 7.0)
    slopes = torch.autograd.grad((expected * weights).sum(), parameters)
    logps = log_probs(model, PROMPTS, COMPLETIONS, with_gradient=True)
    torch.testing.assert_close(logps, expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad((logps * weights).sum(), parameters)
    torch.testing.assert_close(ours, slopes, atol=1e-4, rtol=1e-4)


def test_a_prefix_that_many_share_is_one_node() -> None:
    trees = trees_of(PROMPTS, COMPLETIONS, most=64, shares_prefixes=True)
    assert [list(tree.ids) for tree in trees] == [[3, 4, 8, 9, 10, 11], [5, 6, 7, 8, 9]]
    assert [sorted(tree.places) for tree in trees] == [[0, 2, 3, 5], [1, 4]]


def test_a_tree_has_at_most_so_many_nodes() -> None:
    trees = trees_of(PROMPTS, COMPLETIONS, most=6, shares_prefixes=True)
    assert max(len(tree.ids) for tree in trees) <= 6
    assert sorted(place for tree in trees for place in tree.places) == list(range(6))
    apart = trees_of(PROMPTS, COMPLETIONS, most=64, shares_prefixes=False)
    assert [len(tree.places) for tree in apart] == [1] * 6
