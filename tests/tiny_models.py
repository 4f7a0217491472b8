"""Random models of the common kinds, small enough for a test: built without a folder."""

from __future__ import annotations

from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    # Sharp enough that completions differ in probability.
    "initializer_range": 0.5,
}


def llama(attention: str = "sdpa") -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation=attention))


def qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SIZES))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))


def windowed() -> PreTrainedModel:
    """A layer sees only the last two tokens."""
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=2))


def alibi() -> PreTrainedModel:
    """The mask says where a token stands."""
    config = FalconConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, alibi=True
    )
    return FalconForCausalLM(config)
