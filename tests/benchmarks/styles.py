"""How often bases of lab/tiers answer without steps, and how often each style is right, by family.

python tests/benchmarks/styles.py lab/tiers lab/tiers-worked [folders of runs]
"""

from __future__ import annotations

import sys
from collections import Counter

from critique_rl.config.schema import TaskConfig
from critique_rl.lab import tiers
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task

STYLES = {"worked": "A", "direct": "#"}
"""Style -> its first character."""


def main(folders: list[str], problems: int = 25, samples: int = 16) -> None:
    task = load_task(TaskConfig("lab/tiers", size=4), 0)
    rows = task.held_out("validation", problems)
    prompts = [row["prompt"] for row in rows for _ in range(samples)]
    for folder in folders:
        model, tokenizer = load_policy(folder)
        answers = sample(model, tokenizer, prompts, Sampling(max_new_tokens=40), seed=1)
        counts: Counter[tuple[str, str, bool]] = Counter()
        for answer in answers:
            row = rows[answer.prompt // samples]
            style = next(
                (name for name, first in STYLES.items() if answer.text.startswith(first)), "neither"
            )
            is_right = task.verifier(answer.text, row).outcome == "right"
            counts[row["family"], style, is_right] += 1
        print(f"{folder}: {problems} validation problems per family, {samples} samples")
        for family in tiers.FAMILIES:
            cells = []
            total = problems * samples
            for style in (*STYLES, "neither"):
                right = counts[family, style, True]
                count = right + counts[family, style, False]
                rate = f"{right / count:.3f}" if count else "-"
                cells.append(f"{style} {count / total:.3f} right {rate}")
            print(f"  {family}: {', '.join(cells)}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["lab/tiers"])
