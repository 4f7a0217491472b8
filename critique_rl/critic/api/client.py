"""The HTTP client of an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.response import BadResponse

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_SECONDS = 5.0
MOST_BYTES = 4 << 20
"""Of a body; no critique is as long."""


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    # A proxy from the environment would be asked for this machine's own addresses.
    http = DefaultAsyncHttpxClient(trust_env=not endpoint.local, follow_redirects=False)
    timeout = Timeout(
        endpoint.attempt_deadline, connect=min(CONNECT_SECONDS, endpoint.attempt_deadline)
    )
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key(),
        max_retries=0,
        timeout=timeout,
        http_client=http,
    )


async def _body(client: AsyncOpenAI, request: dict[str, Any]) -> bytes:
    """The server's answer as it came."""
    extra, body = (
        {name: value for name, value in request.items() if name not in ("model", "messages")},
        bytearray(),
    )
    create = client.chat.completions.with_streaming_response.create
    async with create(
        model=request["model"], messages=request["messages"], extra_body=extra
    ) as response:
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise BadResponse(f"over {MOST_BYTES >> 20} MB")
    return bytes(body)
