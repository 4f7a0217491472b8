"""Run folders: the only file that knows the names in them.

    runs/<pipeline>/
        compare.json, report.html    with report.md, tables.tex and numbers.csv beside the page
        paper/                       figures, tables and text of `critique-rl paper`
        base/eval.json               the policy before training, on the same problems
        base/again/eval.json         the same with other samples: their difference is noise
        bench/bank.json              failed rollouts of the policy, to try critics on before a run
        bench/critics.json           how each critic did on them
        flow/probes-<digest>.json    completions whose mass `critique-rl flow` asks for
        sweep/<arm>@<value>/seed<s>/ trials of `sweep:`, each a run folder
        sweep.json                   the value that the trials chose for each arm
        <arm>/seed<s>/               a run folder:
            config.yaml              all settings of the run, without secrets
            metrics.jsonl            one object per step
            rollouts/step00001-rank0.parquet
            eval.json                the held-out evaluation
            checkpoints/             as transformers writes them, each with critique_rl.json
            model/                   the trained policy and its card
            best/, best.json         the best policy so far by evaluation.best_by; its step, value
            snapshots/step00040/     weights of `flow.snapshots`, with snapshot.json
            flow.json                masses of classes of completions, per snapshot
            critic/cache.sqlite      answers of an api critic; ledger.sqlite: what they cost;
                                     limits.sqlite: its pace
            teacher/                     the same of a teacher behind a server
            log.txt                  output of the run
    runs/claims/claims.md, claims.json   verdicts of `critique-rl claims` on the pipelines beside it

A metrics line: {"step": 1, "tokens/generated": 2841, "reward": .4, "eval/pass@1/plateau": .0, ...}.
In config.yaml, `schema` is the version of this layout.

Two files are marks, each written last: a run with eval.json is finished, and a checkpoint without
critique_rl.json is half-written.

Columns of a rollouts parquet, one row per attempt:

- step, group, question, family, text, outcome, answer, reward, critic, critique, leaked
- role: "rollout", "candidate" or "expert"
- attempt: index of the row in this file that a candidate refines, else -1: a rollout, or with
  several turns the candidate of the turn before
- turn: turn of a candidate, from 1; 0 for others. Files of earlier versions lack it
- advantage: NaN for candidates that were not chosen
- critique_status: "" where no critique was asked for; critique_reason: why it failed. A
  candidate that a further turn criticised has its critique too
- chosen: whether a candidate fills a reserved row
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FIRST_SCHEMA = 1
"""Version of the layout without `inputs` and checksums. The first of its files had no `schema`."""
SCHEMA = 2
"""Version of the layout, in each run's config.yaml."""
READABLE = (FIRST_SCHEMA, SCHEMA)
"""Versions that can be read. A folder of another one is refused."""

LONGEST_CRITIC = 60
"""Characters of a critic's name that its folder of the bench keeps."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run: one arm and seed, or an evaluation of the base policy."""

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
    def snapshots(self) -> Path:
        """Weights on the way, where masses are taken (`experiment.flow`)."""
        return self.path / "snapshots"

    @property
    def flow(self) -> Path:
        return self.path / "flow.json"

    @property
    def critic(self) -> Path:
        return self.path / "critic"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def finished(self) -> bool:
        # The evaluation is written last.
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
        """Folder of a critic of the bench, for its answers and their costs."""
        # Critics are named by the user and may hold slashes, as Hub ids do.
        safe = re.sub(r"[^\w.-]+", "-", name)
        if safe == name and name.strip(".") and len(name) <= LONGEST_CRITIC:
            return self.path / "bench" / name
        # Two names that differ in such signs alone are two critics.
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
        return self.path / "bench" / f"{safe[:LONGEST_CRITIC]}-{digest[:8]}"

    @property
    def ray(self) -> Path:
        """Notes between a campaign and its Ray tasks, and the messages of Ray."""
        return self.path / ".ray"

    @property
    def probes(self) -> Path:
        """Folder of the completions whose mass `critique-rl flow` asks for, a file per policy."""
        return self.path / "flow"

    @property
    def sweep(self) -> PipelineFolder:
        """Trials of the sweep, laid out like a pipeline whose arms are "<arm>@<value>"."""
        return PipelineFolder(self.path / "sweep")

    @property
    def sweep_choice(self) -> Path:
        return self.path / "sweep.json"

    @property
    def comparison(self) -> Path:
        return self.path / "compare.json"

    @property
    def claim(self) -> Path:
        """The bounds and seeds of its claim, as they were before its first run."""
        return self.path / "claim.json"

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

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's files, a folder per arm and run in it."""
        return self.path / "tensorboard"

    @property
    def paper(self) -> Path:
        """Folder of figures, tables and text for a paper."""
        return self.path / "paper"


@dataclass(frozen=True)
class ClaimsFolder:
    """Paths of the results of many pipelines, and of the verdicts on their claims."""

    path: Path

    def pipeline(self, name: str) -> PipelineFolder:
        return PipelineFolder(self.path / name)

    @property
    def markdown(self) -> Path:
        return self.path / "claims.md"

    @property
    def json(self) -> Path:
        return self.path / "claims.json"


@cache
def result_names(*kinds: type[Any]) -> frozenset[str]:
    """Names of the files and folders that these folders hold, so that nothing else is called so.

    Args:
        kinds: Classes of this module.
    """
    root = Path("results")
    names: set[str] = set()
    for kind in kinds:
        for attribute, value in vars(kind).items():
            if not isinstance(value, property):
                continue
            place = getattr(kind(root), attribute)
            path = getattr(place, "path", place)
            if isinstance(path, Path):
                names.add(path.relative_to(root).parts[0])
    return frozenset(name.casefold() for name in names)
