"""The cost of the first-order account: `python tests/benchmarks/account_cost.py [--rounds 4]`, five
minutes.

The lab's base trains on `lab/chain` under `mixed` with the oracle critic, 64 rows a step, with 64
probes of 40 tokens in five classes. Processor time of one thread. Per step: without an account,
with one of every update, and from both what one of every tenth costs. Then both ways to the
account's matrix from given shares: backward passes per class, Jacobian-vector products per share.
Memory is the peak of a process of its own for each variant (`--variant`).
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"})
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "experiment/flow"))

import torch
from first_order import LabMasses, lab_trainer
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from critique_rl.experiment.flow.account import StepAccount

ROWS, STEPS, PROBES, SHARES = 64, 6, 64, 9
CLASSES = ("right", "base_wrong", "near_miss", "other_wrong", "rest")


def seconds_per_step(every: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "per_device_train_batch_size": ROWS,
            "max_steps": STEPS,
            "learning_rate": 1e-5,
            "disable_tqdm": True,
        }
        trainer, masses = lab_trainer(Path(folder), probes=PROBES, **settings)
        if every:
            trainer.add_callback(StepAccount(trainer, masses, every, CLASSES))
        began = time.process_time()
        trainer.train()
        return (time.process_time() - began) / STEPS


def by_gradients(policy: nn.Module, masses: LabMasses, shares: list[list[Tensor]]) -> Tensor:
    parameters = list(policy.parameters())
    rows = []
    for mass in masses(policy):
        gradients = torch.autograd.grad(mass, parameters, retain_graph=True)
        dots = [
            sum(torch.dot(g.flatten(), s.flatten()) for g, s in zip(gradients, share, strict=True))
            for share in shares
        ]
        rows.append(torch.stack(dots))
    return torch.stack(rows)


class Scored(nn.Module):
    """The policy's log-masses as a module, so that its weights can be replaced for one call."""

    def __init__(self, policy: nn.Module, masses: LabMasses):
        super().__init__()
        self.policy = policy
        self.masses = masses

    def forward(self) -> Tensor:
        return torch.stack(list(self.masses(self.policy)))


def by_products(policy: nn.Module, masses: LabMasses, shares: list[list[Tensor]]) -> Tensor:
    scored = Scored(policy, masses)
    names = [f"policy.{name}" for name, _ in policy.named_parameters()]
    columns = []
    for share in shares:
        # Fused attention has no forward derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(p.detach(), s)
                for p, s in zip(policy.parameters(), share, strict=True)
            ]
            value = functional_call(scored, dict(zip(names, duals, strict=True)), ())
            columns.append(forward_ad.unpack_dual(value).tangent.clone())
    return torch.stack(columns, 1)


def compare_ways(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer, masses = lab_trainer(Path(folder), probes=PROBES)
    policy = trainer.policy.eval()
    shares = [[torch.randn_like(p) * 1e-4 for p in policy.parameters()] for _ in range(SHARES)]
    ways = {"gradients": by_gradients, "products": by_products}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    matrices = {}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            matrices[name] = way(policy, masses, shares).detach()
            taken[name].append(time.process_time() - began)
    gap = (matrices["gradients"] - matrices["products"]).abs().max() / matrices["products"].std()
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
    print(
        f"{PROBES} probes, 5 classes, {SHARES} shares: gradients {medians['gradients']:.2f} s, "
        f"Jacobian-vector products {medians['products']:.2f} s, ratio "
        f"{medians['gradients'] / medians['products']:.2f}; largest difference {gap:.1e} of their "
        "standard deviation"
    )


def peak_mib(every: int) -> float:
    command = [sys.executable, __file__, "--variant", str(every)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--variant", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.variant is not None:
        seconds_per_step(arguments.variant)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    compare_ways(arguments.rounds)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    order = random.Random(0)
    for number in range(arguments.rounds + 1):
        for every in order.sample(list(seconds), len(seconds)):
            taken = seconds_per_step(every)
            if number:  # the first round warms up
                seconds[every].append(taken)
    ratios = [b / a for a, b in zip(seconds[0], seconds[1], strict=True)]
    extra = statistics.median(ratios) - 1
    print(
        f"{ROWS} rows a step, processor seconds: without {statistics.median(seconds[0]):.2f}, with "
        f"an account of every update {statistics.median(seconds[1]):.2f}; {extra:.1%} more, so "
        f"{extra / 10:.1%} at every tenth ({min(ratios) - 1:.1%} to {max(ratios) - 1:.1%})"
    )
    plain = peak_mib(0)
    watched = peak_mib(1)
    print(f"peak memory: {plain:.0f} MiB without, {watched:.0f} with: {watched / plain:.3f}")


if __name__ == "__main__":
    main()
