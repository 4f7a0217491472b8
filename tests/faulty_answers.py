"""Answers of a server that lies, each as the bytes of a whole HTTP response."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import cache

MODEL = "m"
ANSWER = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
NOW = "Sat, 21 Nov 2015 07:28:00 GMT"
"""The clock of the server, years behind this machine's."""
LATER = {
    "retry-date": "Sat, 21 Nov 2015 07:28:01 GMT",
    "retry-date-850": "Saturday, 21-Nov-15 07:28:01 GMT",
    "retry-date-asctime": "Sat Nov 21 07:28:01 2015",
}
RETRY_AFTER = {
    "retry-float": "0.25",
    "retry-negative": "-7",
    "retry-infinite": "1e400",
    "retry-nan": "nan",
    "retry-words": "in a while, if you please",
    "retry-bytes": "\xff\xfe\x80",
    "retry-broken-date": "Sat, 99 Foo 99999 99:99:99 +9999",
    "retry-far": "1e300",
}
MESSAGES = {
    "content-null": {"content": None},
    "content-number": {"content": 12},
    "content-object": {"content": {"text": "no"}},
    "refusal": {"content": None, "refusal": "I will not."},
    "tool-call": {"content": "Let me see", "tool_calls": [{"id": "1", "type": "function"}]},
    "function-call": {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
}
USAGES = {
    "usage-strings": '{"prompt_tokens": "7", "completion_tokens": "3"}',
    "usage-negative": '{"prompt_tokens": -7, "completion_tokens": 3}',
    "usage-nan": '{"prompt_tokens": NaN, "completion_tokens": Infinity}',
    "usage-huge": '{"prompt_tokens": 7, "completion_tokens": 1' + "0" * 400 + "}",
    "usage-null": "null",
    "usage-list": "[7, 3]",
}
BODIES = {
    "empty-body": b"",
    "null": b"null",
    "a-word": b'"busy"',
    "html": b"<html>welcome</html>",
    "not-utf-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "deep": b"[" * 200_000,
    "huge-integer": b'{"choices": ' + b"9" * 10_000 + b"}",
    "many-values": b"[" + b"[]," * 1_000_000 + b"[]]",
    "choices-null": b'{"choices": null}',
    "choices-words": b'{"choices": ["a", "b"]}',
    "message-null": b'{"choices": [{"message": null}]}',
    "events": b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n',
    "two-contents": b'{"choices": [{"message": {"content": "a", "content": "b"}}]}',
}
ENCODED = {"br": "br", "zstd": "zstd", "twice": "gzip, gzip", "no-such": "\xe9t\xe9"}


def completion(
    content: object, finish: object = "stop", usage: object = ANSWER, **others: object
) -> bytes:
    """A chat completion; `others` are fields of the message, "model" the answer's."""
    model = others.pop("model", MODEL)
    message = {"role": "assistant", "content": content, **others}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }
    if model is None:
        del answer["model"]
    return json.dumps(answer).encode()


def response(
    status: int,
    body: bytes,
    *headers: str,
    kind: str = "application/json",
    length: int | None = None,
) -> bytes:
    length = len(body) if length is None else length
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-type: {kind}",
        f"content-length: {length}",
        "connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body


def refusal(status: int, words: str, *headers: str) -> bytes:
    return response(
        status, json.dumps({"error": {"message": words, "type": "x"}}).encode(), *headers
    )


def answer_with_error(content: str, place: str) -> bytes:
    """A completion that says in one place that it failed, as routers do."""
    answer = json.loads(completion(content))
    error = {"message": "provider down", "code": 502}
    match place:
        case "answer":
            answer["error"] = error
        case "choice":
            answer["choices"][0]["error"] = error
        case "message":
            answer["choices"][0]["message"]["error"] = error
        case "empty":
            answer |= {"error": {"message": "", "code": None}, "errors": []}
        case "alone":
            answer = {"object": "error", **error}
    return json.dumps(answer).encode()


@cache
def bomb(encoding: str) -> bytes:
    """100 MB of spaces, compressed to 100 KB."""
    spaces = b" " * 100_000_000
    return gzip.compress(spaces, 1) if encoding == "gzip" else zlib.compress(spaces, 1)


def filling(fault: str) -> bytes | None:
    """An answer just under the bound of bytes, of the kind that takes most memory as objects."""
    size = 4_000_000
    match fault:
        case "half-a-million-values":
            return b"[" + b"[]," * 249_000 + b'"' + b"a" * (size - 750_000) + b'"]'
        case "empty-objects":
            return b"[" + b"{}," * 249_000 + b'"' + b"a" * (size - 750_000) + b'"]'
        case "numbers":
            return b"[" + b"-9.5," * 499_000 + b'"' + b"a" * (size - 2_500_000) + b'"]'
        case "wide-text":
            face = "\U0001f600".encode()
            return completion("face" + "a" * (size - 1000)).replace(b"face", face)
        case "words":
            return completion("ab " * (size // 3))
        case "error-words":
            return json.dumps({"error": {"message": "ab " * (size // 3), "code": 500}}).encode()
    return None


def faulty(fault: str, content: str) -> bytes | None:
    """The response of a fault, to a conversation whose answer is an echo; None for others."""
    echo = f"echo {content}"
    if fault in BODIES:
        return response(200, BODIES[fault])
    if fault in MESSAGES:
        return response(200, completion(**MESSAGES[fault]))
    if fault in USAGES:
        # Not through json.dumps: some are no JSON that it would write.
        usage = USAGES[fault].encode()
        return response(200, completion(echo).replace(json.dumps(ANSWER).encode(), usage))
    if fault in RETRY_AFTER:
        return refusal(429, "slow down", f"retry-after: {RETRY_AFTER[fault]}")
    if fault in LATER:
        return refusal(429, "slow down", f"date: {NOW}", f"retry-after: {LATER[fault]}")
    if fault in ENCODED:
        return response(200, b"a" * 99, f"content-encoding: {ENCODED[fault]}")
    if fault.startswith("finish-"):
        return response(200, completion(echo, fault.removeprefix("finish-")))
    if fault.startswith("error-of-"):
        return response(200, answer_with_error(echo, fault.removeprefix("error-of-")))
    full = filling(fault)
    if full is not None:
        return response(200, full)
    match fault:
        case "retry-several":
            headers = ("retry-after: soon", "retry-after: 0.1", "retry-after-ms: 300")
            return refusal(429, "slow down", *headers, "x-ratelimit-reset-requests: 6m0s")
        case "gzip-bomb" | "deflate-bomb":
            encoding = fault.removesuffix("-bomb")
            return response(200, bomb(encoding), f"content-encoding: {encoding}")
        case "error-bomb":
            return response(503, bomb("gzip"), "content-encoding: gzip")
        case "damaged-gzip":
            return response(
                200, gzip.compress(b"{}" * 999)[:-30] + b"a" * 30, "content-encoding: gzip"
            )
        case "gzip":
            return response(200, gzip.compress(completion(echo)), "content-encoding: gzip")
        case "deep-error":
            return response(500, b'{"error": ' * 50_000)
        case "odd-charset":
            return response(503, b"down", kind="text/plain; charset=hex")
        case "error-html":
            return response(502, b"<html>bad gateway</html>", kind="text/html")
        case "error-list":
            return response(422, b'{"detail": [{"loc": ["body"], "msg": "field required"}]}')
        case "wrong-type":
            return response(200, completion(echo), kind="image/png; charset=hex")
        case "no-content":
            return b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n"
        case "status-999":
            return response(999, b"?")
        case "length-too-long":
            return response(200, completion(echo), length=99_999)
        case "length-too-short":
            return response(200, completion(echo), length=30)
        case "not-http":
            return b"\x16\x03\x01\x00\xa5\x01\x00\x00" * 99
        case "http-0.9":
            return completion(echo)
        case "redirect-nowhere":
            return response(307, b"", "location: http://[::bad")
        case "other-model":
            return response(200, completion(echo, model="smaller"))
        case "dated-model":
            return response(200, completion(echo, model="m-2024-08-06"))
        case "no-model":
            return response(200, completion(echo, model=None))
    return None
