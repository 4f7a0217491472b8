"""The loop of a verifier by command (critique_rl/docs/own-reward.md); copy it beside your worker.

It needs Python's library alone, so it runs in any environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]
"""{"reward": 0 to 1}, {"unscored": why} or {"unreadable": True}; also "answer", "reason"."""


def serve(judge: Callable[[str, dict[str, Any]], Answer]) -> None:
    """Answer questions until stdin ends, which it does when the run ends.

    Args:
        judge: (completion, row of the dataset) -> the answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    # From here on whatever a library prints goes to stderr, also from C.
    os.dup2(2, 1)
    print('{"ready": true}', file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = judge(question["completion"], question["row"])
        # A fault of the judge is no fault of the answer: unscored, never a 0.
        except Exception as error:
            answer = {"unscored": f"error {type(error).__name__}: {error}"}
        print(json.dumps({"id": question["id"], **answer}), file=answers, flush=True)
