"""A lab's base policy in one table: pass@k per family, how answers assess themselves, and the share
of failed attempts that each kind of critique rescues.

Rescue is measured in worlds with critiques (chain, legs and code), on the family that is a plateau
to the base. Every kind is given the same failed attempts. Kinds that name something, but not the
right thing, show whether the base follows a critique locally.
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
from critique_rl.experiment.lab.code_table import code_figures, turns_table
from critique_rl.lab import chain, legs
from critique_rl.policy import load_policy
from critique_rl.prompts import render
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.types import Attempt

HARDEST = {"chain": "plateau", "legs": "hard", "code": "plateau"}
"""World with critiques -> the family whose failed attempts are refined."""
PASS_KS = (1, 4, 16, 64, 256)
Failed = list[tuple[Any, str]]
"""Rows with the text of a failed attempt."""
Words = Callable[[chain.Problem, random.Random], str]
"""Writes a critique of a problem."""


# ---- critiques of chain --------------------------------------------------------------------------


def _other_kind(problem: chain.Problem, rng: random.Random) -> str:
    named = {}
    for step, kind in problem.hazards.items():
        others = [other for other in chain.TRAPS if other != kind]
        named[step] = rng.choice(others)
    return chain.named_steps(named)


def _other_line(problem: chain.Problem, rng: random.Random) -> str:
    """Each kind at the next step of the chain, the last at the first."""
    steps = len(problem.deltas)
    named = {}
    for i, kind in problem.hazards.items():
        # Steps count from 1.
        following = i % steps + 1
        named[following] = kind
    return chain.named_steps(named)


def _one_left_out(problem: chain.Problem, rng: random.Random) -> str:
    named = dict(problem.hazards)
    left_out = rng.choice(list(named))
    del named[left_out]
    return chain.named_steps(named)


def _shuffled(problem: chain.Problem, rng: random.Random) -> str:
    """The critique of another plateau problem, with another trap set."""
    right = chain.named_steps(problem.hazards)
    while True:
        other = chain.sample_problem("plateau", "test", rng)
        text = chain.named_steps(other.hazards)
        if text != right:
            return text


def _nonsense(problem: chain.Problem, rng: random.Random) -> str:
    letters = [rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(40)]
    return "".join(letters)


def _lines_only(problem: chain.Problem, rng: random.Random) -> str:
    labels = [chain.LABELS[i - 1] for i in problem.hazards]
    return "; ".join(labels)


def _kinds_only(problem: chain.Problem, rng: random.Random) -> str:
    kinds = problem.hazards.values()
    words = [chain.WORDS[kind] for kind in kinds]
    return "; ".join(words)


KINDS: dict[str, Words] = {
    "oracle": lambda problem, rng: chain.named_steps(problem.hazards),
    "oracle, reworded": lambda problem, rng: chain.named_steps(problem.hazards, chain.REWORDED),
    "ground_truth": lambda problem, rng: render("lab/ground_truth", answer=problem.answer),
    "shuffled (another trap set)": _shuffled,
    "wrong kind": _other_kind,
    "wrong line": _other_line,
    "one step left out": _one_left_out,
    "verdict only": lambda problem, rng: render("lab/indicative"),
    "nonsense": _nonsense,
    "empty": lambda problem, rng: "",
    "line only": _lines_only,
    "kind only": _kinds_only,
}
# "line only" and "kind only" are no controls: each is half of the oracle's words.
CONTROLS = (
    "shuffled (another trap set)",
    "wrong kind",
    "wrong line",
    "one step left out",
    "verdict only",
    "nonsense",
    "empty",
)


def _chain_critiques(failed: Failed, seed: int) -> dict[str, list[str]]:
    """Kind -> critiques, one per failed attempt."""
    problems = [chain.parse_problem(row["question"]) for row, _ in failed]
    critiques = {}
    for kind, words in KINDS.items():
        # A generator per kind, so that adding a kind changes none of the others.
        rng = random.Random(seed)
        critiques[kind] = [words(problem, rng) for problem in problems]
    return critiques


# ---- critiques of legs ---------------------------------------------------------------------------


LEGS_CONTROLS = (
    "shuffled",
    "indicative",
    "retry",
    "one thing left out",
    "wrong numbers",
    "wrong line",
)


def legs_critiques(task: Task, failed: Failed, seed: int) -> dict[str, list[str]]:
    """Critiques of failed attempts at legs, by critics of the package and by three distortions of
    the oracle's words.

    Args:
        task: The task lab/legs.
        failed: Rows with a failed attempt.
        seed: Of critics and distortions.

    Returns:
        Kind -> critiques, one per failed attempt.
    """
    attempts = _attempts(task, failed)
    critiques = {}
    for kind in ("oracle", "ground_truth", "shuffled", "indicative", "retry"):
        critic = build_critic({"kind": kind}, task, seed)
        assert critic is not None, "only kind none builds no critic"
        critiques[kind] = [critique.text for critique in critic.critique(attempts)]
    distortions = {
        "one thing left out": _all_but_one,
        "wrong numbers": _other_numbers,
        "wrong line": _next_line,
    }
    for kind, distort in distortions.items():
        texts = []
        for text in critiques["oracle"]:
            # Seeded by the text, so that equal critiques are distorted alike.
            rng = random.Random(f"{seed}/{text}")
            texts.append(distort(text, rng))
        critiques[kind] = texts
    return critiques


def _all_but_one(text: str, rng: random.Random) -> str:
    parts = text.split("; ")
    left_out = rng.randrange(len(parts))
    parts.pop(left_out)
    return "; ".join(parts)


def _other_numbers(text: str, rng: random.Random) -> str:
    facts = legs.facts()
    numbers = sorted(set(facts.values()))

    def other(match: re.Match[str]) -> str:
        named = int(match[0])
        others = [number for number in numbers if number != named]
        return str(rng.choice(others))

    return re.sub(r"(?<=has )\d+", other, text)


def _next_line(text: str, rng: random.Random) -> str:
    """Each fact at the next line: its letter and the name of its animal then disagree."""
    following = dict(zip("ABCD", "BCDA", strict=True))
    return re.sub(r"\b[A-D](?= )", lambda match: following[match[0]], text)


# ---- the table -----------------------------------------------------------------------------------


def lab_table(
    model_path: str | Path, count: int, samples: int, split: str, world: str = "chain"
) -> dict[str, Any]:
    """The figures of a base policy.

    Args:
        model_path: The policy's folder.
        count: Held-out problems per family.
        samples: Answers per problem.
        split: Whose problems.
        world: The lab's world.

    Returns:
        {"pass": {"pass@k/family": ...}, "self": calibration and truthfulness, if the world has
        them}. For a world with critiques also {"rescue": {kind: share right}, "attempts": failed
        attempts, "oracle minus best control": ...}; for code "turns" too (`code_figures`).
    """
    # Nothing is trained: the training rows are those that `shuffled` draws critiques from.
    size = 3 if world == "chain" else 200
    config = TaskConfig(f"lab/{world}", size=size)
    task = load_task(config, 0)
    model, tokenizer = load_policy(str(model_path))
    rows = task.held_out(split, count)
    verifier = task.evaluator or task.verifier
    evaluation = judge(
        model, tokenizer, rows, verifier, samples, Sampling(), abstains=task.abstains
    )
    problems = evaluation["problems"]
    ks = [k for k in PASS_KS if k <= samples]
    self_figures = self_metrics(problems)
    self_figures.update(share_metrics(problems))
    figures: dict[str, Any] = {"pass": pass_metrics(problems, ks), "self": self_figures}
    if world not in HARDEST:
        return figures
    if world == "code":
        failed = _failed_attempts(model, tokenizer, task, count, split, world, 0)
        figures.update(code_figures(model, tokenizer, task, _attempts(task, failed)))
        return figures
    rescue, attempts = rescue_rates(model, tokenizer, task, count, split, world)
    controls = CONTROLS if world == "chain" else LEGS_CONTROLS
    control_rates = [rescue[kind] for kind in controls]
    best_control = max(control_rates)
    figures["rescue"] = rescue
    figures["attempts"] = attempts
    figures["oracle minus best control"] = rescue["oracle"] - best_control
    return figures


def rescue_rates(
    model, tokenizer, task: Task, count: int, split: str, world: str = "chain", seed: int = 0
) -> tuple[dict[str, float], int]:
    """The share of failed attempts whose refinement is right, by kind of critique.

    Args:
        model: The base policy.
        tokenizer: Its tokenizer.
        task: The world's task.
        count: Problems per family; each of the hardest family is attempted once.
        split: Whose problems.
        world: chain or legs.
        seed: Of attempts and critiques.

    Returns:
        Kind -> share, and how many attempts failed.
    """
    failed = _failed_attempts(model, tokenizer, task, count, split, world, seed)
    if world == "chain":
        critiques = _chain_critiques(failed, seed)
    else:
        critiques = legs_critiques(task, failed, seed)

    def rate(texts: list[str], template: str = "lab/refine") -> float:
        return _rescue_rate(model, tokenizer, task, failed, texts, template)

    rates = {kind: rate(texts) for kind, texts in critiques.items()}
    rates["oracle, attempt not shown"] = rate(critiques["oracle"], "lab/teacher")
    if world == "chain":
        self_critiques = _self_critiques(model, tokenizer, failed)
        rates["self (the base's own critique)"] = rate(self_critiques)
    return rates, len(failed)


def _failed_attempts(
    model, tokenizer, task: Task, count: int, split: str, world: str, seed: int
) -> Failed:
    """One attempt at each problem of the hardest family, where it failed."""
    hardest = HARDEST[world]
    held_out = task.held_out(split, count)
    rows = [row for row in held_out if row["family"] == hardest]
    prompts = [row["prompt"] for row in rows]
    answers = sample(model, tokenizer, prompts, Sampling(), seed)
    failed = []
    for row, answer in zip(rows, answers, strict=True):
        verdict = task.verifier(answer.text, row)
        if verdict.failed:
            failed.append((row, answer.text))
    return failed


def _attempts(task: Task, failed: Failed) -> list[Attempt]:
    attempts = []
    for row, text in failed:
        verdict = task.verifier(text, row)
        attempts.append(Attempt(row["question"], text, verdict, row))
    return attempts


def _self_critiques(model, tokenizer, failed: Failed) -> list[str]:
    prompts = []
    for row, text in failed:
        words = render("lab/critique", question=row["question"], attempt=text)
        prompts.append(_user_message(words))
    sampling = Sampling(max_new_tokens=128)
    answers = sample(model, tokenizer, prompts, sampling)
    return [answer.text for answer in answers]


def _rescue_rate(
    model, tokenizer, task: Task, failed: Failed, critiques: list[str], template: str
) -> float:
    """The share of failed attempts whose refinement is right, one refinement each."""
    prompts = []
    for (row, text), critique in zip(failed, critiques, strict=True):
        question = row["question"]
        words = render(template, question=question, attempt=text, critique=critique, solution="")
        prompts.append(_user_message(words))
    rows = [row for row, _ in failed]
    # One seed for all kinds: they then differ in the critique alone.
    verdicts = second_verdicts(model, tokenizer, task.verifier, prompts, rows, Sampling(), seed=1)
    outcomes = [verdict.outcome for verdict in verdicts]
    right = outcomes.count("right")
    return right / max(1, len(outcomes))


def _user_message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def print_table(figures: dict[str, Any]) -> None:
    """The figures on the terminal."""
    console = Console()
    console.print(_pass_table(figures["pass"]))
    self_figures = []
    for name, value in figures["self"].items():
        self_figures.append(f"{name} {value:.3f}")
    console.print(", ".join(self_figures))
    if "rescue" not in figures:
        return
    title = f"failed attempts of the hardest family rescued, of {figures['attempts']}"
    rescue = Table("critique", "rescued", title=title)
    for kind, rate in figures["rescue"].items():
        rescue.add_row(kind, f"{rate:.3f}")
    console.print(rescue)
    if "turns" in figures:
        console.print(turns_table(figures["turns"]))
    difference = figures["oracle minus best control"]
    console.print(f"oracle minus the best control: {difference:.3f}")


def _pass_table(passes: dict[str, float]) -> Table:
    """One row per family, one column per k of "pass@<k>/<family>"."""
    ks = set()
    families: dict[str, None] = {}
    for name in passes:
        head, _, family = name.partition("/")
        ks.add(int(head.removeprefix("pass@")))
        # A dict keeps the order of the families, which a set would lose.
        families[family] = None
    families.pop("all", None)
    heads = [f"pass@{k}" for k in sorted(ks)]
    table = Table("family", *heads, title="pass@k of the base")
    for family in families:
        values = [passes[f"{head}/{family}"] for head in heads]
        cells = [f"{value:.3f}" for value in values]
        table.add_row(family, *cells)
    return table
