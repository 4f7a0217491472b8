"""What a verifier of ours that misbehaves costs a step, and the speed of `math`.

    PYTHONPATH=.:tests python tests/benchmarks/hanging_verifier.py [--answers 200] [--bad 10]

Each row: so many answers in one batch, of which every n-th makes the verifier do what the row says
(`user_verifiers.hostile`); all rows of the data differ, so that no two answers share a judgement.
The last row has each behaviour once. Then, with default settings, a batch in which all answers
hang; a step of critiques whose pieces are judged slowly but in time; the memory that this process
takes for long answers; and the speed of `math`: one answer at a time, and all in one batch.
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

from critique_rl.critic.leaks import handle_leak
from critique_rl.tasks.isolated_verifiers import MathVerifier, build_verifier
from critique_rl.tasks.judging import count_lost
from critique_rl.tasks.task import Task
from critique_rl.tasks.workers.pool import rank_cores
from critique_rl.tasks.workers.verifier import WorkerVerifier
from critique_rl.types import Attempt, Critique, Verdict

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


def bad_row(words: str, bad: list[str], options: argparse.Namespace, note: Path) -> str:
    """One row of the table: `bad` is what the verifier is made to do."""
    verifier = hostile(
        deadline=options.deadline, step_deadline=options.step_deadline, memory_gb=0.25
    )
    every = options.answers // len(bad)
    texts = ["ordinary"] * options.answers
    for place, text in enumerate(bad):
        texts[place * every] = text
    rows = [{"note": f"{note}-{place}", "place": place} for place in range(options.answers)]
    start = time.monotonic()
    verdicts = verifier.judge_all(texts, rows)
    seconds = time.monotonic() - start
    verifier.worker.stop()
    pairs = list(zip(texts, verdicts, strict=True))
    others = sum(verdict.outcome == "right" for asked, verdict in pairs if asked == "ordinary")
    outcomes = _outcomes([verdict for asked, verdict in pairs if asked != "ordinary"])
    lost = {name: count for name, count in count_lost(verdicts).items() if name != "judged"}
    counted = ", ".join(f"{name} {count}" for name, count in lost.items())
    total = options.answers - len(bad)
    return f"| {words} | {seconds:.1f} | {outcomes} | {counted} | {others} of {total} |"


def hostile(**settings: float) -> WorkerVerifier:
    """The verifier that does what the answers say."""
    section = {"kind": "python", "target": user_verifiers.hostile, **settings}
    verifier = build_verifier(section)
    assert isinstance(verifier, WorkerVerifier)
    return verifier


def all_hanging(answers: int) -> str:
    """A batch in which all answers hang, with default settings."""
    verifier = hostile()
    seconds = verifier.worker.seconds_for(answers)
    start = time.monotonic()
    verdicts = verifier.judge_all(["loop"] * answers, [{"place": i} for i in range(answers)])
    taken = time.monotonic() - start
    verifier.worker.stop()
    return (
        f"{answers} answers that hang, default settings, {verifier.worker.most_workers} processes "
        f"on {rank_cores()} cores: {_outcomes(verdicts)} after {taken:.1f} s of {seconds:.0f} s"
    )


def slow_pieces() -> str:
    """A step of 3 s whose 30 critiques have 40 pieces each, of .1 s each, then 8 answers."""
    section = {"kind": "python", "target": user_verifiers.slow_on_numbers}
    verifier = build_verifier({**section, "deadline": 1, "step_deadline": 3})
    assert isinstance(verifier, WorkerVerifier)
    task = Task("t", [], lambda split, size: [], verifier)
    attempt = Attempt("q", "1", Verdict("wrong"), {"answer": "7"})
    text = " ".join(f"it is {1000 + i}," for i in range(40))
    reasons: Counter[str] = Counter()
    start = time.monotonic()
    with verifier.worker.step():
        for _ in range(30):
            critique = handle_leak(Critique(text, "c"), attempt, task.is_answer, "drop")
            reasons[f"{critique.status} {critique.reason}"] += 1
        verdicts = verifier.judge_all(["words"] * 8, [{"place": i} for i in range(8)])
    seconds = time.monotonic() - start
    verifier.worker.stop()
    return (
        "30 critiques whose 40 pieces take .2 s each, then 8 answers, in a step of 3 s: critiques "
        f"{dict(reasons)}, answers {_outcomes(verdicts)}, {seconds:.1f} s"
    )


def peak_megabytes() -> str:
    """What judging adds to this process's memory: answers and rows of a million characters."""
    added = []
    for name, verifier in (("python", hostile()), ("math", MathVerifier())):
        for character in ("x", "\N{GRINNING FACE}"):
            texts = [character * 999_990 + str(i) for i in range(16)]
            rows = [{"answer": "7", "solution": character * 100_000, "i": i} for i in range(16)]
            verifier.worker.start()
            # Writing 5 sets the highest mark to what is held now.
            Path("/proc/self/clear_refs").write_text("5")
            before = _peak()
            verifier.judge_all(texts, rows)
            added.append(f"{name} with {character!r} {(_peak() - before) / 1e6:.0f} MB")
        verifier.worker.stop()
    return f"16 answers of 1,000,000 characters, peak memory over rest: {', '.join(added)}"


def _peak() -> int:
    """The most bytes that this process has held."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


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
    parser.add_argument("--step-deadline", type=float, default=40)
    parser.add_argument("--hanging", type=int, default=64)
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"
    print("| the verifier | seconds | outcome | counted | others judged |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for text in WORDS:
            note = Path(folder) / "note"
            print(bad_row(WORDS[text], [text] * options.bad, options, note), flush=True)
        print(bad_row("each of these once", list(WORDS), options, note), flush=True)
    print(f"\n{slow_pieces()}\n\n{peak_megabytes()}", flush=True)
    print(f"\n{speed()}", flush=True)
    print(f"\n{all_hanging(options.hanging)}")


if __name__ == "__main__":
    main()
