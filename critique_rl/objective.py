"""The mixed objective as pure tensor functions; axes as suffixes: _B rows, _T completion tokens.

    L = L_scalar + refine_weight * L_refine

L_scalar is TRL's own clipped surrogate (so it is not here); what is added to it, and how credit is shared out before it, is. Left out: the
distillation term, importance ratios and signed credit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shaped_ratio(logps: Tensor, gamma: float) -> Tensor:
    """Policy shaping f(p) = p / (p + gamma), elementwise on log-probabilities of any shape.

    LUFFY (arXiv 2504.14945), Eq. 5; Critique-GRPO (arXiv 2506.03106), section 4.3, gamma = .1. d f / d log p = gamma p / (p + gamma)^2 peaks at
    p = gamma: learning goes to tokens the policy would hardly have written itself.
    """
    # sigmoid(log p - log gamma) is p / (p + gamma), and stays exact where p underflows.
    return torch.sigmoid(logps - torch.log(torch.as_tensor(gamma, dtype=logps.dtype, device=logps.device)))


def group_advantages(rewards: Tensor, group_size: int, baseline: str = "group", scale: str = "none") -> Tensor:
    """Advantages of rewards (B,) in consecutive groups: minus the group mean (`baseline="group"`) or not ("none"), over std + 1e-4 ("std") or not ("none").

    With refinements inside the group the mean is Critique-GRPO's union baseline (section 4.2): [0]*7+[1] -> [-.125]*7+[.875].
    """
    assert rewards.numel() % group_size == 0, f"{rewards.numel()} rewards do not split into groups of {group_size}"
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True) if baseline == "group" else groups
    scaled = centred / (groups.std(1, keepdim=True) + 1e-4) if scale == "std" else centred
    return scaled.view(-1)


def weighted_advantages(advantages: Tensor, positive_weight: float, negative_weight: float) -> Tensor:
    """Scale positive and negative advantages apart, any shape. W-REINFORCE (arXiv 2506.01347, section 5) is .1 and 1 on raw +-1 rewards."""
    return advantages * torch.where(advantages > 0, positive_weight, negative_weight)


def refine_loss(logps_BT: Tensor, credit_B: Tensor, mask_BT: Tensor, ratio: str, gamma: float) -> Tensor:
    """Sum over refinement tokens of the refine term, a scalar; the caller divides by its normaliser.

    `logps_BT` are of the refinement under the question alone. "shaped": -credit * p / (p + gamma), credit = the union advantage, without clipping (as
    Critique-GRPO's released code; the paper's clip would zero a wrong refinement's gradient below p = .4). "nll": -credit * log p, credit = 1 for
    right refinements and 0 for others (RAFT, arXiv 2304.06767; ERL).
    """
    score_BT = shaped_ratio(logps_BT, gamma) if ratio == "shaped" else logps_BT
    return -(score_BT * credit_B.unsqueeze(1) * mask_BT).sum()
