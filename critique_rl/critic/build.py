"""A `critic:` section of a pipeline -> the critic that it describes.

Kinds: `none`; `retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `noisy` (`controls`);
`self`, `local`, `api` (`chat_critic` with a `chat`); `python` (`user_critic`). Left out: fallbacks.
A critic of another kind in place of one that fails would silently turn one arm of a comparison into
another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.chat import ApiChat, LocalChat, PolicyChat
from critique_rl.critic.chat_critic import CHOICES, KNOWS_COLUMN, SCOPES, ChatCritic
from critique_rl.critic.contract import Chat, Critic
from critique_rl.critic.controls import (
    NoisyCritic,
    OracleCritic,
    RetryCritic,
    ShuffledCritic,
    TemplateCritic,
)
from critique_rl.critic.feedback import SHOWS, ShuffledFeedback, explanation_fault, feedback_words
from critique_rl.critic.leaks import ON_LEAK
from critique_rl.critic.user_critic import UserCritic, build_user_critic
from critique_rl.prompts import template_names
from critique_rl.tasks.task import Task
from critique_rl.types import Attempt

CHATS: dict[str, type | None] = {"self": None, "local": LocalChat, "api": Endpoint}
"""Kinds whose critiques a model writes -> the dataclass whose fields are its options."""
CHAT_CRITIC_OPTIONS = ("template", "knows", "scope", "votes", "choose", "on_leak", "longest")
"""Options of ChatCritic that a pipeline may set, beside those of its chat."""
SHOW_WORDS = (
    "What the verifier's verdict tells: values (its reason), message (the error alone), name "
    "(which test failed) or verdict; null: the task's checker, or values where it has none."
)
KIND_OPTIONS = {
    "oracle": {
        "reworded": "true: in words that the embedded base never read (`lab/chain`).",
        "show": SHOW_WORDS,
    },
    "shuffled": {"show": SHOW_WORDS},
    "noisy": {
        "critic": "The critic whose words are mixed with wrong ones: a section such as "
        "{kind: oracle}.",
        "wrong": "Share of critiques, from 0 to 1, that are the checker's words on another "
        "problem.",
    },
    "python": {
        "target": "module:name of a class, or of a function of one attempt, found in the folder "
        "that the command runs in or among installed packages.",
        "options": "Arguments of the class, or of the function beside the attempt.",
        "deadline": "Seconds for all attempts of a generation.",
        "on_leak": "A critique that gives the answer away: keep, redact or drop.",
    },
}
"""Options of the other kinds -> their meaning, which the reference of a pipeline shows."""
KINDS = ("none", "retry", "indicative", "ground_truth", "oracle", "shuffled", "noisy", "python")
ALLOWED_VALUES = {
    "knows": tuple(KNOWS_COLUMN),
    "scope": SCOPES,
    "choose": tuple(CHOICES),
    "on_leak": ON_LEAK,
}
POSITIVE: dict[str, tuple[type, ...]] = {
    "votes": (int,),
    "longest": (int,),
    "deadline": (int, float),
}
"""Options that are numbers above 0 -> their types."""


def build_critic(
    spec: Mapping[str, Any], task: Task, seed: int = 0, folder: Path | None = None
) -> Critic | None:
    """Build the critic of a `critic:` section.

    Args:
        spec: the section: `kind` and the options of that kind.
        task: has the oracle, the verifier and the prompts.
        seed: seed of the controls that draw.
        folder: keeps the answers and the spending of an api critic; None: they last as long as it.

    Returns:
        The critic; None for the kind "none".

    Raises:
        ConfigError: an unknown kind or key, or a value that cannot work.
    """
    kind = str(spec.get("kind"))
    options = {key: value for key, value in spec.items() if key != "kind"}
    known_kinds = (*KINDS, *CHATS)
    if kind not in known_kinds:
        raise ConfigError(f"critic: unknown kind {kind!r}; {suggest(kind, known_kinds)}")
    check_keys(options, _known_options(kind), f"critic {kind}")
    _check_values(options, f"critic {kind}")
    try:
        return _build_kind(kind, options, task, seed, folder)
    except ConfigError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        # A missing option is a TypeError of the function that takes it.
        raise ConfigError(f"critic {kind}: {error}") from error


def _build_kind(
    kind: str, options: dict[str, Any], task: Task, seed: int, folder: Path | None
) -> Critic | None:
    match kind:
        case "none":
            return None
        case "retry":
            return RetryCritic()
        case "indicative":
            return TemplateCritic(kind, f"{task.prompts}indicative")
        case "ground_truth":
            return TemplateCritic(kind, f"{task.prompts}ground_truth", needs_answer=True)
        case "oracle":
            return OracleCritic(oracle_words(task, **options), task.is_answer)
        case "shuffled":
            return _build_shuffled(task, seed, **options)
        case "noisy":
            return _build_noisy(task, seed, folder, **options)
        case "python":
            return _build_python(task, **options)
    return _build_chat_critic(kind, options, task, folder)


def _known_options(kind: str) -> Iterable[str]:
    if kind not in CHATS:
        return KIND_OPTIONS.get(kind, {})
    settings = CHATS[kind]
    chat_options = [f.name for f in fields(settings)] if settings else []
    return (*CHAT_CRITIC_OPTIONS, *chat_options)


def option_defaults(spec: Mapping[str, Any], prompts: str) -> dict[str, Any]:
    """The defaults of the options of a critic's kind; options without one are left out.

    Args:
        spec: The section.
        prompts: Where the task's templates lie, its `Task.prompts`.
    """
    kind = spec.get("kind")
    defaults: dict[str, Any] = {}
    if kind == "oracle":
        defaults = {"reworded": False, "show": None}
    elif kind == "shuffled":
        defaults["show"] = None
    elif kind == "python":
        defaults = {"options": None, **_field_defaults(UserCritic)}
    elif kind in CHATS:
        is_group = spec.get("scope") == "group"
        template = f"{prompts}{'critique_group' if is_group else 'critique'}"
        settings = CHATS[kind]
        chat_defaults = _field_defaults(settings) if settings else {}
        defaults = {**chat_defaults, **_field_defaults(ChatCritic), "template": template}
    known = set(_known_options(kind)) if kind in (*KINDS, *CHATS) else set()
    return {name: value for name, value in defaults.items() if name in known}


def _field_defaults(kind: type) -> dict[str, Any]:
    defaults = {}
    for item in fields(kind):
        if item.default_factory is not MISSING:
            defaults[item.name] = item.default_factory()
        elif item.default is not MISSING:
            defaults[item.name] = item.default
    return defaults


def _check_values(options: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for a value that is not among the allowed ones, or no number above 0."""
    for name, allowed in ALLOWED_VALUES.items():
        if name in options and options[name] not in allowed:
            raise ConfigError(
                f"{where}, {name}: got {options[name]!r}; {suggest(str(options[name]), allowed)}"
            )
    for name, types in POSITIVE.items():
        value = options.get(name, 1)
        # YAML's true is an int in Python.
        is_number = isinstance(value, types) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            detail = "" if float in types else ", a whole one"
            raise ConfigError(f"{where}, {name}: got {value!r}, expected a number above 0{detail}")


def _build_python(task: Task, target: Any, options: Any = None, **settings: Any) -> Critic:
    return build_user_critic(str(target), options or {}, task.is_answer, **settings)


def _build_chat_critic(
    kind: str, options: Mapping[str, Any], task: Task, folder: Path | None
) -> ChatCritic:
    """A critic of kind self, local or api. Raises ConfigError for an unknown template."""
    critic_options: dict[str, Any] = {}
    chat_options: dict[str, Any] = {}
    for name, value in options.items():
        target = critic_options if name in CHAT_CRITIC_OPTIONS else chat_options
        target[name] = value
    is_group = critic_options.get("scope") == "group"
    default_template = "critique_group" if is_group else "critique"
    template = critic_options.setdefault("template", f"{task.prompts}{default_template}")
    if template not in template_names():
        raise ConfigError(
            f"critic {kind}, template: no template {template!r}; "
            f"{suggest(template, template_names())}"
        )
    chat = _build_chat(kind, chat_options, folder)
    return ChatCritic(chat, name=kind, is_answer=task.is_answer, **critic_options)


def _build_chat(kind: str, options: dict[str, Any], folder: Path | None) -> Chat:
    if kind == "self":
        return PolicyChat()
    if kind == "local":
        local_chat: LocalChat = read_section(LocalChat, options, "critic local")
        return local_chat
    if "caps" in options:
        options["caps"] = read_section(Caps, options["caps"], "critic api, caps")
    endpoint: Endpoint = read_section(Endpoint, options, "critic api")
    if folder is not None:
        # A run without its key is refused before it trains.
        endpoint.key()
    return ApiChat(endpoint, folder)


def _build_noisy(
    task: Task, seed: int, folder: Path | None, critic: Any, wrong: Any
) -> NoisyCritic:
    """Raises ConfigError for an inner critic that cannot be mixed, or a share out of range."""
    # Not `self`: the trainer lends its policy to the outermost critic only.
    unfit = (None, "none", "self", "noisy")
    if not isinstance(critic, Mapping) or critic.get("kind") in unfit:
        raise ConfigError(
            f"critic noisy, critic: got {critic!r}, expected another critic's section, "
            "such as {kind: oracle}"
        )
    is_number = isinstance(wrong, int | float) and not isinstance(wrong, bool)
    if not is_number or not 0 <= wrong <= 1:
        raise ConfigError(
            f"critic noisy, wrong: got {wrong!r}, expected the share of wrong critiques, "
            "from 0 to 1"
        )
    inner = build_critic(critic, task, seed, folder)
    assert inner is not None  # only the kind "none" is no critic
    other = _build_shuffled(task, seed)
    return NoisyCritic(inner, other, float(wrong), seed)


def _build_shuffled(task: Task, seed: int, show: Any = None) -> Critic:
    """The oracle's words on another problem, or a verifier's on another attempt."""
    if show is None and task.oracle is not None:
        return ShuffledCritic(oracle_words(task), task.train, seed)
    return ShuffledFeedback(oracle_words(task, show=show), seed)


def oracle_words(task: Task, reworded: Any = False, show: Any = None) -> Callable[[Attempt], str]:
    """The words of the task's checker, or of its verifier.

    Args:
        task: Has the checker and the verifier.
        reworded: The checker's words in another wording.
        show: What of the verifier's verdict is told, one of `feedback.SHOWS`; None: the checker's
            words, or `values` where there is no checker.

    Raises:
        ConfigError: If the task has neither, or for another value.
    """
    if not isinstance(reworded, bool):
        raise ConfigError(f"critic oracle, reworded: got {reworded!r}, expected true or false")
    if show is not None and show not in SHOWS:
        raise ConfigError(f"critic oracle, show: got {show!r}; {suggest(str(show), SHOWS)}")
    if show is not None and reworded:
        raise ConfigError("critic oracle: got both reworded and show, expected one of them")
    if show is None and task.oracle is not None:
        return _checker_words(task, task.oracle, reworded)
    fault = explanation_fault(task)
    if fault:
        raise ConfigError(
            f"task {task.name} has no oracle: no checker of its own that explains, and {fault}. "
            "Try the verifier with critique-rl judge, return Verdict('wrong', reason=...) from a "
            "verifier of yours, or use another critic, such as {kind: api, base_url: ...}"
        )
    return feedback_words(show or "values")


def _checker_words(
    task: Task, words: Callable[[Attempt], str], reworded: bool
) -> Callable[[Attempt], str]:
    """Raises ConfigError where a task has no other wording."""
    if not reworded:
        return words
    if task.reworded_oracle is None:
        raise ConfigError(
            f"critic oracle, reworded: task {task.name} has no other words for its critiques; "
            "lab/chain has"
        )
    return task.reworded_oracle
