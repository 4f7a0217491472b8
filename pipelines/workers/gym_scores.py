"""The scores of a reasoning-gym data set (0.1.25) as a verifier by command:

    PYTHON gym_scores.py countdown 300 > countdown.jsonl      # questions, to train on
    verifier: {kind: command, argv: [PYTHON, gym_scores.py, countdown], threshold: 1.0}

reasoning-gym gives part of the score for a wrong answer in the right form: .05 in countdown, and
in chain_sum a share of the length. A threshold of 1.0 lets the full score alone count as right.
It scores the text after the last "Answer:"; without one the answer is unreadable.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import reasoning_gym
from answer_lines import Answer, serve

MARK = "Answer:"
REQUEST = f'End with a line "{MARK} " followed by the answer alone.'


def write_rows(name: str, count: int) -> None:
    """Print questions as JSON lines; `entry` is what the scorer reads."""
    for entry in reasoning_gym.create_dataset(name, size=count, seed=0):
        question = f"{entry['question']}\n{REQUEST}"
        row = {"question": question, "answer": entry["answer"], "entry": json.dumps(entry)}
        print(json.dumps(row))


def judge_by(name: str) -> Any:
    """The judge of one data set."""
    dataset = reasoning_gym.create_dataset(name, size=1, seed=0)

    def judge(completion: str, row: dict[str, Any]) -> Answer:
        _, mark, answer = completion.rpartition(MARK)
        if not mark:
            return {"unreadable": True, "reason": f"no {MARK}"}
        # A final newline would halve the score of a right answer.
        answer = answer.strip()
        score = dataset.score_answer(answer, json.loads(row["entry"]))
        return {"reward": score, "answer": answer}

    return judge


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write_rows(sys.argv[1], int(sys.argv[2]))
    else:
        serve(judge_by(sys.argv[1]))
