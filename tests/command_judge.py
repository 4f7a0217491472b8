"""A verifier by command that does what the completion says; `python command_judge.py [LOG]`.

It logs the row of each question that it judges. Python's library alone, as in any environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

VALUES = {
    "right": {"reward": 1},
    "half": {"reward": 0.5},
    "little": {"reward": 0.25},
    "wrong": {"reward": 0.0, "answer": "7", "reason": "7, expected 8"},
    "unreadable": {"unreadable": True, "reason": "no box"},
    "unreadable 0": {"reward": 0, "unreadable": True},
    "cannot judge": {"unscored": "no gold answer: row 7"},
    "no reason": {"unscored": ""},
    "crash": {"unscored": "crash"},
    "timeout": {"reward": 0, "reason": "timeout"},
    "nan": {"reward": float("nan")},
    "inf": {"reward": float("inf")},
    "over": {"reward": 1.5},
    "under": {"reward": -0.1},
    "true": {"reward": True},
    "text": {"reward": "1.0"},
    "null": {"reward": None},
    "nothing": {},
    "both": {"reward": 1, "unscored": "why"},
    "unreadable 1": {"reward": 1, "unreadable": True},
}


def say(text: str) -> None:
    """Write to stdout at once, in pieces that a pipe takes."""
    sys.stdout.write(text)
    sys.stdout.flush()


def act(text: str, number: int, row: dict) -> dict | None:
    """Do what the text says; the answer, or None where it was given already."""
    match text:
        case "die":
            sys.stderr.write("last words\n")
            os._exit(3)
        case "die once":
            seen = Path(row["note"])
            if not seen.exists():
                seen.write_text("seen")
                os._exit(3)
        case "hang":
            time.sleep(3600)
        case "child":
            words = [sys.executable, "-c", "import time; time.sleep(3600)"]
            started = subprocess.Popen(words, start_new_session=True)
            Path(row["note"]).write_text(str(started.pid))
            time.sleep(3600)
        case "answer, then die":
            say(json.dumps({"id": number, "reward": 1}) + "\n")
            os._exit(0)
        case "half an answer":
            say(json.dumps({"id": number, "reward": 1}))
            os._exit(0)
        case "noise":
            say("Loading weights: 100%\n")
            return None
        case "object":
            say('{"level": "info"}\n')
            return None
        case "bytes":
            sys.stdout.buffer.write(b"\xff\xfe\n")
        case "deep":
            say("[" * 100_000 + "\n")
        case "endless line":
            say("x" * (3 << 20))
        case "double":
            answer = json.dumps({"id": number, "reward": 1}) + "\n"
            say(answer + answer)
            return None
        case "late double":
            # The second one comes when the first was taken, and the next question asked.
            say(json.dumps({"id": number, "reward": 1}) + "\n")
            time.sleep(0.1)
            return {"reward": 0}
        case "other id":
            return {"id": number + 1, "reward": 1}
        case "earlier id":
            return {"id": number - 1, "reward": 1}
        case "id as text":
            return {"id": str(number), "reward": 1}
        case "id true":
            return {"id": True, "reward": 1}
        case "stderr":
            sys.stderr.write("x" * (1 << 18))
        case "memory":
            hoard = bytearray(1 << 29)
            hoard[::4096] = b"x" * len(hoard[::4096])
            time.sleep(3600)
    if text.startswith(("length ", "\ud800")):
        return {"reward": float(len(text) == row["length"])}
    return VALUES.get(text, {"reward": 1})


def main() -> None:
    say('{"ready": true}\n')
    for line in sys.stdin:
        question = json.loads(line)
        assert set(question) == {"id", "completion", "row"}
        number = question["id"]
        for path in sys.argv[1:]:
            with open(path, "a") as log:
                place = question["row"].get("place")
                log.write(json.dumps([os.getpid(), number, place]) + "\n")
        answer = act(question["completion"], number, question["row"])
        if answer is not None:
            say(json.dumps({"id": number, **answer}) + "\n")


if __name__ == "__main__":
    main()
