"""The reference page of a pipeline file: a table of keys per section.

Defaults and choices are those of the objects that check a pipeline. Meanings are the texts beside
their fields.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from critique_rl.analysis.claims import claim as claims
from critique_rl.cli.reference.source_text import (
    class_fields,
    docstring,
    first_paragraph,
    to_markdown,
)
from critique_rl.config.arms import SECTIONS
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.schema import Pipeline as PipelineFile
from critique_rl.config.schema import PlateauConfig, RunConfig, SweepConfig
from critique_rl.critic import build as critic
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.chat import LocalChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.leaks import ON_LEAK
from critique_rl.critic.user_critic import UserCritic
from critique_rl.experiment.build import FIXED
from critique_rl.tasks import isolated_verifiers, rewards
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.trainer import critique_grpo_config as method
from critique_rl.trainer.plateau import PlateauRule
from critique_rl.trainer.presets import PRESETS
from critique_rl.trainer.teachers.section import SERVED_OPTIONS, TeacherModel

REQUIRED = "*required*"
HEADS = ("key", "type", "default", "meaning")
REWARDS: dict[str, Any] = {
    "correct": rewards.correct_value,
    "rlcr": rewards.rlcr_value,
    "rlcr_released": rewards.rlcr_released_value,
    "truthrl": rewards.truthrl_value,
    "random": rewards.random_reward,
    "format_only": rewards.format_value,
    "incorrect_only": rewards.incorrect_value,
    "majority_vote": rewards.MajorityVote,
}
"""Reward kind -> the function whose docstring describes it."""
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "None | str | list[str]": "text or list of texts",
    "None | str | dict[str, Any]": "`live`, `ema`, `base`, or section",
    "Any": "",
    "Caps": "section",
}
"""Annotation -> the word for it in the tables."""
SMALLEST_POSITIVE = 1e-12
"""The lower bound that stands for "above 0" in the checks of `method`."""
NAMED_CHOICES = {"OnLeak": ON_LEAK}
"""Aliases of a Literal, whose annotation does not hold the choices."""


@dataclass(frozen=True)
class Key:
    """A key of a pipeline file."""

    name: str
    type: str
    """In words; "" where any value is taken."""
    default: str
    """As a file would give it, in backquotes; `REQUIRED` where there is none."""
    meaning: str


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    intro: str
    """Markdown before the table; "" for none."""
    keys: Sequence[Key] = ()


def config_page(note: str) -> str:
    """The page.

    Args:
        note: The sentence that says where the page comes from.
    """
    intro = (
        f"{note} Defaults are JSON, which YAML reads; None and False of a meaning are null and "
        "false there. Each arm may hold every key of [Run](#run)."
    )
    parts = ["# Reference: a pipeline file", intro]
    for section in sections():
        parts.append(f"## {section.title}")
        if section.intro:
            parts.append(section.intro)
        if section.keys:
            parts.append(_table(section.keys))
    return "\n\n".join(parts) + "\n"


def _table(keys: Iterable[Key]) -> str:
    """The keys as a Markdown table; columns without content are left out."""
    rows = []
    for key in keys:
        meaning = _cell(key.meaning)
        rows.append((f"`{key.name}`", key.type, key.default, meaning))
    columns = list(zip(HEADS, *rows, strict=True))
    used = [(head, "---", *cells) for head, *cells in columns if any(cells)]
    lines = [f"| {' | '.join(cells)} |" for cells in zip(*used, strict=True)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    # A bar would end the cell.
    return to_markdown(" ".join(text.split())).replace("|", "\\|")


def sections() -> Iterator[Section]:
    """All sections of the page, in order."""
    yield Section("Experiment", "Keys that stand at the top of the file only.", _file_keys())
    yield Section("Run", "Keys at the top of the file, or in an arm.", keys_of(RunConfig))
    for name, cls in SECTIONS.items():
        # The rule has the meanings of the numbers that the section hands on to it.
        texts_of = PlateauRule if cls is PlateauConfig else None
        yield _dataclass_section(name, cls, keys_of(cls, texts_of=texts_of))
        if name == "task":
            yield _dataclass_section("task.options of `name: data`", DataOptions)
            yield from _verifier_sections()
    yield _dataclass_section("sweep", SweepConfig)
    yield _trl_section()
    method_keys = keys_of(method.CritiqueGRPOConfig)
    yield Section("method", "Options of ours, beside TRL's.", method_keys)
    yield _dataclass_section("method.distill_teacher, another model", TeacherModel)
    served = keys_of(Endpoint, SERVED_OPTIONS)
    intro = (
        "A server that gives log-probs of a text ([method](method.md#a-teacher-from-elsewhere))."
    )
    yield Section("method.distill_teacher behind a server", intro, served)
    yield _preset_section()
    yield from _critic_sections()
    yield _reward_section()
    yield _claim_section()


def _dataclass_section(title: str, cls: type, keys: Sequence[Key] | None = None) -> Section:
    """A section that a dataclass checks; its docstring stands before the table."""
    if keys is None:
        keys = keys_of(cls)
    return Section(title, to_markdown(docstring(cls)), keys)


def _file_keys() -> list[Key]:
    """Keys of the experiment; defaults are the values of a file that leaves them out."""
    empty = parse_pipeline("name", {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}})
    keys = []
    for key in keys_of(PipelineFile):
        if key.name == "name":
            continue
        value = getattr(empty, key.name)
        if key.name == "arms":
            # An arm that differs in nothing is {} in the file.
            value = {name: {} for name in empty.arms}
        keys.append(Key(key.name, key.type, _yaml(value), key.meaning))
    return keys


def _verifier_sections() -> Iterator[Section]:
    rules = [f"- `{name}`: {first_paragraph(rule)}" for name, rule in VERIFIERS.items()]
    intro = (
        "A name, or `{kind: <name>, ...}` with options. "
        "`math`, `python`, `command` and `tests` run in processes of their own."
    )
    yield Section("task.verifier", "\n".join([intro, "", *rules]))
    builders: dict[str, Callable[..., Any]] = {
        "math": isolated_verifiers.MathVerifier,
        "python": isolated_verifiers.user_verifier,
        "command": isolated_verifiers.command_verifier,
    }
    for kind, builder in builders.items():
        keys = _option_keys(isolated_verifiers.KIND_OPTIONS[kind], builder)
        yield Section(f"task.verifier of kind {kind}", "", keys)


def _trl_section() -> Section:
    lines = [
        f"- `{key}` must stay `{json.dumps(value)}`: {reason}."
        for key, (value, reason) in FIXED.items()
    ]
    intro = "Every field of TRL's `GRPOConfig`, untouched; a misspelt one is refused."
    return Section("trl", "\n".join([intro, "", *lines]))


def _preset_section() -> Section:
    keys = []
    for name, preset in PRESETS.items():
        options = []
        for key, value in preset().items():
            options.append(f"`{key}: {json.dumps(value)}`")
        keys.append(Key(name, "", "", ", ".join(options)))
    intro = (
        "What each sets in `trl` and `method`; explicit keys beat it. "
        "Equations and differences from the papers are in the "
        "[API reference](reference-api.md#critique_rltrainerpresets)."
    )
    return Section("preset", intro, keys)


def _critic_sections() -> Iterator[Section]:
    intro = (
        "`{kind: ...}`; what each kind tells the policy is in the "
        "[README](../../README.md#critics). Kinds not listed here have no options."
    )
    yield Section("critic", intro)
    yield Section(
        "critic of kind self, local or api",
        "What is asked, and what becomes of it.",
        keys_of(ChatCritic, critic.CHAT_CRITIC_OPTIONS),
    )
    yield _dataclass_section("critic of kind local", LocalChat)
    yield _dataclass_section("critic of kind api", Endpoint)
    yield _dataclass_section("critic.caps of kind api", Caps)
    builders: dict[str, Callable[..., Any] | None] = {
        "python": UserCritic,
        "noisy": None,
        "oracle": critic.oracle_words,
        "shuffled": critic._build_shuffled,
    }
    for kind, builder in builders.items():
        keys = _option_keys(critic.KIND_OPTIONS[kind], builder, {"options": {}})
        yield Section(f"critic of kind {kind}", "", keys)


def _reward_section() -> Section:
    keys = [
        Key(f"kind: {kind}", "", "", first_paragraph(reward)) for kind, reward in REWARDS.items()
    ]
    keys += _option_keys({"rate": "Of kind random."}, None)
    intro = (
        "`{kind: ...}`. Where something else than being right is rewarded, "
        "being right is logged beside it."
    )
    return Section("reward", intro, keys)


def _claim_section() -> Section:
    """The section from the docstring of `claims`: without its first paragraph, to "Left out"."""
    _, _, text = docstring(claims).partition("\n\n")
    text, _, _ = text.partition("Left out")
    bounds = class_fields(claims.Test)["bound"].text
    intro = f"{to_markdown(text.rstrip())} The bound of a test is one of: {bounds}"
    return Section("claim", intro)


def keys_of(cls: Any, names: Sequence[str] = (), texts_of: type | None = None) -> list[Key]:
    """The keys of a section that a dataclass checks.

    Args:
        cls: The dataclass.
        names: Fields to list; () for all of them.
        texts_of: A class with the texts of fields that have none in `cls`.
    """
    written = class_fields(cls)
    other_texts = class_fields(texts_of) if texts_of else {}
    keys = []
    for f in fields(cls):
        # Inherited fields are not written in the class: TRL's, for `method`.
        if f.name not in written or (names and f.name not in names):
            continue
        # transformers has the meaning of a field in its metadata.
        text = written[f.name].text or f.metadata.get("help", "")
        if not text and f.name in other_texts:
            text = other_texts[f.name].text
        type_words = _type_words(written[f.name].annotation, f.name, cls)
        keys.append(Key(f.name, type_words, _default(f), text))
    return keys


def _option_keys(
    texts: Mapping[str, str],
    builder: Callable[..., Any] | None,
    defaults: Mapping[str, Any] | None = None,
) -> list[Key]:
    """Keys whose meanings stand in a dict of the code.

    Args:
        texts: Key -> meaning.
        builder: The function that takes them, whose defaults are shown.
        defaults: Shown where `builder` has none.
    """
    known = dict(defaults or {})
    parameters = inspect.signature(builder).parameters if builder else {}
    for name, parameter in parameters.items():
        if parameter.default not in (None, parameter.empty):
            known[name] = parameter.default
    keys = []
    for name, text in texts.items():
        default = _yaml(known[name]) if name in known else REQUIRED
        keys.append(Key(name, "", default, text))
    return keys


def _type_words(annotation: str, name: str, cls: type) -> str:
    """The type of a field in words, or its choices."""
    if cls is method.CritiqueGRPOConfig:
        return _method_type_words(name, annotation)
    if annotation in NAMED_CHOICES:
        return _choices(NAMED_CHOICES[annotation])
    if annotation.startswith("Literal"):
        return _choices(ast.literal_eval(annotation.removeprefix("Literal")))
    kind, optional, _ = annotation.partition(" | None")
    words = _kind_words(kind)
    if optional and words:
        return f"{words}, or null"
    return words


def _kind_words(kind: str) -> str:
    if kind.startswith("tuple"):
        return "list"
    if kind.startswith(("Mapping", "dict")):
        return "mapping"
    if kind.endswith("Config") or kind == "Prices":
        return "section"
    return " or ".join(TYPES.get(part, part) for part in kind.split(" | "))


def _choices(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _method_type_words(name: str, annotation: str) -> str:
    """The type of an option of `method`, with the choices and bounds that it is checked by."""
    if name in method.CHOICES:
        return _choices(method.CHOICES[name])
    is_optional = name in method.OPTIONAL
    if name in method.COUNTS:
        words = f"whole number from {method.COUNTS[name]}"
    elif name in method.NUMBERS:
        words = f"number{_bounds(*method.NUMBERS[name])}"
    else:
        words = TYPES[annotation.removesuffix(" | None")]
        is_optional = annotation.endswith("None")
    if is_optional:
        return f"{words}, or null"
    return words


def _bounds(low: float, high: float) -> str:
    """The bounds of a number in words; "" for an infinite one."""
    words = ""
    if low == SMALLEST_POSITIVE:
        words = " above 0"
    elif math.isfinite(low):
        words = f" from {low:g}"
    if math.isfinite(high):
        words += f" to {high:g}"
    return words


def _default(f: Field[Any]) -> str:
    value = f.default
    if f.default_factory is not MISSING:
        value = f.default_factory()
    if value is MISSING:
        return REQUIRED
    if is_dataclass(value):
        # The keys of a section have their own table.
        return _yaml({})
    return _yaml(value)


def _yaml(value: Any) -> str:
    """A value as code; JSON is YAML."""
    return f"`{json.dumps(value)}`"
