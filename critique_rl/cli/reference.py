"""`docs/reference-config.md` and `docs/reference-api.md`, written from the code: `python -m
critique_rl.cli.reference`.

Defaults and choices are those of the objects that check a pipeline, meanings the texts beside their
fields, signatures and docstrings those of the source. A test holds the committed pages to what is
written now, and lets no key pass without a meaning. Left out: a generator of sites, which would be
a dependency for two pages; GRPOConfig's own fields, which TRL documents.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from critique_rl.analysis import claims
from critique_rl.config.arms import SECTIONS
from critique_rl.config.durable_files import write_text
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.schema import Pipeline as PipelineFile
from critique_rl.config.schema import PlateauConfig, RunConfig, SweepConfig
from critique_rl.critic import build as critic
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.chat import LocalChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.user_critic import UserCritic
from critique_rl.experiment import build as settings
from critique_rl.tasks import isolated_verifiers as worker_verifier
from critique_rl.tasks import rewards
from critique_rl.tasks.user_data import DataOptions
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.trainer import critique_grpo_config as options
from critique_rl.trainer.plateau import PlateauRule
from critique_rl.trainer.presets import PRESETS

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "Written by `python -m critique_rl.cli.reference` from the code; change the code, not this page."
REQUIRED = "*required*"

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
    "critique_rl.objective": (),
    "critique_rl.trainer.presets": (),
    "critique_rl.trainer.plateau": ("PlateauRule", "PlateauDetector", "PlateauCallback"),
    "critique_rl.analysis.compare": ("compare",),
    "critique_rl.analysis.report": ("write_report",),
}
"""What a program may import; (): every public function and class of the module."""

MEMBERS = {
    "CritiqueGRPOTrainer": ("hold_critique", "release_critique", "generated_tokens", "costs"),
    "CritiqueGRPOConfig": ("from_preset", "check_trains"),
}
"""Methods and properties of classes whose others are for TRL, or for the package itself."""

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
"""Kinds of the `reward:` section, and what says what each gives."""
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Any": "",
    "Caps": "section",
}


@dataclass(frozen=True)
class Key:
    """A key of a pipeline: its type and default as a YAML file has them."""

    name: str
    type: str
    default: str
    meaning: str


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        write_text(DOCS / name, text)
        print(DOCS / name)


def pages() -> dict[str, str]:
    """Name of each page -> its text."""
    return {"reference-config.md": config_page(), "reference-api.md": api_page()}


# ---- what the source says ------------------------------------------------------------------------


def class_fields(cls: type) -> dict[str, tuple[str, str | None, str]]:
    """Annotated fields of a class body: name -> (annotation, default as written, the text below
    it).
    """
    [node] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    found: dict[str, tuple[str, str | None, str]] = {}
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and not statement.target.id.startswith("_"):
            below = following.value if isinstance(following, ast.Expr) else None
            text = (
                " ".join(below.value.split())
                if isinstance(below, ast.Constant) and isinstance(below.value, str)
                else ""
            )
            default = (
                re.sub(r"field\(default_factory=(\w+)\)", r"\1()", ast.unparse(statement.value))
                if statement.value
                else None
            )
            found[statement.target.id] = ast.unparse(statement.annotation), default, text
    return found


def keys_of(cls: type, names: Sequence[str] = (), texts_of: type | None = None) -> list[Key]:
    """Keys of a section that a dataclass checks, all of them or those named; a field without a text
    has the one of the same name in `texts_of`.
    """
    written = class_fields(cls)
    others = class_fields(texts_of) if texts_of else {}
    found = []
    for f in fields(cls):
        if f.name in written and (not names or f.name in names):
            annotation, _, text = written[f.name]
            text = text or f.metadata.get("help", "") or others.get(f.name, ("", None, ""))[2]
            found.append(Key(f.name, _type(annotation, f.name, cls), _default(f), text))
    return found


def _type(annotation: str, name: str, cls: type) -> str:
    if cls is options.CritiqueGRPOConfig:
        return _type_of_method(name, annotation)
    if annotation.startswith("Literal") or annotation == "OnLeak":
        choices = (
            ast.literal_eval(annotation.removeprefix("Literal"))
            if annotation != "OnLeak"
            else critic.ON_LEAK
        )
        return ", ".join(f"`{choice}`" for choice in choices)
    kind, optional, _ = annotation.partition(" | None")
    kind = (
        "list"
        if kind.startswith("tuple")
        else "mapping"
        if kind.startswith(("Mapping", "dict"))
        else kind
    )
    words = (
        "section"
        if kind.endswith("Config") or kind == "Prices"
        else " or ".join(TYPES.get(part, part) for part in kind.split(" | "))
    )
    return words + (", or null" if optional and words else "")


def _type_of_method(name: str, annotation: str) -> str:
    """Choices and bounds as `options` checks them."""
    if name in options.CHOICES:
        return ", ".join(f"`{choice}`" for choice in options.CHOICES[name])
    optional = ", or null" if name in options.OPTIONAL else ""
    if name in options.COUNTS:
        return f"whole number from {options.COUNTS[name]}{optional}"
    if name in options.NUMBERS:
        low, high = options.NUMBERS[name]
        low = 0 if low == 1e-12 else low
        ends = [
            f" from {low:g}" if math.isfinite(low) else "",
            f" to {high:g}" if math.isfinite(high) else "",
        ]
        return f"number{' above 0' if options.NUMBERS[name][0] == 1e-12 else ends[0]}{ends[1]}{optional}"
    return TYPES[annotation.removesuffix(" | None")] + (
        ", or null" if annotation.endswith("None") else ""
    )


def _default(f: Any) -> str:
    value = f.default if f.default_factory is MISSING else f.default_factory()
    return REQUIRED if value is MISSING else _yaml({} if is_dataclass(value) else value)


def _yaml(value: Any) -> str:
    """As code; JSON is YAML."""
    return f"`{json.dumps(value)}`"


def _options(
    texts: Mapping[str, str], taken_by: Callable | None, defaults: Mapping[str, Any] | None = None
) -> list[Key]:
    """Keys whose meanings stand in a dict of the code; their defaults are those of what takes them,
    and where that has none, `defaults`.
    """
    parameters = inspect.signature(taken_by).parameters if taken_by else {}
    known = {
        **(defaults or {}),
        **{name: p.default for name, p in parameters.items() if p.default not in (None, p.empty)},
    }
    return [
        Key(name, "", _yaml(known[name]) if name in known else REQUIRED, text)
        for name, text in texts.items()
    ]


# ---- the page of a pipeline's keys ---------------------------------------------------------------


def config_page() -> str:
    """Every key of a pipeline file, a section each."""
    parts = [
        "# Reference: a pipeline file",
        f"{NOTE} Defaults are JSON, which YAML reads; None and False of a meaning are null and false there. Each arm may hold every key of [Run](#run).",
        *(
            part
            for title, intro, keys in sections()
            for part in (f"## {title}", intro, _table(keys) if keys else "")
            if part
        ),
    ]
    return "\n\n".join(parts) + "\n"


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """(title, what stands before the table, keys)."""
    yield "Experiment", "Keys that stand at the top of the file only.", _file_keys()
    yield "Run", "Keys at the top of the file, or in an arm.", keys_of(RunConfig)
    for name, cls in SECTIONS.items():
        yield (
            name,
            _prose(_whole(cls)),
            keys_of(cls, texts_of=PlateauRule if cls is PlateauConfig else None),
        )
        if name == "task":
            yield "task.options of `name: data`", _prose(_whole(DataOptions)), keys_of(DataOptions)
            yield from _verifiers()
    yield "sweep", _prose(_whole(SweepConfig)), keys_of(SweepConfig)
    fixed = [
        f"`{key}` must stay `{json.dumps(value)}`: {why}."
        for key, (value, why) in settings.FIXED.items()
    ]
    yield (
        "trl",
        "Every field of TRL's `GRPOConfig`, untouched; a misspelt one is refused.\n\n"
        + "\n".join(f"- {line}" for line in fixed),
        [],
    )
    yield "method", "Options of ours, beside TRL's.", keys_of(options.CritiqueGRPOConfig)
    yield (
        "preset",
        f"What each sets in `trl` and `method`; explicit keys beat it. {_LINK_PRESETS}",
        [_preset(name) for name in PRESETS],
    )
    yield from _critics()
    yield (
        "reward",
        _LINK_REWARDS,
        [Key(f"kind: {kind}", "", "", _first(of)) for kind, of in REWARDS.items()]
        + _options({"rate": "Of kind random."}, None),
    )
    bounds = f"The bound of a test is one of: {class_fields(claims.Test)['bound'][2]}"
    yield (
        "claim",
        f"{_prose(inspect.getdoc(claims).partition(chr(10) * 2)[2].partition('Left out')[0].rstrip())} {bounds}",
        [],
    )


_LINK_PRESETS = "Equations and differences from the papers are in the [API reference](reference-api.md#critique_rltrainerpresets)."
_LINK_REWARDS = "`{kind: ...}`. Where something else than being right is rewarded, being right is logged beside it."


def _file_keys() -> list[Key]:
    """Keys of the experiment with what a file gets that leaves them out."""
    empty = parse_pipeline("", {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}})
    given = {name: getattr(empty, name) for name in class_fields(PipelineFile)}
    shown = {**given, "arms": {name: {} for name in empty.arms}}
    return [
        Key(key.name, key.type, _yaml(shown[key.name]), key.meaning)
        for key in keys_of(PipelineFile)
        if key.name != "name"
    ]


def _verifiers() -> Iterator[tuple[str, str, list[Key]]]:
    rules = [f"- `{name}`: {_first(rule)}" for name, rule in VERIFIERS.items()]
    intro = (
        "A name, or `{kind: <name>, ...}` with options. `math` and `python` run in a process of their own.\n\n"
        + "\n".join(rules)
    )
    yield "task.verifier", intro, []
    for kind, takes in (
        ("math", worker_verifier.MathVerifier),
        ("python", worker_verifier.user_verifier),
    ):
        yield (
            f"task.verifier of kind {kind}",
            "",
            _options(worker_verifier.KIND_OPTIONS[kind], takes),
        )


def _preset(name: str) -> Key:
    settings_of = ", ".join(
        f"`{key}: {json.dumps(value)}`" for key, value in PRESETS[name]().items()
    )
    return Key(name, "", "", settings_of)


def _critics() -> Iterator[tuple[str, str, list[Key]]]:
    yield (
        "critic",
        "`{kind: ...}`; what each kind tells the policy is in the [README](../../README.md#critics). Kinds not listed here have no options.",
        [],
    )
    yield (
        "critic of kind self, local or api",
        "What is asked, and what becomes of it.",
        keys_of(ChatCritic, critic.CHAT_CRITIC_OPTIONS),
    )
    yield "critic of kind local", _prose(_whole(LocalChat)), keys_of(LocalChat)
    yield "critic of kind api", _prose(_whole(Endpoint)), keys_of(Endpoint)
    yield "critic.caps of kind api", _prose(_whole(Caps)), keys_of(Caps)
    for kind, takes in (("python", UserCritic), ("noisy", None), ("oracle", critic._oracle_words)):
        yield (
            f"critic of kind {kind}",
            "",
            _options(critic.KIND_OPTIONS[kind], takes, {"options": {}}),
        )


def _table(keys: Iterable[Key]) -> str:
    rows = [(f"`{key.name}`", key.type, key.default, _cell(key.meaning)) for key in keys]
    heads = ("key", "type", "default", "meaning")
    used = [i for i in range(4) if any(row[i] for row in rows)]
    lines = [heads, ["---"] * 4, *rows]
    return "\n".join(f"| {' | '.join(line[i] for i in used)} |" for line in lines)


def _cell(text: str) -> str:
    return _prose(" ".join(text.split())).replace("|", "\\|")


# ---- the page of public names --------------------------------------------------------------------


def api_page() -> str:
    """Signature and docstring of every public name, a module a section."""
    intro = f"{NOTE} Options of `CritiqueGRPOConfig` and of critics are in the [reference of a pipeline file](reference-config.md)."
    return (
        "\n\n".join(
            [
                "# Reference: Python",
                intro,
                *(part for name, names in MODULES.items() for part in _module(name, names)),
            ]
        )
        + "\n"
    )


def _module(name: str, names: Sequence[str]) -> Iterator[str]:
    module = importlib.import_module(name)
    yield f"## {name}"
    if not names:
        yield _prose(inspect.getdoc(module))
    for public in names or [
        key for key, value in vars(module).items() if _is_public(key, value, name)
    ]:
        yield from _entry(public, getattr(module, public))


def _is_public(key: str, value: Any, module: str) -> bool:
    return (
        not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module
    )


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}"
    yield f"```text\n{signature(thing)}\n```"
    if text := inspect.getdoc(thing) if _says_itself(thing) else "":
        yield _prose(text)
    if inspect.isclass(thing):
        lines = [
            f"- `{field}`: {_prose(text)}"
            for field, (_, _, text) in class_fields(thing).items()
            if text
        ]
        lines += [
            f"- `.{called}`: {_prose(' '.join(text.split()))}" for called, text in _methods(thing)
        ]
        if lines:
            yield "\n".join(lines)


def _says_itself(thing: Any) -> bool:
    """False where a docstring is not the thing's own: dataclasses make one, classes inherit it."""
    return thing.__doc__ is not None and not thing.__doc__.startswith(f"{thing.__name__}(")


def _methods(cls: type) -> Iterator[tuple[str, str]]:
    """(how it is called, docstring) of methods and properties of the class itself that say what
    they do.
    """
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if (
            inspect.isfunction(function)
            and function.__doc__
            and not name.startswith("_")
            and name in MEMBERS.get(cls.__name__, (name,))
        ):
            yield (
                name if isinstance(value, property) else signature(function),
                inspect.getdoc(function),
            )


def signature(thing: Any) -> str:
    """As the source has it, without the quotes that `inspect` puts around annotations; a dataclass
    by its fields.
    """
    [node] = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return _wrapped(node.name, _arguments(node), returns)
    if thing is options.CritiqueGRPOConfig:
        return f"{node.name}(output_dir, every field of GRPOConfig, and those of reference-config.md, method)"
    if is_dataclass(thing):
        return _wrapped(
            node.name,
            [
                f"{n}: {kind}" + (f" = {value}" if value else "")
                for n, (kind, value, _) in class_fields(thing).items()
            ],
            "",
        )
    made = next(
        (
            each
            for each in node.body
            if isinstance(each, ast.FunctionDef) and each.name == "__init__"
        ),
        None,
    )
    return (
        _wrapped(node.name, _arguments(made), "")
        if made
        else "\n".join([f"class {node.name}", *_body(thing, node)])
    )


def _body(cls: type, node: ast.ClassDef) -> Iterator[str]:
    """What a protocol asks for."""
    yield from (
        f"    {name}: {annotation}" for name, (annotation, _, _) in class_fields(cls).items()
    )
    for each in node.body:
        if not isinstance(each, ast.FunctionDef):
            continue
        member = getattr(cls, each.name)
        if isinstance(member, property):
            yield f"    {each.name}: {ast.unparse(each.returns)}"
        else:
            yield f"    {signature(member)}"


def _arguments(node: ast.FunctionDef) -> list[str]:
    """Each argument as written, without self; `ast` keeps the defaults apart, aligned to the end."""
    whole = node.args
    defaults = [None] * (len(whole.args) - len(whole.defaults)) + whole.defaults
    text = [
        _argument(arg, value)
        for arg, value in zip(whole.args, defaults, strict=True)
        if arg.arg not in ("self", "cls")
    ]
    text += (
        [f"*{_argument(whole.vararg, None)}"] if whole.vararg else ["*"] * bool(whole.kwonlyargs)
    )
    text += [
        _argument(arg, value)
        for arg, value in zip(whole.kwonlyargs, whole.kw_defaults, strict=True)
    ]
    return text + ([f"**{_argument(whole.kwarg, None)}"] if whole.kwarg else [])


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    written = arg.arg + (f": {ast.unparse(arg.annotation)}" if arg.annotation else "")
    return (
        written
        if default is None
        else f"{written}{' = ' if arg.annotation else '='}{ast.unparse(default)}"
    )


def _wrapped(name: str, arguments: Sequence[str], returns: str) -> str:
    line = f"{name}({', '.join(arguments)}){returns}"
    return (
        line
        if len(line) <= 110
        else "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){returns}"])
    )


# ---- Markdown ------------------------------------------------------------------------------------


def _whole(cls: type) -> str:
    """A docstring, "" where the class has none of its own."""
    return inspect.getdoc(cls) if _says_itself(cls) else ""


def _first(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return _prose(" ".join(inspect.getdoc(thing).partition("\n\n")[0].split()))


def _prose(text: str) -> str:
    """Docstrings as Markdown: what it would read as markup stands as it is, but for code and for
    indented lines, which are equations and examples.
    """
    lines = text.split("\n")
    return "\n".join(
        line
        if line.startswith("    ")
        else re.sub(r"(`[^`]*`)|([*<])", lambda m: m[1] or f"\\{m[2]}", line)
        for line in lines
    )


if __name__ == "__main__":
    main()
