"""Settings that the trainer refuses at construction: each error has the reason and a remedy."""

from __future__ import annotations

from typing import Any

from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig


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
