"""A lab's base in one table: pass@k per family, what its answers say of themselves, and, in chain
and legs, what each kind of critique rescues of its failed attempts at the family that is a plateau
to it.

Every kind is given the same failed attempts. Whether a critique is followed locally shows in the
kinds that name something, but not the right thing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.evaluate import judge, second_verdicts
from critique_rl.experiment.evaluation_metrics import pass_metrics, self_metrics, share_metrics
from critique_rl.lab import chain, legs
from critique_rl.policy import load_policy
from critique_rl.prompts import render
from critique_rl.sampling import Sampling, sample
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.types import Attempt

HARDEST = {"chain": "plateau", "legs": "hard"}
"""World with critiques -> the family whose failed attempts are refined."""
Failed = list[tuple[Any, str]]
"""Rows with the text of a failed attempt."""
Words = Callable[[chain.Problem, random.Random], str]


def _other_kind(problem: chain.Problem, rng: random.Random) -> str:
    return chain.named_steps(
        {
            i: rng.choice([k for k in chain.TRAPS if k != kind])
            for i, kind in problem.hazards.items()
        }
    )


def _other_line(problem: chain.Problem, rng: random.Random) -> str:
    """Each kind at the next step of the chain, the last at the first."""
    steps = len(problem.deltas)
    return chain.named_steps({i % steps + 1: kind for i, kind in problem.hazards.items()})


def _one_left_out(problem: chain.Problem, rng: random.Random) -> str:
    left = rng.choice(list(problem.hazards))
    return chain.named_steps({i: kind for i, kind in problem.hazards.items() if i != left})


def _shuffled(problem: chain.Problem, rng: random.Random) -> str:
    """Another plateau problem's critique, of another trap set."""
    while (
        text := chain.named_steps(chain.sample_problem("plateau", "test", rng).hazards)
    ) == chain.named_steps(problem.hazards):
        pass
    return text


KINDS: dict[str, Words] = {
    "oracle": lambda problem, rng: chain.named_steps(problem.hazards),
    "oracle, reworded": lambda problem, rng: chain.named_steps(problem.hazards, chain.REWORDED),
    "ground_truth": lambda problem, rng: render("lab/ground_truth", answer=problem.answer),
    "shuffled (another trap set)": _shuffled,
    "wrong kind": _other_kind,
    "wrong line": _other_line,
    "one step left out": _one_left_out,
    "verdict only": lambda problem, rng: render("lab/indicative"),
    "nonsense": lambda problem, rng: "".join(
        rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(40)
    ),
    "empty": lambda problem, rng: "",
    "line only": lambda problem, rng: "; ".join(chain.LABELS[i - 1] for i in problem.hazards),
    "kind only": lambda problem, rng: "; ".join(
        chain.WORDS[kind] for kind in problem.hazards.values()
    ),
}
CONTROLS = (
    "shuffled (another trap set)",
    "wrong kind",
    "wrong line",
    "one step left out",
    "verdict only",
    "nonsense",
    "empty",
)


def lab_table(
    model_path: str | Path, count: int, samples: int, split: str, world: str = "chain"
) -> dict[str, Any]:
    """{"pass": {"pass@k/family": ...}, "self": calibration and truthfulness, where the world has
    them}, and where it has critiques {"rescue": {kind: share right}, "attempts": n, "oracle minus
    best control": ...} too.
    """
    # Besides rows for `shuffled` to draw from, nothing is trained on.
    task = load_task(TaskConfig(f"lab/{world}", size=3 if world == "chain" else 200), 0)
    model, tokenizer = load_policy(str(model_path))
    rows, verifier = task.held_out(split, count), task.evaluator or task.verifier
    judged = judge(model, tokenizer, rows, verifier, samples, Sampling(), abstains=task.abstains)[
        "problems"
    ]
    passes = pass_metrics(judged, [k for k in (1, 4, 16, 64, 256) if k <= samples])
    figures = {"pass": passes, "self": {**self_metrics(judged), **share_metrics(judged)}}
    if world not in HARDEST:
        return figures
    rescue, attempts = rescue_rates(model, tokenizer, task, count, split, world)
    best = max(rescue[kind] for kind in (CONTROLS if world == "chain" else LEGS_CONTROLS))
    return {
        **figures,
        "rescue": rescue,
        "attempts": attempts,
        "oracle minus best control": rescue["oracle"] - best,
    }


def rescue_rates(
    model, tokenizer, task: Task, count: int, split: str, world: str = "chain", seed: int = 0
) -> tuple[dict[str, float], int]:
    """Share of failed attempts (one a problem of the hardest family) whose refinement is right, by
    kind of critique; and how many attempts failed.
    """
    rows = [row for row in task.held_out(split, count) if row["family"] == HARDEST[world]]
    texts = [
        s.text for s in sample(model, tokenizer, [row["prompt"] for row in rows], Sampling(), seed)
    ]
    failed = [
        (row, text)
        for row, text in zip(rows, texts, strict=True)
        if task.verifier(text, row).failed
    ]
    said = (
        _chain_critiques(failed, seed) if world == "chain" else legs_critiques(task, failed, seed)
    )
    rates = {
        kind: _rate(model, tokenizer, task, failed, critiques) for kind, critiques in said.items()
    }
    rates["oracle, attempt not shown"] = _rate(
        model, tokenizer, task, failed, said["oracle"], "lab/teacher"
    )
    if world == "chain":
        rates["self (the base's own critique)"] = _rate(
            model, tokenizer, task, failed, _own_critiques(model, tokenizer, failed)
        )
    return rates, len(failed)


def _chain_critiques(failed: Failed, seed: int) -> dict[str, list[str]]:
    said = {}
    for kind, words in KINDS.items():
        rng = random.Random(seed)
        said[kind] = [words(chain.parse_problem(row["question"]), rng) for row, _ in failed]
    return said


LEGS_CONTROLS = (
    "shuffled",
    "indicative",
    "retry",
    "one thing left out",
    "wrong numbers",
    "wrong line",
)


def legs_critiques(task: Task, failed: Failed, seed: int) -> dict[str, list[str]]:
    """What each critic of the package says of the attempts, and three distortions of the oracle's
    words.
    """
    attempts = [
        Attempt(row["question"], text, task.verifier(text, row), row) for row, text in failed
    ]
    kinds = ("oracle", "ground_truth", "shuffled", "indicative", "retry")
    said = {
        kind: [
            critique.text
            for critique in build_critic({"kind": kind}, task, seed).critique(attempts)
        ]
        for kind in kinds
    }
    distortions = {
        "one thing left out": _all_but_one,
        "wrong numbers": _other_numbers,
        "wrong line": _next_line,
    }
    return said | {
        kind: [distort(text, random.Random(f"{seed}/{text}")) for text in said["oracle"]]
        for kind, distort in distortions.items()
    }


def _all_but_one(text: str, rng: random.Random) -> str:
    parts = text.split("; ")
    parts.pop(rng.randrange(len(parts)))
    return "; ".join(parts)


def _other_numbers(text: str, rng: random.Random) -> str:
    numbers = sorted(set(legs.facts().values()))
    return re.sub(
        r"(?<=has )\d+",
        lambda match: str(rng.choice([n for n in numbers if n != int(match[0])])),
        text,
    )


def _next_line(text: str, rng: random.Random) -> str:
    """Each fact at the next line: the name of its animal says otherwise than the letter."""
    return re.sub(r"\b[A-D](?= )", lambda match: "ABCD"[("ABCD".index(match[0]) + 1) % 4], text)


def _own_critiques(model, tokenizer, failed: Failed) -> list[str]:
    prompts = [
        _user(render("lab/critique", question=row["question"], attempt=text))
        for row, text in failed
    ]
    return [
        answer.text for answer in sample(model, tokenizer, prompts, Sampling(max_new_tokens=128))
    ]


def _rate(
    model, tokenizer, task: Task, failed: Failed, critiques: list[str], template: str = "lab/refine"
) -> float:
    prompts = [
        _user(
            render(template, question=row["question"], attempt=text, critique=critique, solution="")
        )
        for (row, text), critique in zip(failed, critiques, strict=True)
    ]
    verdicts = second_verdicts(
        model, tokenizer, task.verifier, prompts, [row for row, _ in failed], Sampling(), seed=1
    )
    return sum(verdict.outcome == "right" for verdict in verdicts) / max(1, len(verdicts))


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def print_table(figures: dict[str, Any]) -> None:
    """The figures on the terminal."""
    console = Console()
    passes = Table(
        "family",
        *sorted({name.split("/")[0] for name in figures["pass"]}, key=lambda k: int(k[5:])),
        title="pass@k of the base",
    )
    for family in dict.fromkeys(
        name.partition("/")[2] for name in figures["pass"] if not name.endswith("/all")
    ):
        passes.add_row(
            family,
            *(
                f"{figures['pass'][f'{column.header}/{family}']:.3f}"
                for column in passes.columns[1:]
            ),
        )
    console.print(passes)
    console.print(", ".join(f"{name} {value:.3f}" for name, value in figures["self"].items()))
    if "rescue" not in figures:
        return
    rescue = Table(
        "critique",
        "rescued",
        title=f"failed attempts of the hardest family rescued, of {figures['attempts']}",
    )
    for kind, rate in figures["rescue"].items():
        rescue.add_row(kind, f"{rate:.3f}")
    console.print(rescue)
    console.print(f"oracle minus the best control: {figures['oracle minus best control']:.3f}")
