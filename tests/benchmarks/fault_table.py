"""Every fault of a critic's server x heals before the tries end, or outlasts them x skip, stop: how
long the step takes and what becomes of its calls.

    OMP_NUM_THREADS=1 python tests/benchmarks/fault_table.py

Real calls of `ApiChat` against tests/fault_server.py on loopback; prints a Markdown table. A cell
is one step of 4 conversations that all meet the fault. "counted" are answers of another model,
which the replies name; "unseen" are texts that are not the server's answer to that very question,
and answers of another model that no reply names. Four cells run at a time.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_server import FaultServer, serving

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply

BAD = "bad response: "
WAITS = "timeout|step deadline"
OK = ""
"""Stands for an answer that is taken, although something is odd about it."""
FAULTS = {
    # Refusals that ask for time.
    "429": "http 429: slow down",
    "429-bare": "http 429: slow down",
    "429-for-an-hour": "http 429: quota used up",
    "retry-date": "http 429: slow down",
    "retry-date-850": "http 429: slow down",
    "retry-date-asctime": "http 429: slow down",
    "retry-float": "http 429: slow down",
    "retry-negative": "http 429: slow down",
    "retry-infinite": "http 429: slow down",
    "retry-nan": "http 429: slow down",
    "retry-words": "http 429: slow down",
    "retry-bytes": "http 429: slow down",
    "retry-broken-date": "http 429: slow down",
    "retry-far": "http 429: slow down",
    "retry-several": "http 429: slow down",
    # Other refusals.
    "500": "http 500: down",
    "503": "http 503: down",
    "error-200-down": BAD + "503: down",
    "error-html": "http 502: <html>",
    "odd-charset": "http 503: down",
    "deep-error": "http 500: ",
    "error-trickle": "http 503: ",
    "error-bomb": "http 503: ",
    "endless-429": "http 429: ",
    "status-999": "http 999: ",
    "401": "http 401: no",
    "error-drip": "http 401: no",
    "error-list": "http 422: field required",
    "too-long": "prompt_too_long: ",
    "quota": "http 429: insufficient_quota",
    "redirect": "http 307: it redirects",
    "redirect-nowhere": "http 307: ",
    "wrong-model": "http 404: the model other does not",
    # The connection.
    "reset": "connection",
    "reset-at-once": "connection",
    "reset-in-headers": "connection",
    "close-at-once": "connection",
    "length-too-long": "connection",
    "not-http": "connection",
    "http-0.9": "connection",
    "endless-headers": "connection",
    "endless-trailers": "connection",
    "tls": "connection",
    "storm": WAITS,
    "trickle": WAITS,
    "drip-headers": WAITS,
    "hang": WAITS,
    "hang-after-headers": WAITS,
    "slow-accept": WAITS,
    # Bodies.
    "huge": BAD + "over 4 MB",
    "endless": BAD + "over 4 MB",
    "gzip-bomb": BAD + "over 4 MB",
    "deflate-bomb": BAD + "over 4 MB",
    "damaged-gzip": BAD + "its gzip is damaged",
    "br": BAD + "compressed as 'br'",
    "zstd": BAD + "compressed as 'zstd'",
    "twice": BAD + "compressed as 'gzip, gzip'",
    "no-such": BAD + "compressed as",
    "bad-json": BAD + "no JSON",
    "truncated": BAD + "no JSON",
    "length-too-short": BAD + "no JSON",
    "empty-body": BAD + "no JSON",
    "no-content": BAD + "no JSON",
    "html": BAD + "no JSON",
    "huge-integer": BAD + "no JSON",
    "not-utf-8": BAD + "no UTF-8",
    "deep": BAD + "(nested too deeply|no JSON)",
    "many-values": BAD + "over 500,000 values",
    "events": BAD + "a stream of events",
    "two-contents": BAD + "two values of 'content'",
    "null": BAD + "no choices",
    "a-word": BAD + "no choices",
    "no-choices": BAD + "no choices",
    "choices-null": BAD + "no choices",
    "choices-words": BAD + "no choices",
    "message-null": BAD + "no message",
    "content-number": BAD + "content is a number",
    "content-object": BAD + "content is an object",
    "list": BAD + "content is a list",
    "error-of-answer": BAD + "502: provider down",
    "error-of-choice": BAD + "502: provider down",
    "error-of-message": BAD + "502: provider down",
    "error-of-alone": BAD + "502: provider down",
    "finish-abort": BAD + "the server broke the answer off",
    # Answers without usable text, which are not asked for again.
    "content-null": "empty",
    "refusal": "refusal",
    "tool-call": "tool_call",
    "function-call": "tool_call",
    "finish-RECITATION": "content_filter",
    "finish-model_refusal": "refusal",
    # Answers that are taken.
    "error-of-empty": OK,
    "finish-truncated": OK,
    "finish-MAX_TOKENS": OK,
    "finish-whatever": OK,
    "gzip": OK,
    "wrong-type": OK,
    "usage-strings": OK,
    "usage-negative": OK,
    "usage-nan": OK,
    "usage-huge": OK,
    "usage-null": OK,
    "usage-list": OK,
    "other-model": OK,
    "dated-model": OK,
    "no-model": OK,
    "strict": BAD + "the answer names the model 'smaller', not 'm'",
}
"""Fault -> how the reason of a call begins that meets nothing else (a regular expression)."""
NOT_TRIED_AGAIN = (
    "429-for-an-hour",
    "retry-far",
    "401",
    "error-drip",
    "error-list",
    "too-long",
    "quota",
    "redirect",
    "redirect-nowhere",
    "content-null",
    "refusal",
    "tool-call",
    "function-call",
    "finish-RECITATION",
    "finish-model_refusal",
)
"""Faults after which no other request of the call is sent, so that none heals."""
NEVER_HEAL = ("wrong-model", "tls")
"""Faults of the settings, which have no tries to heal after."""
OTHER_MODELS = {"other-model": "smaller", "dated-model": "m-2024-08-06", "no-model": "none named"}
PYTHON_NAMES = re.compile(r"\b[A-Z]\w*(Error|Exception)\b|^error: |Traceback")
CALLS = 4


@dataclass(frozen=True)
class Cell:
    fault: str
    heals: bool
    policy: str


@dataclass(frozen=True)
class Row:
    """The outcome of one step."""

    cell: Cell
    asked: int
    ok: int
    failed: int
    skipped: int
    reasons: Counter
    counted: int
    unseen: int
    unexplained: int
    seconds: float
    stopped: bool

    @property
    def faults(self) -> list[str]:
        """What the step did wrong, but for its time."""
        wanted_ok = self.asked
        heals = self.cell.heals and self.cell.fault not in NOT_TRIED_AGAIN
        if FAULTS[self.cell.fault] and not heals:
            wanted_ok = 0
        arrives = FAULTS[self.cell.fault] in ("empty", "refusal", "tool_call", "content_filter")
        stops = self.cell.policy == "stop" and wanted_ok == 0 and not arrives
        wrong = []
        if self.ok != wanted_ok or self.asked != self.ok + self.failed + self.skipped:
            wrong.append(f"{wanted_ok} answers expected")
        if self.stopped != stops:
            wrong.append("wrongly stopped or not")
        if self.unseen or self.unexplained:
            wrong.append("unseen or unexplained")
        return wrong


CELLS = [
    Cell(fault, heals, policy)
    for fault in FAULTS
    for heals in (True, False)
    if not (heals and fault in NEVER_HEAL)
    for policy in ("skip", "stop")
]


def measure(cell: Cell, server: FaultServer, calls: int = CALLS, **settings) -> Row:
    """One step against the server."""
    fault = "other-model" if cell.fault == "strict" else cell.fault
    fault = f"{fault}:1" if cell.heals else fault
    if cell.fault in ("slow-accept", "wrong-model", "tls"):
        fault = "ok"
    contents = [f"{fault} {cell} {i}" for i in range(calls)]
    model = "other" if cell.fault == "wrong-model" else "m"
    url = server.url.replace("http:", "https:") if cell.fault == "tls" else server.url
    endpoint = Endpoint(
        url, model, on_failure=cell.policy, strict_model=cell.fault == "strict", **settings
    )
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
        f"{reply.status}: {' '.join(reply.reason.split()[:7])}" for reply in replies if reply.reason
    )
    unseen = 0
    for content, reply in zip(contents, replies, strict=True):
        is_echo = reply.text == (f"echo {content}" if reply.status == "ok" else "")
        is_named = reply.model == OTHER_MODELS.get(cell.fault, "")
        unseen += not (is_echo and is_named)
    return Row(
        cell,
        len(contents),
        counts["ok"],
        counts["failed"],
        counts["skipped"],
        reasons,
        sum(bool(reply.model) for reply in replies),
        unseen,
        sum(not _is_explained(cell, reply) for reply in replies),
        seconds,
        stopped,
    )


def _is_explained(cell: Cell, reply: Reply) -> bool:
    """Whether a reply without text says why, in words of ours or of the server."""
    if reply.status == "ok":
        return True
    reason = reply.reason.removeprefix("not sent after ")
    # A step may also end, or its circuit open, before a call has met the fault.
    usual = f"({FAULTS[cell.fault] or 'nothing'})|timeout|step deadline|circuit open"
    return bool(re.match(usual, reason)) and not PYTHON_NAMES.search(reason)


def _run(cell: Cell, server: FaultServer, settings: dict[str, float]) -> Row:
    if cell.fault != "slow-accept":
        return measure(cell, server, **settings)
    accept_after = 10 * settings["step_deadline"]
    if cell.heals:
        accept_after = 1.5 * settings["attempt_deadline"]
    with serving(accept_after) as slow:
        return measure(cell, slow, **settings)


def _print_row(row: Row, deadline: float) -> bool:
    """Print a line of the table. Whether anything is wrong with it."""
    wrong = row.faults
    if row.seconds > deadline:
        wrong.append("over its deadline")
    reasons = "; ".join(f"{reason} ({count})" for reason, count in row.reasons.items())
    cells = (
        row.cell.fault,
        "heals" if row.cell.heals else "stays",
        row.cell.policy,
        row.asked,
        row.ok,
        row.failed,
        row.skipped,
        reasons.replace("|", "/"),
        row.counted,
        row.unseen,
        f"{row.seconds:.1f}",
        "stops" if row.stopped else "goes on",
        ", ".join(wrong),
    )
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return bool(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--attempt-deadline", type=float, default=1.5)
    parser.add_argument("--deadline", type=float, default=6.0)
    parser.add_argument("--step-deadline", type=float, default=8.0)
    parser.add_argument("--only", nargs="*", default=list(FAULTS), help="faults to run")
    given = parser.parse_args()
    settings = {
        "attempt_deadline": given.attempt_deadline,
        "deadline": given.deadline,
        "step_deadline": given.step_deadline,
        "concurrency": 4,
    }
    print(
        "| fault | it | policy | asked | ok | failed | skipped | told | counted | unseen | "
        "seconds | the run | wrong |\n|" + "---|" * 13
    )
    cells = [cell for cell in CELLS if cell.fault in given.only]
    with ThreadPoolExecutor(4) as pool, serving() as server:
        rows = pool.map(lambda cell: _run(cell, server, settings), cells)
        wrong = sum([_print_row(row, given.step_deadline) for row in rows])
    print(
        f"\n{len(set(given.only))} faults, {len(cells)} cells, {wrong} wrong; deadlines "
        f"{given.attempt_deadline:g} s a try, {given.deadline:g} s a call, "
        f"{given.step_deadline:g} s a step"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
