"""The reference page of public Python names: signatures and docstrings of the source."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from critique_rl.cli.reference.source_text import (
    class_fields,
    docstring,
    has_docstring,
    signature,
    to_markdown,
)
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig

MODULES: dict[str, tuple[str, ...]] = {
    "critique_rl": ("CritiqueGRPOTrainer", "CritiqueGRPOConfig"),
    "critique_rl.types": ("Attempt", "Verdict", "Critique", "Refinement", "Usage"),
    "critique_rl.critic.build": ("build_critic",),
    "critique_rl.critic.contract": ("Critic", "Chat"),
    "critique_rl.critic.controls": (
        "RetryCritic",
        "TemplateCritic",
        "OracleCritic",
        "ShuffledCritic",
        "NoisyCritic",
    ),
    "critique_rl.critic.chat_critic": ("ChatCritic",),
    "critique_rl.critic.user_critic": ("UserCritic",),
    "critique_rl.critic.chat": ("ApiChat", "LocalChat", "PolicyChat"),
    "critique_rl.critic.api.endpoint": ("Endpoint", "Caps"),
    "critique_rl.tasks.rewards": (),
    "critique_rl.tasks.verifiers": (),
    "critique_rl.tasks.isolated_verifiers": (),
    "critique_rl.tasks.load": ("load_task", "Task"),
    "critique_rl.policy": ("load_policy",),
    "critique_rl.experiment.evaluate": ("judge",),
    "critique_rl.metrics": (),
    "critique_rl.intervals": (
        "share_interval",
        "share_contrast_interval",
        "crossed_interval",
        "split_seeds",
        "joint_level",
        "seeds_to_decide",
        "sign_flip_p",
        "Interval",
    ),
    "critique_rl.objective": (),
    "critique_rl.trainer.presets": (),
    "critique_rl.trainer.plateau": ("PlateauRule", "PlateauDetector", "PlateauCallback"),
    "critique_rl.analysis.compare": ("compare",),
    "critique_rl.analysis.report": ("write_report",),
    "critique_rl.analysis.paper.files": ("write_paper", "PaperFiles"),
    "critique_rl.analysis.paper.curves": ("PaperCurves",),
    "critique_rl.analysis.paper.setup": ("Setup", "EvaluationSetup", "ArmSetup"),
}
"""Modules that a program may import, with their names; (): every public function and class."""

MEMBERS = {
    "CritiqueGRPOTrainer": ("hold_critique", "release_critique", "generated_tokens", "costs"),
    "CritiqueGRPOConfig": ("from_preset", "check_trains"),
}
"""Methods and properties of classes whose others are for TRL, or for the package itself."""


def api_page(note: str) -> str:
    """The page: a section per module, an entry per public name.

    Args:
        note: The sentence that says where the page comes from.
    """
    intro = (
        f"{note} Options of `CritiqueGRPOConfig` and of critics are in the "
        "[reference of a pipeline file](reference-config.md)."
    )
    parts = ["# Reference: Python", intro]
    for name, names in MODULES.items():
        parts += _module_section(name, names)
    return "\n\n".join(parts) + "\n"


def _module_section(name: str, names: Sequence[str]) -> Iterator[str]:
    module = importlib.import_module(name)
    yield f"## {name}"
    if not names:
        yield to_markdown(docstring(module))
        names = [key for key, value in vars(module).items() if _is_public(key, value, name)]
    for public in names:
        yield from _entry(public, getattr(module, public))


def _is_public(key: str, value: Any, module: str) -> bool:
    if key.startswith("_"):
        return False
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    # Names that a module imports have their entry where they are defined.
    return value.__module__ == module


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}"
    yield f"```text\n{_signature(thing)}\n```"
    if has_docstring(thing):
        yield to_markdown(docstring(thing))
    if inspect.isclass(thing):
        members = [*_field_lines(thing), *_method_lines(thing)]
        if members:
            yield "\n".join(members)


def _signature(thing: Any) -> str:
    if thing is CritiqueGRPOConfig:
        # Its fields are the other page's table, and GRPOConfig's are TRL's.
        inherited = "every field of GRPOConfig, and those of reference-config.md, method"
        return f"CritiqueGRPOConfig(output_dir, {inherited})"
    return signature(thing)


def _field_lines(cls: type) -> Iterator[str]:
    """A line per field with a docstring."""
    for name, field in class_fields(cls).items():
        if field.text:
            yield f"- `{name}`: {to_markdown(field.text)}"


def _method_lines(cls: type) -> Iterator[str]:
    """A line per public method or property of the class itself that has a docstring."""
    for name, value in vars(cls).items():
        # A class method and a property hold their function inside.
        function = getattr(value, "__func__", getattr(value, "fget", value))
        is_listed = name in MEMBERS.get(cls.__name__, (name,))
        if name.startswith("_"):
            continue
        if not is_listed:
            continue
        if not inspect.isfunction(function):
            continue
        text = inspect.getdoc(function)
        if function.__doc__ and text:
            call = name if isinstance(value, property) else signature(function)
            yield f"- `.{call}`: {to_markdown(' '.join(text.split()))}"
