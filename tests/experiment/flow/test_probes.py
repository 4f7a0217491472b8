"""Probes of the lab worlds: distinct, of the right class, and a mass of at most 1."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from critique_rl.analysis.flow.classes import BASE_WRONG, CLASSES, NEAR_MISS, RIGHT
from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.experiment.flow import probes as probes_module
from critique_rl.experiment.flow.masses import listed_masses, sampled_shares
from critique_rl.experiment.flow.probes import (
    ProbeSet,
    build_probes,
    is_spelled_once,
    judge_samples,
    probes_from_json,
    refuse_cut,
)
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import Sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task

WORLDS = {"lab/chain": "lab", "lab/tiers": "lab/tiers", "lab/facts": "lab/facts"}


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    """(model, tokenizer, task, rows, probes) of a world with its committed base."""
    task = load_task(TaskConfig(request.param, size=8), 0)
    model, tokenizer = load_policy(WORLDS[request.param])
    rows = task.held_out("test", 2)
    sampling = Sampling(max_new_tokens=48)
    probes = build_probes(model, tokenizer, task, rows, sampling, samples=16, seed=3)
    return model, tokenizer, task, rows, probes


def test_masses_of_a_world_sum_to_one_and_its_list_covers_the_base(world) -> None:
    model, _, _, _, probes = world
    masses = listed_masses(model, probes).problems
    for by_class in masses.values():
        assert sum(by_class.values()) == pytest.approx(1, abs=1e-5)
    rest = [by_class["rest"] for by_class in masses.values()]
    assert sum(rest) / len(rest) < 0.1


def test_no_probe_is_the_beginning_of_another(world) -> None:
    *_, probes = world
    for problem in probes.problems:
        texts = sorted(probe.ids for probe in problem.probes)
        for shorter, longer in pairwise(texts):
            assert longer[: len(shorter)] != shorter


def test_the_verifier_agrees_with_every_class(world) -> None:
    _, tokenizer, task, rows, probes = world
    for row, problem in zip(rows, probes.problems, strict=True):
        kinds = [probe.kind for probe in problem.probes]
        assert RIGHT in kinds
        for probe in problem.probes:
            text = tokenizer.decode(probe.ids, skip_special_tokens=True)
            judge = task.evaluator or task.verifier
            verdict = judge(text + task.support.judged_with, row)
            assert (verdict.outcome == "right") == (probe.kind == RIGHT)


def test_the_bases_own_wrong_answers_are_those_it_wrote(world) -> None:
    model, tokenizer, task, rows, probes = world
    kinds = {probe.kind for problem in probes.problems for probe in problem.probes}
    assert kinds <= set(CLASSES)
    assert BASE_WRONG in kinds
    # Without samples nothing is the base's own.
    without = build_probes(model, tokenizer, task, rows[:1], Sampling(max_new_tokens=48), 0)
    assert BASE_WRONG not in {probe.kind for probe in without.problems[0].probes}


def test_a_probe_set_is_read_as_it_was_written(world) -> None:
    *_, probes = world
    read = probes_from_json(json.loads(json.dumps(probes.to_json())))
    assert isinstance(read, ProbeSet)
    assert read == probes


def test_a_near_miss_has_one_mistake() -> None:
    task = load_task(TaskConfig("lab/chain", size=8), 0)
    row = {"question": "3 A-7 B+9", "answer": "5"}
    is_near_miss = task.support.is_near_miss
    assert is_near_miss("A-7=4\nB+9=13\n#13", row)
    assert not is_near_miss("A-7=4\nB+9=12\n#12", row), "two mistakes"
    assert not is_near_miss("A-7=-4\nB+9=5\n#5", row), "no mistake"
    assert not is_near_miss("A-7=4\n#4", row), "no complete working"
    assert not is_near_miss("A-7=4\nB+9=13\n#14", row), "the last line belongs to no step"


def test_sampled_answers_are_classed_by_the_bases_answers() -> None:
    task = load_task(TaskConfig("lab/chain", size=8), 0)
    row = {"question": "3 A-7", "answer": "-4"}
    texts = ("A-7=-4\n#-4", "A-7=4\n#4", "A-7=3\n#3", "A-7=")
    answers = [Sample(0, text, 3, ids=(place,)) for place, text in enumerate(texts)]
    kinds = [probe.kind for probe in judge_samples(task, row, answers, ["4"])]
    assert kinds == [RIGHT, BASE_WRONG, NEAR_MISS, "rest"], "the world's rule says what is near"
    without_rule = replace(task, support=None)
    kinds = [probe.kind for probe in judge_samples(without_rule, row, answers, ["4"])]
    assert kinds == [RIGHT, BASE_WRONG, "other_wrong", "rest"]


def test_samples_in_place_of_a_list_give_the_masses_that_the_list_has(world) -> None:
    model, tokenizer, task, rows, listed = world
    sampling = Sampling(max_new_tokens=48)
    sampled = build_probes(model, tokenizer, task, rows[:2], sampling, 64, 5, listed=False)
    assert not sampled.listed
    exact = listed_masses(model, listed).problems
    for name, by_class in sampled_shares(sampled).problems.items():
        assert by_class["right"] == pytest.approx(exact[name]["right"], abs=0.2)


def test_a_list_is_not_summed_where_a_policy_spells_in_several_ways(world) -> None:
    _, tokenizer, task, rows, probes = world
    assert probes.listed, "the lab's policies have one spelling"
    text = task.support.answers(rows[0])[0] + task.support.mark
    part = task.support.listed_part(text)
    ids = [*tokenizer(part)["input_ids"], tokenizer.eos_token_id]
    alike = Sample(0, text, len(ids), ids=ids)
    # One token more for the same text, as a tokenizer with merges could have it.
    apart = replace(alike, ids=[ids[0], *ids])
    assert is_spelled_once(tokenizer, task.support, [alike] * 19 + [apart])
    assert not is_spelled_once(tokenizer, task.support, [alike] * 18 + [apart] * 2)
    assert is_spelled_once(tokenizer, task.support, [alike, replace(apart, truncated=True)])


@pytest.mark.parametrize(
    "setting",
    [
        {"top_p": 0.5},
        {"top_k": 4},
        {"min_p": 0.1},
        {"repetition_penalty": 1.2},
        {"generation_kwargs": {"typical_p": 0.9}},
    ],
)
def test_answers_that_are_cut_have_no_masses(setting) -> None:
    refuse_cut(Sampling(temperature=0.7, generation_kwargs={"typical_p": 1.0}))
    with pytest.raises(ConfigError, match="masses are those of the softmax"):
        refuse_cut(Sampling(**setting))


def test_an_answer_that_a_rollout_could_not_end_belongs_to_the_rest(world, monkeypatch) -> None:
    model, tokenizer, task, rows, _ = world
    monkeypatch.setattr(probes_module, "is_spelled_once", lambda *_: True)
    probes = build_probes(model, tokenizer, task, rows, Sampling(max_new_tokens=2), samples=2)
    assert all(len(probe.ids) <= 2 for problem in probes.problems for probe in problem.probes)
    for by_class in listed_masses(model, probes).problems.values():
        assert by_class["rest"] > 0.5


def test_without_a_complete_answer_nothing_is_known_of_its_spelling(world) -> None:
    _, tokenizer, task, _, _ = world
    assert not is_spelled_once(tokenizer, task.support, [])
