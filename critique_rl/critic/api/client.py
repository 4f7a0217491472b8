"""The HTTP client of an endpoint: what it sends, and where to.

Texts go to `base_url` and nowhere else: no redirect is followed. Retries are left to `retry`, and
`body` bounds what is read of a response.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from critique_rl.config.terminal import hide_key_in_logs
from critique_rl.critic.api.body import ACCEPTED_ENCODINGS, body_bound
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.response import BadResponse, parse_json

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_SECONDS = 5.0
LOGGERS = ("openai", "httpx", "httpcore")
"""Loggers that write headers of responses at their lowest level."""


def open_client(endpoint: Endpoint) -> AsyncOpenAI:
    """Open a client of the endpoint.

    Raises:
        ValueError: the key is missing or cannot be sent.
    """
    # Imported here: openai takes about a second to import, and only api critics need it.
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    key = endpoint.key()
    hide_key_in_logs(key, LOGGERS)
    # A proxy from the environment must not be asked for this machine's own addresses.
    http_client = DefaultAsyncHttpxClient(
        trust_env=not endpoint.local,
        follow_redirects=False,
        headers={"accept-encoding": ACCEPTED_ENCODINGS},
        event_hooks={"response": [body_bound(endpoint.attempt_deadline)]},
    )
    connect_seconds = min(CONNECT_SECONDS, endpoint.attempt_deadline)
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=key,
        # The SDK's retries would bypass the ledger, the rates and the deadlines of a call.
        max_retries=0,
        timeout=Timeout(endpoint.attempt_deadline, connect=connect_seconds),
        http_client=http_client,
    )


async def read_body(client: AsyncOpenAI, request: dict[str, Any]) -> bytes:
    """Send a request and read the response's body as it came.

    Args:
        client: from `open_client`.
        request: from `question.request_body`: with `messages` for a chat completion, with `prompt`
            for a text completion.

    Raises:
        BadResponse: the body is too long, or compressed in a way that cannot be read.
        openai.APIStatusError: the server refused.
        openai.APIConnectionError: the server could not be reached.
    """
    settings = dict(request)
    model = settings.pop("model")
    messages = settings.pop("messages", None)
    prompt = settings.pop("prompt", None)
    # Raw bytes, not the SDK's parsed answer: for HTML it returns a str, and for cut JSON it raises
    # json's own error.
    if messages is None:
        score = client.completions.with_streaming_response.create
        async with score(model=model, prompt=prompt, extra_body=settings) as response:
            return await response.read()
    create = client.chat.completions.with_streaming_response.create
    async with create(model=model, messages=messages, extra_body=settings) as response:
        return await response.read()


async def list_models(endpoint: Endpoint, seconds: float, models: list[dict[str, Any]]) -> None:
    """Add the entries of the server's /models to a list, those with an id.

    Args:
        endpoint: the server.
        seconds: the longest wait.
        models: filled with the entries.

    Raises:
        BadResponse: no list of models.
        TimeoutError: no answer in time.
        openai.APIError: the server refused or could not be reached.
    """
    async with (
        asyncio.timeout(seconds),
        open_client(endpoint) as client,
        client.models.with_streaming_response.list() as response,
    ):
        listed = parse_json(await response.read())
    entries = listed.get("data") if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise BadResponse("no list of models")
    models += [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
