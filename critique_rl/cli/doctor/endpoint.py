"""The doctor's check of an endpoint: its key, one short answer, and the context of its model; of a
teacher behind a server the log-probs of a text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_rl.cli.doctor.checks import Line
from critique_rl.config.schema import Pipeline
from critique_rl.config.secrets import base_url_fault, without_key
from critique_rl.config.terminal import say

if TYPE_CHECKING:
    from critique_rl.critic.api.endpoint import Endpoint
    from critique_rl.critic.contract import Reply

ENDPOINT_OPTIONS = (
    "base_url",
    "model",
    "api_key_env",
    "extra_body",
    "temperature",
    "top_p",
    "max_tokens",
    "strict_model",
)
"""Options of an api critic that shape its requests: the check sends what the run would send."""
SHORT_ANSWER = 16
PROBE_SECONDS = 15.0
"""Deadline of the short answer, whatever those of the run are."""
MODELS_SECONDS = 10.0
SLOW_SECONDS = 8
SMALL_CONTEXT = 4096
CONTEXT_KEYS = ("max_model_len", "context_length", "context_window", "n_ctx", "n_ctx_train")
"""Names that servers give to the context of a model in /models."""
ADVICE = {
    "the answer names": (
        "strict_model refuses it: set model to the name that the answers bear, if it is the one "
        "you mean"
    ),
    "it redirects": "set base_url to the address it names, if your texts may go there",
    "insufficient_quota": (
        "the account has no credit or quota left: add some, or wait for the next period; "
        "fewer calls at a time do not help"
    ),
    ": set ": "the server does not take a setting: write what the reason names under `critic:`",
    "401": "the key is wrong for this address: check the variable, and base_url",
    "402": "the account has no credit left: add some",
    "403": "this key may not use this model",
    "404": (
        "no such model or path: base_url ends in the version (/v1), "
        "and --model is a name from /models"
    ),
    "429": "the account is at its limit: lower concurrency, set requests_per_minute",
    "connection": "nothing answers there: start the server, check host and port",
    "timeout": (
        "it took the connection and did not answer: a cold or overloaded model; try again, and "
        "raise attempt_deadline, deadline and step_deadline if it is only slow"
    ),
    "step deadline": "it accepts but does not answer in time: a cold or overloaded model",
}
"""Part of the reason of a failed call -> advice; the first one that fits is given."""


def check_endpoint(name: str, options: Mapping[str, Any]) -> Iterator[Line]:
    """Check the key, ask for one short answer, and look up the model's context.

    Args:
        name: The endpoint's name in the lines, such as "critic of arm critique".
        options: Those of `ENDPOINT_OPTIONS`.
    """
    try:
        endpoint = _short_endpoint(options)
    except (TypeError, ValueError) as error:
        address = str(options.get("base_url"))
        if base_url_fault(address):
            address = "base_url (not shown: it may hold a key)"
        yield Line(name, "fail", address, str(error))
        return
    key_line = _check_key(name, endpoint)
    yield key_line
    if key_line.status == "fail":
        return
    from critique_rl.critic.chat import ApiChat

    say(f"{name}: asking {endpoint.base_url} for a word, {PROBE_SECONDS:g} s at most")
    start = time.monotonic()
    question = [{"role": "user", "content": "Reply with the word ready."}]
    [reply] = ApiChat(endpoint).answer([question])
    seconds = time.monotonic() - start
    # An empty or cut answer is one: the server works.
    if reply.unanswered:
        finding = reply.reason
        if reply.reason in ("timeout", "step deadline"):
            finding = (
                f"{reply.reason}: {endpoint.base_url} gave no answer of {endpoint.model!r} within "
                f"{PROBE_SECONDS:g} s"
            )
        yield Line(f"{name}: answer", "fail", finding, failure_advice(reply.reason))
        return
    yield _check_latency(name, seconds)
    yield _check_model(name, endpoint, reply)
    yield _check_finish_reason(name, reply)
    yield _check_usage(name, reply)
    yield _check_context(name, endpoint)


def _short_endpoint(options: Mapping[str, Any]) -> Endpoint:
    """The endpoint for one short call: no second try, nothing kept.

    Raises:
        ValueError: Options that cannot be used; TypeError for unknown ones.
    """
    from critique_rl.critic.api.deadlines import MAX_CLOSING_SECONDS
    from critique_rl.critic.api.endpoint import Endpoint

    max_tokens: int | None = SHORT_ANSWER
    # OpenAI's reasoning models refuse max_tokens; a null has it not sent at all.
    if options.get("max_tokens", SHORT_ANSWER) is None:
        max_tokens = None
    one_call = {
        "max_tokens": max_tokens,
        "attempts": 1,
        "attempt_deadline": PROBE_SECONDS,
        "deadline": PROBE_SECONDS,
        # A part of it is kept for closing connections.
        "step_deadline": PROBE_SECONDS + 2 * MAX_CLOSING_SECONDS,
        "cache": False,
        "length_retry_factor": 1.0,
    }
    return Endpoint(**{**options, **one_call})


def _check_key(name: str, endpoint: Endpoint) -> Line:
    variable = f"${endpoint.api_key_env}"
    is_set = bool(os.environ.get(endpoint.api_key_env, "").strip())
    try:
        endpoint.key()
    except ValueError as error:
        state = "cannot be sent" if is_set else "is not set"
        return Line(f"{name}: key", "fail", f"{variable} {state}", str(error))
    if is_set:
        return Line(f"{name}: key", "ok", f"{variable} is set")
    unset = "is not set; servers on this machine mostly want none"
    return Line(f"{name}: key", "ok", f"{variable} {unset}")


def _check_latency(name: str, seconds: float) -> Line:
    finding = f"{seconds:.1f} s for up to {SHORT_ANSWER} tokens"
    if seconds > SLOW_SECONDS:
        advice = "raise attempt_deadline, deadline and step_deadline"
        return Line(f"{name}: latency", "warn", finding, advice)
    return Line(f"{name}: latency", "ok", finding)


def _check_model(name: str, endpoint: Endpoint, reply: Reply) -> Line:
    """Whether the answer names the model that was asked for."""
    what = f"{name}: model of the answer"
    if not reply.model:
        return Line(what, "ok", endpoint.model)
    finding = f"asked for {endpoint.model!r}, the answer names {reply.model!r}"
    advice = (
        "such answers are taken and counted as other_model: set model to that name if it is the "
        "one you mean, or strict_model: true to refuse all others"
    )
    return Line(what, "warn", finding, advice)


def _check_finish_reason(name: str, reply: Reply) -> Line:
    what = f"{name}: finish_reason"
    if reply.status == "ok" and not reply.reason:
        return Line(what, "ok", f"stop; it said {reply.text[:40]!r}")
    if reply.reason == "length" and not reply.text:
        return Line(
            what,
            "warn",
            "length, nothing but thoughts",
            "a reasoning model: give max_tokens for its thoughts too, 4096 or more",
        )
    if reply.reason == "empty":
        advice = "check the model's name, and that it is a chat model"
        return Line(what, "warn", "an empty answer", advice)
    if reply.reason == "unclear_thoughts":
        advice = "have the server separate thoughts from answers (vLLM: --reasoning-parser)"
        return Line(what, "warn", "nobody can tell its thoughts from its answer", advice)
    if reply.reason in ("refusal", "tool_call", "content_filter"):
        advice = "ask another model, or one without filters and tools"
        return Line(what, "warn", f"no text: {reply.reason}", advice)
    if reply.reason != "length":
        code = reply.reason.partition(":")[0]
        advice = (
            f"an answer that was cut cannot be told from a whole one; its text is used, and {code} "
            "is counted among the notes of critiques"
        )
        return Line(what, "warn", f"{reply.reason}; it said {reply.text[:40]!r}", advice)
    return Line(what, "ok", f"length; it said {reply.text[:40]!r}")


def _check_usage(name: str, reply: Reply) -> Line:
    if not reply.usage.estimated:
        return Line(f"{name}: usage", "ok", "counted by the server")
    advice = "what a call may cost at most, by its bytes, is counted instead"
    return Line(f"{name}: usage", "warn", "not reported", advice)


def _check_context(name: str, endpoint: Endpoint) -> Line:
    """Whether the model is in /models, and the context that the server states there."""
    from critique_rl.critic.api.failures import failure_reason

    what = f"{name}: context"
    try:
        models = _list_models(endpoint)
    except Exception as error:
        # `transformers serve`, for one, answers 500 here where there is no cache of the Hub.
        words = failure_reason(error, endpoint.key())
        if isinstance(error, TimeoutError):
            words = f"not within {MODELS_SECONDS:g} s"
        finding = f"/models did not answer ({words})"
        return Line(what, "warn", finding, "make sure that prompt and max_tokens fit the model")
    if endpoint.model not in models:
        listed = ", ".join(sorted(models)[:5])
        return Line(
            f"{name}: model", "warn", f"{endpoint.model!r} is not in /models", f"it lists {listed}"
        )
    size = _context_size(models[endpoint.model])
    if size is None:
        unknown = "not stated; make sure that prompt and max_tokens fit the model"
        return Line(what, "ok", unknown)
    if size < SMALL_CONTEXT:
        advice = "long attempts will not fit: lower the critic's `longest` and max_tokens"
        return Line(what, "warn", f"{size} tokens", advice)
    return Line(what, "ok", f"{size} tokens")


def _list_models(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """The server's /models: id -> entry."""
    from critique_rl.critic.api.client import list_models
    from critique_rl.critic.api.loop import start_in_thread

    models: list[dict[str, Any]] = []
    start_in_thread(list_models(endpoint, MODELS_SECONDS, models), MODELS_SECONDS + 1)()
    # A server may echo the key in what it lists.
    return {without_key(str(model["id"]), endpoint.key()): model for model in models}


def _context_size(entry: dict[str, Any]) -> int | None:
    """Tokens of a model's context; None where its entry does not state them."""
    # llama.cpp puts it into a section `meta`.
    meta = entry.get("meta")
    about = entry | meta if isinstance(meta, dict) else entry
    for key in CONTEXT_KEYS:
        size = about.get(key)
        if isinstance(size, int) and not isinstance(size, bool):
            return size
    return None


def check_teachers(pipeline: Pipeline) -> Iterator[Line]:
    """A line per arm whose teacher is behind a server: it is asked for the log-probs of a text."""
    from critique_rl.experiment.foresight.settings import teacher_endpoint

    lines: dict[str, Line] = {}
    for arm, config in pipeline.arms.items():
        endpoint = teacher_endpoint(config)
        if endpoint is None:
            continue
        # Arms often share a teacher, and each check costs tokens.
        name = repr((endpoint, config.policy.model))
        if name not in lines:
            say(f"teacher of arm {arm}: asking {endpoint.base_url} for log-probs of a short text")
            lines[name] = _probe_teacher(f"teacher of arm {arm}", endpoint, config.policy.model)
            yield lines[name]


def _probe_teacher(what: str, endpoint: Endpoint, policy: str) -> Line:
    from transformers import AutoTokenizer

    from critique_rl.policy import resolve_model
    from critique_rl.trainer.teachers.served import probe

    folder = resolve_model(policy)
    if not Path(folder).is_dir():
        # A model of the Hub is not downloaded for a check.
        finding = f"not asked: the tokenizer of {policy} is on the Hub"
        return Line(what, "warn", finding, "the run asks it at its start")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    try:
        form = probe(endpoint, None, tokenizer)
    except ValueError as error:
        return Line(what, "fail", str(error), failure_advice(str(error)))
    return Line(what, "ok", f"{endpoint.model} gives log-probs of a text, by {form}")


def failure_advice(reason: str) -> str:
    """The advice about a failed call, by the reason it gave."""
    for part, advice in ADVICE.items():
        if part in reason:
            return advice
    return "ask the server with curl, and look into its log"
