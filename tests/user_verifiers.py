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
from contextlib import suppress
from pathlib import Path

from critique_rl.types import Verdict


def same(text, row):
    return text.strip() == row["answer"]


def share(text, row):
    return {"half": 0.5, "little": 0.2, "nan": float("nan"), "none": None}[text]


def verdict(text, row):
    return Verdict("abstained", "?", "said so", confidence=0.25)


def odd_confidence(text, row):
    return Verdict("right", "7", confidence=float("nan") if text == "7" else 40)


def odd_outcome(text, row):
    return Verdict("correct", "7")


def trl(completions, answer, **_):
    return [
        float(completion[0]["content"] == gold)
        for completion, gold in zip(completions, answer, strict=True)
    ]


def plain_trl(prompts, completions, answer):
    return [completion == gold for completion, gold in zip(completions, answer, strict=True)]


def words(text, row):
    return "right"


class Stop(BaseException):
    """An exception that no `except Exception` catches."""


def hostile(text, row):
    """Does what the text says."""
    match text:
        case "loop":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "slow":
            time.sleep(0.1)
        case "hold the interpreter":  # one call in C, which looks at no signal
            return sum(range(10**14))
        case "deaf":  # to everything but SIGKILL
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)
            while True:
                with suppress(BaseException):
                    time.sleep(3600)
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
        case "one large block":  # refused at once, where the kernel has a limit
            return len(bytearray(1 << 40)) > 0
        case "print":
            print("what a user prints", flush=True)
        case "flood":
            for _ in range(400):
                print("x" * (1 << 16))
        case "endless flood":
            while True:
                print("x" * (1 << 16))
        case "long reason":
            return Verdict("wrong", "7" * (1 << 22), "because " * (1 << 20))
        case "exit at once":
            os._exit(0)
        case "own exception":
            raise Stop
        case "fork":  # both come back from here
            os.fork()
        case "write to the pipes":
            for pipe in range(3, 20):
                with suppress(OSError):
                    os.write(pipe, b"no json\n")
        case "close the pipes":
            os.closerange(0, 20)
            time.sleep(3600)
        case "daemon":
            words = [sys.executable, "-c", "import time; time.sleep(3600)"]
            started = subprocess.Popen(words, start_new_session=True)
            Path(row["note"]).write_text(str(started.pid))
            time.sleep(3600)
        case "child":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            time.sleep(3600)
        case "not json":
            return object()
    return True


def hostile_recursion(n):
    return hostile_recursion(n + 1)


def slow_on_numbers(text, row):
    """Slow but in time, as a verifier that asks another machine."""
    if any(character.isdigit() for character in text):
        time.sleep(0.1)
        return False
    return True


def slow_once(text, row):
    """Hangs on a text the first time only, as on a machine that was busy."""
    seen = Path(row["note"])
    if text == "hang" and not seen.exists():
        seen.write_text("seen")
        time.sleep(3600)
    return True


def hangs_on(text):
    """A third of what a random model writes."""
    return text != "" and ord(text[-1]) % 3 == 0


def by_last_letter(text, row):
    if hangs_on(text):
        time.sleep(3600)
    return text != "" and ord(text[-1]) % 2 == 0


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
