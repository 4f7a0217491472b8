"""The world of lab/legs: reasoning-gym's leg_counting as rows, its scorer as the verdict, and an
oracle that speaks about the attempt.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.leaks import leaks_answer
from critique_rl.types import Attempt, Verdict

leg_counting = pytest.importorskip(
    "reasoning_gym.arithmetic.leg_counting",
    reason="reasoning-gym is not installed; run: pip install '.[tasks]'",
)

from critique_rl.lab import legs, legs_base  # noqa: E402
from critique_rl.lab.base import batches, build_tokenizer  # noqa: E402
from critique_rl.lab.build import world_by_name  # noqa: E402
from critique_rl.tasks.load import load_task  # noqa: E402

CRABS = f"{legs.preamble()}3 crabs, 1 wasp, 2 sea slugs?\n"  # 30 + 6 + 0 = 36


@pytest.fixture(scope="module")
def task():
    return load_task(TaskConfig("lab/legs", size=60), seed=0)


def test_rows_are_reasoning_gyms_own_questions_and_answers(task) -> None:
    rows = [*task.train, *task.held_out("test", 20)]
    assert {row["family"] for row in task.held_out("test", 20)} == {"easy", "hard"}
    for row in rows:
        problem = legs.parse_problem(row["question"])
        assert row["prompt"] == [{"role": "user", "content": row["question"]}]
        assert row["question"] == leg_counting.QUESTION_TEMPLATE.format(
            animals=", ".join(
                f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in problem.animals
            )
        )
        assert (
            row["answer"]
            == problem.answer
            == str(sum(count * leg_counting.ANIMALS[kind] for kind, count in problem.animals))
        )
        assert task.verifier(row["solution"], row).outcome == "right"


def test_parsing_a_question_gives_what_the_entry_says() -> None:
    dataset = leg_counting.LegCountingDataset(
        leg_counting.LegCountingConfig(
            **legs.INSTANCES, min_animals=1, max_animals=5, seed=3, size=200
        )
    )
    for entry in dataset:
        assert legs.parse_problem(entry["question"]) == legs.from_entry(entry)


@pytest.mark.parametrize("answer", ["36", "036", "+36", "-36", "36.0", "35", "136", "0", "36 "])
def test_the_verdict_is_that_of_reasoning_gyms_scorer(task, answer) -> None:
    row = {"question": CRABS, "answer": "36"}
    dataset = leg_counting.LegCountingDataset(leg_counting.LegCountingConfig())
    right = dataset.score_answer(answer, {"answer": "36"}) == 1.0
    assert (task.verifier(f"A3*10=30 30\n#{answer}", row).outcome == "right") is right


def test_families_and_splits(task) -> None:
    drawn = {
        split: {row["question"]: row["family"] for row in task.held_out(split, 40)}
        for split in ("train", "validation", "test")
    }
    drawn["base"] = {problem.question: "easy" for problem in legs.problems("easy", "base", 40, 0)}
    for a in drawn:
        for b in drawn:
            assert a == b or not drawn[a].keys() & drawn[b].keys()
        for question, family in drawn[a].items():
            known = [kind in legs.met_kinds() for kind, _ in legs.parse_problem(question).animals]
            if family == "easy":
                assert all(known)
            else:
                assert known == [False] * 4
    assert drawn["test"].keys() == {row["question"] for row in task.held_out("test", 40)}


def test_every_number_of_legs_is_met_and_about_half_of_the_kinds() -> None:
    facts = legs.facts()
    assert {facts[kind] for kind in legs.met_kinds()} == set(facts.values())
    assert len(facts) == 37
    assert len(legs.met_kinds()) == 21
    assert {"dog", "cow", "crab", "shrimp"} <= legs.met_kinds()
    assert not {"cat", "horse", "lobster", "ant"} & legs.met_kinds()


def test_the_oracle_speaks_about_the_attempt() -> None:
    # crab 8 (not 10), wasp 6; 24 + 6 = 30; slugs right
    assert (
        legs.oracle_critique(CRABS, "A3*8=24 24\nB1*6=6 30\nC2*0=0 30\n#30") == "crab A has 10 legs"
    )
    # 3*10 is 30, not 31; the sum of what the lines say is 31, as written; the wasp counted twice,
    # its sum: 31 + 12 is 43, not 42
    assert (
        legs.oracle_critique(CRABS, "A3*10=31 31\nB2*6=12 42\nC2*0=0 42\n#42")
        == "A product wrong; B count wrong; B sum wrong"
    )
    assert (
        legs.oracle_critique(CRABS, "A3*10=30 30\nB1*6=6 36\nC2*0=0 36\n#38") == "last line wrong"
    )
    assert (
        legs.oracle_critique(CRABS, "A3*10=30 30\nB is a wasp")
        == "wasp B has 6 legs; sea slug C has 0 legs"
    )
    assert (
        legs.oracle_critique(CRABS, "")
        == "crab A has 10 legs; wasp B has 6 legs; sea slug C has 0 legs"
    )


def test_the_oracle_never_says_the_answer(task) -> None:
    rng = random.Random(0)
    verdict = Verdict("wrong")
    numbers = sorted(set(legs.facts().values()))
    for row in [*task.train, *task.held_out("validation", 30)]:
        problem = legs.parse_problem(row["question"])
        text = legs.work(problem, [rng.choice(numbers) for _ in problem.animals])
        for attempt in (text, "", legs_base.miscalculate(text, rng)):
            assert not leaks_answer(
                legs.oracle_critique(row["question"], attempt),
                Attempt(row["question"], attempt, verdict, row),
                task.is_answer,
            )


def test_a_followed_critique_is_the_solution() -> None:
    problem = legs.parse_problem(CRABS)
    assert legs.work(problem, problem.legs) == "A3*10=30 30\nB1*6=6 36\nC2*0=0 36\n#36"
    assert legs.name_facts(problem, {0: 10, 2: 0}) == "crab A has 10 legs; sea slug C has 0 legs"
    assert legs.faults(problem, legs.work(problem, problem.legs)) == {}


def test_faulty_spans_are_the_wrong_numbers(task) -> None:
    # 8 legs at 3 to 4; 24 + 6 is not 31, at 18 to 20 (the second line begins at 11)
    text = "A3*8=24 24\nB1*6=6 31\n#31"
    assert legs.faulty_spans(CRABS, text) == ((3, 4), (18, 20))
    assert task.verifier(text, {"question": CRABS, "answer": "36"}).faults == ((3, 4), (18, 20))
    assert legs.faulty_spans(CRABS, "no working") == ()


def test_the_warm_start_meets_no_hard_kind_and_the_plain_one_no_critique() -> None:
    rng = random.Random(0)
    plain = replace(legs_base.RECIPE, critiques=False)
    unmet = set(legs.facts()) - legs.met_kinds()
    for _ in range(300):
        prompt, answer = legs_base.example(legs_base.RECIPE, rng)
        listed = prompt[len(legs.preamble()) :].partition("?")[0]
        assert not unmet & {
            kind for kind, _ in legs.parse_problem(f"{legs.preamble()}{listed}?\n").animals
        }
        assert answer.rpartition("\n")[2].startswith("#")
    for _ in range(100):
        prompt, answer = legs_base.example(plain, rng)
        assert legs.parse_problem(prompt).question == prompt
        assert legs.faults(legs.parse_problem(prompt), answer) == {}


def test_invented_facts_are_followed_and_the_rest_of_the_attempt_is_kept() -> None:
    rng = random.Random(0)
    problem = legs.parse_problem(f"{legs.preamble()}3 crabs, 1 bee, 2 dogs?\n")
    for _ in range(50):
        attempt, critique, answer = legs_base.refinement(problem, 1.0, rng)
        for label, first, second in zip(
            "ABC", attempt.split("\n"), answer.split("\n"), strict=False
        ):
            parts = [part for part in critique.split("; ") if f" {label} " in part]
            number = second.partition("*")[2].partition("=")[0]
            assert parts == [] or parts[0].endswith(f" has {number} legs")
            assert parts or first.partition("=")[0] == second.partition("=")[0]


def test_the_preamble_and_each_kind_are_one_token_and_examples_make_batches() -> None:
    world = world_by_name("legs")
    tokenizer = build_tokenizer(world.phrases)
    ids = tokenizer(CRABS)["input_ids"]
    # preamble, "3 ", crab, "s, 1 ", wasp, ", 2 ", sea slug, "s?\n"
    assert len(ids) == 1 + 2 + 1 + 5 + 1 + 4 + 1 + 3
    assert tokenizer.decode(ids) == CRABS
    batch = next(
        batches(replace(world.recipe, sequences=64, batch_size=4), tokenizer, world.example)
    )
    assert batch["input_ids"].shape == batch["labels"].shape
    assert batch["input_ids"].shape[1] < 512


def test_a_missing_package_and_unknown_options_are_said(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="min_animals"):
        load_task(TaskConfig("lab/legs", size=2, options={"min_animals": 2}), 0)
    with pytest.raises(ConfigError, match="did you mean 'hard'"):
        load_task(TaskConfig("lab/legs", size=2, families={"hardd": 1}), 0)
    legs.leg_counting_module.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym.arithmetic", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[tasks\]' in the checkout"):
        load_task(TaskConfig("lab/legs", size=2), 0)


def test_the_rescue_table_speaks_of_the_attempts(task) -> None:
    from critique_rl.experiment.lab.table import legs_critiques

    rows = [row for row in task.train if row["family"] == "hard"][:3]
    failed = [(row, legs.work(legs.parse_problem(row["question"]), (1, 1, 1, 1))) for row in rows]
    critiques = legs_critiques(task, failed, 0)
    assert all(text == "" for text in critiques["retry"])
    assert set(critiques["indicative"]) == {"wrong"}
    for i, (row, text) in enumerate(failed):
        assert (
            critiques["oracle"][i]
            == legs.oracle_critique(row["question"], text)
            != critiques["shuffled"][i]
        )
        assert len(critiques["one thing left out"][i].split("; ")) == 3
        right = [part.split(" has ")[1] for part in critiques["oracle"][i].split("; ")]
        assert all(
            a != b.split(" has ")[1]
            for a, b in zip(right, critiques["wrong numbers"][i].split("; "), strict=True)
        )
        assert " B has " in critiques["wrong line"][i].split("; ")[0]
