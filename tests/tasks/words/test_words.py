"""Word problems: read from an archive, split by story, with derived workings and an oracle.

The archives are made here, in the form of the package reasoning-core; the last tests read the
installed one.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.tasks.load import load_task
from critique_rl.tasks.verifiers import last_number
from critique_rl.tasks.words import archive, problems
from critique_rl.tasks.words.examples import warm_start_example
from critique_rl.tasks.words.oracle import oracle_critique
from critique_rl.tasks.words.stories import story_keys
from critique_rl.tasks.words.workings import derive_working, question_numbers, written
from critique_rl.types import Attempt

THINGS = ("apples", "kites", "stamps", "buttons", "shells", "pencils", "coins", "marbles")
PLACES = ("market", "beach", "school", "garden", "harbour", "museum", "station", "library")


def question(i: int) -> tuple[str, str]:
    """A question of a story of its own, and its answer."""
    thing = THINGS[i % 8]
    place = PLACES[i // 8 % 8]
    left = 40 + i
    right = 3 + i % 7
    name = f"name{chr(97 + i % 26)}{chr(97 + i // 26)}"
    text = (
        f"{name} {place}{thing} had {left} {thing} from {name}s {place}. "
        f"{name}s gave {right} {thing}{place} away. How many {name}{thing} remain?"
    )
    return text, str(left - right)


def lines(count: int, start: int = 0) -> list[str]:
    rows = []
    for i in range(start, start + count):
        text, answer = question(i)
        rows.append(json.dumps({"prompt": f"{text}\nAnswer:", "answer": answer, "choices": []}))
    return rows


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a package reasoning-core with the lines that are given, in a folder of its own."""

    def install(svamp: list[str], asdiv: list[str], with_archive: bool = True) -> Path:
        info = tmp_path / "reasoning_core-0.5.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: reasoning_core\nVersion: 0.5.0\n"
        )
        path = tmp_path / archive.ARCHIVE
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever imports the package fails.
        (tmp_path / "reasoning_core" / "__init__.py").write_text("raise RuntimeError('imported')")
        if with_archive:
            with ZipFile(path, "w") as file:
                file.writestr("svamp_eval.jsonl", "\n".join(svamp) + "\n")
                file.writestr("asdiv_eval.jsonl", "\n".join(asdiv) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        problems.read_problems.cache_clear()
        return path

    return install


def load(seed: int = 0, **keys):
    return load_task(TaskConfig("reasoning-core/words", **keys), seed)


# ---- rows ----------------------------------------------------------------------------------------


def test_rows_are_read_without_an_import_and_judged_by_their_number(installed) -> None:
    installed(lines(60), lines(60, 60))
    task = load()
    assert "reasoning_core" not in sys.modules
    rows = [*task.train, *task.held_out("validation", 99), *task.held_out("test", 99)]
    assert Counter(row["family"] for row in rows) == {"svamp": 60, "asdiv": 60}
    for row in rows:
        assert list(row) == ["prompt", "question", "answer", "solution", "family", "id"]
        assert task.verifier(f"So it is.\nAnswer: {row['answer']}", row).outcome == "right"
        assert task.verifier(f"Answer: {int(row['answer']) + 1}", row).outcome == "wrong"
        assert task.verifier(row["solution"], row).outcome == "right"
        assert row["prompt"][0]["content"].startswith(row["question"])
        assert not row["question"].endswith("Answer:")


def test_splits_share_no_question_and_are_the_same_for_every_seed(installed) -> None:
    installed(lines(60), lines(60, 60))
    first = load(seed=0)
    second = load(seed=1)
    splits = [first.train, first.held_out("validation", 99), first.held_out("test", 99)]
    ids = [row["id"] for rows in splits for row in rows]
    assert len(ids) == len(set(ids)) == 120
    assert first.held_out("test", 99) == second.held_out("test", 99)
    assert [row["id"] for row in first.train] != [row["id"] for row in second.train]
    few = Counter(row["family"] for row in first.held_out("test", 2))
    assert set(few.values()) <= {1, 2}


def test_what_cannot_be_used_is_left_out_counted_and_explained(installed, capfd) -> None:
    first = lines(60)
    text, answer = question(0)
    odd = [
        first[0],
        json.dumps({"prompt": f"  {text.upper()}\nAnswer:", "answer": answer}),
        json.dumps({"prompt": "Who ran 3 miles?\nAnswer:", "answer": "Ann"}),
        json.dumps({"prompt": "How old are both?\nAnswer:", "answer": "60; 72"}),
        json.dumps({"prompt": "When?\nAnswer:", "answer": "12:50"}),
        json.dumps({"prompt": "\nAnswer:", "answer": "5"}),
        json.dumps({"prompt": "7 + 8?", "answer": "15"}),
        json.dumps({"prompt": None, "answer": "5"}),
        json.dumps({"prompt": "How many?", "answer": 5}),
        json.dumps({"answer": "5"}),
        "[1, 2]",
        '{"prompt": "cut off',
        "[" * 5000,
        "",
    ]
    installed(first, odd)
    load()
    told = capfd.readouterr().err
    assert "2 left out: asdiv, the same question again" in told
    assert "3 left out: asdiv, its answer is not one number" in told
    assert "2 left out: asdiv, no question" in told
    assert "3 left out: asdiv, no prompt and answer as texts" in told
    assert "3 left out: asdiv, no object of JSON" in told
    counts = re.findall(r"(\d+) (?:train|validation|test)", told)
    assert sum(map(int, counts)) == 60


def test_a_missing_package_archive_or_member_is_told_with_what_to_do(installed, tmp_path) -> None:
    try:
        version("reasoning-core")
    except PackageNotFoundError:
        with pytest.raises(ConfigError, match=r"not installed; run: pip install --no-deps reas"):
            load()
    path = installed([], [], with_archive=False)
    with pytest.raises(ConfigError, match=r"got reasoning-core 0\.5\.0 without .*, expected"):
        load()
    path.write_bytes(b"PK no zip")
    with pytest.raises(ConfigError, match=r"BadZipFile.*expected a zip.*install that version"):
        load()
    with ZipFile(path, "w") as file:
        file.writestr("svamp_eval.jsonl", "\n".join(lines(9)))
    with pytest.raises(ConfigError, match=r"KeyError.*asdiv_eval\.jsonl"):
        load()
    with ZipFile(path, "w") as file:
        file.writestr("svamp_eval.jsonl", b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"UnicodeDecodeError"):
        load()
    installed([], [])
    with pytest.raises(ConfigError, match=r"no row to train on"):
        load()


def test_options_families_and_names_are_checked(installed) -> None:
    installed(lines(60), lines(60, 60))
    task = load(size=40, families={"svamp": 3, "asdiv": 1}, options={"with_working": True})
    assert Counter(row["family"] for row in task.train) == {"svamp": 30, "asdiv": 10}
    with pytest.raises(ConfigError, match="with_wroking"):
        load(options={"with_wroking": True})
    with pytest.raises(ConfigError, match="with_working"):
        load(options={"with_working": "yes"})
    with pytest.raises(ConfigError, match="svmap"):
        load(families={"svmap": 1})
    with pytest.raises(ConfigError, match="reasoning-core/words"):
        load_task(TaskConfig("reasoning-core/word"), 0)


def test_questions_of_one_story_fall_into_one_split(installed) -> None:
    varied = []
    for i in range(30):
        body = f"Marco picked {i + 5} pounds of berries and his dad picked {i + 9} pounds of them."
        asked = "How much did they pick?" if i % 2 else "How much more did his dad pick?"
        answer = str(2 * i + 14 if i % 2 else 4)
        varied.append(json.dumps({"prompt": f"{body} {asked}\nAnswer:", "answer": answer}))
    installed(lines(60), varied)
    read = problems.load_problems()
    with_story = [
        split
        for split, rows in read.splits.items()
        if any(row["family"] == "asdiv" for row in rows)
    ]
    assert len(with_story) == 1
    assert sum(len(rows) for rows in read.splits.values()) == 90


def test_stories_do_not_depend_on_the_order_of_the_questions() -> None:
    texts = ["a b c d e", "b c d e f", "c d e f g", "v w x y z", "q r s t"]
    keys = dict(zip(texts, story_keys(texts), strict=True))
    assert keys[texts[0]] == keys[texts[1]] == keys[texts[2]] == texts[0]
    assert len(set(keys.values())) == 3
    assert dict(zip(texts[::-1], story_keys(texts[::-1]), strict=True)) == keys


# ---- workings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("She had 1,250 beads and $3.50.", ["1250", "3.5"]),
        ("He won forty-eight, lost thirty two and twelve.", ["48", "32", "12"]),
        ("The one with x lollipops ran 3/4 of it, 6-mile laps.", ["6"]),
        ("Only 5. Then 7, 8.", ["5", "7", "8"]),
    ],
)
def test_numbers_of_a_question(text: str, numbers: list[str]) -> None:
    read = [str(float(number)).removesuffix(".0") for number in question_numbers(text)]
    assert read == numbers


@pytest.mark.parametrize(
    ("text", "answer", "working"),
    [
        ("He made 155 and sold 140 of them.", "15", "155 - 140 = 15\nAnswer: 15"),
        ("3 trees with 8 each, and 9 more.", "33", "3 * 8 = 24\n24 + 9 = 33\nAnswer: 33"),
        ("20 less 5 and less 8", "7", "20 - 5 = 15\n15 - 8 = 7\nAnswer: 7"),
        ("$12.46 for 2, how much for 6?", "37.38", "12.46 / 2 = 6.23\n6.23 * 6 = 37.38\n"),
        ("2 and 2", "4", ""),
        ("5 or 3 or 2", "8", "5 + 3 = 8\nAnswer: 8"),
        ("7 and 9", "100", ""),
        ("three hundred and 20", "320", ""),
        ("8 girls", "8", ""),
        ("1 2 3 4 5 6 7", "9", ""),
        ("5 and 0", "0", ""),
        ("6 and 4", "many", ""),
    ],
)
def test_a_working_is_derived_where_only_one_gives_the_answer(text, answer, working) -> None:
    derived = written(derive_working(text, answer))
    assert derived.startswith(working)
    assert bool(derived) == bool(working)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 60), max_size=7), st.integers(-9, 99))
def test_every_working_adds_up_and_uses_numbers_of_the_question(numbers, answer) -> None:
    text = "He saw " + " then ".join(map(str, numbers)) + " birds."
    working = derive_working(text, str(answer))
    left = Counter(map(Fraction, numbers))
    for place, step in enumerate(working):
        operands = Counter((step.left, step.right))
        if place:
            operands[working[place - 1].result] -= 1
        left -= +operands if operands <= left else Counter({Fraction(-1): 1})
        assert +operands <= Counter(map(Fraction, numbers))
        assert eval(step.expression) == step.result
    if working:
        assert working[-1].result == answer
        assert last_number(written(working), {"answer": str(answer)}).outcome == "right"


# ---- critics -------------------------------------------------------------------------------------


def attempt(row, text: str) -> Attempt:
    return Attempt(row["question"], text, last_number(text, row), row)


def test_the_oracle_names_the_working_and_wrong_sums_without_the_answer(installed) -> None:
    installed(lines(60), lines(60, 60))
    task = load()
    row = task.train[0]
    left, right = row["solution"].split(" = ")[0].split(" - ")
    words = oracle_critique(attempt(row, f"{left} + {right} = 7\nso {left} / 0 = 3\nAnswer: 7"))
    assert words == f"{left} + {right} is not 7. Work out {left} - {right}."
    critic = build_critic({"kind": "oracle"}, task, 0)
    failed = [attempt(row, "Answer: 1") for row in task.train]
    critiques = critic.critique(failed)
    assert all(critique.status == "ok" and not critique.leaked for critique in critiques)
    shuffled = build_critic({"kind": "shuffled"}, task, 0).critique(failed)
    assert all(critique.text for critique in shuffled)
    pairs = zip(critiques, shuffled, strict=True)
    assert all(true.text != other.text for true, other in pairs)


def test_without_a_working_the_oracle_skips_and_the_others_do_not(installed) -> None:
    odd = [
        json.dumps({"prompt": f"{text}\nAnswer:", "answer": "99999"})
        for text, _ in map(question, range(60))
    ]
    installed(odd, lines(60, 60))
    task = load()
    rows = [row for row in task.train if row["family"] == "svamp"]
    assert rows
    assert {row["solution"] for row in rows} == {""}
    failed = [attempt(row, "Answer: 1") for row in rows]
    for kind, status, reason in (
        ("oracle", "skipped", "oracle_has_no_words"),
        ("shuffled", "skipped", "no_other_problem"),
        ("ground_truth", "ok", ""),
        ("indicative", "ok", ""),
    ):
        critiques = build_critic({"kind": kind}, task, 0).critique(failed)
        assert {(c.status, c.reason) for c in critiques} == {(status, reason)}, kind
    with_working = load(options={"with_working": True})
    assert {row["family"] for row in with_working.train} == {"asdiv"}


def test_warm_start_examples_answer_by_the_critique_or_by_the_working(installed) -> None:
    installed(lines(60), lines(60, 60))
    rows = problems.load_problems().rows("train", with_working=True)
    by_question = {row["question"]: row for row in rows}
    rng = random.Random(0)
    kinds: Counter[str] = Counter()
    for _ in range(200):
        asked, answer = warm_start_example(rows, rng)
        text, _, rest = asked.partition("\nReason briefly")
        row = by_question[text]
        is_right = last_number(answer, row).outcome == "right"
        directive = re.search(r"> Work out (.*)\.$", rest)
        if directive:
            assert answer.startswith(directive[1].split(" = ")[0])
            kinds["follows a wrong one"] += not is_right
        else:
            assert is_right
        kinds["refines"] += ">" in rest
    assert 90 < kinds["refines"] < 150
    assert 20 < kinds["follows a wrong one"] < 80
    held_out = {row["question"] for row in load().held_out("test", 99)}
    assert not held_out & set(by_question)


# ---- the package itself --------------------------------------------------------------------------


@pytest.fixture
def package() -> problems.WordProblems:
    try:
        version("reasoning-core")
    except PackageNotFoundError:
        pytest.skip("reasoning-core is not installed; run: pip install --no-deps reasoning-core")
    problems.read_problems.cache_clear()
    return problems.load_problems()


def test_the_packages_own_questions_are_split_and_judged(package) -> None:
    before = random.getstate()
    counts = {split: len(rows) for split, rows in package.splits.items()}
    assert counts == {"train": 508, "validation": 99, "test": 69}
    assert package.left_out == {"asdiv, its answer is not one number": 24}
    for rows in package.splits.values():
        for row in rows:
            assert last_number(f"Answer: {row['answer']}", row).outcome == "right"
            if row["solution"]:
                assert last_number(row["solution"], row).outcome == "right"
    assert random.getstate() == before
    assert "reasoning_core" not in sys.modules
