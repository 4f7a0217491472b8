"""The log-probs of a given text: the request of it, and the answer read token by token.

Nothing is sampled that anybody reads. Two forms of POST /completions give the log-probs of a prompt
of token ids, and a server takes one of them, or none:

    prompt_logprobs   choices[0].prompt_logprobs: null, then one object per token, from the token's
                      id to its `logprob`: vLLM
    echo              choices[0].logprobs: `tokens`, and `token_logprobs` beginning with null, of
                      the prompt and of what was sampled: OpenAI's first form

Each log-prob must be of the token that was sent, place by place. A server that puts a token before
the text has read another text, so its answer is refused, not shifted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.critic.api.response import Answer, BadResponse, Report, model_name, parse_choice

PROMPT_LOGPROBS = "prompt_logprobs"
ECHO = "echo"
FORMS: Mapping[str, Mapping[str, Any]] = {
    # 0: of the prompt's own tokens alone.
    PROMPT_LOGPROBS: {"prompt_logprobs": 0},
    ECHO: {"echo": True, "logprobs": 1},
}
"""Form -> the settings that ask for it."""
# 0 would do, but vLLM refuses it, and llama-cpp-python takes it for no bound at all.
SAMPLED_TOKENS = 1
RESERVED_KEYS = ("prompt", "echo", "logprobs", "prompt_logprobs", "max_tokens", "temperature")
"""Keys of a request that no setting of a user may change."""
ID_PREFIX = "token_id:"
"""Begins a token that vLLM names by its id (--return-tokens-as-token-ids)."""
LOWEST = -9999.0
"""vLLM writes this for a log-prob of minus infinity."""
ROUNDING = 1e-3
"""By which a log-prob may be above 0: the softmax of a server in half precision."""


@dataclass(frozen=True)
class Scoring:
    """A text whose log-probs are asked for, as token ids."""

    token_ids: tuple[int, ...]
    """The text, its context first."""
    start: int
    """Place of the first token whose log-prob is wanted, from 1: the first one has none."""
    form: str
    """One of `FORMS`."""
    texts: tuple[str, ...] = ()
    """The text of each token, to compare with the server's; (): not compared."""

    def request(self, model: str, extra_body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the request.

        Args:
            model: the model's name at the server.
            extra_body: further settings.
        """
        return {
            "model": model,
            "prompt": list(self.token_ids),
            "max_tokens": SAMPLED_TOKENS,
            "temperature": 1.0,
            **FORMS[self.form],
            **extra_body,
        }


def parse_scores(question: Scoring, body: bytes) -> Answer:
    """Parse the body of an answer.

    Args:
        question: what was asked.
        body: the response as it came.

    Returns:
        The log-probs from `start` on, as a JSON list in place of a text.

    Raises:
        BadResponse: it has no log-probs, or not of the tokens that were sent.
    """
    answer, choice, usage = parse_choice(body)
    try:
        if question.form == PROMPT_LOGPROBS:
            logps = _prompt_logps(question, choice)
        else:
            logps = _echoed_logps(question, choice)
    except ValueError as error:
        raise BadResponse(str(error), usage) from error
    _check_prompt_tokens(question, usage)
    wanted = logps[question.start - 1 :]
    return Answer(json.dumps(wanted), "stop", usage, model_name(answer))


def read_scores(text: str) -> list[float]:
    """The log-probs of an answer's text, from `parse_scores`."""
    logps: list[float] = json.loads(text)
    return logps


def _check_prompt_tokens(question: Scoring, usage: Report) -> None:
    """Raises BadResponse where the server says that it read more or fewer tokens."""
    sent = len(question.token_ids)
    if usage is not None and usage.prompt_tokens not in (None, sent):
        raise BadResponse(
            f"it read {usage.prompt_tokens} tokens, and {sent} were sent (perhaps it adds BOS)",
            usage,
        )


def _prompt_logps(question: Scoring, choice: Mapping[str, Any]) -> list[float]:
    """The log-probs of all tokens but the first. Raises ValueError without them."""
    entries = choice.get("prompt_logprobs")
    if not isinstance(entries, list):
        raise ValueError("no prompt_logprobs")
    _check_length(entries, len(question.token_ids))
    logps = []
    for place, number in enumerate(question.token_ids):
        if place == 0:
            continue
        entry = entries[place]
        scores = entry.get(str(number)) if isinstance(entry, dict) else None
        if not isinstance(scores, dict):
            raise ValueError(f"the log-prob at place {place} is of another token than was sent")
        _check_text(question, place, scores.get("decoded_token"))
        logps.append(_logp(scores.get("logprob"), place))
    return logps


def _echoed_logps(question: Scoring, choice: Mapping[str, Any]) -> list[float]:
    """As `_prompt_logps`, from the echo of the prompt. Raises ValueError without them."""
    scores = choice.get("logprobs")
    if not isinstance(scores, dict):
        raise ValueError("no logprobs")
    tokens = scores.get("tokens")
    values = scores.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        raise ValueError("no tokens or no token_logprobs in its logprobs")
    sent = len(question.token_ids)
    if len(values) in (SAMPLED_TOKENS, 0) and sent > SAMPLED_TOKENS:
        raise ValueError("log-probs of what it sampled alone, none of the text")
    if len(values) == sent + SAMPLED_TOKENS:
        values = values[:sent]
    _check_length(values, sent)
    if len(tokens) < sent:
        raise ValueError(f"{len(tokens)} tokens, and {sent} were sent")
    for place, number in enumerate(question.token_ids):
        token = str(tokens[place])
        if token.startswith(ID_PREFIX) and token != f"{ID_PREFIX}{number}":
            raise ValueError(f"place {place} holds {token}, and {number} was sent")
        if not token.startswith(ID_PREFIX):
            _check_text(question, place, token)
    return [_logp(value, place) for place, value in enumerate(values) if place]


def _check_length(entries: Sequence[Any], sent: int) -> None:
    """Raises ValueError for entries that are not one per token, of which the first has none."""
    if len(entries) != sent:
        raise ValueError(
            f"log-probs of {len(entries)} tokens, and {sent} were sent (perhaps it adds BOS)"
        )
    if entries[0] is not None:
        raise ValueError("the first token has a log-prob: the server put another one before it")


def _check_text(question: Scoring, place: int, text: Any) -> None:
    """Raises ValueError where the server spells a token otherwise, if both can be compared."""
    if not question.texts or not isinstance(text, str):
        return
    # Some servers leave out the space before a word, or the text of a special token.
    theirs = text.strip()
    ours = question.texts[place].strip()
    # Half a character, which servers spell in ways of their own.
    is_part = "\ufffd" in ours or "\ufffd" in theirs or theirs.startswith(("bytes:", "<0x"))
    if theirs and ours and theirs != ours and not is_part:
        raise ValueError(
            f"place {place} holds {theirs[:20]!r}, and {ours[:20]!r} was sent: another tokenizer?"
        )


def _logp(value: Any, place: int) -> float:
    """A log-prob. Raises ValueError for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not LOWEST < value <= ROUNDING:
        raise ValueError(f"{value!r} at place {place} is no log-prob that could be trained on")
    return float(value)
