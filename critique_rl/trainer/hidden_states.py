"""The last hidden states of a causal model, and its head: logits a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl import GRPOTrainer

from critique_rl.trainer.fsdp_weights import full_tensor, reshard
from critique_rl.trainer.sliced_divergence import Head


def causal_model(trainer: GRPOTrainer) -> Any:
    """The unwrapped causal language model, inside DDP's and PEFT's wrappers."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_of(trainer: GRPOTrainer) -> Head:
    """The language-model head as it is now, whole."""
    model = causal_model(trainer)
    reshard(model)  # what FSDP2 has gathered itself it frees, or fills with other weights, later on
    head, softcap = (
        model.get_output_embeddings(),
        getattr(model.config.get_text_config(), "final_logit_softcapping", None),
    )
    bias = getattr(head, "bias", None)
    return Head(full_tensor(head.weight), None if bias is None else full_tensor(bias), softcap)


@contextmanager
def last_hidden_states(trainer: GRPOTrainer) -> Iterator[list[torch.Tensor]]:
    """Within the block, the last hidden states (rows, positions, hidden) of every forward pass of
    the policy are appended to the list it gives.
    """
    seen: list[torch.Tensor] = []
    handle = causal_model(trainer).base_model.register_forward_hook(
        lambda module, inputs, output: seen.append(output.last_hidden_state)
    )
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def no_hidden_states() -> Iterator[list[torch.Tensor]]:
    """In place of `last_hidden_states` where nobody reads them."""
    yield []
