"""A cap on tokens against everything that a server may report: 8 shapes of `usage`, from a server
that keeps max_tokens and from one that does not, 64 calls at once, SIGKILL in between.

    OMP_NUM_THREADS=1 python tests/benchmarks/caps.py [tokens of the server that does not, 1050]

The server counts what it bills, whatever it reports. Each row: ask in a process that is killed
after some answers while others are out, then ask 64 more, twice. "over" is what was billed beyond
the cap. "sent after" counts requests that were sent after the first answer that shows an excess.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_server import FaultServer, completion, response, serving
from waiting import wait_until

from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.chat import ApiChat

CAP = 5000
MAX_TOKENS = 100
CALLS = 64
Shape = Callable[[int, int], object]
SHAPES: dict[str, Shape] = {
    "all counts": lambda p, c: {
        "prompt_tokens": p,
        "completion_tokens": c,
        "total_tokens": p + c,
        "prompt_tokens_details": {"cached_tokens": p // 2},
    },
    "none": lambda p, c: None,
    "zeros": lambda p, c: dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0),
    "total alone": lambda p, c: {"total_tokens": p + c, "prompt_tokens": None},
    "completion alone": lambda p, c: {"completion_tokens": c, "prompt_tokens": -1},
    "thoughts in the total": lambda p, c: {
        "prompt_tokens": p,
        "completion_tokens": 5,
        "total_tokens": p + c,
    },
    "thoughts apart": lambda p, c: {
        "prompt_tokens": p,
        "completion_tokens": 5,
        "total_tokens": 0,
        "completion_tokens_details": {"reasoning_tokens": c - 5},
    },
    "texts and floats": lambda p, c: {"prompt_tokens": f"{p}.0", "completion_tokens": float(c)},
}


class BillingServer(FaultServer):
    """Bills `completion_tokens` for an answer, or max_tokens, and reports it in a shape.

    Attributes:
        billed: tokens so far.
        after: requests that came after an answer that shows an excess.
    """

    def __init__(self, shape: str, completion_tokens: int | None) -> None:
        super().__init__()
        self.shape = shape
        self.completion_tokens = completion_tokens
        self.billed = 0
        self.after = 0
        self.answered = 0

    async def reply(self, request: dict, head: str, writer: asyncio.StreamWriter) -> None:
        content = request["messages"][-1]["content"]
        self.after += self.answered > 0
        prompt_tokens = len(content.encode()) + 4
        completion_tokens = self.completion_tokens or request["max_tokens"]
        self.billed += prompt_tokens + completion_tokens
        await asyncio.sleep(0.05)
        while self.held and self.answered > 3:
            await asyncio.sleep(0.01)
        text = "word " * completion_tokens
        usage = SHAPES[self.shape](prompt_tokens, completion_tokens)
        writer.write(response(200, completion(text, usage=usage)))
        await writer.drain()
        self.answered += 1


@dataclass(frozen=True)
class Figures:
    """One row of the table."""

    killed: bool
    billed: int
    requests: int
    spent: int
    over: int
    after: int
    one_request: int
    """The most that one request was billed."""
    told: bool


def _ask(url: str, folder: Path, name: str) -> str:
    endpoint = Endpoint(
        url,
        "m",
        max_tokens=MAX_TOKENS,
        concurrency=CALLS,
        caps=Caps(max_tokens=CAP),
        cache=False,
        attempts=1,
    )
    told = StringIO()
    with redirect_stderr(told):
        ApiChat(endpoint, folder).answer(
            [[{"role": "user", "content": f"count {name} {i}"}] for i in range(CALLS)]
        )
    (folder / f"{name}.txt").write_text(told.getvalue())


def spend(folder: Path, shape: str, completion_tokens: int | None, kills: bool = True) -> Figures:
    """Ask 64 at once in a process that is killed, then twice 64 more."""
    server_of_shape = BillingServer(shape, completion_tokens)
    with serving(faults=server_of_shape) as server:
        killed = False
        if kills:
            server.held = True
            process = multiprocessing.get_context("spawn").Process(
                target=_ask, args=(server.url, folder, "killed")
            )
            process.start()
            wait_until(
                lambda: not process.is_alive() or server.answered > 0, "an answer", every=0.001
            )
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            server.held = False
            wait_until(lambda: server.now == 0, "what was out to be answered, to nobody")
        for name in ("after", "again"):
            _ask(server.url, folder, name)
    with open_ledger(folder / "ledger.sqlite", Caps()) as ledger:
        spent = ledger.spent()
    told = "".join(path.read_text() for path in folder.glob("*.txt"))
    return Figures(
        killed,
        server.billed,
        len(server.asked),
        spent["tokens"],
        max(0, server.billed - CAP),
        server.after,
        20 + (completion_tokens or MAX_TOKENS),
        "was billed at" in told,
    )


def main() -> None:
    more = int(sys.argv[1]) if len(sys.argv) > 1 else 1050
    print(
        f"cap {CAP} tokens, max_tokens {MAX_TOKENS}, {CALLS} calls at once\n\n"
        "| server | usage | kill | billed | over | requests | sent after | ledger | told |\n|"
        + "---|"
        * 9
    )
    wrong = 0
    for completion_tokens in (None, more):
        for shape in SHAPES:
            for kills in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    f = spend(Path(folder), shape, completion_tokens, kills)
                keeps = completion_tokens is None
                print(
                    f"| {'keeps max_tokens' if keeps else f'bills {more}'} | {shape} | "
                    f"{'yes' if f.killed else 'no'} | {f.billed} | {f.over} | {f.requests} | "
                    f"{f.after} | {f.spent} | {'yes' if f.told else 'no'} |",
                    flush=True,
                )
                wrong += f.over > f.one_request or f.told == keeps
    print(json.dumps({"rows over by more than one request, or not told": wrong}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
