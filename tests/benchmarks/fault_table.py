"""Every fault of a critic's server x heals before the tries end, or outlasts them x skip, stop: how
long the step takes and what becomes of its calls.

    OMP_NUM_THREADS=1 python tests/benchmarks/fault_table.py

Real calls of `ApiChat` against tests/fault_server.py on loopback; prints a Markdown table. A row is
one step of 8 conversations that all meet the fault. "substitutes" are texts that are not the
server's answer to that very question. 401 and a wrong model never heal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_server import FaultServer, serving

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply

FAULTS = {
    "429": "429",
    "429 without Retry-After": "429-bare",
    "500 burst": "500",
    "503 burst": "503",
    "reset in the body": "reset",
    "trickle, a byte a second": "trickle",
    "hang after headers": "hang-after-headers",
    "bad JSON": "bad-json",
    "empty choices": "no-choices",
    "truncated body": "truncated",
    "20 MB body": "huge",
    "slow accept": "slow-accept",
    "401": "401",
    "wrong model": "wrong-model",
}
NEVER_HEAL = ("401", "wrong-model")


@dataclass(frozen=True)
class Cell:
    fault: str
    heals: bool
    policy: str


@dataclass(frozen=True)
class Row:
    """The outcome of one step."""

    fault: str
    asked: int
    ok: int
    failed: int
    skipped: int
    reasons: Counter
    substitutes: int
    seconds: float
    stopped: bool


CELLS = [
    Cell(fault, heals, policy)
    for fault in FAULTS.values()
    for heals in (True, False)
    if not (heals and fault in NEVER_HEAL)
    for policy in ("skip", "stop")
]


def measure(cell: Cell, server: FaultServer, calls: int = 8, **settings) -> Row:
    """One step against the server."""
    fault = f"{cell.fault}:1" if cell.heals else cell.fault
    if cell.fault in ("slow-accept", "wrong-model"):
        fault = "ok"
    contents = [f"{fault} {cell} {i}" for i in range(calls)]
    model = "other" if cell.fault == "wrong-model" else "m"
    endpoint = Endpoint(server.url, model, on_failure=cell.policy, **settings)
    with tempfile.TemporaryDirectory() as folder:
        chat = ApiChat(endpoint, Path(folder))
        began = time.monotonic()
        stopped = False
        try:
            replies = chat.answer([[{"role": "user", "content": content}] for content in contents])
        except CriticFailed as failure:
            replies = failure.replies
            stopped = True
        seconds = time.monotonic() - began
    return _row(cell, contents, replies, seconds, stopped)


def _row(
    cell: Cell, contents: list[str], replies: list[Reply], seconds: float, stopped: bool
) -> Row:
    counts = Counter(reply.status for reply in replies)
    reasons = Counter(
        f"{reply.status}: {' '.join(reply.reason.split()[:7])}"
        for reply in replies
        if reply.status != "ok"
    )
    foreign = sum(
        reply.text != (f"echo {content}" if reply.status == "ok" else "")
        for content, reply in zip(contents, replies, strict=True)
    )
    return Row(
        cell.fault,
        len(contents),
        counts["ok"],
        counts["failed"],
        counts["skipped"],
        reasons,
        foreign,
        seconds,
        stopped,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--attempt-deadline", type=float, default=2.0)
    parser.add_argument("--deadline", type=float, default=8.0)
    parser.add_argument("--step-deadline", type=float, default=12.0)
    given = parser.parse_args()
    settings = {
        "attempt_deadline": given.attempt_deadline,
        "deadline": given.deadline,
        "step_deadline": given.step_deadline,
        "concurrency": 4,
    }
    print(
        "| fault | it | policy | asked | ok | failed | skipped | reasons | substitutes | "
        "seconds | the run |\n|" + "---|" * 11
    )
    names = {short: name for name, short in FAULTS.items()}
    wrong = 0
    for cell in CELLS:
        accept_after = 0.0
        if cell.fault == "slow-accept" and cell.heals:
            accept_after = 1.5 * given.attempt_deadline
        elif cell.fault == "slow-accept":
            accept_after = 10 * given.step_deadline
        with serving(accept_after) as server:
            row = measure(cell, server, **settings)
        reasons = "; ".join(f"{reason} ({count})" for reason, count in row.reasons.items())
        shown = (
            names[cell.fault],
            "heals" if cell.heals else "stays",
            cell.policy,
            row.asked,
            row.ok,
            row.failed,
            row.skipped,
            reasons,
            row.substitutes,
        )
        print(
            "| "
            + " | ".join(map(str, shown))
            + f" | {row.seconds:.1f} | {'stops' if row.stopped else 'goes on'} |",
            flush=True,
        )
        wrong += (
            row.seconds > given.step_deadline
            or row.asked != row.ok + row.failed + row.skipped
            or row.substitutes > 0
        )
    print(
        f"\n{len(CELLS)} cells, {wrong} wrong; deadlines {given.attempt_deadline:g} s a try, "
        f"{given.deadline:g} s a call, {given.step_deadline:g} s a step"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
