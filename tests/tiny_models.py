"""Random models of the common kinds, small enough for a test: built without a folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
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
    PreTrainedTokenizerFast,
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


def of_letters(
    letters: Sequence[str], positions: int, seed: int
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A policy whose tokens are letters: "<unk>", "<eos>", and one token per character.

    GPT-2, because it computes in double where asked to; Llama's norms stay in float32.
    """
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    torch.manual_seed(seed)
    end = vocabulary["<eos>"]
    config = GPT2Config(
        vocab_size=len(letters),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=positions,
        initializer_range=0.3,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config), fast
