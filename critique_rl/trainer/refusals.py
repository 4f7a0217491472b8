"""Settings that the trainer refuses at construction: each error has the reason and a remedy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Value

from critique_rl.critic.chat import LocalChat, PolicyChat
from critique_rl.tasks.messages import ends_with_assistant, has_parts, prompt_fault, question_of
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.teachers.teacher import SHIFTING_INITS, changed_weights, shifting_inits


def refuse_no_critic(critic: Any) -> None:
    """Refuse an object that cannot critique.

    Raises:
        TypeError: it lacks a name, or the method.
    """
    if callable(getattr(critic, "critique", None)) and isinstance(
        getattr(critic, "name", None), str
    ):
        return
    raise TypeError(
        f"critic: got {critic!r}, expected an object with `name` and `critique(attempts)`; "
        "build_critic({'kind': ...}, task) makes one"
    )


def refuse_present_critic(critic: Any, args: CritiqueGRPOConfig) -> None:
    """Refuse a critic that cannot answer while the policy samples.

    Raises:
        ValueError: `critique_staleness` is 1, and the critic is a model in this process.
    """
    # A noisy critic asks another one.
    asked = getattr(critic, "inner", critic)
    chat = getattr(asked, "chat", None)
    kind = ""
    if isinstance(chat, LocalChat):
        kind = "a model in this process"
    elif isinstance(chat, PolicyChat):
        kind = "the policy itself"
    if args.critique_staleness and kind:
        raise ValueError(
            f"critique_staleness 1: got a critic that is {kind}, expected one that answers while "
            "the policy samples, such as {kind: api}. Serve the model, or set it to 0"
        )


def refuse_unsupported(dataset: Any, options: dict[str, Any]) -> None:
    """Refuse what two phases of sampling cannot do.

    Args:
        dataset: the training set.
        options: keyword arguments of the trainer.

    Raises:
        ValueError: an option brings its own sampling, or the dataset has images or no prompts.
    """
    for name in ("tools", "environment_factory", "rollout_func"):
        if options.get(name) is not None:
            raise ValueError(
                f"{name} cannot be used with a critic: rollouts are sampled in two phases here. "
                f"Leave out {name}, or set critic=None."
            )
    columns = _columns(dataset)
    if columns & {"image", "images"}:
        raise ValueError(
            "a dataset with images cannot be used with a critic (it reads text only). "
            "Drop the column, or set critic=None."
        )
    if "prompt" not in columns:
        raise ValueError(
            f"train_dataset: got the columns {', '.join(sorted(columns))}, "
            "expected one called 'prompt'; rename the column that holds it"
        )


# ---- prompts -------------------------------------------------------------------------------------


def refuse_prompts(dataset: Any, tokenizer: Any, chat_options: Any) -> None:
    """Refuse prompts whose answers cannot be critiqued, and warn of those that TRL reads otherwise
    than one might think. A streamed dataset is checked row by row as it comes (`refuse_prompt`).

    Args:
        dataset: the training set.
        tokenizer: the policy's.
        chat_options: `chat_template_kwargs` of the run.

    Raises:
        ValueError: the first such prompt, with its place.
    """
    if not isinstance(dataset, Dataset):
        return
    column = dataset.features.get("prompt")
    # Plain texts need no look at each row.
    if isinstance(column, Value) and column.dtype in ("string", "large_string"):
        return
    seen_parts = seen_start = False
    for place, row in enumerate(dataset.select_columns(["prompt"])):
        prompt = row["prompt"]
        refuse_prompt(prompt, f"row {place} of train_dataset")
        if not seen_parts and has_parts(prompt):
            seen_parts = True
            _refuse_unreadable_parts(prompt, tokenizer, chat_options)
        if not seen_start and ends_with_assistant(prompt):
            seen_start = True
            warnings.warn(
                f"row {place} of train_dataset: the prompt ends with an assistant message. TRL "
                "closes that turn and opens another one, so the policy does not continue it",
                stacklevel=4,
            )


def refuse_prompt(prompt: Any, place: str) -> None:
    """Refuse a prompt whose answers cannot be critiqued.

    Args:
        prompt: the prompt.
        place: where it stands, in words.

    Raises:
        ValueError: it is neither text nor a conversation with a user's message, or holds images.
    """
    fault = prompt_fault(prompt)
    if fault:
        raise ValueError(f"{place}: prompt: {fault}. Mend the row, or set critic=None")


def _refuse_unreadable_parts(prompt: Any, tokenizer: Any, chat_options: Any) -> None:
    """Refuse lists of parts that the chat template prints as Python, brackets and all.

    Raises:
        ValueError: the text of the question is not in the rendered prompt as it is.
    """
    rendered = tokenizer.apply_chat_template(
        prompt, tokenize=False, add_generation_prompt=True, **chat_options
    )
    is_printed = "'type': 'text'" in rendered and "'type': 'text'" not in question_of(prompt)
    if is_printed:
        raise ValueError(
            "prompt: the content of a message is a list of parts, and the tokenizer's chat "
            "template prints it as Python ([{'type': 'text', ...}]). Write each content as one text"
        )


# ---- columns -------------------------------------------------------------------------------------


def refuse_missing_column(dataset: Any, column: str | None, option: str) -> None:
    """Refuse an option that names a column which the dataset lacks.

    Args:
        dataset: the training set.
        column: name of the column, or None if the option is off.
        option: name of the option.

    Raises:
        ValueError: there is no such column.
    """
    # A streamed dataset may not know its columns.
    if column is None or not getattr(dataset, "column_names", None):
        return
    columns = _columns(dataset)
    if column not in columns:
        raise ValueError(
            f"{option}: got {column!r}, but train_dataset has the columns "
            f"{', '.join(sorted(columns))}; name one that holds a solution"
        )


def refuse_group_wise_baseline(functions: list[Any], args: CritiqueGRPOConfig) -> None:
    """Refuse a reward that compares a group under the baseline of rollouts, which reads the others.

    Raises:
        ValueError: there is one.
    """
    if args.baseline != "rollouts":
        return
    for function in functions:
        if getattr(function, "group_wise", False):
            raise ValueError(
                "baseline rollouts: got a reward function that compares a group "
                f"({getattr(function, '__name__', function)}), whose reward it would ignore; "
                "use baseline union, or leave that function out"
            )


def refuse_split_groups(args: CritiqueGRPOConfig) -> None:
    """Refuse batches in which a group would lie on two ranks, where no rank could judge it.

    Raises:
        ValueError: a rank's rows are no multiple of the group size.
    """
    steps = args.steps_per_generation
    assert steps is not None, "GRPOConfig sets it"
    rank_rows = args.per_device_train_batch_size * steps
    if rank_rows % args.group_size:
        raise ValueError(
            "with a critic whole groups must lie on one rank: got per_device_train_batch_size * "
            f"steps_per_generation = {rank_rows}, "
            f"expected a multiple of num_generations = {args.group_size}"
        )


# ---- a base that is not the base -----------------------------------------------------------------


def refuse_wrapped_base(model: Any, args: CritiqueGRPOConfig) -> None:
    """Refuse to read the base of a model that came with an adapter of a shifting initialisation.

    Nobody can tell whether the adapter has been trained since. For beta, TRL would add a second
    adapter, whose initialisation changes the weights under the first one (peft 0.21).

    Args:
        model: the policy as the user gave it.
        args: settings of the run.

    Raises:
        ValueError: something reads the base.
    """
    inits = shifting_inits(model)
    readers = args.base_readers()
    if inits and readers:
        raise ValueError(
            f"{readers[0]}: the model came with an adapter initialised by {inits[0]!r}, which "
            "changed the weights under it, so the model without it is not the base. Give the model "
            "without an adapter, and the adapter as peft_config with init_lora_weights=True"
        )


def refuse_shifted_base(model: Any, before: Mapping[str, Any], args: CritiqueGRPOConfig) -> None:
    """Refuse to read the base where a new adapter changed the weights under it.

    Teachers keep the adapter as it was at the start where both together are the base
    (`SHIFTING_INITS`). TRL's reference for beta is the model without the adapter.

    Args:
        model: the policy, with the adapter that TRL gave it.
        before: `weight_sample` of the model without it, {} if unknown.
        args: settings of the run.

    Raises:
        ValueError: something reads a base that is not there.
    """
    readers = args.base_readers()
    if not readers or not hasattr(model, "peft_config"):
        return
    inits = shifting_inits(model)
    changed = changed_weights(dict(before), model)
    if not inits and not changed:
        return
    is_kept = bool(inits) and not args.beta
    if is_kept:
        return
    cause = f"init_lora_weights {inits[0]!r}" if inits else f"the adapter (at {changed[0]})"
    raise ValueError(
        f"{readers[0]}: {cause} changed the weights under the adapter, so the model without it is "
        "not the base that would be read. Use init_lora_weights=True, or leave that option out; "
        f"for teachers, {', '.join(SHIFTING_INITS)} are taken too"
    )


# ---- ranks and sharding --------------------------------------------------------------------------


def refuse_sharding(state: Any, args: CritiqueGRPOConfig) -> None:
    """Refuse sharded weights that the terms with a divergence cannot read in full.

    Args:
        state: accelerate's state.
        args: settings of the run.

    Raises:
        ValueError: FSDP1 or DeepSpeed ZeRO-3, with distillation or an anchor.
    """
    sharding = _unreadable_sharding(state)
    if sharding is None:
        return
    for name in ("distill_weight", "refine_anchor_weight"):
        value = getattr(args, name)
        if value:
            raise ValueError(
                f"{name}: got {value} under {sharding}, which gives no gradient of the whole head. "
                "Use DDP, ZeRO-2 or FSDP2, or set it to 0"
            )


def _unreadable_sharding(state: Any) -> str | None:
    """The name of a sharding that gives no gradient of a parameter read outside of its module."""
    deepspeed = state.deepspeed_plugin
    if deepspeed is not None and deepspeed.zero_stage == 3:
        return "DeepSpeed ZeRO-3"
    fsdp = getattr(state, "fsdp_plugin", None)
    if fsdp is not None and fsdp.fsdp_version == 1:
        return "FSDP1"
    return None


def _columns(dataset: Any) -> set[str]:
    return set(getattr(dataset, "column_names", None) or ("prompt",))
