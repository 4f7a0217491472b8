"""Policies whose next token depends on the last one only, so that what they answer is known.

Every policy answers "The result is 5" with probability .6, and else 7, and ends its turn. Behind a
missed end it goes on with another number. The kinds differ in tokenizer, template and
generation_config.json, as public models do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

RIGHT = 0.6
"""Probability of the right answer, 5."""
LESS = RIGHT**3 / (RIGHT**3 + 1 - RIGHT)
"""The same where a penalty of 3 acts on the 5, which the prompt holds: log p becomes 3 log p."""
ANSWERS = ("The result is 5", "The result is 7", "Sum = 5", "Sum = 7")
"""All that a policy may answer."""
QUESTIONS = 60
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>", "<turn>", "<end_of_turn>", "<think>", "</think>")
WORDS = ("user", "assistant", "surely", "The", "result", "is", "Sum", "=", "5", "7", "9")
NUMBERED = tuple(f"q{i}" for i in range(QUESTIONS))
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}END{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant{% if sure %} surely{% endif %}{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<turn> assistant",
    "fields": {
        "reasoning_content": {
            "open": "<think>",
            "close_pattern": r"</think>\s*",
            "content": "text",
        },
        "content": {"close_pattern": r"\s*<end_of_turn>\s*", "content": "text"},
    },
}
"""It takes thoughts out of an answer."""


@dataclass(frozen=True)
class Kind:
    """One kind of policy folder, and what a user sets for it."""

    name: str
    end: str = "</s>"
    """The token that ends a turn."""
    eos: str = "</s>"
    """The tokenizer's end token."""
    pad: str | None = "<pad>"
    """The pad token; None: the folder has none, and the end token pads."""
    bos: str = ""
    """Who puts <s> before a prompt: template, tokenizer, or nobody ("")."""
    adds_eos: bool = False
    """Whether the tokenizer ends every text with its end token."""
    metaspace: bool = False
    """Whether words begin with a space of their own, as in SentencePiece."""
    chat: bool = True
    """Conversations, or plain texts."""
    thinks: bool = False
    """Whether a thought with a wrong number stands between the answer and its end."""
    is_parsed: bool = True
    """Whether the tokenizer has a template that takes the thought out of an answer."""
    opens_thoughts: bool = False
    """Whether the chat template opens the thoughts."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """What generation_config.json sets; tokens by their texts."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """What the user sets in `trl:`."""
    neutral: bool = False
    """Whether the user sets policy.generation_config to neutral."""
    right: float = RIGHT
    """Share of right answers."""
    tokens: int = 5
    """Tokens of every answer, the end token included."""


KINDS = (
    Kind("own pad"),
    Kind("pad == eos", pad="</s>"),
    Kind("no pad", pad=None),
    Kind(
        "two eos, own pad",
        end="<end_of_turn>",
        generation={"eos_token_id": ["</s>", "<end_of_turn>"]},
    ),
    Kind(
        "two eos, pad == eos",
        end="<end_of_turn>",
        pad="</s>",
        generation={"eos_token_id": ["<end_of_turn>"]},
    ),
    Kind(
        "two eos, pad is the second",
        end="<end_of_turn>",
        pad="<end_of_turn>",
        generation={"eos_token_id": ["</s>", "<end_of_turn>"]},
    ),
    # Behind "surely" the policy says "Sum = 5" with probability .9.
    Kind("chat kwargs", trl={"chat_template_kwargs": {"sure": True}}, right=0.9, tokens=4),
    Kind("response template", end="<end_of_turn>", eos="<end_of_turn>", thinks=True, tokens=8),
    Kind("BOS by template", bos="template"),
    Kind("BOS by tokenizer", bos="tokenizer", chat=False),
    Kind("plain text, no BOS", chat=False),
    Kind("add-eos", bos="tokenizer", adds_eos=True, chat=False),
    Kind("Metaspace", bos="tokenizer", metaspace=True, chat=False),
    Kind("Metaspace, chat", metaspace=True),
    Kind("repetition_penalty in the folder", generation={"repetition_penalty": 3.0}),
    Kind("top_k and temperature in the folder", generation={"top_k": 1, "temperature": 0.1}),
    # .4 is under .8 of .6.
    Kind("min_p in the folder", generation={"min_p": 0.8}, right=1.0),
    Kind("min_p in the folder, neutral", generation={"min_p": 0.8}, neutral=True),
    Kind("suppress_tokens in the folder", generation={"suppress_tokens": ["5"]}, right=0.0),
    Kind("top_k in trl", trl={"top_k": 1}, right=1.0),
    Kind("min_p in trl", trl={"min_p": 0.8}, right=1.0),
    Kind("repetition_penalty in trl", trl={"repetition_penalty": 3.0}, right=LESS),
    Kind("generation_kwargs in trl", trl={"generation_kwargs": {"typical_p": 0.1}}, right=1.0),
)

UNPARSED = Kind("thoughts, not parsed", thinks=True, is_parsed=False, right=0.0, tokens=8)
"""Rewards read its thought's 9, as TRL's do; a critique is what stands outside of the thoughts."""


def bigrams(kind: Kind) -> dict[str, dict[str, float]]:
    """Token -> the probability of each next one. What is not listed goes on with 7."""
    begin = {"The": 1.0}
    after_number = {"<think>": 1.0} if kind.thinks else {kind.end: 1.0}
    table = {
        "assistant": begin,
        "surely": {"Sum": 1.0},
        "The": {"result": 1.0},
        "result": {"is": 1.0},
        "is": {"5": RIGHT, "7": 1 - RIGHT},
        "Sum": {"=": 1.0},
        "=": {"5": 0.9, "7": 0.1},
        "5": after_number,
        "7": after_number,
        "<think>": {"9": 1.0},
        "9": {"</think>": 1.0},
        "</think>": {kind.end: 1.0},
    }
    if kind.adds_eos:
        # The policy has learned to answer behind the end token that its tokenizer writes.
        table["</s>"] = begin
    elif not kind.chat:
        # Behind a first word with its space, as TRL tokenizes a plain prompt; not behind another.
        mark = "\u2581" if kind.metaspace else ""
        table.update({mark + word: begin for word in NUMBERED})
    if kind.metaspace:
        table = {**table, **_spaced(table)}
    return table


def _spaced(table: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The same table over words with their space, which follow each other."""
    spaced = {}
    for token, following in table.items():
        spaced[_with_space(token)] = {_with_space(word): p for word, p in following.items()}
        spaced[token] = spaced[_with_space(token)]
    return spaced


def _with_space(token: str) -> str:
    return token if token in SPECIAL or token.startswith("\u2581") else f"\u2581{token}"


def build_tokenizer(kind: Kind) -> PreTrainedTokenizerFast:
    """A word tokenizer of this kind."""
    words = [*WORDS, *NUMBERED]
    if kind.metaspace:
        words += [_with_space(word) for word in words]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if kind.metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    before = "<s> " if kind.bos == "tokenizer" else ""
    after = " </s>" if kind.adds_eos else ""
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{before}$A{after}", special_tokens=[("<s>", 2), ("</s>", 3)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=kind.eos,
        pad_token=kind.pad,
        unk_token="<unk>",
        additional_special_tokens=[
            "<turn>",
            "<end_of_turn>",
            "<think>",
            "</think>",
            "</s>",
            "<pad>",
        ],
        clean_up_tokenization_spaces=False,
    )
    start = "<s>" if kind.bos == "template" else ""
    fast.chat_template = start + TEMPLATE.replace("END", kind.end)
    if kind.opens_thoughts:
        fast.chat_template += "{% if add_generation_prompt %} <think>{% endif %}"
    if kind.thinks and kind.is_parsed:
        fast.response_template = RESPONSE_TEMPLATE
    return fast


def build_model(kind: Kind, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama whose layer adds nothing, so that the head reads the last token's embedding alone."""
    tokens = len(tokenizer)
    width = tokens + tokens % 2
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    ids = tokenizer.get_vocab()
    logps = torch.full((tokens, tokens), -30.0)
    logps[:, ids[_with_space("7")] if kind.metaspace else ids["7"]] = 0.0
    for token, following in bigrams(kind).items():
        row = logps[ids[token]]
        row.fill_(-30.0)
        for word, probability in following.items():
            row[ids[word]] = math.log(probability)
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(tokens, width))
        # The norm makes each embedding's length the root of the width.
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :tokens] = logps.T / math.sqrt(width)
    settings = dict(kind.generation)
    for name in ("eos_token_id", "suppress_tokens"):
        if name in settings:
            settings[name] = tokenizer.convert_tokens_to_ids(settings[name])
    model.generation_config = GenerationConfig(
        **{
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "do_sample": True,
            **settings,
        }
    )
    return model


def save_policy(kind: Kind, folder: Path) -> Path:
    """Write the policy of this kind as a folder of transformers."""
    tokenizer = build_tokenizer(kind)
    build_model(kind, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(kind: Kind) -> list[Any]:
    """Prompts in the format of this kind; those with spaces of their own are one word."""
    texts = [f"5 {word}" for word in NUMBERED]
    if kind.metaspace and not kind.chat:
        texts = list(NUMBERED)
    if not kind.chat:
        return texts
    return [[{"role": "user", "content": text}] for text in texts]


def write_rows(kind: Kind, path: Path) -> Path:
    """Write prompts and answers as JSON lines."""
    rows = [json.dumps({"prompt": prompt, "answer": "5"}) for prompt in prompts(kind)]
    path.write_text("\n".join(rows))
    return path
