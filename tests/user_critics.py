"""Critics as a user might write them, well and badly; named by test_user_critic.py as
user_critics:<name>.
"""

from __future__ import annotations

import threading

from critique_rl.types import Critique, Usage

awake = threading.Event()
"""Set by a test: what sleeps wakes up."""


def says_length(attempt):
    return f"{len(attempt.text)} characters"


def by_text(attempt):
    """Does what the attempt says."""
    match attempt.text:
        case "raise":
            raise KeyError("no such thing")
        case "none":
            return None
        case "empty":
            return " "
        case "number":
            return 7
        case "leak":
            return "The answer is 13."
        case "surrogate":
            return "a\ud800b\x00c"
        case "blank":
            return "\u200d\u00ad \u3164"
        case "blank critique":
            return Critique("  ", "mine")
        case "no text":
            return Critique(None, "mine")
        case "status":
            return Critique("a", "mine", "great")
        case "usage":
            return Critique("a", "mine", usage=None)
        case "nan":
            return Critique("a", "mine", usage=Usage(usd=float("nan")))
        case "notes":
            return Critique("a", "mine", notes=None)
        case "failed":
            return Critique("", "mine", "failed", "no idea")
        case "exit":
            raise SystemExit(1)
        case "sleep":
            awake.wait()
    return "look at line 2"


class Model:
    def __init__(self, word="line"):
        self.word = word

    def critique(self, attempts):
        if any(attempt.text == "raise" for attempt in attempts):
            raise RuntimeError("one of them is bad")
        return [self.word] * (len(attempts) - (attempts[0].text == "too few"))


class NoMethod:
    pass


number = 3
