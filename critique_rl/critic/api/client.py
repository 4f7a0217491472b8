"""The HTTP client of an endpoint: what it sends, where to, and how much of a response it reads.

Texts go to `base_url` and nowhere else: no redirect is followed. Retries are left to `retry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.response import BadResponse

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 4 << 20
"""Longest response that is read; no critique comes near it."""


def open_client(endpoint: Endpoint) -> AsyncOpenAI:
    """Open a client of the endpoint.

    Raises:
        ValueError: the key is missing or cannot be sent.
    """
    # Imported here: openai takes about a second to import, and only api critics need it.
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    # A proxy from the environment must not be asked for this machine's own addresses.
    http_client = DefaultAsyncHttpxClient(trust_env=not endpoint.local, follow_redirects=False)
    connect_seconds = min(CONNECT_SECONDS, endpoint.attempt_deadline)
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key(),
        # The SDK's retries would bypass the ledger, the rates and the deadlines of a call.
        max_retries=0,
        timeout=Timeout(endpoint.attempt_deadline, connect=connect_seconds),
        http_client=http_client,
    )


async def read_body(client: AsyncOpenAI, request: dict[str, Any]) -> bytes:
    """Send a request and read the response's body as it came.

    Args:
        client: from `open_client`.
        request: from `Endpoint.request`.

    Raises:
        BadResponse: the body is longer than `MAX_BODY_BYTES`.
        openai.APIStatusError: the server refused.
        openai.APIConnectionError: the server could not be reached.
    """
    settings = dict(request)
    for name in ("model", "messages"):
        settings.pop(name, None)
    body = bytearray()
    # Raw bytes, not the SDK's parsed answer: for HTML it returns a str, and for cut JSON it raises
    # json's own error.
    create = client.chat.completions.with_streaming_response.create
    model = request["model"]
    messages = request["messages"]
    async with create(model=model, messages=messages, extra_body=settings) as response:
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BadResponse(f"over {MAX_BODY_BYTES >> 20} MB")
    return bytes(body)
