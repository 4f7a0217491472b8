"""From TRL's arguments to the decoding settings of its rollouts, and warnings about them.

TRL keeps them in its trainer, which evaluations of saved weights do not have.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from transformers import GenerationConfig

from critique_rl.sampling.settings import Sampling, folder_settings, refuse_unusable
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig

GENERATION_FIELDS = frozenset(GenerationConfig().to_dict())
"""Settings that transformers samples by."""
DROPOUTS = (
    "activation_dropout",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "dropout",
    "embd_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "resid_pdrop",
)
"""Names of the probability of dropout in configs of transformers."""


class SamplingWarning(NamedTuple):
    """A setting under which rollouts are not what their log-probs or the evaluation say."""

    finding: str
    advice: str

    def __str__(self) -> str:
        return f"{self.finding}. {self.advice}"


def rollout_sampling(options: Mapping[str, Any]) -> Sampling:
    """The decoding settings of rollouts under TRL's arguments; what is missing has TRL's default.

    Args:
        options: name of an argument -> value; others than those of sampling are ignored.
    """
    values: dict[str, Any] = {}
    for field in fields(CritiqueGRPOConfig):
        values[field.name] = field.default
    values.update(options)
    further = _mapping(values["generation_kwargs"])
    max_new_tokens = further.pop("max_new_tokens", values["max_completion_length"])
    if values["use_vllm"]:
        # vLLM's own settings mean nothing to transformers; `_warn_vllm` names them.
        further = {name: value for name, value in further.items() if name in GENERATION_FIELDS}
    return Sampling(
        temperature=values["temperature"],
        top_p=values["top_p"],
        max_new_tokens=int(max_new_tokens),
        top_k=values["top_k"],
        min_p=values["min_p"],
        repetition_penalty=values["repetition_penalty"],
        cache_implementation=values["cache_implementation"],
        generation_kwargs=further,
        chat_template_kwargs=_mapping(values["chat_template_kwargs"]),
        # Both backends sample by TRL's arguments alone.
        reads_folder=not (values["use_vllm"] or values["use_transformers_continuous_batching"]),
    )


def sampling_warnings(
    options: Mapping[str, Any], generation_config: Any, model_config: Any
) -> list[SamplingWarning]:
    """What a user has to know of how rollouts are sampled; mostly nothing.

    Args:
        options: TRL's arguments.
        generation_config: the policy's, or None.
        model_config: the policy's.
    """
    checks = [
        _warn_folder(options, generation_config),
        _warn_dropout(options, model_config),
        _warn_vllm(options),
    ]
    return [warning for warning in checks if warning is not None]


def check_policy_sampling(options: Mapping[str, Any], policy: Any) -> None:
    """Warn of how a trainer's policy is sampled.

    Args:
        options: TRL's arguments.
        policy: the model.

    Raises:
        ValueError: TRL cannot sample rollouts with the policy's generation config.
    """
    refuse_unusable(policy.generation_config, rollout_sampling(options))
    for warning in sampling_warnings(options, policy.generation_config, policy.config):
        # The line that builds the trainer.
        warnings.warn(str(warning), stacklevel=3)


def _warn_folder(options: Mapping[str, Any], generation_config: Any) -> SamplingWarning | None:
    in_force = folder_settings(generation_config, rollout_sampling(options))
    if not in_force:
        return None
    words = ", ".join(f"{name} {value}" for name, value in in_force.items())
    return SamplingWarning(
        f"generation_config.json of the policy sets {words}: rollouts and evaluations are sampled "
        "so, and log-probs know nothing of it",
        "policy.generation_config=neutral switches it off in both; TRL itself replaces "
        "temperature, top_p, top_k and repetition_penalty only",
    )


def _warn_dropout(options: Mapping[str, Any], model_config: Any) -> SamplingWarning | None:
    acting = {}
    for name in DROPOUTS:
        value = getattr(model_config, name, None)
        if value:
            acting[name] = value
    if not acting or options.get("disable_dropout"):
        return None
    words = ", ".join(f"{name} {value}" for name, value in acting.items())
    return SamplingWarning(
        f"the policy has dropout ({words}): TRL samples rollouts with it, evaluations without",
        "trl.disable_dropout=true makes them alike",
    )


def _warn_vllm(options: Mapping[str, Any]) -> SamplingWarning | None:
    if not options.get("use_vllm"):
        return None
    further = _mapping(options.get("generation_kwargs"))
    left_out = [name for name in further if name not in GENERATION_FIELDS]
    if not left_out:
        return None
    return SamplingWarning(
        f"trl.generation_kwargs: vLLM samples rollouts by {', '.join(left_out)}, which evaluations "
        "by transformers do not know",
        "leave it out, or read shares of rollouts and of evaluations as different things",
    )


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping option of TRL, which may also be JSON text or None."""
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value or {})
