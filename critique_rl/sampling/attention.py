"""What a causal language model's layers attend to, and the model itself inside PEFT's wrapper."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
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
