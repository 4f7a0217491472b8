"""Completions of one prompt as a tree of tokens: a prefix that many share is scored once.

The listed workings of a lab problem hold a third of the tokens that they have one by one. A node
attends to its ancestors alone, so its logits are those of its own sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from critique_rl.sampling.attention import causal_model, sees_all_keys

ATTENTION = ("sdpa", "eager")
"""Implementations of transformers that take a mask of (batch, 1, nodes, nodes)."""


@dataclass
class Tree:
    """A prompt and completions of it. A completion's last token is read from its parent's logits,
    so it is no node.
    """

    prompt: Sequence[int]
    ids: list[int] = field(default_factory=list)
    """(N,) token of each node: the prompt's first, then those of the completions."""
    parents: list[int] = field(default_factory=list)
    """(N,) the node before each; -1 for the first."""
    places: list[int] = field(default_factory=list)
    """(C,) the caller's index of each completion."""
    reads: list[list[tuple[int, int]]] = field(default_factory=list)
    """(C,) the (node, token) pairs whose log-probs add up to each completion's."""
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    """(node, token) -> the node after it."""

    def __post_init__(self) -> None:
        for place, token in enumerate(self.prompt):
            self.ids.append(token)
            self.parents.append(place - 1)

    def add(self, place: int, completion: Sequence[int]) -> None:
        """Hang a completion under the prompt."""
        node = len(self.prompt) - 1
        read = []
        for i, token in enumerate(completion):
            read.append((node, token))
            if i < len(completion) - 1:
                node = self._child(node, token)
        self.places.append(place)
        self.reads.append(read)

    def _child(self, node: int, token: int) -> int:
        known = self.children.get((node, token))
        if known is not None:
            return known
        child = len(self.ids)
        self.ids.append(token)
        self.parents.append(node)
        self.children[node, token] = child
        return child


def can_branch(model: Any) -> bool:
    """Whether the model takes a mask of trees: by its attention, in which a layer sees all keys."""
    attention = causal_model(model).config._attn_implementation
    return attention in ATTENTION and sees_all_keys(model)


def trees_of(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    most: int,
    shares_prefixes: bool,
) -> list[Tree]:
    """Trees of at most `most` nodes, or of one completion, that hold all completions.

    Args:
        prompts: Token ids of P prompts.
        completions: Token ids of P completions.
        most: Nodes of a tree.
        shares_prefixes: Whether completions of equal prompts share a tree.
    """
    # In this order completions with a long prefix in common are neighbours.
    texts = []
    for prompt, completion in zip(prompts, completions, strict=True):
        text = (tuple(prompt), tuple(completion))
        texts.append(text)
    order = sorted(range(len(texts)), key=texts.__getitem__)
    trees: list[Tree] = []
    for i in order:
        fits = (
            shares_prefixes
            and trees
            and list(trees[-1].prompt) == list(prompts[i])
            and len(trees[-1].ids) + len(completions[i]) <= most
        )
        if not fits:
            trees.append(Tree(prompts[i]))
        trees[-1].add(i, completions[i])
    return trees


def batches_of(trees: Sequence[Tree], most: int) -> Iterator[list[Tree]]:
    """Trees that are scored together: of similar size, with at most `most` nodes and padding."""
    batch: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        # The last is the largest, to which all others are padded.
        if batch and (len(batch) + 1) * len(tree.ids) > most:
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch


def tree_log_probs(model: Any, trees: Sequence[Tree], temperature: float) -> Tensor:
    """Log-probs of the completions of a batch of trees, tree after tree.

    Args:
        model: A causal language model. Unless `can_branch`, each tree holds one completion.
        trees: At least one.
        temperature: Divides the logits.
    """
    size = max(len(tree.ids) for tree in trees)
    ids_BN = torch.zeros(len(trees), size, dtype=torch.long)
    for row, tree in enumerate(trees):
        ids_BN[row, : len(tree.ids)] = torch.tensor(tree.ids)
    if all(len(tree.places) == 1 for tree in trees):
        masks = {"attention_mask": _sequence_mask(trees, size)}
    else:
        masks = _branch_masks(trees, size, model.dtype)
    # Logits before the last token of a prompt are never read.
    first = min(len(tree.prompt) for tree in trees) - 1
    output = model(
        input_ids=ids_BN.to(model.device),
        logits_to_keep=size - first,
        use_cache=False,
        **{name: mask.to(model.device) for name, mask in masks.items()},
    )
    return _summed(output.logits.float() / temperature, trees, first)


def _sequence_mask(trees: Sequence[Tree], size: int) -> Tensor:
    """(B, N) mask of trees that do not branch: every model and attention takes it."""
    mask_BN = torch.zeros(len(trees), size, dtype=torch.long)
    for row, tree in enumerate(trees):
        mask_BN[row, : len(tree.ids)] = 1
    return mask_BN


def _branch_masks(trees: Sequence[Tree], size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """The (B, 1, N, N) mask under which a node sees its ancestors, and (B, N) positions."""
    # Padding sees itself, for a row that sees nothing has no softmax.
    sees_BNN = torch.eye(size, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, tree in enumerate(trees):
        sees_NN = sees_BNN[row]
        for node, parent in enumerate(tree.parents[1:], start=1):
            sees_NN[node] |= sees_NN[parent]
    hidden = torch.finfo(dtype).min
    mask_BNN = torch.zeros(sees_BNN.shape, dtype=dtype).masked_fill(~sees_BNN, hidden)
    return {"attention_mask": mask_BNN[:, None], "position_ids": sees_BNN.sum(-1) - 1}


def _summed(logits_BNV: Tensor, trees: Sequence[Tree], first: int) -> Tensor:
    """(C,) sums of the log-probs that each completion reads; logits begin at node `first`."""
    batch: list[int] = []
    nodes: list[int] = []
    tokens: list[int] = []
    completions: list[int] = []
    number = 0
    for row, tree in enumerate(trees):
        for read in tree.reads:
            for node, token in read:
                batch.append(row)
                nodes.append(node - first)
                tokens.append(token)
                completions.append(number)
            number += 1
    device = logits_BNV.device
    rows = torch.tensor(batch, device=device)
    columns = torch.tensor(nodes, device=device)
    chosen = torch.tensor(tokens, device=device)
    normalisers_BN = logits_BNV.logsumexp(-1)
    logps = logits_BNV[rows, columns, chosen]
    logps = logps - normalisers_BN[rows, columns]
    sums = torch.zeros(number, device=device)
    return sums.index_add(0, torch.tensor(completions, device=device), logps)
