"""A hard cap on tokens: many calls at once at its edge, SIGKILL in between, the same again until
nothing more is sent. What did the server report?

    OMP_NUM_THREADS=1 python tests/benchmarks/budget_kill.py

A real loopback server that counts what it reports (tests/fault_server.py), real calls of `ApiChat`,
and a process that dies while they are out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_server import serving
from waiting import wait_until

from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.chat import ApiChat


@dataclass(frozen=True)
class Figures:
    """Tokens by the server's own reports and by the ledger."""

    cap: int
    killed: bool
    reported_at_kill: int
    reported: int
    spent: int
    open: int
    """Requests whose reservation stays spent: they were out at the kill."""
    requests: int
    skipped: int


def _ask(url: str, folder: Path, conversations: int, concurrency: int, cap: int, name: str) -> list:
    endpoint = Endpoint(
        url,
        "m",
        max_tokens=20,
        concurrency=concurrency,
        caps=Caps(max_tokens=cap),
        cache=False,
        length_retry_factor=1.0,
    )
    return ApiChat(endpoint, folder).answer(
        [[{"role": "user", "content": f"count {name} {i}"}] for i in range(conversations)]
    )


def spend_and_kill(folder: Path, conversations: int, concurrency: int, cap: int) -> Figures:
    """Ask in a process that is killed after one answer, with most calls out; then twice more."""
    with serving() as server:
        given = (server.url, folder, conversations, concurrency, cap)
        process = multiprocessing.get_context("spawn").Process(target=_ask, args=(*given, "killed"))
        server.held = True

        def many_are_out() -> bool:
            return not process.is_alive() or (server.reported and server.now > conversations // 2)

        process.start()
        wait_until(many_are_out, "an answer, with most calls out", every=0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        server.held = False
        wait_until(lambda: server.now == 0, "what was out to be answered, to nobody")
        at_kill = server.reported
        replies = _ask(*given, "after") + _ask(*given, "again")
        with open_ledger(folder / "ledger.sqlite", Caps()) as ledger:
            spent = ledger.spent()
        skipped = sum(reply.reason == "budget" for reply in replies)
        return Figures(
            cap,
            process.exitcode == -signal.SIGKILL,
            at_kill,
            server.reported,
            spent["tokens"],
            spent["open"],
            spent["requests"],
            skipped,
        )


def main() -> None:
    print(
        "| cap | reported when killed | reported in the end | ledger | left open by the kill "
        "| requests | skipped for the budget |\n|" + "---|" * 7
    )
    over = 0
    for cap in (3000, 4500, 6000, 8000):
        with tempfile.TemporaryDirectory() as folder:
            f = spend_and_kill(Path(folder), 64, 64, cap)
        print(
            (
                f"| {f.cap} | {f.reported_at_kill} | {f.reported} | {f.spent} | {f.open} | "
                f"{f.requests} | {f.skipped} |"
            ),
            flush=True,
        )
        over += f.reported > f.cap or not f.killed
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
