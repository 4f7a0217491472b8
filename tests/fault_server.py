"""A small OpenAI-compatible server on loopback that misbehaves on request: the first word of the
last message names the fault, `fault:n` for n tries only.

Raw sockets, because mock transports of HTTP libraries do not see the openai client's traffic and no
web framework sends half an answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import waiting
from faulty_answers import completion, faulty, refusal, response

SECONDS = 3600
"""How long what hangs hangs: longer than any test waits."""


@cache
def huge() -> bytes:
    return response(200, completion("a" * 20_000_000))


def body(fault: str, content: str, request: dict, key: str) -> bytes:
    """The whole response of a fault that is one."""
    lie = faulty(fault, content)
    if lie is not None:
        return lie
    words = "and so on " * 99
    match fault:
        case "429":
            return refusal(429, "slow down", "retry-after: 1")
        case "429-bare":
            return refusal(429, "slow down")
        case "429-for-an-hour":
            return refusal(429, "quota used up", "retry-after: 3600")
        case "500" | "503":
            return refusal(int(fault), "down")
        case "400" | "401" | "403" | "404":
            return refusal(int(fault), f"no: {key} {words}")
        case "408":
            return refusal(408, "too slow")
        case "filtered":
            error = {"message": "the prompt was filtered", "code": "content_filter"}
            return response(400, json.dumps({"error": error}).encode())
        case "bad-json":
            return response(200, b'{"choices": [')
        case "no-choices":
            return response(200, b'{"choices": []}')
        case "redirect":
            return response(307, b"", "location: /elsewhere/v1/chat/completions?a=b")
        case "error-200" | "error-200-down":
            error = (
                {"message": f"Invalid key {key}", "code": 401}
                if fault == "error-200"
                else {"message": "down", "code": "503"}
            )
            return response(200, json.dumps({"error": error}).encode())
        case "quota":
            return response(
                429,
                json.dumps(
                    {"error": {"message": "You exceeded it", "code": "insufficient_quota"}}
                ).encode(),
            )
        case "parts":
            return response(
                200,
                completion(
                    [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "no"}]},
                        {"type": "text", "text": f"echo {content}"},
                    ]
                ),
            )
        case "usage":  # the second word is the one it reports
            return response(200, completion("counted", usage=json.loads(content.split()[1])))
        case "list":
            return response(200, completion(["a"]))
        case "empty":
            return response(200, completion(" "))
        case "length":
            return response(200, completion("cut o", "length"))
        case "finish":  # the second word is the reason it gives
            return response(200, completion("half a sen", content.split()[1]))
        case "too-long":
            return refusal(400, "This model's maximum context length is 64 tokens. " + words)
        case "length-until":  # the third word says how many tokens are enough
            enough = request.get("max_tokens", request.get("max_completion_tokens", 0)) >= int(
                content.split()[2]
            )
            return response(
                200,
                completion(
                    "<think>a</think>whole" if enough else "<think>a thou",
                    "stop" if enough else "length",
                ),
            )
        case "echo-key":
            return response(200, completion(f"your key is {key}"))
        case "echo-escaped-key":  # as JSON may spell it
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
            return response(200, completion("your key is KEY").replace(b"KEY", escaped.encode()))
        case "truncated":
            return response(200, completion("a" * 200)[:-80])
        case "huge":
            return huge()
    return response(200, completion(f"echo {content}"))


def _key(head: str) -> str:
    start = head.lower().find("authorization: bearer ")
    return head[start + 22 :].split("\r\n")[0]


class FaultServer:
    """`tries` counts requests by content, `most_at_once` the requests in flight, `reported` the
    tokens of the usage it sent; `model` is the one it has.

    `always`, where set, is the fault of every request; `asked` are their bodies. `raw` are the
    bytes of whole responses, for the fault of that name.
    While `held`, one `count` is answered and the others wait.
    """

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.held = False
        self.url = ""
        self.tries = Counter()
        self.most_at_once = 0
        self.now = 0
        self.model = "m"
        self.reported = 0
        self.always = ""
        self.raw: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):  # /models
                writer.write(
                    response(
                        200,
                        json.dumps(
                            {
                                "object": "list",
                                "data": [{"id": f"model of {_key(head)}", "object": "model"}],
                            }
                        ).encode(),
                    )
                )
                return
            size = int(head.lower().split("content-length:")[1].split("\r\n")[0])
            self.asked.append(json.loads(await reader.readexactly(size)))
            await self.reply(self.asked[-1], head, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the server is stopped
        finally:
            self.now -= 1
            writer.close()

    async def reply(self, request: dict, head: str, writer: asyncio.StreamWriter) -> None:
        content = request["messages"][-1]["content"]
        self.tries[content] += 1
        fault, _, until = (self.always or content.split()[0]).partition(":")
        if until and self.tries[content] > int(until):
            fault = "ok"
        if request["model"] != self.model:
            writer.write(refusal(404, f"the model {request['model']} does not exist"))
        else:
            await self.misbehave(fault, content, request, head, writer)
        await writer.drain()

    async def misbehave(
        self, fault: str, content: str, request: dict, head: str, writer: asyncio.StreamWriter
    ) -> None:
        good = response(200, completion(f"echo {content}"))
        match fault:
            case "hang":
                await asyncio.sleep(SECONDS)
            case "hang-after-headers":
                writer.write(response(200, b"", length=999))
                await writer.drain()
                await asyncio.sleep(SECONDS)
            case "trickle":
                writer.write(response(200, b"", length=999))
                for _ in range(SECONDS):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(1)
            case "reset":
                writer.write(good[:-20])
                await writer.drain()
                writer.transport.abort()
            case "reset-at-once":
                writer.transport.abort()
            case "reset-in-headers":
                writer.write(good[:30])
                await writer.drain()
                writer.transport.abort()
            case "close-at-once":
                pass
            case "endless" | "endless-429" | "endless-headers" | "endless-trailers" | "storm":
                await self.send_endlessly(fault, writer)
            case "error-trickle":
                writer.write(response(503, b'{"error": {"message": "down', length=999))
                await writer.drain()
                await asyncio.sleep(SECONDS)
            case "error-drip":
                lines = json.dumps({"error": {"message": f'no: {_key(head)} "is" no key'}}).encode()
                # The words begin at once: on a busy machine a client has no time for many pieces.
                begun = lines.index(b"no: ") + 4
                writer.write(response(401, lines[:begun], length=len(lines) + 99))
                for i in range(begun, len(lines), 9):
                    writer.write(lines[i : i + 9])
                    await writer.drain()
                    await asyncio.sleep(0.05)
                await asyncio.sleep(SECONDS)
            case "drip-headers":
                for byte in good:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)
            case "raw":  # the second word is the number of the response
                writer.write(self.raw[int(content.split()[1])])
            case "slow":
                await asyncio.sleep(0.2)
                writer.write(good)
            case "uneven":  # later calls may be answered first
                await asyncio.sleep(zlib.crc32(content.encode()) % 10 / 30)
                writer.write(good)
            case (
                "count"
            ):  # like a real one: usage by the length of what it read and was allowed to write
                used = {
                    "prompt_tokens": len(content.encode()) + 4,
                    "completion_tokens": request["max_tokens"],
                }
                await asyncio.sleep(0.05)
                while self.held and self.reported:
                    await asyncio.sleep(0.01)
                self.reported += sum(used.values())
                writer.write(response(200, completion("counted", usage=used)))
            case _:
                writer.write(body(fault, content, request, _key(head)))

    async def send_endlessly(self, fault: str, writer: asyncio.StreamWriter) -> None:
        """Send until the client leaves."""
        head = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n"
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        match fault:
            case "endless":
                head += b"transfer-encoding: chunked\r\n\r\n"
            case "endless-429":
                head = b"HTTP/1.1 429 X\r\nretry-after: 0\r\ntransfer-encoding: chunked\r\n\r\n"
            case "endless-headers":
                chunk = b"x-more: and more\r\n" * 1000
            case "endless-trailers":
                head += b"transfer-encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
                chunk = b"x-more: and more\r\n" * 1000
            case "storm":
                head = b""
                chunk = b"HTTP/1.1 102 Processing\r\n\r\n" * 100
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0.001)


@contextmanager
def serving(accept_after: float = 0.0, faults: FaultServer | None = None) -> Iterator[FaultServer]:
    """A fault server in a thread of its own, on a free port. Connections made in the first
    `accept_after` seconds wait in the kernel until then. `faults`: a server of another kind.
    """
    faults = faults or FaultServer()
    ready = threading.Event()
    loops = []
    listening = socket.create_server(("127.0.0.1", 0))
    faults.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

    async def serve() -> None:
        stopped = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stopped))
        ready.set()
        waiting = asyncio.create_task(asyncio.sleep(accept_after))
        ended = asyncio.create_task(stopped.wait())
        await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.start_server(faults.handle, sock=listening)
        await ended

    # asyncio.run cancels the handlers that still hang when the server is stopped.
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(waiting.SECONDS)
    try:
        yield faults
    finally:
        loop, stopped = loops[0]
        loop.call_soon_threadsafe(stopped.set)
        thread.join(waiting.SECONDS)
        listening.close()
