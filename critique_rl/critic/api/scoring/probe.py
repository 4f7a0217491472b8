"""Which of the two forms of log-probs a server takes: each is tried on a short text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from critique_rl.critic.api.calls import begin_all
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.scoring.tokens import FORMS, Scoring
from critique_rl.critic.contract import Reply

ATTEMPTS = 2
"""Requests per form: what a server cannot do it will not do at the third try either."""


class NoLogProbs(ValueError):
    """A server takes neither form; the message says how each failed."""


def find_form(
    endpoint: Endpoint, folder: Path, token_ids: Sequence[int], texts: Sequence[str] = ()
) -> tuple[str, Reply]:
    """Try the forms on a text.

    Args:
        endpoint: the server.
        folder: holds the ledger: the probe counts against the caps.
        token_ids: the text, two tokens or more.
        texts: the text of each token, which the server's must equal; (): not compared.

    Returns:
        The first form that gives the text's log-probs, and that answer.

    Raises:
        NoLogProbs: none does.
        ValueError: the key is missing or cannot be sent.
    """
    endpoint.key()
    attempts = min(endpoint.attempts, ATTEMPTS)
    # A kept answer would say nothing about the server as it is now.
    asked = replace(endpoint, attempts=attempts, cache=False)
    faults = []
    for form in FORMS:
        question = Scoring(tuple(token_ids), 1, form, tuple(texts))
        wait = begin_all(asked, folder, [question])
        [reply] = wait()
        if reply.status == "ok":
            return form, reply
        faults.append(f"{form}: {reply.reason}")
    listed = "; ".join(faults)
    raise NoLogProbs(
        f"{endpoint.base_url} gave no log-probs of a text ({listed}). Expected a server whose "
        "/completions takes token ids as prompt, with prompt_logprobs (vLLM) or with echo and "
        "logprobs. Serve the teacher by such a one, or give its weights: "
        "distill_teacher: {model: FOLDER_OR_HUB_ID}"
    )
