"""How often a base is right at the first trap of a plateau problem, and how often at all of them:
what a scalar reward has to find.

    python tests/benchmarks/trap_chance.py runs/bases/chance-0.03 [more folders]
"""

from __future__ import annotations

import sys

from critique_rl.config.schema import TaskConfig
from critique_rl.lab import chain
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task


def first_trap_right(question: str, text: str) -> bool | None:
    """None where the working does not get there without another mistake."""
    problem = chain.parse_problem(question)
    first = min(problem.traps)
    lines = text.split("\n")
    results = [line.partition("=")[2] for line in lines[:first]]
    if len(results) < first or results[: first - 1] != [
        str(value) for value in problem.values[: first - 1]
    ]:
        return None
    return results[-1] == str(problem.values[first - 1])


def main(folders: list[str], problems: int = 200, samples: int = 64) -> None:
    task = load_task(TaskConfig("lab/chain", size=16), 0)
    rows = [row for row in task.held_out("test", problems) if row["family"] == "plateau"]
    for folder in folders:
        model, tokenizer = load_policy(folder)
        answers = sample(
            model,
            tokenizer,
            [row["prompt"] for row in rows for _ in range(samples)],
            Sampling(max_new_tokens=48),
            seed=1,
        )
        firsts = [
            hit
            for a in answers
            if (hit := first_trap_right(rows[a.prompt // samples]["question"], a.text)) is not None
        ]
        right = [
            task.verifier(a.text, rows[a.prompt // samples]).outcome == "right" for a in answers
        ]
        print(
            f"{folder}: first trap right {sum(firsts) / len(firsts):.4f} of {len(firsts)}, "
            f"whole problem {sum(right) / len(right):.5f} of {len(right)}"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["lab"])
