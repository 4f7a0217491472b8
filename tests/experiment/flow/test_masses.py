"""Masses of classes: against enumeration of every completion of a tiny policy, and its samples."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.experiment.flow.masses import (
    each_log_class_mass,
    listed_masses,
    log_probs,
    weighted_masses,
)
from critique_rl.experiment.flow.probes import Probe, ProbedProblem, ProbeSet

VOCABULARY = 5
END = 0
LONGEST = 4
PROMPTS = {"first": (3, 1), "second": (2, 4, 4)}


def tiny_model(seed: int) -> LlamaForCausalLM:
    """A policy over five tokens, sharp enough that completions differ in probability."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        initializer_range=1.0,
    )
    return LlamaForCausalLM(config).eval()


def completions() -> list[tuple[int, ...]]:
    """Every completion: it ends with END, or has four tokens."""
    found = []
    for length in range(LONGEST):
        for tokens in itertools.product(range(1, VOCABULARY), repeat=length):
            found.append((*tokens, END))
    found += list(itertools.product(range(1, VOCABULARY), repeat=LONGEST))
    return found


def kind_of(ids: tuple[int, ...]) -> str:
    return CLASSES[(sum(ids) + len(ids)) % (len(CLASSES) - 1)]


def enumerated(listed: list[tuple[int, ...]]) -> ProbeSet:
    probes = tuple(Probe(ids, kind_of(ids)) for ids in listed)
    problems = [ProbedProblem(name, "all", prompt, probes) for name, prompt in PROMPTS.items()]
    return ProbeSet(tuple(problems), listed=True, temperature=1.0, samples=0)


def brute_force(model: LlamaForCausalLM, prompt: tuple[int, ...], ids: tuple[int, ...]) -> float:
    """log p of a completion, token by token, one forward pass each."""
    total = 0.0
    text = list(prompt)
    for token in ids:
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, -1].double()
        total += torch.log_softmax(logits, -1)[token].item()
        text.append(token)
    return total


def test_classes_of_all_completions_sum_to_one_and_equal_brute_force() -> None:
    model = tiny_model(0)
    everything = completions()
    masses = listed_masses(model, enumerated(everything)).problems
    for name, prompt in PROMPTS.items():
        expected = dict.fromkeys(CLASSES, 0.0)
        for ids in everything:
            expected[kind_of(ids)] += 2.718281828459045 ** brute_force(model, prompt, ids)
        assert sum(masses[name].values()) == pytest.approx(1, abs=1e-6)
        assert masses[name] == pytest.approx(expected, abs=1e-6)
        assert masses[name]["rest"] == pytest.approx(0, abs=1e-6)


def test_what_a_list_leaves_out_is_the_rest() -> None:
    model = tiny_model(0)
    everything = completions()
    half = everything[::2]
    masses = listed_masses(model, enumerated(half)).problems
    for name, prompt in PROMPTS.items():
        left_out = sum(
            2.718281828459045 ** brute_force(model, prompt, ids) for ids in everything[1::2]
        )
        assert masses[name]["rest"] == pytest.approx(left_out, abs=1e-6)


def test_the_temperature_divides_the_logits() -> None:
    model = tiny_model(0)
    prompt = PROMPTS["first"]
    ids = (2, 3, END)
    hot = log_probs(model, [prompt], [ids], temperature=2.0).item()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0] / 2.0
    expected = 0.0
    for place, token in enumerate(ids):
        expected += torch.log_softmax(logits[len(prompt) - 1 + place], -1)[token].item()
    assert hot == pytest.approx(expected, abs=1e-5)


def test_log_probs_come_in_the_order_of_the_completions_whatever_the_batches(monkeypatch) -> None:
    model = tiny_model(0)
    everything = completions()
    prompts = [PROMPTS["second"]] * len(everything)
    together = log_probs(model, prompts, everything)
    # A few completions per forward pass.
    monkeypatch.setattr("critique_rl.experiment.flow.masses.MOST_TOKENS", 20)
    apart = log_probs(model, prompts, everything)
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=1e-5)


def test_logs_of_mean_masses_have_the_gradient_of_a_finite_difference() -> None:
    model = tiny_model(0).double()
    probes = enumerated(completions()[::2])
    logs = list(each_log_class_mass(model, probes))
    masses = listed_masses(model, probes).problems.values()
    weight = model.lm_head.weight
    direction = torch.randn_like(weight)
    slopes = []
    for log, kind in zip(logs, CLASSES[:-1], strict=True):
        mean = sum(by_class[kind] for by_class in masses) / len(masses)
        assert log.exp().item() == pytest.approx(mean, abs=1e-6)
        [gradient] = torch.autograd.grad(log, weight)
        slopes.append((gradient * direction).sum().item())
    ends = []
    for sign in (-1, 1):
        with torch.no_grad():
            weight += sign * 1e-3 * direction
        ends.append([log.item() for log in each_log_class_mass(model, probes)])
        with torch.no_grad():
            weight -= sign * 1e-3 * direction
    for slope, before, after in zip(slopes, *ends, strict=True):
        assert (after - before) / 2e-3 == pytest.approx(slope, rel=0.02, abs=2e-3)


def test_a_class_without_a_probe_has_no_mass() -> None:
    probes = enumerated([ids for ids in completions() if kind_of(ids) != "near_miss"])
    logs = dict(zip(CLASSES, each_log_class_mass(tiny_model(0), probes), strict=False))
    assert logs["near_miss"].item() == -float("inf")
    assert logs["right"].isfinite()


def sampled(model: LlamaForCausalLM, prompt: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Completions drawn from the policy's exact distribution."""
    everything = completions()
    logps = log_probs(model, [prompt] * len(everything), everything)
    places = torch.multinomial(logps.exp(), count, replacement=True)
    return [everything[place] for place in places.tolist()]


def test_weighted_samples_of_base_and_checkpoint_estimate_the_exact_masses() -> None:
    base = tiny_model(0)
    policy = tiny_model(1)
    prompt = PROMPTS["first"]
    torch.manual_seed(7)
    number = 20_000
    drawn = [*sampled(base, prompt, number), *sampled(policy, prompt, number)]
    distinct = {}
    for model in (base, policy):
        everything = completions()
        logps = log_probs(model, [prompt] * len(everything), everything)
        distinct[id(model)] = dict(zip(everything, logps.tolist(), strict=True))
    base_logps = torch.tensor([distinct[id(base)][ids] for ids in drawn])
    logps = torch.tensor([distinct[id(policy)][ids] for ids in drawn])
    kinds = [kind_of(ids) for ids in drawn]
    masses, size = weighted_masses(kinds, base_logps, logps, number)
    exact = listed_masses(policy, enumerated(completions())).problems["first"]
    # Four standard errors of a share of .5 at this effective size.
    tolerance = 4 * 0.5 / size**0.5
    assert masses == pytest.approx(exact, abs=tolerance)
    assert number <= size <= 2 * number


def test_samples_of_the_policy_itself_all_count_and_others_hardly_do() -> None:
    same = torch.full((64,), -30.0)
    masses, size = weighted_masses(["right"] * 16 + ["rest"] * 48, same, same, 32)
    assert masses["right"] == pytest.approx(0.25)
    assert size == pytest.approx(64)
    # No completion of the base is likely any more, and the checkpoint was not sampled.
    now = torch.linspace(-400, -30, 64)
    _, size = weighted_masses(["rest"] * 64, same, now, 64)
    assert size < 10
