"""What a causal language model's layers attend to, and the model itself inside PEFT's wrapper."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def causal_model(model: nn.Module) -> Any:
    """The causal language model itself, inside PEFT's wrapper."""
    unwrap = getattr(model, "get_base_model", None)
    if unwrap is None:
        return model
    return unwrap()


def takes_positions(model: nn.Module) -> bool:
    """Whether the caller may say where each token stands, unlike with Mamba or Bloom."""
    return "position_ids" in inspect.signature(causal_model(model).forward).parameters


def token_positions(attention: Tensor) -> Tensor:
    """Where each token stands among those that are no padding, (B, C) of a mask (B, C)."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


def positions_of(model: nn.Module, attention: Tensor) -> dict[str, Tensor]:
    """The argument that says where each token stands, for models that take it.

    Else they count padding, and with learned or scaled positions read otherwise than without it.

    Args:
        model: a causal language model.
        attention: (B, C), padded on either side.
    """
    if not takes_positions(model):
        return {}
    return {"position_ids": token_positions(attention)}


def sees_all_keys(model: nn.Module) -> bool:
    """Whether each layer attends to all tokens before, at positions that the caller may give.

    Layers of the window, state-space and other kinds have a cache of another class.
    """
    causal = causal_model(model)
    if not takes_positions(model):
        return False
    # There the mask itself says where a token stands.
    if getattr(causal.config, "alibi", False):
        return False
    layers = DynamicCache(config=causal.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
