"""Types, ranges and choices of TRL's options, which TRL reads unchecked: a wrong one would end the
run at its first step, or train nothing without a word.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError, suggest, type_words
from critique_rl.config.ranges import MOST_COUNT, MOST_SEED, Range, check_values

TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Literal": (bool,),
    "str": (str,),
    "dict": (dict,),
    "list": (list, tuple),
    "None": (type(None),),
    "NoneType": (type(None),),
}
"""Word of an annotation -> types that YAML gives for it."""
WORDS = re.compile(rf"\b({'|'.join(TYPES)})\b")
ITEMS = re.compile(r"(list|dict)\[[^\]]*\]")
"""The part of an annotation that is about what a list or a mapping holds."""
NEVER_NULL = ("max_completion_length", "num_generations")
"""Options that TRL takes without a number, and that a run here cannot do without."""
COUNT = Range(1, MOST_COUNT)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above=True)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SEEDS = Range(0, MOST_SEED)
RANGES: Mapping[str, Range] = {
    "learning_rate": NOT_NEGATIVE,
    "num_train_epochs": POSITIVE,
    "max_steps": Range(-1, MOST_COUNT),
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "label_smoothing_factor": SHARE,
    "save_steps": POSITIVE,
    "save_total_limit": COUNT,
    "seed": SEEDS,
    "data_seed": SEEDS,
    "dataloader_num_workers": Range(0, 1024),
    "ddp_timeout": COUNT,
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "torch_empty_cache_steps": COUNT,
    "num_generations": Range(2, MOST_COUNT),
    "num_generations_eval": COUNT,
    "max_completion_length": COUNT,
    "generation_batch_size": COUNT,
    "steps_per_generation": COUNT,
    "num_iterations": COUNT,
    "temperature": POSITIVE,
    "top_p": POSITIVE_SHARE,
    "top_k": Range(-1, MOST_COUNT),
    "min_p": SHARE,
    "repetition_penalty": POSITIVE,
    "beta": NOT_NEGATIVE,
    "epsilon": NOT_NEGATIVE,
    "epsilon_high": NOT_NEGATIVE,
    "delta": NOT_NEGATIVE,
    "sapo_temperature_neg": POSITIVE,
    "sapo_temperature_pos": POSITIVE,
    "vespo_k_pos": NOT_NEGATIVE,
    "vespo_k_neg": NOT_NEGATIVE,
    "vespo_lambda_pos": NOT_NEGATIVE,
    "vespo_lambda_neg": NOT_NEGATIVE,
    "neftune_noise_alpha": NOT_NEGATIVE,
    "router_aux_loss_coef": NOT_NEGATIVE,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": COUNT,
    "top_entropy_quantile": SHARE,
    "entropy_coef": NOT_NEGATIVE,
    "vllm_server_port": Range(1, 65535),
    "vllm_group_port": Range(1, 65535),
    "vllm_server_timeout": POSITIVE,
    "vllm_gpu_memory_utilization": POSITIVE_SHARE,
    "vllm_max_model_length": COUNT,
    "vllm_tensor_parallel_size": COUNT,
    "vllm_importance_sampling_clip_max": NOT_NEGATIVE,
    "vllm_importance_sampling_clip_min": NOT_NEGATIVE,
    "vllm_importance_sampling_cap": NOT_NEGATIVE,
}
"""Option -> its range. None passes where TRL takes it."""
OBJECTS = ("chat_template_kwargs", "generation_kwargs", "model_init_kwargs")
"""Options that are a mapping, or the text of one."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "scale_rewards": ("group", "batch", "none"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": (
        "token_truncate",
        "token_mask",
        "sequence_truncate",
        "sequence_mask",
    ),
}
"""Option -> its values: TRL names others at the first loss only."""


def check_trl_values(options: Mapping[str, Any], known: Sequence[dataclasses.Field[Any]]) -> None:
    """Check the values of a `trl:` section.

    Args:
        options: The section, whose names are known.
        known: The fields of GRPOConfig.

    Raises:
        ConfigError: At the first value that TRL would meet too late.
    """
    if "output_dir" in options:
        raise ConfigError("trl.output_dir: checkpoints lie in the run's folder; give --out instead")
    annotations = {field.name: str(field.type) for field in known}
    for name, value in options.items():
        _check_type(name, value, annotations[name])
        _check_value(name, value)
    if options.get("max_steps") == 0:
        raise ConfigError("trl.max_steps: got 0, expected 1 or more, or -1 for no limit of steps")
    steps = options.get("save_steps", 1)
    # Below 1 it is a share of the run.
    if steps >= 1 and steps != int(steps):
        raise ConfigError(f"trl.save_steps: got {steps}, expected a whole number, or a share of 1")


def _check_type(name: str, value: Any, annotation: str) -> None:
    """Raises ConfigError for a value of another type than the field's."""
    words = set(WORDS.findall(ITEMS.sub(r"\1", annotation)))
    if not words - {"None", "NoneType"}:
        # Only Python makes such an object.
        return
    if value is None and name in NEVER_NULL:
        raise ConfigError(f"trl.{name}: got null, expected a whole number")
    expected: list[type] = []
    for word in words:
        expected += TYPES[word]
    # scale_rewards: TRL's own documentation has true and false too.
    if name == "scale_rewards":
        expected.append(bool)
    is_bool = isinstance(value, bool)
    fits = bool in expected if is_bool else isinstance(value, tuple(expected))
    if fits:
        return
    takes_number = bool(words & {"int", "float"})
    if isinstance(value, str) and takes_number:
        raise ConfigError(
            f"trl.{name}: got the text {value!r}, expected a number such as 1e-4, without quotes"
        )
    expected_words = " or ".join(type_words(word) for word in sorted(words))
    raise ConfigError(f"trl.{name}: got {value!r}, expected {expected_words}")


def _check_value(name: str, value: Any) -> None:
    """Raises ConfigError for a number out of its range, or a word that TRL does not know."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    allowed = RANGES.get(name)
    if not is_number or allowed is None:
        # Numbers without a range here, and what lists and mappings hold, are finite at least.
        check_values({name: value})
    if name in OBJECTS and isinstance(value, str):
        _check_object(name, value)
    if allowed is not None and is_number and not allowed.holds(value):
        raise ConfigError(f"trl.{name}: got {value!r}, expected {allowed.words()}")
    choices = CHOICES.get(name)
    if choices is not None and isinstance(value, str) and value not in choices:
        raise ConfigError(f"trl.{name}: got {value!r}; {suggest(value, choices)}")


def _check_object(name: str, text: str) -> None:
    """Raises ConfigError for a text that is no JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"trl.{name}: got {text!r}, expected a mapping, such as {{a: 1}}")
