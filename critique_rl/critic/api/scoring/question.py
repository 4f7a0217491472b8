"""What an endpoint is asked: a conversation, or the log-probs of a text. The calls know no other
difference between the two than these functions make.
"""

from __future__ import annotations

import json
from typing import Any

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.response import Answer, parse_response
from critique_rl.critic.api.scoring.tokens import SAMPLED_TOKENS, Scoring, parse_scores
from critique_rl.types import Message, Usage

Question = list[Message] | Scoring
"""A conversation, or a text to score."""


def spelled(question: Question) -> str:
    """The question as text: equal ones have equal texts."""
    if isinstance(question, Scoring):
        return repr(question)
    return json.dumps(question)


def request_body(
    endpoint: Endpoint, question: Question, sample: int = 0, factor: float = 1.0
) -> dict[str, Any]:
    """The body of a request.

    Args:
        endpoint: the server.
        question: what is asked.
        sample: number of the answer among those to the same question.
        factor: multiple of the bound on an answer's tokens.
    """
    if isinstance(question, Scoring):
        return question.request(endpoint.model, endpoint.extra_body)
    return endpoint.request(question, sample, factor)


def max_usage(endpoint: Endpoint, question: Question, factor: float = 1.0) -> Usage:
    """The most that a request may cost; arguments are those of `request_body`."""
    if isinstance(question, Scoring):
        return endpoint.with_price(Usage(len(question.token_ids), SAMPLED_TOKENS))
    return endpoint.max_usage(question, factor)


def parse_answer(question: Question, body: bytes) -> Answer:
    """Parse the body of an answer. Raises BadResponse where it holds none."""
    if isinstance(question, Scoring):
        return parse_scores(question, body)
    return parse_response(body)


def written_text(question: Question, answer: Answer) -> str:
    """The text that a model wrote: its bytes bound the bill where no usage is reported."""
    if isinstance(question, Scoring):
        return ""
    return answer.text
