"""Which ids end an answer, and which generation settings are in force, as in TRL's rollouts.

TRL builds both inside of its trainer; an evaluation has none. transformers fills every setting that
TRL leaves None from the folder's generation_config.json. Log-probs know nothing of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from critique_rl.sampling.tokens import has_response_template

OFF: Mapping[str, Any] = {
    "min_p": 0.0,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "max_time": None,
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "token_healing": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "num_return_sequences": 1,
    "stop_strings": None,
    "return_dict_in_generate": False,
}
"""Setting that changes what is sampled -> its value where it is switched off."""
UNUSABLE = ("num_return_sequences", "stop_strings", "return_dict_in_generate")
"""Settings under which TRL's rollouts fail."""


@dataclass(frozen=True)
class Sampling:
    """Decoding settings. Two evaluations are comparable only if these are the same."""

    temperature: float = 1.0
    """Divides the logits; 0 decodes greedily."""
    top_p: float = 1.0
    """Probability mass that tokens are sampled from, 0 to 1."""
    max_new_tokens: int = 96
    """Longest answer, in tokens."""
    batch: int = 512
    """Sequences per `generate` call."""
    top_k: int = 0
    """Likeliest tokens that are sampled from; 0: all."""
    min_p: float | None = None
    """Least probability of a token, as a share of the likeliest one's. None: the folder's."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that prompt or answer have already."""
    cache_implementation: str | None = None
    """A cache of transformers. None: the folder's."""
    generation_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of `GenerationConfig`, which beat those above."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template."""
    reads_folder: bool = True
    """Whether the folder's settings that are not named here are in force. They are in rollouts of
    transformers' `generate`, and not in those of vLLM or of continuous batching.
    """


def stop_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None
) -> list[int]:
    """Ids that end an answer: the tokenizer's end token, and all that the folder declares.

    Raises:
        ValueError: the tokenizer has no end token.
    """
    # Any: transformers annotates these ids as texts too.
    end: Any = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "the tokenizer has no end token, so no answer would ever end; "
            "set tokenizer.eos_token, and save the tokenizer beside the model"
        )
    declared: Any = getattr(generation_config, "eos_token_id", None)
    if declared is None:
        declared = []
    elif isinstance(declared, int):
        declared = [declared]
    # In TRL's order.
    if end in declared:
        return list(declared)
    return [end, *declared]


def generation_settings(
    sampling: Sampling, tokenizer: PreTrainedTokenizerBase, stops: list[int]
) -> dict[str, Any]:
    """Arguments of `GenerationConfig`, as TRL's trainer builds them.

    Args:
        sampling: decoding settings.
        tokenizer: the policy's, with a pad token.
        stops: ids that end an answer.
    """
    settings: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": stops,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "cache_implementation": sampling.cache_implementation,
    }
    settings.update(sampling.generation_kwargs)
    if not settings["temperature"]:
        settings["do_sample"] = False
        # transformers divides by it even where nothing is drawn.
        settings["temperature"] = 1.0
    return settings


def folder_settings(
    generation_config: GenerationConfig | None, sampling: Sampling
) -> dict[str, Any]:
    """The folder's settings that change what is sampled and that `sampling` leaves in force."""
    if generation_config is None or not sampling.reads_folder:
        return {}
    replaced = {"min_p": sampling.min_p, **sampling.generation_kwargs}
    in_force = {}
    for name, off in OFF.items():
        value = getattr(generation_config, name, None)
        # Empty lists are off too.
        is_on = bool(value) and value != off
        if is_on and replaced.get(name) is None:
            in_force[name] = value
    return in_force


def neutral_config(generation_config: GenerationConfig) -> GenerationConfig:
    """A copy without the settings of `OFF`. Ids, temperature and the rest stay."""
    values = generation_config.to_dict()
    kept = {name: value for name, value in values.items() if name not in OFF}
    return GenerationConfig.from_dict(kept)


def refuse_unusable(generation_config: GenerationConfig | None, sampling: Sampling) -> None:
    """Refuse settings of the folder under which no rollout can be sampled.

    Raises:
        ValueError: one of `UNUSABLE` is in force.
    """
    in_force = folder_settings(generation_config, sampling)
    for name in UNUSABLE:
        if name in in_force:
            raise ValueError(
                f"generation_config.json of the policy sets {name} {in_force[name]}, with which "
                "TRL cannot sample rollouts; set policy.generation_config to neutral"
            )


def record(
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """What an evaluation has to say of its sampler beyond temperature, top_p and length.

    Empty where answers end at the tokenizer's end token alone, and no further setting is in force:
    evaluations of earlier versions, which knew no other case, are then comparable.
    """
    stops = stop_ids(tokenizer, generation_config)
    about: dict[str, Any] = {}
    if len(stops) > 1:
        about["stop_ids"] = sorted(stops)
    settings = folder_settings(generation_config, sampling)
    if sampling.top_k:
        settings["top_k"] = sampling.top_k
    if sampling.min_p:
        settings["min_p"] = sampling.min_p
    folder_penalty = getattr(generation_config, "repetition_penalty", None) or 1.0
    # Earlier versions let the folder's penalty act.
    if sampling.repetition_penalty != 1.0 or folder_penalty != 1.0:
        settings["repetition_penalty"] = sampling.repetition_penalty
    settings.update(sampling.generation_kwargs)
    if settings:
        about["settings"] = settings
    if has_response_template(tokenizer):
        about["response"] = "parsed"
    if sampling.chat_template_kwargs:
        about["chat_template_kwargs"] = dict(sampling.chat_template_kwargs)
    return about
