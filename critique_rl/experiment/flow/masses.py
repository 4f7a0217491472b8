"""Log-probs of probes under a policy, and the masses of classes that follow from them.

Listed probes are distinct, so masses are sums. Sampled probes are weighted by the balance heuristic
of multiple importance sampling (Veach and Guibas 1995): of n probes of a problem, n_0 were sampled
from the base pi_0 and n_1 from the checkpoint pi,

    w(y) = pi(y) / (n_0 / n pi_0(y) + n_1 / n pi(y)),    mass(c) = sum w(y) [y in c] / sum w(y)

The effective sample size is (sum w)^2 / sum w^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from critique_rl.analysis.flow.classes import CLASSES, REST
from critique_rl.experiment.flow.probes import Probe, ProbedProblem, ProbeSet
from critique_rl.experiment.flow.trees import batches_of, can_branch, tree_log_probs, trees_of

MOST_TOKENS = 1024
"""Tokens of one forward pass on a CPU: with 4,096 the lab's policy took twice as long."""
MOST_TOKENS_GPU = 65_536
MOST_LOGITS = 2**25
"""Logits of one forward pass: 128 MB in float32."""
MOST_NODES = 256
"""Nodes of one tree: attention grows as their square."""


@dataclass(frozen=True)
class Masses:
    """The mass of each class of each problem."""

    problems: dict[str, dict[str, float]]
    """Problem's id -> class -> mass; the classes of a problem sum to 1."""
    sample_size: dict[str, float]
    """Problem's id -> effective sample size; empty where probes are listed."""


def log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    temperature: float = 1.0,
    with_gradient: bool = False,
) -> Tensor:
    """The log-probability of each completion after its prompt: one forward pass over each prefix.

    Args:
        model: A causal language model.
        prompts: Token ids of P prompts.
        completions: Token ids of P completions.
        temperature: Divides the logits.
        with_gradient: Whether the model's graph is kept.

    Returns:
        (P,) log-probs in float32, in the order of the completions.
    """
    if not completions:
        return torch.zeros(0)
    vocabulary = model.config.get_text_config().vocab_size
    most = MOST_TOKENS if model.device.type == "cpu" else MOST_TOKENS_GPU
    most = min(most, MOST_LOGITS // vocabulary)
    trees = trees_of(prompts, completions, min(most, MOST_NODES), can_branch(model))
    sums = []
    order: list[int] = []
    with torch.set_grad_enabled(with_gradient):
        for batch in batches_of(trees, most):
            sums.append(tree_log_probs(model, batch, temperature))
            for tree in batch:
                order += tree.places
    places = torch.tensor(order).argsort()
    return torch.cat(sums)[places.to(sums[0].device)]


# ---- listed probes -------------------------------------------------------------------------------


def listed_masses(model: Any, probes: ProbeSet) -> Masses:
    """Exact masses of listed probes; the class `rest` has what the list leaves.

    Args:
        model: The policy.
        probes: Listed probes.
    """
    assert probes.listed, "sampled probes are weighted, not summed"
    logps = _set_log_probs(model, probes.problems, probes.temperature).double().exp().tolist()
    place = 0
    problems = {}
    for problem in probes.problems:
        masses = dict.fromkeys(CLASSES, 0.0)
        for probe in problem.probes:
            masses[probe.kind] += logps[place]
            place += 1
        listed = sum(masses.values())
        # Rounding in float32 can take the sum a little over 1.
        masses[REST] += max(0.0, 1.0 - listed)
        problems[problem.id] = masses
    return Masses(problems, {})


def _set_log_probs(
    model: Any, problems: Sequence[ProbedProblem], temperature: float, with_gradient: bool = False
) -> Tensor:
    """Log-probs (P,) of all probes, problem after problem."""
    prompts = [problem.prompt_ids for problem in problems for _ in problem.probes]
    completions = [probe.ids for problem in problems for probe in problem.probes]
    return log_probs(model, prompts, completions, temperature)


def each_log_class_mass(model: Any, probes: ProbeSet) -> Iterator[Tensor]:
    """Logs of the mean masses over problems of all classes but `rest`, with gradient.

    Each class's probes are scored in its turn, so that a backward pass goes through them alone.

    Args:
        model: The policy.
        probes: Listed probes.

    Yields:
        A scalar per class; -inf for a class without a probe.
    """
    for kind in CLASSES[:-1]:
        prompts = []
        completions = []
        for problem in probes.problems:
            chosen = [probe.ids for probe in problem.probes if probe.kind == kind]
            prompts += [problem.prompt_ids] * len(chosen)
            completions += chosen
        logps = log_probs(model, prompts, completions, probes.temperature, with_gradient=True)
        yield logps.logsumexp(0) - math.log(len(probes.problems))


def problem_log_probs(
    model: Any, problem: ProbedProblem, probes: Sequence[Probe], temperature: float
) -> Tensor:
    """Log-probs (P,) of P probes of one problem."""
    prompts = [problem.prompt_ids] * len(probes)
    completions = [probe.ids for probe in probes]
    return log_probs(model, prompts, completions, temperature)


# ---- sampled probes ------------------------------------------------------------------------------


def sampled_shares(probes: ProbeSet) -> Masses:
    """Masses under the policy that the probes were sampled from: the classes' shares of them."""
    problems = {}
    sizes = {}
    for problem in probes.problems:
        masses = dict.fromkeys(CLASSES, 0.0)
        for probe in problem.probes:
            masses[probe.kind] += 1 / len(problem.probes)
        problems[problem.id] = masses
        sizes[problem.id] = float(len(problem.probes))
    return Masses(problems, sizes)


def weighted_masses(
    kinds: Sequence[str], base_logps: Tensor, logps: Tensor, from_base: int
) -> tuple[dict[str, float], float]:
    """Masses of one problem's sampled probes, and the effective sample size.

    Args:
        kinds: Classes of n probes, those of the base first.
        base_logps: (n,) log-probs under the base.
        logps: (n,) log-probs under the checkpoint.
        from_base: How many were sampled from the base; the others come from the checkpoint.
    """
    number = len(kinds)
    if not number:
        return dict.fromkeys(CLASSES, float("nan")), 0.0
    now = logps.double()
    base_share = torch.tensor(from_base / number).double()
    base_part = base_logps.double() + base_share.log()
    later_part = now + torch.log1p(-base_share)
    # In logs: both densities of a long completion are 0 as numbers.
    mixture = torch.logaddexp(base_part, later_part)
    weights = torch.exp(now - mixture)
    total = weights.sum()
    shares = weights / total
    masses = dict.fromkeys(CLASSES, 0.0)
    for kind, share in zip(kinds, shares.tolist(), strict=True):
        masses[kind] += share
    size = total.square() / weights.square().sum()
    return masses, size.item()
