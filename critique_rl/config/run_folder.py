"""Run folders: the only file that knows their names, and writes that a crash cannot halve.

    runs/<pipeline>/compare.json, report.html     with report.md, tables.tex and numbers.csv beside the page
    runs/claims/claims.md, claims.json            `critique-rl claims`: verdicts, beside the folders of its pipelines
    runs/<pipeline>/base/eval.json                the policy before training, on the same problems
    runs/<pipeline>/base/again/eval.json          the same with other samples: what differs between the two is noise
    runs/<pipeline>/bench/bank.json, critics.json the policy's failed rollouts that critics are tried on before a run, and what came of it
    runs/<pipeline>/sweep/<arm>@<value>/seed<s>/  trials of `sweep:`, each a run folder; sweep.json beside it says what they chose
    runs/<pipeline>/<arm>/seed<s>/config.yaml     everything the run was started with, without secrets; `schema` is the version of this layout
                                 /metrics.jsonl   one object a step: {"step": 1, "tokens/generated": 2841, "reward": .4, "eval/pass@1/plateau": .0, ...}
                                 /rollouts/step00001-rank0.parquet
                                 /eval.json       the held-out evaluation; written last, so its presence means the run is finished
                                 /checkpoints/    as transformers writes them, each with critique_rl.json, which is written last: without it, it is half-written
                                 /model/          the trained policy and its card; best/ the best one so far by evaluation.best_by, best.json its step and value
                                 /critic/         of an api critic: cache.sqlite (its answers), ledger.sqlite (what it has cost), limits.sqlite (its pace)
                                 /log.txt         what the run printed

Columns of a rollouts parquet, one row an attempt: `step`, `group`, `role` ("rollout" | "candidate"
| "expert"), `attempt` (index of the row in this file that a candidate refines, else -1),
`question`, `family`, `text`, `outcome`, `answer`, `reward`, `advantage` (NaN for candidates not
chosen), `critic`, `critique`, `critique_status` ("" where none was asked), `critique_reason`,
`leaked`, `chosen`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from critique_rl.config.checks import ConfigError

SCHEMA = 1
"""Version of the run folder's layout, in its config.yaml. A folder of another version is refused,
not guessed at.
"""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run: one arm, one seed (or the base's evaluation)."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def evaluation(self) -> Path:
        return self.path / "eval.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        return self.path / "best"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def critic(self) -> Path:
        return self.path / "critic"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def finished(self) -> bool:
        return self.evaluation.exists()


@dataclass(frozen=True)
class PipelineFolder:
    """Paths of one pipeline's results."""

    path: Path

    def run(self, arm: str, seed: int) -> RunFolder:
        return RunFolder(self.path / arm / f"seed{seed}")

    @property
    def base(self) -> RunFolder:
        return RunFolder(self.path / "base")

    @property
    def base_again(self) -> RunFolder:
        return RunFolder(self.path / "base" / "again")

    @property
    def bank(self) -> Path:
        """Failed rollouts that `critique-rl critics` tries every critic on."""
        return self.path / "bench" / "bank.json"

    @property
    def bench(self) -> Path:
        return self.path / "bench" / "critics.json"

    def bench_critic(self, name: str) -> Path:
        """What a critic of the bench keeps: its answers and what they cost."""
        return self.path / "bench" / re.sub(r"[^\w.-]+", "-", name)

    @property
    def sweep(self) -> PipelineFolder:
        return PipelineFolder(self.path / "sweep")

    @property
    def sweep_choice(self) -> Path:
        return self.path / "sweep.json"

    @property
    def comparison(self) -> Path:
        return self.path / "compare.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def markdown(self) -> Path:
        return self.path / "report.md"

    @property
    def latex(self) -> Path:
        return self.path / "tables.tex"

    @property
    def numbers(self) -> Path:
        return self.path / "numbers.csv"


@dataclass(frozen=True)
class ClaimsFolder:
    """Paths of many pipelines' results, and of what they say of their claims."""

    path: Path

    def pipeline(self, name: str) -> PipelineFolder:
        return PipelineFolder(self.path / name)

    @property
    def markdown(self) -> Path:
        return self.path / "claims.md"

    @property
    def json(self) -> Path:
        return self.path / "claims.json"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a temporary beside it, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, {} if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_yaml(path: Path, value: Any) -> None:
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one object as a line. A line a crash cut short is skipped by `read_jsonl`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSONL file, [] if there is none. A last line without its newline was cut
    short by a crash and is left out.
    """
    if not path.exists():
        return []
    lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder for this process; ConfigError if another holds it. The lock is the kernel's: it
    ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another process is {doing} here; wait for it, stop it, or give another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """True where a living process holds the folder."""
    try:
        with held(folder, ""):
            return False
    except ConfigError:
        return True
