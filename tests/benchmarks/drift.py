"""The drift of log p, predicted and measured: `critique_rl/docs/method.md` has the derivation.

    python tests/benchmarks/drift.py lab runs/bases/chance-0.02 [more folders] [--updates 60]

Each base trains on 48 plateau problems of `lab/chain` by plain SGD without clipping, at a rate so
small that it stands still. The account of each update says how far the scalar term, the refinement
and the teacher would move the mean log-chance of a right working, per unit of the rate. Predicted,
with g_i the gradient of the log-chance p_i of problem i, and g their mean:

    scalar      c * mean over i of p_i <g_i, g>
    refinement  c * q * <g, g>

c is one over the tokens of a completion, because `dapo` averages over tokens; a group's mean takes
another 7/8 of the scalar term. q is the share of groups whose reserved row is a right refinement;
the refine term averages over these rows alone. `nsr` has the scalar's prediction without 7/8.
Measured: mean and standard error over updates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"})
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "experiment/flow"))

import torch
from datasets import Dataset
from first_order import SHARED
from torch import Tensor
from transformers import PrinterCallback

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.analysis.flow.classes import RIGHT
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.experiment.flow.account import Account, StepAccount
from critique_rl.experiment.flow.masses import log_probs
from critique_rl.experiment.flow.probes import build_probes
from critique_rl.policy import load_policy
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward

PROBLEMS = 48
RATE = 1e-9
LENGTH = 48


class RightChances:
    """Log-chances of a right completion of the problems, under any policy."""

    def __init__(self, model: Any, tokenizer: Any, task: Any, rows: list[Any]):
        probes = build_probes(model, tokenizer, task, rows, Sampling(max_new_tokens=LENGTH), 1)
        self.owners: list[int] = []
        self.prompts: list[Any] = []
        self.completions: list[Any] = []
        for place, problem in enumerate(probes.problems):
            for probe in problem.probes:
                if probe.kind == RIGHT:
                    self.owners.append(place)
                    self.prompts.append(problem.prompt_ids)
                    self.completions.append(probe.ids)

    def log_chances(self, model: Any) -> Tensor:
        """(PROBLEMS,) with gradient."""
        logps = log_probs(model, self.prompts, self.completions, with_gradient=True)
        owners = torch.tensor(self.owners)
        return torch.stack([logps[owners == place].logsumexp(0) for place in range(PROBLEMS)])

    def __call__(self, model: Any):
        yield self.log_chances(model).mean()


@dataclass
class Line:
    """One base under one preset."""

    base: str
    preset: str
    chance: float
    """Mean over problems."""
    log10_median_chance: float
    rescued: float
    """q: the share of groups with a right refinement."""
    scalar_prediction: float
    refine_prediction: float
    measured: dict[str, tuple[float, float]]
    """Term -> mean and standard error over updates, per unit of the rate."""


def gradient(value: Tensor, model: Any) -> Tensor:
    parameters = list(model.parameters())
    parts = torch.autograd.grad(value, parameters, retain_graph=True)
    return torch.cat([part.flatten() for part in parts]).double()


def measured(accounts: list[Account]) -> dict[str, tuple[float, float]]:
    """Scalar, refine and distill term of each update's account, as mean and standard error."""
    values: dict[str, list[float]] = {}
    for account in accounts:
        row = {}
        for name, value in account.metrics().items():
            row[name.rpartition("/")[2]] = value / RATE
        row["scalar"] = row.get("positive", 0.0) + row.get("negative", 0.0)
        for term in ("scalar", "refine", "distill"):
            values.setdefault(term, []).append(row.get(term, 0.0))
    pairs = {}
    for term, of_updates in values.items():
        error = statistics.stdev(of_updates) / len(of_updates) ** 0.5
        pairs[term] = (statistics.mean(of_updates), error)
    return pairs


def line_of(base: str, preset: str, updates: int, seed: int) -> Line:
    families = {"plateau": 1}
    task = load_task(TaskConfig("lab/chain", size=PROBLEMS, families=families), seed=seed)
    rows = [dict(row) for row in task.train]
    model, tokenizer = load_policy(base)
    chances = RightChances(model, tokenizer, task, rows)
    log_chances = chances.log_chances(model)
    weights = log_chances.detach().exp()
    mean_gradient = gradient(log_chances.mean(), model)
    scalar_gradient = gradient((weights * log_chances).mean(), model)
    accounts: list[Account] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **SHARED,
            "num_generations": 8,
            "per_device_train_batch_size": 64,
            "max_completion_length": LENGTH,
            "max_steps": updates,
            "optim": "sgd",
            "learning_rate": RATE,
            "max_grad_norm": 0.0,
            "seed": seed,
        }
        trainer = CritiqueGRPOTrainer(
            model,
            VerifierReward(task.verifier),
            CritiqueGRPOConfig.from_preset(preset, folder, **settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            critic=build_critic({"kind": "oracle"}, task) if preset == "mixed" else None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepAccount(trainer, chances, 1, ("right",), accounts.append))
        trainer.train()
        log = [row for row in trainer.state.log_history if "loss" in row]
    tokens = statistics.mean(row["completions/mean_length"] for row in log)
    rescued = statistics.mean(row["refine/groups_rescued"] for row in log)
    scale = 1.0 / tokens
    own = 7 / 8 if preset == "mixed" else 1.0
    return Line(
        base=base,
        preset=preset,
        chance=weights.mean().item(),
        log10_median_chance=log_chances.detach().median().item() / 2.302585,
        scalar_prediction=scale * own * torch.dot(scalar_gradient, mean_gradient).item(),
        rescued=rescued,
        refine_prediction=scale * rescued * torch.dot(mean_gradient, mean_gradient).item(),
        measured=measured(accounts),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bases", nargs="+", help="policies: folders, or lab")
    parser.add_argument("--updates", type=int, default=60, help="of each base and preset")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["base", "preset", "mean p", "log10 p, median", "q", "scalar, predicted", "measured"]
    heads += ["refinement, predicted", "measured", "teacher, measured"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for base in given.bases:
        for preset in ("mixed", "nsr"):
            line = line_of(base, preset, given.updates, given.seed)
            cells = [
                Path(line.base).name,
                line.preset,
                f"{line.chance:.1e}",
                f"{line.log10_median_chance:.1f}",
                f"{line.rescued:.2f}",
                f"{line.scalar_prediction:.1e}",
                "{:.1e} ± {:.0e}".format(*line.measured["scalar"]),
                f"{line.refine_prediction:.1e}",
                "{:.1e} ± {:.0e}".format(*line.measured["refine"]),
                "{:.1e} ± {:.0e}".format(*line.measured["distill"]),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
