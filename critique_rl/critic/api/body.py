"""The body of a response, read within bounds: bytes as sent, bytes after decompression, seconds.

`bound_body` is a response hook of the HTTP client. It runs before the SDK looks at a response, for
the SDK reads the body of a refusal to its end, whatever its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from critique_rl.critic.api.response import BadResponse

if TYPE_CHECKING:
    from httpx2 import AsyncByteStream, Response

MAX_BODY_BYTES = 4 << 20
"""Longest response that is read; no critique comes near it."""
MAX_ERROR_BYTES = 64 << 10
"""Part of a refusal's body that is read. Its status says most, and its words come first."""
ERROR_BODY_SHARE = 0.25
"""Share of `attempt_deadline` for a refusal's body, so that a slow one does not hide its status."""
ACCEPTED_ENCODINGS = "gzip, deflate"
"""What is asked for. The decoders of others are optional packages, not all of which can be bounded.
"""


def body_bound(attempt_deadline: float) -> Callable[[Response], Awaitable[None]]:
    """The response hook of an endpoint's client, which replaces a body by what is read of it.

    Args:
        attempt_deadline: seconds for a request.

    Returns:
        The hook. It raises BadResponse for the body of an answer that cannot be read.
    """
    error_seconds = ERROR_BODY_SHARE * attempt_deadline

    async def bound_body(response: Response) -> None:
        from httpx2 import AsyncByteStream, ByteStream

        stream = response.stream
        assert isinstance(stream, AsyncByteStream)
        try:
            if response.is_success:
                body = await _read_answer(response, stream)
            else:
                body = await _read_refusal(response, stream, error_seconds)
        finally:
            await stream.aclose()
        response.stream = ByteStream(body)
        # The body is plain now. A charset may name any codec of Python, also one that is none of
        # text, and the SDK would decode with it.
        for name in ("content-encoding", "content-length", "transfer-encoding"):
            response.headers.pop(name, None)
        response.headers["content-type"] = "application/json"

    return bound_body


async def _read_answer(response: Response, stream: AsyncByteStream) -> bytes:
    """The whole body of an answer.

    Raises:
        BadResponse: it is too long, or compressed in a way that cannot be read.
        httpx2.RequestError: the connection failed.
    """
    body = bytearray()
    async with aclosing(_decode(response, stream)) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _too_long()
    return bytes(body)


async def _read_refusal(response: Response, stream: AsyncByteStream, seconds: float) -> bytes:
    """The beginning of a refusal's body, as far as it can be read."""
    from httpx2 import RequestError

    body = bytearray()
    try:
        async with asyncio.timeout(seconds), aclosing(_decode(response, stream)) as chunks:
            async for chunk in chunks:
                body += chunk[:MAX_ERROR_BYTES]
                if len(body) >= MAX_ERROR_BYTES:
                    break
    except (RequestError, TimeoutError):
        pass  # the status is known, and part of the words
    except BadResponse as error:
        return bytes(body) or str(error).encode()
    return bytes(body[:MAX_ERROR_BYTES])


async def _decode(response: Response, stream: AsyncByteStream) -> AsyncGenerator[bytes]:
    """The body in pieces of 1 MB at most, decompressed.

    Raises:
        BadResponse: its compression was not asked for, it is damaged, or too much was sent.
        httpx2.RequestError: the connection failed.
    """
    from httpx2 import DecodingError
    from httpx2 import Response as HttpResponse

    encoding = response.headers.get("content-encoding", "").strip().lower()
    # Each layer of several could blow up to much that the next one takes in without any output.
    if encoding not in ("", "identity", *ACCEPTED_ENCODINGS.split(", ")):
        raise BadResponse(f"compressed as {encoding[:40]!r}, which was not asked for")
    body = HttpResponse(
        response.status_code,
        headers={"content-encoding": encoding},
        stream=_bounded_stream(stream),
        request=response.request,
    )
    try:
        async with aclosing(body.aiter_bytes()) as chunks:
            async for chunk in chunks:
                yield chunk
    except DecodingError as error:
        raise BadResponse(f"its {encoding} is damaged") from error


def _bounded_stream(stream: AsyncByteStream) -> AsyncByteStream:
    """A stream that raises BadResponse after `MAX_BODY_BYTES`, as sent."""
    from httpx2 import AsyncByteStream

    class BoundedStream(AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            """The chunks as sent. Raises BadResponse if they are too long."""
            size = 0
            async for chunk in stream:
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_long()
                yield chunk

    return BoundedStream()


def _too_long() -> BadResponse:
    return BadResponse(f"over {MAX_BODY_BYTES >> 20} MB")
