"""A small OpenAI-compatible server on loopback that misbehaves on request: the first word of the last message names the fault.

Raw sockets, because mock transports of HTTP libraries do not see the openai client's traffic and no web framework sends half an answer.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def completion(content: object, finish: str = "stop") -> bytes:
    choices = [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}]
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": ANSWER}).encode()


def response(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def refusal(status: int, words: str, *headers: str) -> bytes:
    return response(status, json.dumps({"error": {"message": words, "type": "x"}}).encode(), *headers)


class FaultServer:
    """`tries` counts requests by content, `most_at_once` the requests in flight."""

    def __init__(self) -> None:
        self.url, self.tries, self.most_at_once, self.now = "", Counter(), 0, 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            body = json.loads(await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0])))
            await self.reply(body["messages"][-1]["content"], head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.now -= 1
            writer.close()

    async def reply(self, content: str, head: str, writer: asyncio.StreamWriter) -> None:
        self.tries[content] += 1
        fault, first = content.split()[0], self.tries[content] == 1
        good = response(200, completion(f"echo {content}"))
        match fault:
            case "hang":
                await asyncio.sleep(60)
            case "trickle":
                writer.write(response(200, b"")[:-2].replace(b"content-length: 0", b"content-length: 999") + b"\r\n")
                for _ in range(60):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.3)
            case "reset" | "reset-once":
                if fault == "reset" or first:
                    writer.write(good[:-20])
                    await writer.drain()
                    writer.transport.abort()
                    return
            case "slow":
                await asyncio.sleep(0.2)
        writer.write(self.body(fault, content, head, good))
        await writer.drain()

    def body(self, fault: str, content: str, head: str, good: bytes) -> bytes:
        tries = self.tries[content]
        match fault:
            case "429":
                return refusal(429, "slow down", "retry-after: 1") if tries == 1 else good
            case "429-for-an-hour":
                return refusal(429, "quota used up", "retry-after: 3600")
            case "500":
                return refusal(500, "broken") if tries < 3 else good
            case "500-forever":
                return refusal(503, "down")
            case "400" | "401" | "403" | "404":
                return refusal(int(fault), f"no: {head.split('authorization:')[1].split()[1]} " + "and so on " * 99)
            case "bad-json":
                return response(200, b'{"choices": [')
            case "html":
                return response(200, b"<html>welcome</html>", kind="text/html")
            case "no-choices":
                return response(200, b'{"choices": []}')
            case "null":
                return response(200, b"null")
            case "list":
                return response(200, completion(["a"]))
            case "empty":
                return response(200, completion(" "))
            case "length":
                return response(200, completion("cut o", "length"))
        return good


@contextmanager
def serving() -> Iterator[FaultServer]:
    """A fault server in a thread of its own, on a free port."""
    faults, ready, loops = FaultServer(), threading.Event(), []

    async def serve() -> None:
        server = await asyncio.start_server(faults.handle, "127.0.0.1", 0)
        faults.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        stopped = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stopped))
        ready.set()
        await stopped.wait()

    # asyncio.run cancels the handlers that still hang when the server is stopped.
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(5)
    yield faults
    loop, stopped = loops[0]
    loop.call_soon_threadsafe(stopped.set)
    thread.join(5)
