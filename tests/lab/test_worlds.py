"""lab/tiers, lab/facts and options of lab/chain: problems and their answers by hand, splits,
verifiers, one-example training, and what the committed bases do.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.experiment.evaluate import judge
from critique_rl.experiment.evaluation_metrics import pass_metrics, self_metrics, share_metrics
from critique_rl.hashing import split_of
from critique_rl.lab import chain, facts, facts_base, tiers, tiers_base
from critique_rl.policy import load_policy
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task
from critique_rl.tasks.verifiers import hash_confidence


def test_a_tier_question_is_parsed_worked_and_written() -> None:
    problem = tiers.parse_problem("3 A+4 B+? C-2 D-?")
    assert problem == tiers.Problem(3, ((1, 4), (1, 0), (-1, 2), (-1, 0)))
    assert problem.question == "3 A+4 B+? C-2 D-?"
    assert problem.hidden == 2
    # 3 + 4 = 7, + 1 = 8, - 2 = 6, - 3 = 3
    assert tiers.format_working(problem, (4, 1, 2, 3), 70) == "A+4=7\nB+1=8\nC-2=6\nD-3=3\n#3\n@70"
    assert problem.truth[0] == 4
    assert problem.truth[2] == 2
    assert {problem.truth[1], problem.truth[3]} <= {1, 2, 3}
    assert int(problem.answer) == 5 + problem.truth[1] - problem.truth[3]


@pytest.mark.parametrize(
    ("chance", "size"), [(0.0, 1), (0.59, 1), (0.6, 2), (0.89, 2), (0.91, 3), (0.999, 3)]
)
def test_a_hidden_magnitude_is_drawn_by_its_chances(chance, size) -> None:
    assert tiers.hidden_magnitude(chance) == size


def test_hidden_magnitudes_have_their_distribution_over_questions() -> None:
    sizes = Counter(
        problem.truth[i]
        for problem in tiers.problems("tier1", "train", 1500, 0)
        for i in range(4)
        if not problem.operands[i][1]
    )
    # 1500 draws: standard errors .013, .012, .008
    assert [sizes[size] / 1500 for size in (1, 2, 3)] == pytest.approx(
        list(tiers.CHANCES), abs=0.04
    )


def test_tier_problems_stay_in_range_and_splits_share_no_question() -> None:
    seen = {}
    for split in tiers.SPLITS:
        for family in tiers.FAMILIES:
            for problem in tiers.problems(family, split, 60, 0):
                assert problem.hidden == tiers.FAMILIES.index(family)
                for guess in (1, 3):
                    sizes = [size or guess for _, size in problem.operands]
                    results = problem.results(sizes)
                    assert all(0 <= result <= tiers.LIMIT for result in results)
                assert seen.setdefault(problem.question, split) == split
    with pytest.raises(ValueError, match="expected at most"):
        tiers.problems("tier3", "test", 100_000, 0)


def test_the_tiers_base_never_reads_which_guess_is_right() -> None:
    rng = random.Random(0)
    hits = 0
    total = 0
    for _ in range(1500):
        question, answer = tiers_base.example(tiers_base.RECIPE, rng)
        problem = tiers.parse_problem(question.removeprefix("say "))
        assert split_of(problem.question, tiers.SPLITS) == "base"
        if problem.hidden == 1:
            hits += hash_confidence(answer, {"answer": problem.answer}).outcome == "right"
            total += 1
    # right by chance alone: .6^2 + .3^2 + .1^2 = .46; about 375 examples, standard error .026
    assert hits / total == pytest.approx(0.46, abs=0.09)


def test_direct_answers_have_their_share_and_the_same_hidden_guesses() -> None:
    def answers(share: float) -> list[tuple[str, str]]:
        rng = random.Random(0)
        recipe = replace(tiers_base.RECIPE, direct_share=share)
        return [tiers_base.example(recipe, rng) for _ in range(1500)]

    def is_direct(answer: str) -> bool:
        return answer.startswith("#")

    shares = {}
    hits = Counter()
    for share in (0.35, 0.65):
        examples = answers(share)
        direct = [pair for pair in examples if is_direct(pair[1])]
        shares[share] = len(direct) / 1500
        for question, answer in direct:
            problem = tiers.parse_problem(question.removeprefix("say "))
            assert answer.count("\n") == 1
            verdict = hash_confidence(answer, {"answer": problem.answer})
            assert verdict.confidence is not None
            hits[problem.hidden, verdict.outcome] += 1
    # 1500 draws: standard error .012
    assert shares == pytest.approx({0.35: 0.35, 0.65: 0.65}, abs=0.04)
    # With all operands shown both styles are right; else they guess alike.
    assert hits[0, "wrong"] == 0
    one_hidden = hits[1, "right"] / (hits[1, "right"] + hits[1, "wrong"])
    assert one_hidden == pytest.approx(0.46, abs=0.09)
    assert all(is_direct(answer) for _, answer in answers(1.0))
    assert not any(is_direct(answer) for _, answer in answers(0.0))


@pytest.mark.parametrize("world", ["chain", "facts", "critic"])
def test_a_direct_share_is_of_tiers_alone(world, tmp_path, capsys) -> None:
    folder = tmp_path / "base"
    command = ["lab", "build", "--world", world, "--out", str(folder), "--direct-share"]
    assert main([*command, "0.35"]) == 2
    assert f"--direct-share: is of tiers, and got --world {world}" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_a_direct_share_lies_between_0_and_1(share, tmp_path, capsys) -> None:
    folder = tmp_path / "base"
    option = f"--direct-share={share}"
    assert main(["lab", "build", "--world", "tiers", "--out", str(folder), option]) == 2
    assert "expected a share from 0 to 1" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "outcome", "confidence"),
    [
        ("A+1=4\n#4\n@70", "right", 0.7),
        ("#5\n@0", "wrong", 0.0),
        ("#4\n@100", "right", 1.0),
        ("#4\n@101", "unreadable", None),
        ("#4\n@-1", "unreadable", None),
        ("#4\n@7.5", "unreadable", None),
        ("#4\n@70\n", "unreadable", None),
        ("#4", "unreadable", None),
        ("@70", "unreadable", None),
        ("#4\n\n@70", "unreadable", None),
        ("#four\n@70", "unreadable", None),
        ("", "unreadable", None),
    ],
)
def test_the_last_two_lines_are_answer_and_confidence_or_it_is_unreadable(
    text, outcome, confidence
) -> None:
    verdict = hash_confidence(text, {"answer": "4"})
    assert (verdict.outcome, verdict.confidence) == (outcome, confidence)


def test_both_styles_are_judged_by_their_last_two_lines() -> None:
    problem = tiers.parse_problem("3 A+4 B+? C-2 D-5")
    row = {"answer": problem.answer}
    assert tiers.format_direct(problem, (4, 1, 2, 5), 70) == "#1\n@70"
    outcomes = {}
    for guess in (1, 2, 3):
        sizes = (4, guess, 2, 5)
        texts = [style(problem, sizes, 30) for style in (tiers.format_working, tiers.format_direct)]
        verdicts = [hash_confidence(text, row) for text in texts]
        # The two differ in their steps alone.
        assert verdicts[0] == verdicts[1]
        assert verdicts[0].confidence == 0.3
        outcomes[guess] = verdicts[0].outcome
    assert outcomes[problem.truth[1]] == "right"
    assert list(outcomes.values()).count("wrong") == 2


def test_an_answer_column_that_is_no_integer_is_unscored() -> None:
    assert hash_confidence("#4\n@70", {"answer": "x"}).outcome == "unscored"


def test_entities_have_families_facts_and_one_split_each() -> None:
    families = {
        "a00": "known",
        "h39": "known",
        "i00": "half",
        "q07": "unknown",
        "a40": "false_premise",
        "z49": "false_premise",
    }
    assert {entity: facts.family(entity) for entity in families} == families
    assert facts.answer("a40") == "invalid question"
    assert not facts.is_known("a40")
    assert not facts.is_known("q07")
    assert facts.is_known("a00")
    assert 10 <= int(facts.answer("a00")) <= 99
    half = [facts.is_known(entity) for entity in facts.entities("half")]
    assert len(half) == 320
    assert sum(half) / 320 == pytest.approx(0.5, abs=0.09)
    splits = {
        split: {e for family in facts.FAMILIES for e in facts.problems(family, split, 30, 0)}
        for split in facts.SPLITS
    }
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["test"]
    assert len(facts.problems("known", "train", 1000, 0)) == 1000
    with pytest.raises(ValueError, match="expected at most"):
        facts.problems("known", "test", 1000, 0)


def test_the_facts_base_reads_no_fact_it_is_not_to_know() -> None:
    rng = random.Random(0)
    answers = [("q07", facts_base.base_answer("q07", random.Random(i))) for i in range(400)]
    numbers = [int(text) for _, text in answers if text.isdigit()]
    assert min(numbers) >= 10
    assert len(set(numbers)) > 60
    assert {facts_base.base_answer("a00", rng) for _ in range(200)} == {
        facts.fact("a00"),
        facts.UNSURE,
        facts.INVALID,
    }


def test_facts_are_trained_on_by_one_rule_and_evaluated_by_another() -> None:
    task = load_task(TaskConfig("lab/facts", size=8), 0)
    row = {"answer": "invalid question"}
    text = facts.box_answer(facts.INVALID)
    assert (task.verifier(text, row).outcome, task.evaluator(text, row).outcome) == (
        "wrong",
        "right",
    )


def test_one_example_training_copies_one_row_and_leaves_the_held_out_ones() -> None:
    plain = load_task(TaskConfig("lab/tiers", size=16), 0)
    for which in (5, plain.train[5]["id"]):
        task = load_task(TaskConfig("lab/tiers", size=16, repeat_one=which), 0)
        assert task.train == [plain.train[5]] * 16
        assert task.held_out("test", 2) == plain.held_out("test", 2)
    for which in (16, -1, "no such id", True):
        with pytest.raises(
            ConfigError, match=r"task.repeat_one: got .*, expected a place from 0 to 15"
        ):
            load_task(TaskConfig("lab/tiers", size=16, repeat_one=which), 0)


def measured(name: str, problems: int, samples: int) -> dict[str, float]:
    task = load_task(TaskConfig(name, size=4), 0)
    rows = task.held_out("validation", problems)
    verifier = task.evaluator or task.verifier
    judged = judge(
        *load_policy(name),
        rows,
        verifier,
        samples,
        Sampling(max_new_tokens=40),
        abstains=task.abstains,
    )["problems"]
    return pass_metrics(judged, (1, samples)) | self_metrics(judged) | share_metrics(judged)


def test_the_tiers_base_solves_by_guessing_and_is_sure_of_itself_for_no_reason() -> None:
    rates = measured("lab/tiers", 20, 16)
    assert rates["pass@1/tier0"] > 0.95
    assert 0.35 < rates["pass@1/tier1"] < 0.6
    assert rates["pass@1/tier3"] < rates["pass@1/tier1"]
    assert rates["pass@16/tier1"] > 0.8
    assert rates["auroc"] == pytest.approx(0.5, abs=0.06)
    assert rates["ece"] > 0.15


@pytest.mark.parametrize(("name", "share"), [("tiers-worked", 0.35), ("tiers-direct", 0.65)])
def test_bases_of_two_styles_answer_in_their_shares_and_are_right_with_steps(name, share) -> None:
    task = load_task(TaskConfig("lab/tiers", size=4), 0)
    rows = task.held_out("validation", 40)[:40]
    assert {row["family"] for row in rows} == {"tier0"}
    prompts = [row["prompt"] for row in rows for _ in range(16)]
    answers = sample(*load_policy(f"lab/{name}"), prompts, Sampling(max_new_tokens=40), seed=1)
    right = Counter()
    total = Counter()
    for answer in answers:
        is_direct = answer.text.startswith("#")
        verdict = task.verifier(answer.text, rows[answer.prompt // 16])
        right[is_direct] += verdict.outcome == "right"
        total[is_direct] += 1
    # 640 answers: standard error .019 of the share; rates right differ more between problems
    assert total[True] / 640 == pytest.approx(share, abs=0.08)
    assert right[False] / total[False] > 0.9
    # The base that gives most of its answers without steps is right in about .5 of them.
    assert right[True] / total[True] < 0.65


def test_the_facts_base_knows_guesses_and_seldom_abstains() -> None:
    rates = measured("lab/facts", 30, 16)
    assert rates["pass@1/known"] > 0.6
    assert 0.2 < rates["pass@1/half"] < 0.55
    assert rates["pass@1/unknown"] < 0.05
    assert 0.06 < rates["abstention/known"] < 0.2
    assert 0.06 < rates["abstention/unknown"] < 0.2
    assert rates["hallucination/unknown"] > 0.7
    assert 0.05 < rates["pass@1/false_premise"] < 0.2


def test_terse_solutions_are_right_and_in_another_hand() -> None:
    terse = load_task(TaskConfig("lab/chain", size=4, options={"solution": "terse"}), 0)
    own = load_task(TaskConfig("lab/chain", size=4), 0)
    for row, other in zip(terse.train, own.train, strict=True):
        assert row["question"] == other["question"]
        assert row["solution"] != other["solution"]
        assert terse.verifier(row["solution"], row).outcome == "right"
        # Both right workings are listed, and the own one once.
        answers = terse.support.answers(row)
        assert {row["solution"], other["solution"]} <= set(answers)
        assert set(own.support.answers(other)) | {row["solution"]} == set(answers)
        # Chances of true answers are summed over this list.
        assert len(set(answers)) == len(answers)
        assert own.support.answers(other).count(other["solution"]) == 1
    assert chain.faulty_spans("3 A-7 B+9", "A=4\nB=13\n#13") == ((2, 3),)
    with pytest.raises(ConfigError, match="expected own or terse"):
        load_task(TaskConfig("lab/chain", options={"solution": "sideways"}), 0)
