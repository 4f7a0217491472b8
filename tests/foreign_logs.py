"""Logs of runs in the formats of other trainers: made up answers, real forms, planted faults.

A campaign is a list of answers per run. A writer puts it on disk as one trainer does; a fault
changes the answers before. `held_out` of a campaign is off for trainers that log rollouts alone.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ARMS = ("scalar", "critique", "retry", "shuffled")
STEPS = 6
GROUPS = 6
GROUP = 8
PROBLEMS = 24
SAMPLES = 4


@dataclass(frozen=True)
class Answer:
    """One logged answer."""

    step: int
    problem: int
    family: str
    prompt: str
    completion: str
    right: bool
    tokens: int = 30
    truncated: bool = False
    critique: str = ""
    gold: str = ""


@dataclass(frozen=True)
class Run:
    """One run's answers."""

    arm: str
    seed: int
    train: list[Answer]
    held_out: list[Answer]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.arm}-seed{self.seed}"


Campaign = list[Run]


def chance(arm: str, problem: int, rng: random.Random, lift: float) -> float:
    """Of a right answer: problems differ, and the critique arm is `lift` better."""
    hard = random.Random(problem).uniform(0.25, 0.6)
    if arm == "critique":
        hard += lift
    return min(hard + rng.uniform(-0.05, 0.05), 0.95)


def answer(arm: str, step: int, problem: int, held_out: bool, rng: random.Random, lift: float):
    split = "test" if held_out else "train"
    right = rng.random() < chance(arm, problem, rng, lift)
    family = "easy" if problem % 2 else "hard"
    gold = str(1000 + problem)
    critique = ""
    if arm in ("critique", "shuffled") and not right and not held_out:
        critique = f"The second sum is wrong in attempt {rng.randrange(3)}."
    return Answer(
        step=step,
        problem=problem + (10_000 if held_out else 0),
        family=family,
        prompt=f"{split} question {problem}: what is it?",
        completion=f"working {rng.randrange(10**9)}, so {gold if right else rng.randrange(99)}",
        right=right,
        tokens=rng.randrange(20, 50),
        critique=critique,
        gold=gold,
    )


def campaign(
    number: int = 0, arms: tuple[str, ...] = ARMS, seeds: int = 3, lift: float = 0.3
) -> Campaign:
    """A clean campaign: the same problems, prompts and budgets in all arms."""
    runs = []
    for arm in arms:
        for seed in range(seeds):
            rng = random.Random(f"{number} {arm} {seed}")
            asked = random.Random(f"{number} {seed}")
            train = []
            for step in range(1, STEPS + 1):
                for problem in asked.sample(range(200), GROUPS):
                    train += [answer(arm, step, problem, False, rng, lift) for _ in range(GROUP)]
            held_out = []
            for problem in range(PROBLEMS):
                held_out += [answer(arm, STEPS, problem, True, rng, lift) for _ in range(SAMPLES)]
            settings = {"learning_rate": 1e-5, "beta": 0.01, "num_generations": GROUP}
            runs.append(Run(arm, seed, train, held_out, settings))
    return runs


# ---- writers -------------------------------------------------------------------------------------


def by_step(answers: list[Answer]) -> Iterator[tuple[int, list[Answer]]]:
    for step in sorted({each.step for each in answers}):
        yield step, [each for each in answers if each.step == step]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_verl(run: Run, folder: Path) -> None:
    """trainer.rollout_data_dir and trainer.validation_data_dir, a file per step."""
    for part, answers in (("rollouts", run.train), ("validation", run.held_out)):
        for step, of_step in by_step(answers):
            rows = []
            for each in of_step:
                row = {
                    "input": each.prompt,
                    "output": each.completion,
                    "gts": each.gold,
                    "score": float(each.right),
                    "step": step,
                    "acc": each.right,
                    "data_source": each.family,
                    "problem_id": each.problem,
                    "response_length": each.tokens,
                    "truncated": each.truncated,
                }
                if each.critique:
                    row["critique"] = each.critique
                rows.append(row)
            write_jsonl(folder / part / f"{step}.jsonl", rows)


def write_trl(run: Run, folder: Path) -> None:
    """output_dir/completions, a parquet table per step; held-out rows are a table of their own."""
    for part, answers in (("completions", run.train), ("eval_completions", run.held_out)):
        for step, of_step in by_step(answers):
            rows = []
            for each in of_step:
                row = {
                    "step": step,
                    "prompt": each.prompt,
                    "completion": each.completion,
                    "accuracy_reward": float(each.right),
                    "advantage": 0.25,
                    "problem_id": each.problem,
                    "family": each.family,
                    "completion_tokens": each.tokens,
                    "is_truncated": each.truncated,
                    "critique": each.critique,
                    "answer": each.gold,
                }
                rows.append(row)
            path = folder / part / f"completions_{step:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), path)


def write_prime_rl(run: Run, folder: Path) -> None:
    """output_dir/rollouts/step_N/{train,eval}_rollouts.jsonl, conversations."""
    for part, answers in (("train", run.train), ("eval", run.held_out)):
        for step, of_step in by_step(answers):
            rows = []
            for each in of_step:
                row = {
                    "example_id": each.problem,
                    "task": each.family,
                    "prompt": [{"role": "user", "content": each.prompt}],
                    "completion": [{"role": "assistant", "content": each.completion}],
                    "reward": float(each.right),
                    "answer": each.gold,
                    "is_truncated": each.truncated,
                    "token_usage": {"completion_tokens": each.tokens},
                    "info": {},
                    "critique": each.critique,
                }
                rows.append(row)
            write_jsonl(folder / "rollouts" / f"step_{step}" / f"{part}_rollouts.jsonl", rows)


def write_sdpo(run: Run, folder: Path) -> None:
    """rollouts.jsonl of one file, an object per event, with the hint that each rollout got."""
    rows = []
    for split, answers in (("train", run.train), ("eval", run.held_out)):
        for each in answers:
            row = {
                "timestamp": "2026-09-01T00:00:00+00:00",
                "event": "rollout",
                "task_id": each.problem,
                "domain": each.family,
                "prompt": each.prompt,
                "text": each.completion,
                "judge_score": float(each.right),
                "policy_version": each.step,
                "split": split,
                "hint": each.critique,
                "answer": each.gold,
                "finish_reason": "length" if each.truncated else "stop",
                "completion_tokens": each.tokens,
            }
            rows.append(row)
    write_jsonl(folder / "rollouts.jsonl", rows)


def write_wandb(run: Run, folder: Path) -> None:
    """Tables that wandb exports: {"columns", "data"}."""
    columns = ["step", "prompt", "completion", "reward", "problem_id", "family", "critique"]
    columns += ["answer", "completion_tokens", "truncated"]
    for part, answers in (("completions", run.train), ("eval", run.held_out)):
        data = []
        for each in answers:
            data.append(
                [
                    each.step,
                    each.prompt,
                    each.completion,
                    float(each.right),
                    each.problem,
                    each.family,
                    each.critique,
                    each.gold,
                    each.tokens,
                    each.truncated,
                ]
            )
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"columns": columns, "data": data})
        (folder / f"{part}.table.json").write_text(text)


CSV_COLUMNS = [
    "step",
    "split",
    "prompt",
    "completion",
    "reward",
    "problem_id",
    "family",
    "critique",
    "answer",
    "completion_tokens",
    "truncated",
]


def write_csv(run: Run, folder: Path) -> None:
    """A table that a tracker exports as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rollouts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "step",
                "split",
                "prompt",
                "completion",
                "reward",
                "problem_id",
                "family",
                "critique",
                "answer",
                "completion_tokens",
                "truncated",
            ]
        )
        for split, answers in (("train", run.train), ("test", run.held_out)):
            for each in answers:
                writer.writerow(
                    [
                        each.step,
                        split,
                        each.prompt,
                        each.completion,
                        float(each.right),
                        each.problem,
                        each.family,
                        each.critique,
                        each.gold,
                        each.tokens,
                        each.truncated,
                    ]
                )


WRITERS: dict[str, Callable[[Run, Path], None]] = {
    "verl": write_verl,
    "trl": write_trl,
    "prime-rl": write_prime_rl,
    "sdpo": write_sdpo,
    "wandb": write_wandb,
    "csv": write_csv,
}


def write(runs: Campaign, folder: Path, kind: str = "verl") -> list[str]:
    """Write a campaign, with its settings beside the logs.

    Returns:
        The words that `critique-rl audit` takes.
    """
    words = []
    for run in runs:
        place = folder / run.name
        WRITERS[kind](run, place)
        if run.settings:
            (place / "config.json").write_text(json.dumps(run.settings))
        words.append(f"{run.arm}:{run.seed}={place}")
    return words


# ---- planted faults ------------------------------------------------------------------------------


def changed(runs: Campaign, arm: str, change: Callable[[Run], Run]) -> Campaign:
    return [change(run) if run.arm == arm else run for run in runs]


def one_seed(runs: Campaign) -> Campaign:
    return [run for run in runs if run.arm != "critique" or run.seed == 0]


def other_problems(runs: Campaign) -> Campaign:
    def move(run: Run) -> Run:
        kept = [each for each in run.held_out if each.problem % 5]
        moved = [
            replace(each, problem=each.problem + 500, prompt=f"test question new {each.problem}")
            for each in run.held_out
            if each.problem % 5 == 0
        ]
        return replace(run, held_out=kept + moved)

    return changed(runs, "critique", move)


def other_prompts(runs: Campaign) -> Campaign:
    def reword(run: Run) -> Run:
        words = "Think step by step. "
        held_out = [replace(each, prompt=words + each.prompt) for each in run.held_out]
        return replace(run, held_out=held_out)

    return changed(runs, "critique", reword)


def more_samples(runs: Campaign) -> Campaign:
    def double(run: Run) -> Run:
        more = [replace(each, completion=f"{each.completion} again") for each in run.held_out]
        return replace(run, held_out=[*run.held_out, *more])

    return changed(runs, "critique", double)


def larger_budget(runs: Campaign) -> Campaign:
    def extend(run: Run) -> Run:
        last = [each for each in run.train if each.step == STEPS]
        more = [
            replace(each, problem=each.problem + 300, prompt=f"{each.prompt} Again?")
            for each in last
        ]
        return replace(run, train=run.train + more)

    return changed(runs, "critique", extend)


def other_anchor(runs: Campaign) -> Campaign:
    return changed(runs, "scalar", lambda run: replace(run, settings={**run.settings, "beta": 0.0}))


def other_settings(runs: Campaign) -> Campaign:
    return changed(
        runs, "critique", lambda run: replace(run, settings={**run.settings, "learning_rate": 3e-5})
    )


def no_controls(runs: Campaign) -> Campaign:
    return [run for run in runs if run.arm in ("scalar", "critique")]


def dead_groups(runs: Campaign) -> Campaign:
    def flatten(run: Run) -> Run:
        train = [replace(each, right=each.problem % 4 == 0) for each in run.train]
        return replace(run, train=train)

    return changed(runs, "scalar", flatten)


def truncated(runs: Campaign) -> Campaign:
    def cut(run: Run) -> Run:
        held_out = [
            replace(each, truncated=True, right=False) if i % 8 == 0 else each
            for i, each in enumerate(run.held_out)
        ]
        return replace(run, held_out=held_out)

    return changed(runs, "scalar", cut)


def duplicated(runs: Campaign) -> Campaign:
    def repeat(run: Run) -> Run:
        twice = [each for each in run.held_out if each.problem % 3 == 0]
        return replace(run, held_out=[*run.held_out, *twice])

    return changed(runs, "critique", repeat)


def leaking(runs: Campaign) -> Campaign:
    def tell(run: Run) -> Run:
        train = [
            replace(each, critique=f"No: the answer is {each.gold}.")
            if each.critique and i % 10 == 0
            else each
            for i, each in enumerate(run.train)
        ]
        return replace(run, train=train)

    return changed(runs, "critique", tell)


def overlapping(runs: Campaign) -> Campaign:
    def reuse(run: Run) -> Run:
        asked = run.held_out[0]
        train = [
            replace(each, prompt=asked.prompt, problem=asked.problem) if each.step == 2 else each
            for each in run.train
        ]
        return replace(run, train=train)

    return changed(runs, "critique", reuse)


def early_checkpoint(runs: Campaign) -> Campaign:
    def early(run: Run) -> Run:
        return replace(run, held_out=[replace(each, step=3) for each in run.held_out])

    return changed(runs, "critique", early)


FAULTS: dict[str, tuple[str, Callable[[Campaign], Campaign]]] = {
    "one seed": ("seeds", one_seed),
    "other held-out problems": ("problems", other_problems),
    "other prompts": ("prompts", other_prompts),
    "more answers per problem": ("samples", more_samples),
    "a larger budget": ("budgets", larger_budget),
    "another anchor": ("anchors", other_anchor),
    "another learning rate": ("settings", other_settings),
    "no retry and no shuffled arm": ("controls", no_controls),
    "dead groups": ("dead groups", dead_groups),
    "truncated answers": ("truncation", truncated),
    "duplicated rows": ("duplicates", duplicated),
    "leaking critiques": ("leaks", leaking),
    "trained on the test": ("overlap", overlapping),
    "an early checkpoint": ("checkpoints", early_checkpoint),
}
"""Fault -> the check that must find it, and what plants it."""
