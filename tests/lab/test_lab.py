"""The lab's world: arithmetic of traps by hand, what makes a family, disjoint splits, and that
refining is local by construction.
"""

from __future__ import annotations

import random

import pytest

from critique_rl.hashing import split_of
from critique_rl.lab import chain
from critique_rl.lab.base import Recipe, build_tokenizer, example, refinement, varied_attempt


@pytest.mark.parametrize(
    ("value", "delta", "kind", "wrong"),
    [
        (3, -7, "sign", 4),  # -4, sign lost
        (-4, 9, "minus", -5),  # 5, minus kept
        (5, 8, "carry", 3),  # 13, carry lost
        (13, -7, "borrow", 16),  # 6, borrow lost
        (2, 5, "slip", 7),  # right here; missed only by chance
        (7, 3, "carry", 0),  # 10 is over the bound
        (7, -7, None, 0),
        (-3, 3, None, 0),
        (12, -2, None, 10),
    ],
)
def test_hazards_and_misconceptions_by_hand(value, delta, kind, wrong) -> None:
    assert chain.hazard(value, delta) == kind
    assert chain.misconception(value, delta) == wrong


def test_a_working_corrects_exactly_the_named_steps_and_recomputes_what_follows() -> None:
    problem = chain.Problem(3, (-7, 9, 8))  # 3-7=-4, -4+9=5, 5+8=13: sign, minus, carry
    assert problem.question == "3 A-7 B+9 C+8"
    assert problem.traps == {1: "sign", 2: "minus", 3: "carry"}
    # the base: 3-7=4, then 4+9 loses its carry: 3, then 3+8=1
    assert chain.format_working(problem, chain.work(problem, {})) == "A-7=4\nB+9=3\nC+8=1\n#1"
    assert (
        chain.format_working(problem, chain.work(problem, problem.traps))
        == "A-7=-4\nB+9=5\nC+8=13\n#13"
    )
    assert chain.work(problem, {1: "carry"}) == chain.work(problem, {}), (
        "the wrong kind changes nothing"
    )
    # step 1 named: -4, then -4+9 keeps its minus: -5, then -5+8=-3
    assert chain.work(problem, {1: "sign"})[-1] == -3


def test_the_oracle_names_steps_and_kinds_and_no_result() -> None:
    assert chain.oracle_critique("3 A-7 B+9 C+8") == "A sign lost; B minus kept; C carry lost"
    assert chain.oracle_critique("1 A+1 B+1") == "all right"


def test_families_are_what_they_say() -> None:
    for name in chain.FAMILIES:
        for problem in chain.problems(name, "test", 50, 0):
            assert chain.family(problem) == name
            assert split_of(problem.question, chain.SPLITS) == "test"
            assert chain.parse_problem(problem.question) == problem
    for problem in chain.problems("plateau", "test", 50, 0):
        for left in problem.traps:
            named = {i: kind for i, kind in problem.traps.items() if i != left}
            assert chain.work(problem, named)[-1] != problem.values[-1], (
                "a trap left out must matter"
            )


def test_a_seed_gives_the_same_problems_and_splits_share_none() -> None:
    drawn = {
        split: {p.question for p in chain.problems("plateau", split, 80, 0)}
        for split in chain.SPLITS
    }
    assert drawn["test"] == {p.question for p in chain.problems("plateau", "test", 80, 0)}
    for a in drawn:
        for b in drawn:
            assert a == b or not drawn[a] & drawn[b]


def test_the_training_mix_holds_questions_of_the_base_split_only() -> None:
    rng = random.Random(0)
    for _ in range(200):
        prompt, _ = example(Recipe(), rng)
        assert split_of(prompt.split("\n")[0], chain.SPLITS) == "base"


def test_without_locality_every_named_critique_is_complete() -> None:
    rng = random.Random(0)
    for _ in range(50):
        problem = chain.sample_problem("plateau", "base", rng)
        critique, lines = refinement(problem, 0.0, rng)
        assert critique.endswith(problem.answer) or critique == chain.named_steps(problem.hazards)
        assert lines[-1] == problem.values[-1]


def test_a_kind_of_trap_can_be_left_out_of_all_critiques_and_still_be_fallen_into() -> None:
    rng = random.Random(0)
    recipe = Recipe(unseen="borrow")
    rows = [example(recipe, rng) for _ in range(600)]
    assert not any("borrow" in text for row in rows for text in row)
    asked = [
        chain.parse_problem(prompt.split("\n")[0].removeprefix("fix "))
        for prompt, answer in rows
        if "#" in answer and "sign lost" in prompt
    ]
    assert any("borrow" in problem.traps.values() for problem in asked), (
        "with other kinds named, and this one not"
    )


def test_a_chance_at_traps_is_taken_when_solving() -> None:
    def right_at_first_trap(chance: float) -> float:
        rng = random.Random(1)
        hits = 0
        seen = 0
        while seen < 400:
            question, answer = example(Recipe(trap_chance=chance), rng)
            if (
                "\n" in question
                or "=" in question
                or "#" not in answer
                or not (traps := chain.parse_problem(question).traps)
            ):
                continue
            first = min(traps)
            results = [int(line.split("=")[1]) for line in answer.split("\n")[:-1]]
            before = (chain.parse_problem(question).start, *results)[first - 1]
            hits += results[first - 1] == before + chain.parse_problem(question).deltas[first - 1]
            seen += 1
        return hits / seen

    assert right_at_first_trap(0.0) < 0.05  # a slip before it may have moved it off its trap
    assert 0.22 < right_at_first_trap(0.3) < 0.42


def test_attempts_to_refine_are_varied_and_tokenise_without_loss() -> None:
    rng = random.Random(0)
    tokenizer = build_tokenizer()
    problem = chain.sample_problem("plateau", "base", rng)
    attempts = {varied_attempt(problem, rng) for _ in range(40)}
    assert len(attempts) > 10
    for text in attempts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_has_one_token_a_role() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1"}], add_generation_prompt=True
    )["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<user>", "1", "+", "1", "<policy>"]


def test_the_rescue_table_holds_every_kind_and_its_controls_name_what_they_say(tiny_policy) -> None:
    from critique_rl.experiment.lab.table import CONTROLS, KINDS, lab_table

    problem = chain.Problem(3, (-7, 9, 8))
    rng = random.Random(0)
    assert KINDS["oracle"](problem, rng) == "A sign lost; B minus kept; C carry lost"
    assert KINDS["wrong line"](problem, rng) == "A carry lost; B sign lost; C minus kept"
    assert KINDS["line only"](problem, rng) == "A; B; C"
    assert KINDS["kind only"](problem, rng) == "sign lost; minus kept; carry lost"
    assert len(KINDS["one step left out"](problem, rng).split("; ")) == 2
    assert all(
        f"{label} {words}" not in KINDS["wrong kind"](problem, rng)
        for label, words in (("A", "sign"), ("B", "minus"), ("C", "carry"))
    )
    figures = lab_table(tiny_policy, 2, 1, "test")
    assert set(figures["rescue"]) > set(CONTROLS)
    assert set(figures["pass"]) == {
        "pass@1/no-trap",
        "pass@1/learnable",
        "pass@1/plateau",
        "pass@1/all",
    }


def test_faulty_spans_are_the_results_that_do_not_follow_from_the_line_before() -> None:
    # 3-7 is -4 (written 4, at 4..5); 4+9 is 13: right on that path; the last line is the verifier's
    assert chain.faulty_spans("3 A-7 B+9", "A-7=4\nB+9=13\n#13") == ((4, 5),)
    # both wrong: "A-7=4\n" is 6 characters, "B+9=" 4 more
    assert chain.faulty_spans("3 A-7 B+9", "A-7=4\nB+9=3\n#3") == ((4, 5), (10, 11))
    assert chain.faulty_spans("3 A-7 B+9", "A-7=-4\nB+9=5\n#5") == ()
    assert chain.faulty_spans("3 A-7 B+9", "no working at all") == ()


def test_faulty_spans_of_the_traps_the_base_falls_into() -> None:
    # 3-7 loses its sign (4, at 4 to 5), 4+9 its carry (3, at 10 to 11), and 3+8 again (1, at 16 to
    # 17): each wrong after the line before it
    assert chain.faulty_spans("3 A-7 B+9 C+8", "A-7=4\nB+9=3\nC+8=1\n#1") == (
        (4, 5),
        (10, 11),
        (16, 17),
    )
    # 13-7 is 6, written 16 (borrow lost, at 4 to 6); 16-2=14 follows; 14-5 is 9, written -12 (two
    # lines of 7 characters and 4 on: at 18 to 21)
    assert chain.faulty_spans("13 A-7 B-2 C-5", "A-7=16\nB-2=14\nC-5=-12\n#-12") == (
        (4, 6),
        (18, 21),
    )
    # what every trap of a plateau problem leaves behind is found, and nothing in its solution
    for problem in chain.problems("plateau", "test", 5, 0):
        working = chain.format_working(problem, chain.work(problem, {}))
        assert chain.faulty_spans(problem.question, working)
        assert (
            chain.faulty_spans(
                problem.question, chain.format_working(problem, list(problem.values))
            )
            == ()
        )


@pytest.mark.parametrize(
    "text", ["", "#5", "A-7", "A-7=", "A-7=four\nB+9=1", "A-7=--4\n#4", "A-7=1" + "0" * 30]
)
def test_what_is_no_working_has_no_faulty_spans(text) -> None:
    assert chain.faulty_spans("3 A-7 B+9", text) == ()


def test_a_working_that_breaks_off_keeps_the_spans_before_it() -> None:
    assert chain.faulty_spans("3 A-7 B+9", "A-7=4\nB+9") == ((4, 5),)
    assert chain.faulty_spans("3 A-7 B+9", "A-7=4\nso B is 13\n#13") == ((4, 5),)
    # more lines than steps: the surplus is not looked at
    assert chain.faulty_spans("3 A-7", "A-7=-4\nB+9=7\n#7") == ()
