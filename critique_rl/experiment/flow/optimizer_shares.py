"""One step of an optimizer, parameter by parameter, as a sum that is linear in the gradient.

    delta = scale * g + momentum + decay + rounding

- Adam and AdamW (arXiv 1412.6980, algorithm 1; arXiv 1711.05101, algorithm 2), after step t:
  scale = -lr (1 - beta1) / (1 - beta1^t) / (sqrt(v_hat) + eps), momentum the part of the first
  moment from before. v_hat is that after the step: g is in it, and it counts as given.
- SGD: scale = -lr, or -lr (1 + mu) with Nesterov's momentum mu.

Left out: optimizers whose scale is none per parameter (Adafactor, Muon, ...) or quantised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

KNOWN = (Adam, AdamW, SGD)
KNOWN_NAMES = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Values of `optim` in transformers that give one of them."""


@dataclass(frozen=True)
class ParameterStep:
    """What one step does to one parameter; every tensor has its shape, in units of the weight."""

    scale: Tensor
    """A gradient's share of the change, per unit of the gradient."""
    momentum: Tensor
    """Change by gradients of earlier steps."""
    decay: Tensor
    """Change by weight decay."""


def known_optimizer(optimizer: Any) -> Optimizer:
    """torch's optimizer inside accelerate's wrapper.

    Raises:
        ValueError: its preconditioner is unknown here.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if type(inner) not in KNOWN:
        raise ValueError(_refusal(type(inner).__name__))
    for group in inner.param_groups:
        if group.get("maximize"):
            raise ValueError(_refusal("maximize=True"))
        if group.get("dampening"):
            raise ValueError(_refusal("SGD with dampening"))
    return inner


def refuse_unknown_name(optim: str) -> None:
    """Refuse an optimizer by its name in transformers, before one is made.

    Raises:
        ValueError: its preconditioner is unknown here.
    """
    if optim not in KNOWN_NAMES:
        raise ValueError(_refusal(f"optim {optim}"))


def _refusal(got: str) -> str:
    return (
        f"account: got {got}, expected Adam, AdamW or SGD of torch, whose steps are known; "
        f"set optim to one of {', '.join(KNOWN_NAMES)}, or switch the account off"
    )


def parameter_step(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor, before: Tensor
) -> ParameterStep:
    """What the step just made did to one parameter.

    Args:
        optimizer: after its step, gradients still there.
        group: the parameter's group.
        parameter: of any shape, with the gradient that the step read.
        before: its value before the step, same shape.
    """
    gradient = parameter.grad
    assert gradient is not None, "a parameter without gradient does not move"
    state = optimizer.state[parameter]
    make = _sgd_step if isinstance(optimizer, SGD) else _adam_step
    dtype = accumulated_dtype(parameter)
    return make(group, state, before.to(dtype), gradient.to(dtype))


def accumulated_dtype(parameter: Tensor) -> torch.dtype:
    """Precision of shares: float32 at least, for parameters of any shape."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _adam_step(
    group: Mapping[str, Any], state: Mapping[str, Any], before: Tensor, gradient: Tensor
) -> ParameterStep:
    """Adam's and AdamW's; all tensors have the parameter's shape."""
    beta1, beta2 = group["betas"]
    steps = float(state["step"])
    rate = float(group["lr"])
    second_moment = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    root = second_moment.to(before.dtype).sqrt()
    corrected = root / math.sqrt(1 - beta2**steps)
    corrected_rate = rate / (1 - beta1**steps)
    inverse = -corrected_rate / (corrected + group["eps"])
    scale = (1 - beta1) * inverse
    weight_decay = group["weight_decay"]
    if group["decoupled_weight_decay"]:
        decay = -rate * weight_decay * before
    else:
        # It is part of the gradient, in both moments.
        gradient = gradient + weight_decay * before
        decay = scale * weight_decay * before
    first_moment = state["exp_avg"].to(before.dtype)
    earlier = first_moment - (1 - beta1) * gradient
    momentum = inverse * earlier
    return ParameterStep(scale, momentum, decay)


def _sgd_step(
    group: Mapping[str, Any], state: Mapping[str, Any], before: Tensor, gradient: Tensor
) -> ParameterStep:
    """SGD's; all tensors have the parameter's shape."""
    rate = float(group["lr"])
    factor = group["momentum"]
    weight_decay = group["weight_decay"]
    earlier = torch.zeros_like(before)
    if factor:
        complete = gradient + weight_decay * before
        earlier = state["momentum_buffer"] - complete
    gain = 1.0
    if group["nesterov"]:
        # The buffer, which holds the gradient once, is added to it at `momentum`.
        gain = 1.0 + factor
        earlier = factor * earlier
    scale = torch.full_like(before, -rate * gain)
    return ParameterStep(scale, -rate * earlier, scale * weight_decay * before)
