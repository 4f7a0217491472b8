"""Failed attempts -> critiques, one each, in order; a critic never raises for a single item and
never sets a reward.

Kinds: `none`, `retry`, `indicative`, `ground_truth`, `oracle`, `shuffled`, `noisy` (`controls`),
`self`, `local`, `api` (`chat_critic`), `python` (`user_critic`). A call that fails stays failed:
there is no fallback to another kind, which would silently turn one arm of a comparison into
another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, read_section, suggest
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.chat import ApiChat, LocalChat, PolicyChat
from critique_rl.critic.chat_critic import CHOICES, KNOWS, SCOPES, ChatCritic
from critique_rl.critic.contract import Chat, Critic
from critique_rl.critic.controls import (
    NoisyCritic,
    OracleCritic,
    RetryCritic,
    ShuffledCritic,
    TemplateCritic,
)
from critique_rl.critic.leaks import ON_LEAK
from critique_rl.critic.user_critic import build_user_critic
from critique_rl.prompts import template_names
from critique_rl.tasks.task import Task
from critique_rl.types import Attempt

CHATS: dict[str, type | None] = {"self": None, "local": LocalChat, "api": Endpoint}
"""Kinds whose critiques a model writes, and whose fields are its options."""
CHAT_CRITIC_OPTIONS = ("template", "knows", "scope", "votes", "choose", "on_leak", "longest")
"""Options of ChatCritic that a pipeline may set; the others are those of its chat."""
KIND_OPTIONS = {
    "oracle": {"reworded": "true: in words that the embedded base never read (`lab/chain`)."},
    "noisy": {
        "critic": "The critic whose words are mixed with wrong ones: a section such as {kind: oracle}.",
        "wrong": "Share of critiques, from 0 to 1, that are the checker's words on another problem.",
    },
    "python": {
        "target": "module:name of a class, or of a function of one attempt, found in the folder that the command runs in or among installed packages.",
        "options": "Arguments of the class, or of the function beside the attempt.",
        "deadline": "Seconds for all attempts of a generation.",
        "on_leak": "A critique that gives the answer away: keep, redact or drop.",
    },
}
"""Options of kinds that are no chat, and what they mean."""
ALLOWED_VALUES = {
    "knows": tuple(KNOWS),
    "scope": SCOPES,
    "choose": tuple(CHOICES),
    "on_leak": ON_LEAK,
}


def build_critic(
    spec: Mapping[str, Any], task: Task, seed: int = 0, folder: Path | None = None
) -> Critic | None:
    """A critic from a config's `critic:` section; None for kind "none". ConfigError for unknown
    kinds and keys.

    `folder` keeps what an api critic answered and cost; without one that lasts as long as the
    critic.
    """
    options = {key: value for key, value in spec.items() if key != "kind"}
    kinds: dict[str, Callable[..., Critic | None]] = {
        "none": lambda: None,
        "retry": lambda: RetryCritic(),
        "indicative": lambda: TemplateCritic("indicative", f"{task.prompts}indicative"),
        "ground_truth": lambda: TemplateCritic(
            "ground_truth", f"{task.prompts}ground_truth", needs_answer=True
        ),
        "oracle": lambda reworded=False: OracleCritic(
            _oracle_words(task, reworded), task.is_answer
        ),
        "shuffled": lambda: ShuffledCritic(_oracle_words(task), task.train, seed),
        "noisy": lambda critic, wrong: NoisyCritic(
            _inner(critic, task, seed, folder),
            ShuffledCritic(_oracle_words(task), task.train, seed),
            _share(wrong),
            seed,
        ),
        "python": lambda target, options=None, **own: build_user_critic(
            str(target), options or {}, task.is_answer, **own
        ),
        **{
            name: lambda name=name, **given: _chat_critic(name, task, given, folder)
            for name in CHATS
        },
    }
    kind = str(spec.get("kind"))
    if kind not in kinds:
        raise ConfigError(f"critic: unknown kind {kind!r}; {suggest(kind, kinds)}")
    of_chat = {
        name: (*CHAT_CRITIC_OPTIONS, *(f.name for f in fields(cls))) if cls else CHAT_CRITIC_OPTIONS
        for name, cls in CHATS.items()
    }
    check_keys(options, {**KIND_OPTIONS, **of_chat}.get(kind, ()), f"critic {kind}")
    _check_values(options, f"critic {kind}")
    try:
        return kinds[kind](**options)
    except ConfigError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"critic {kind}: {error}") from error


def _check_values(options: Mapping[str, Any], where: str) -> None:
    for name, allowed in ALLOWED_VALUES.items():
        if name in options and options[name] not in allowed:
            raise ConfigError(
                f"{where}, {name}: got {options[name]!r}; {suggest(str(options[name]), allowed)}"
            )
    for name in ("votes", "longest", "deadline"):
        value = options.get(name, 1)
        if (
            not isinstance(value, (int, float) if name == "deadline" else int)
            or isinstance(value, bool)
            or value <= 0
        ):
            raise ConfigError(
                f"{where}, {name}: got {value!r}, expected a number above 0"
                + ("" if name == "deadline" else ", a whole one")
            )


def _chat_critic(
    kind: str, task: Task, options: Mapping[str, Any], folder: Path | None
) -> ChatCritic:
    worded = {name: options[name] for name in CHAT_CRITIC_OPTIONS if name in options}
    worded.setdefault(
        "template", f"{task.prompts}critique" + ("_group" if worded.get("scope") == "group" else "")
    )
    if worded["template"] not in template_names():
        raise ConfigError(
            f"critic {kind}, template: no template {worded['template']!r}; {suggest(worded['template'], template_names())}"
        )
    chat = _chat(
        kind,
        {name: value for name, value in options.items() if name not in CHAT_CRITIC_OPTIONS},
        folder,
    )
    return ChatCritic(chat, name=kind, is_answer=task.is_answer, **worded)


def _chat(kind: str, options: dict[str, Any], folder: Path | None) -> Chat:
    if kind == "self":
        return PolicyChat()
    if kind == "local":
        return read_section(LocalChat, options, "critic local")
    if "caps" in options:
        options["caps"] = read_section(Caps, options["caps"], "critic api, caps")
    endpoint = read_section(Endpoint, options, "critic api")
    if folder is not None:
        endpoint.key()  # a run that lacks it is refused before it trains
    return ApiChat(endpoint, folder)


def _inner(spec: Any, task: Task, seed: int, folder: Path | None) -> Critic:
    if not isinstance(spec, Mapping) or spec.get("kind") in (None, "none", "self", "noisy"):
        raise ConfigError(
            f"critic noisy, critic: got {spec!r}, expected another critic's section, such as {{kind: oracle}}"
        )
    return build_critic(spec, task, seed, folder)


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigError(
            f"critic noisy, wrong: got {value!r}, expected the share of wrong critiques, from 0 to 1"
        )
    return float(value)


def _oracle_words(task: Task, reworded: Any = False) -> Callable[[Attempt], str]:
    if not isinstance(reworded, bool):
        raise ConfigError(f"critic oracle, reworded: got {reworded!r}, expected true or false")
    if task.oracle is None:
        raise ConfigError(
            f"task {task.name} has no oracle (no checker of its own that explains); use another critic, such as {{kind: api, base_url: ...}}"
        )
    if reworded and task.reworded is None:
        raise ConfigError(
            f"critic oracle, reworded: task {task.name} has no other words for its critiques; lab/chain has"
        )
    return task.reworded if reworded else task.oracle
