"""Verifiers as a user might write them, well and badly; named by test_isolated_verifiers.py as
user_verifiers:<name>.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from critique_rl.types import Verdict


def same(text, row):
    return text.strip() == row["answer"]


def share(text, row):
    return {"half": 0.5, "little": 0.2, "nan": float("nan"), "none": None}[text]


def verdict(text, row):
    return Verdict("abstained", "?", "said so", confidence=0.25)


def trl(completions, answer, **_):
    return [
        float(completion[0]["content"] == gold)
        for completion, gold in zip(completions, answer, strict=True)
    ]


def plain_trl(prompts, completions, answer):
    return [completion == gold for completion, gold in zip(completions, answer, strict=True)]


def words(text, row):
    return "right"


def hostile(text, row):
    """Does what the text says."""
    match text:
        case "loop":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "big number":
            return 3 ** (3**25)
        case "own alarm":  # what a library with a timeout of its own does, before it hangs
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.alarm(3600)
            while True:
                pass
        case "raise":
            raise KeyError("no such thing")
        case "exit":
            sys.exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "recursion":
            return hostile_recursion(0)
        case "memory":
            hoard = []
            while True:
                hoard.append(b"x" * (1 << 24))  # written to: what is only reserved takes nothing
        case "print":
            print("what a user prints", flush=True)
        case "child":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            time.sleep(3600)
        case "not json":
            return object()
    return True


def hostile_recursion(n):
    return hostile_recursion(n + 1)


one_argument = len
number = 3


def note_row(text, row):
    """Keeps what it is handed in seen.jsonl."""
    with open("seen.jsonl", "a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    return len(text) % 2 == 0


def note_columns(completions, **columns):
    """The same as a reward function of TRL."""
    columns = {name: values[0] for name, values in columns.items()}
    return [note_row(completions[0][0]["content"], columns)]
