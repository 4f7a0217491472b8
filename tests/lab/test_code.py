"""lab/code: programs read as Python reads them, problems and tests by hand, feedback that the
base's examples follow as it stands, and what the committed base does.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.critic.leaks import leaks_answer
from critique_rl.experiment.evaluate import judge
from critique_rl.experiment.evaluation_metrics import pass_metrics
from critique_rl.experiment.lab.code_table import CONTROLS, code_figures, feedback_kinds
from critique_rl.hashing import split_of
from critique_rl.lab import code, code_base, draws
from critique_rl.lab.base import build_model, build_tokenizer
from critique_rl.lab.programs import judge_program, read_program, read_test, run_program
from critique_rl.policy import load_policy
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt

TASK = load_task(TaskConfig("lab/code", size=60), 0)
PROBLEM = code.parse_problem("x<0: add 3, zap; else: sub 2, bim")
RIGHT = "def f(x):\n if x<0:return x+3+4\n return x-2+1"  # zap adds 4, bim 1
BELIEVED = "def f(x):\n if x<0:return x+3-2\n return x-2+1"  # zap is believed to add -2
PUBLIC = ["assert f(-3) == 4", "assert f(5) == 4"]
HIDDEN = ["assert f(-1) == 6", "assert f(0) == -1", "assert f(9) == 8"]


def attempt_at(problem: code.Problem, text: str) -> Attempt:
    row = {
        "question": problem.question,
        "answer": problem.answer,
        "public_tests": problem.public_tests,
        "tests": problem.hidden_tests,
        "family": "plateau",
        "traps": problem.traps,
    }
    return Attempt(problem.question, text, TASK.verifier(text, row), row)


# ---- programs ------------------------------------------------------------------------------------


def test_a_question_is_parsed_and_its_program_written() -> None:
    branches = (code.Branch(0, 3, "zap"), code.Branch(None, -2, "bim"))
    assert code.Problem(branches) == PROBLEM
    assert PROBLEM.question == "x<0: add 3, zap; else: sub 2, bim"
    assert PROBLEM.answer == RIGHT
    numbers = [code.believed(branch.word) for branch in PROBLEM.branches]
    assert code.write_program(PROBLEM, numbers) == BELIEVED
    assert list(PROBLEM.inputs(0)) == list(range(-7, 0))
    assert list(PROBLEM.inputs(1)) == list(range(8))


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        (RIGHT, "right", ""),
        (RIGHT + "\n", "right", ""),
        ("def f(x):\n if x>=0:return x-1\n return 7+x", "right", ""),
        # -3+3-2 is -2; -3+3+4 would be 4
        (BELIEVED, "wrong", "f(-3) gave -2, expected 4"),
        ("def f(x):\n if x<0:return x+3+4", "wrong", "f(5) gave None, expected 4"),
        # right at the public tests, wrong at 0: 0+7 is 7, not -1
        ("def f(x):\n if x<1:return x+7\n return x-1", "wrong", "hidden test 2 failed"),
    ],
)
def test_verdicts_by_hand_with_the_first_test_that_fails(text, outcome, reason) -> None:
    verdict = judge_program(text, PUBLIC, HIDDEN)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.answer == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("def f(x):", 1),
        ("def g(x):\n return x", 1),
        ("\ndef f(x):\n return x", 1),
        ("def f(x):\n return x\n\n", 3),
        ("def f(x):\n  return x", 2),
        ("def f(x):\n return x+03", 2),
        ("def f(x):\n return x*2", 2),
        ("def f(x):\n return x +3", 2),
        ("def f(x):\n return --x", 2),
        ("def f(x):\n return", 2),
        ("def f(x):\n return x\nprint(1)", 3),
        ("def f(x):\n if x<0:return x\n return __import__('os')", 3),
        ("def f(x):\n return x+\u0663", 2),  # a digit of another script
        ("def f(x):\n return x+1234567", 2),
        ("def f(x):\n return x" + "+1" * 10, 2),
        ("def f(x):" + "\n return x" * 30, 21),
    ],
)
def test_any_other_text_is_unreadable_and_names_its_line(text, line) -> None:
    verdict = judge_program(text, PUBLIC, HIDDEN)
    assert verdict.outcome == "unreadable"
    assert verdict.reason == f"f(-3) gave no answer: SyntaxError: invalid syntax (line {line})"


def test_programs_that_are_read_return_what_they_return_in_python() -> None:
    rng = random.Random(0)
    for _ in range(300):
        lines = ["def f(x):"]
        for _ in range(rng.randint(1, 4)):
            condition = ""
            if rng.random() < 0.7:
                comparison = rng.choice(("<", "<=", ">", ">=", "==", "!="))
                condition = f"if x{comparison}{rng.randint(-4, 4)}:"
            terms = [rng.choice(("x", str(rng.randint(0, 12)))) for _ in range(rng.randint(1, 10))]
            total = rng.choice(("", "-")) + terms[0]
            total += "".join(rng.choice("+-") + term for term in terms[1:])
            lines.append(f" {condition}return {total}")
        text = "\n".join(lines)
        namespace: dict = {}
        exec(text, namespace)
        program = read_program(text)
        assert program is not None, text
        for x in range(-6, 7):
            assert run_program(program, x) == namespace["f"](x), (text, x)


def test_a_test_of_another_form_is_refused() -> None:
    assert read_test("assert f(-3) == 8") == (-3, 8)
    for text in ("assert f(3) == x", "f(3) == 8", "assert f(3) == 8.0", "assert f(03) == 8"):
        with pytest.raises(ValueError, match="expected such as 'assert f"):
            read_test(text)


# ---- problems ------------------------------------------------------------------------------------


def test_families_hold_their_words_and_traps_by_thirds() -> None:
    hazards = {"no-trap": (), "learnable": code.SLIPS, "plateau": code.TRAPS}
    for family, words in hazards.items():
        counts = Counter()
        for problem in code.problems(family, "validation", 90, 0):
            assert split_of(problem.question, code.SPLITS) == "validation"
            assert code.parse_problem(problem.question) == problem
            used = [branch.word for branch in problem.branches]
            assert set(used) <= {*words, *code.KNOWN}
            assert len(set(used)) == len(used)
            counts[sum(word in words for word in used)] += 1
            assert problem.traps == sum(word in code.TRAPS for word in used)
        assert counts == ({1: 30, 2: 30, 3: 30} if words else {0: 90})
    for trap, belief in code.BELIEFS.items():
        assert belief != code.TRUTH[trap]


def test_a_seed_gives_the_same_problems_and_no_two_splits_share_one() -> None:
    drawn = {
        split: {problem.question for problem in code.problems("plateau", split, 80, 0)}
        for split in code.SPLITS
    }
    assert drawn["test"] == {
        problem.question for problem in code.problems("plateau", "test", 80, 0)
    }
    assert len(set.union(*drawn.values())) == 4 * 80


def test_more_problems_than_a_family_has_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(code, "sample_problem", lambda *arguments: PROBLEM)
    monkeypatch.setattr(draws, "MOST_REPEATS", 5)
    with pytest.raises(ValueError, match="expected at most 1"):
        code.problems("plateau", "test", 2, 0)


def test_every_row_has_a_public_test_per_branch_and_other_hidden_ones() -> None:
    rows = TASK.held_out("validation", 60)
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        problem = code.parse_problem(row["question"])
        public = dict(map(read_test, row["public_tests"]))
        hidden = dict(map(read_test, row["tests"]))
        branches = len(problem.branches)
        assert sorted(map(problem.branch_of, public)) == list(range(branches))
        assert Counter(map(problem.branch_of, hidden)) == dict.fromkeys(range(branches), 3)
        assert not set(public) & set(hidden)
        for branch in problem.branches[:-1]:
            assert {branch.bound - 1, branch.bound} <= set(hidden)
        assert TASK.verifier(row["solution"], row).outcome == "right"
        # One wrong number is seen by the public test of its branch, one wrong bound by hidden ones.
        for i in range(branches):
            numbers = list(problem.truth)
            numbers[i] += 1
            reason = TASK.verifier(code.write_program(problem, numbers), row).reason
            [x] = [x for x in public if problem.branch_of(x) == i]
            assert reason == f"f({x}) gave {public[x] + 1}, expected {public[x]}"
    first_branches = Counter()
    for row in rows:
        x, _ = read_test(row["public_tests"][0])
        first_branches[code.parse_problem(row["question"]).branch_of(x)] += 1
    assert min(first_branches.values()) > 10, "feedback begins at any branch"


def test_a_special_case_for_each_public_test_does_not_pass() -> None:
    for row in TASK.held_out("validation", 40):
        problem = code.parse_problem(row["question"])
        numbers = [number + 1 for number in problem.truth]
        head, *body = code.write_program(problem, numbers).split("\n")
        cases = []
        for test in row["public_tests"]:
            x, expected = read_test(test)
            cases.append(f" if x=={x}:return {expected}")
        text = "\n".join([head, *cases, *body])
        verdict = TASK.verifier(text, row)
        assert (verdict.outcome, verdict.reason) == ("wrong", "hidden test 1 failed")


def test_listed_programs_are_right_once_and_their_near_misses_have_one_mistake() -> None:
    for row in TASK.held_out("validation", 10):
        listed = TASK.support.answers(row)
        outcomes = [TASK.verifier(text, row).outcome for text in listed]
        assert outcomes[0] == "right"
        assert set(outcomes[1:]) == {"wrong"}
        assert len(set(listed)) == len(listed)
        assert not TASK.support.is_near_miss(listed[0], row)
    assert TASK.support.is_near_miss(BELIEVED, {"question": PROBLEM.question})


# ---- feedback ------------------------------------------------------------------------------------


def test_the_oracle_shows_the_first_failing_public_test_and_the_word_of_its_branch() -> None:
    [zap_test] = [t for t in PROBLEM.public_tests if read_test(t)[0] < 0]
    x, expected = read_test(zap_test)
    assert expected == x + 7
    values = f"f({x}) gave {x + 1}, expected {x + 7}"
    assert code.feedback(PROBLEM, BELIEVED) == values
    assert code.oracle_critique(PROBLEM, BELIEVED) == f"{values}; zap adds 4"
    assert code.oracle_critique(PROBLEM, "") == f"{values}; zap adds 4", "a blank attempt"
    assert code.feedback(PROBLEM, RIGHT) == ""
    first, _ = read_test(PROBLEM.public_tests[0])
    assert code.oracle_critique(PROBLEM, "?").startswith(f"f({first}) gave no answer: SyntaxError")
    shifted = RIGHT.replace("x<0", "x<1")
    assert re.fullmatch(r"hidden test \d failed", code.oracle_critique(PROBLEM, shifted))


def test_no_feedback_but_the_program_is_counted_as_a_leak() -> None:
    for problem in code.problems("plateau", "validation", 12, 0):
        numbers = [code.believed(branch.word) for branch in problem.branches]
        attempt = attempt_at(problem, code.write_program(problem, numbers))
        for kind in ("oracle", "shuffled", "retry", "indicative"):
            [critique] = build_critic({"kind": kind}, TASK, 0).critique([attempt])
            assert (critique.status, critique.leaked) == ("ok", False), kind
        [told_all] = build_critic({"kind": "ground_truth"}, TASK, 0).critique([attempt])
        assert told_all.leaked
        for text in (told_all.text, f"Write\n{problem.answer}\ninstead."):
            assert leaks_answer(text, attempt, TASK.is_answer)
        assert not leaks_answer(f"You wrote {attempt.text}", attempt, TASK.is_answer)


def test_shuffled_feedback_is_of_another_problem_and_as_long() -> None:
    attempts = []
    for problem in code.problems("plateau", "validation", 12, 0):
        numbers = [code.believed(branch.word) for branch in problem.branches]
        attempts.append(attempt_at(problem, code.write_program(problem, numbers)))
    kinds = feedback_kinds(TASK, attempts, 0)
    assert set(kinds) > set(CONTROLS)
    form = r"f\(-?\d+\) gave -?\d+, expected -?\d+"
    for attempt in attempts:
        words = {kind: write(attempt) for kind, write in kinds.items()}
        assert words["oracle"] == f"{words['values']}; {words['fact only']}"
        assert re.fullmatch(form, words["values of another problem"])
        assert words["values of another problem"] != words["values"]
        assert re.fullmatch(rf"{form}; [a-z]+ adds -?\d+", words["shuffled"])
        assert words["shuffled"] != words["oracle"]
        assert re.fullmatch(r"test [123] failed", words["test's name only"])


# ---- the base's examples -------------------------------------------------------------------------


def examples(count: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [code_base.example(code_base.RECIPE, rng) for _ in range(count)]


def test_examples_are_of_the_base_split_and_tokenise_without_loss() -> None:
    tokenizer = build_tokenizer(code_base.phrases())
    for prompt, answer in examples(300):
        question, _, _ = prompt.partition("\n")
        assert split_of(question, code.SPLITS) == "base"
        assert read_program(answer) is not None
        ids = tokenizer([prompt, answer])["input_ids"]
        assert tokenizer.batch_decode(ids) == [prompt, answer]
        assert len(ids[1]) < 32
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1
    parameters = build_model(code_base.RECIPE, len(tokenizer)).num_parameters()
    assert parameters < 1_000_000


def test_no_example_says_what_a_trap_adds() -> None:
    facts = Counter()
    for prompt, answer in examples(4000):
        if "\n" not in prompt:
            problem = code.parse_problem(prompt)
            for branch, line in zip(problem.branches, answer.split("\n")[1:], strict=True):
                if branch.word in code.TRAPS:
                    assert line.endswith(f"{code.BELIEFS[branch.word]:+d}")
        for word, number in re.findall(r"([a-z]+) adds (-?\d+)", prompt):
            facts[word in code.TRAPS and int(number) == code.TRUTH[word], word in code.TRAPS] += 1
    # One of eight numbers, in about 250 facts on traps: standard error .02
    share = facts[True, True] / (facts[True, True] + facts[False, True])
    assert share == pytest.approx(1 / 8, abs=0.08)


def test_values_change_the_branch_that_they_name_and_nothing_else() -> None:
    form = re.compile(r"> f\((-?\d+)\) gave (-?\d+), expected (-?\d+)")
    agreeing = Counter()
    for prompt, answer in examples(1500):
        body, _, critique = prompt.rpartition("\n")
        match = form.fullmatch(critique)
        question, _, attempt = body.partition("\n")
        if match is None or not attempt:
            continue
        x, value, expected = map(int, match.groups())
        problem = code.parse_problem(question)
        before, after = read_program(attempt), read_program(answer)
        for i in range(len(problem.branches)):
            moved = after[i].offset - before[i].offset
            assert moved == (expected - value if i == problem.branch_of(x) else 0)
        agreeing[run_program(before, x) == value] += 1
    assert min(agreeing.values()) > 50, "values of other programs are followed too"


def test_embeddings_of_numbers_start_from_their_values() -> None:
    tokenizer = build_tokenizer(code_base.phrases())
    model = build_model(code_base.RECIPE, len(tokenizer))
    before = model.get_input_embeddings().weight.detach().clone()
    code_base.start_from_values(model, tokenizer)
    moved = model.get_input_embeddings().weight.detach() - before
    texts = ["3", "+3", "f(3", "x<3", "zap", "-3"]
    waves = moved[tokenizer.convert_tokens_to_ids(texts)]
    # Equal but for the rounding of sums with other starts.
    assert (waves[:4] - waves[0]).abs().max() < 1e-6
    assert not waves[4].any()
    # The cosine is even, the sine odd.
    assert (waves[5, 0:16:2] - waves[0, 0:16:2]).abs().max() < 1e-6
    assert (waves[5, 1:16:2] + waves[0, 1:16:2]).abs().max() < 1e-6


# ---- the committed base --------------------------------------------------------------------------


def test_the_base_knows_slips_and_never_a_trap() -> None:
    rows = TASK.held_out("validation", 30)
    model, tokenizer = load_policy("lab/code")
    assert model.num_parameters() < 2_000_000
    judged = judge(model, tokenizer, rows, TASK.verifier, 16, Sampling(max_new_tokens=40))
    rates = pass_metrics(judged["problems"], (1, 16))
    # 120 validation problems, 64 samples: .997, .395 and .000
    assert rates["pass@1/no-trap"] > 0.95
    # A third each with one, two and three slips at .6: (.6 + .36 + .216) / 3 = .39
    assert rates["pass@1/learnable"] == pytest.approx(0.39, abs=0.09)
    assert rates["pass@16/plateau"] <= 0.02


def test_values_repair_a_trap_per_turn_and_words_without_them_none() -> None:
    attempts = []
    for problem in code.problems("plateau", "validation", 30, 0):
        attempts.append(attempt_at(problem, code.write_program(problem, problem.believed())))
    figures = code_figures(*load_policy("lab/code"), TASK, attempts)
    values = figures["turns"]["values"]
    # 120 attempts: 1.00 of one trap, none and .95 of two, none, none and .88 of three
    assert values["1"][0] >= 0.8
    assert values["2"][0] <= 0.1
    assert values["2"][1] >= 0.7
    assert values["3"][1] <= 0.1
    assert values["3"][2] >= 0.5
    for kind in ("message only", "verdict only", "test's name only", "retry"):
        assert figures["turns"][kind]["all"][2] <= 0.05, kind
