"""The key-value cache of prompts that are sampled from several times: each is read once.

Evaluations draw n answers per problem. `generate` would read the prompt n times.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from critique_rl.sampling.attention import causal_model, sees_all_keys, token_positions
from critique_rl.sampling.settings import Sampling, folder_settings


def can_share(model: Any, sampling: Sampling) -> bool:
    """Whether prompts may be read once, and `generate` go on from their cache.

    Only where each layer keeps all keys and values, and no setting asks for another cache, another
    search or a second pass over the prompt.
    """
    further = sampling.generation_kwargs or sampling.cache_implementation
    if further or folder_settings(model.generation_config, sampling):
        return False
    parameters = inspect.signature(causal_model(model).forward).parameters
    return "logits_to_keep" in parameters and sees_all_keys(model)


def shared_cache(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, row_prompts: Sequence[int]
) -> DynamicCache:
    """The cache of all prompt tokens but the last, one row per answer.

    Args:
        model: the policy, in evaluation mode.
        input_ids: (prompts, length), padded on the left.
        attention_mask: (prompts, length); 0 at padding.
        row_prompts: (answers,); index of each answer's prompt.
    """
    cache = DynamicCache(config=model.config)
    # As `generate` counts positions.
    positions = token_positions(attention_mask)
    model(
        input_ids=input_ids[:, :-1],
        attention_mask=attention_mask[:, :-1],
        position_ids=positions[:, :-1],
        past_key_values=cache,
        use_cache=True,
        # Logits of each place would take places x vocabulary.
        logits_to_keep=1,
    )
    rows = torch.tensor(row_prompts, device=input_ids.device)
    cache.batch_select_indices(rows)
    return cache
