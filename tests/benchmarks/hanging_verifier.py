"""What a verifier of ours that misbehaves costs a step, and the speed of `math`.

    PYTHONPATH=.:tests python tests/benchmarks/hanging_verifier.py [--answers 200] [--bad 10]

Each row: so many answers in one batch, of which every n-th makes the verifier do what the row says
(`user_verifiers.hostile`). Then the speed of `math`: one answer at a time, and all in one batch.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import user_verifiers

from critique_rl.tasks.isolated_verifiers import MathVerifier, WorkerVerifier, build_verifier
from critique_rl.tasks.judging import count_lost
from critique_rl.types import Verdict

WORDS = {
    "loop": "loops in Python",
    "sleep": "sleeps",
    "hold the interpreter": "loops in C, so that no signal handler runs",
    "own alarm": "takes the alarm signal, then loops",
    "deaf": "ignores SIGTERM, SIGALRM and every exception",
    "child": "starts a process and sleeps",
    "daemon": "starts a process in another session and sleeps",
    "endless flood": "prints without end",
    "flood": "prints 26 MB, then judges",
    "memory": "fills memory",
    "one large block": "asks for a terabyte at once",
    "kill": "kills itself",
    "segfault": "dies of a segmentation fault",
    "exit at once": "ends its process by os._exit",
    "fork": "forks; both copies come back",
    "write to the pipes": "writes into all its pipes",
    "close the pipes": "closes its pipes and sleeps",
    "own exception": "raises a BaseException",
    "recursion": "recurses without end",
    "long reason": "gives a verdict of 12 MB",
}
"""What `user_verifiers.hostile` does -> the same in words."""
ORDINARY = 2000
"""Answers whose speed is measured."""


def bad_row(text: str, options: argparse.Namespace, note: Path) -> str:
    """One row of the table."""
    verifier = build_verifier(
        {
            "kind": "python",
            "target": user_verifiers.hostile,
            "deadline": options.deadline,
            "step_deadline": options.step_deadline,
            "memory_gb": 0.25,
        }
    )
    assert isinstance(verifier, WorkerVerifier)
    every = options.answers // options.bad
    texts = [text if place % every == 0 else "ordinary" for place in range(options.answers)]
    start = time.monotonic()
    verdicts = verifier.judge_all(texts, [{"note": str(note)}] * options.answers)
    seconds = time.monotonic() - start
    verifier.worker.stop()
    pairs = list(zip(texts, verdicts, strict=True))
    others = sum(verdict.outcome == "right" for asked, verdict in pairs if asked == "ordinary")
    outcomes = _outcomes([verdict for asked, verdict in pairs if asked != "ordinary"])
    lost = {name: count for name, count in count_lost(verdicts).items() if name != "judged"}
    counted = ", ".join(f"{name} {count}" for name, count in lost.items())
    total = options.answers - options.bad
    return f"| {WORDS[text]} | {seconds:.1f} | {outcomes} | {counted} | {others} of {total} |"


def _outcomes(verdicts: list[Verdict]) -> str:
    parts = []
    for verdict in verdicts:
        reason = f" ({verdict.reason})" if verdict.reason and len(verdict.reason) < 40 else ""
        parts.append(f"{verdict.outcome}{reason}")
    return ", ".join(f"{count} {part}" for part, count in Counter(parts).items())


def ordinary_answers() -> list[tuple[str, dict[str, str]]]:
    """Answers to which Math-Verify gives its verdict in milliseconds, all of them different."""
    rng = random.Random(0)
    answers = []
    for place in range(ORDINARY):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        forms = (
            (rf"\boxed{{\frac{{{a}}}{{{b}}}+{place}}}", rf"{place}+\frac{{{a}}}{{{b}}}"),
            (rf"\boxed{{x^2+{a}x+{place}}}", rf"{place}+x^2+{b}x"),
            (rf"It is $\sqrt{{{a}}}+{place}$.", rf"{place}+\sqrt{{{a}}}"),
            (rf"The answer is {a * b + place}", str(a * b + place)),
        )
        text, gold = forms[place % 4]
        answers.append((text, {"answer": gold}))
    return answers


def speed() -> str:
    """Answers per second one at a time, as before there was a pool, and in one batch."""
    texts, rows = zip(*ordinary_answers(), strict=True)
    rates = []
    outcomes = []
    for is_batch in (False, True):
        verifier = MathVerifier()
        verifier.worker.start()
        start = time.monotonic()
        if is_batch:
            verdicts = verifier.judge_all(texts, rows)
        else:
            verdicts = [verifier(text, row) for text, row in zip(texts, rows, strict=True)]
        rates.append(ORDINARY / (time.monotonic() - start))
        outcomes.append([verdict.outcome for verdict in verdicts])
        verifier.worker.stop()
    assert outcomes[0] == outcomes[1]
    return (
        f"{ORDINARY} ordinary answers, math: {rates[0]:.0f} per second one at a time, "
        f"{rates[1]:.0f} in one batch, {rates[1] / rates[0]:.2f} times as many"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--bad", type=int, default=10)
    parser.add_argument("--deadline", type=float, default=1)
    parser.add_argument("--step-deadline", type=float, default=30)
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"
    print("| the verifier | seconds | outcome | counted | others judged |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for text in WORDS:
            print(bad_row(text, options, Path(folder) / "note"), flush=True)
    print(f"\n{speed()}")


if __name__ == "__main__":
    main()
