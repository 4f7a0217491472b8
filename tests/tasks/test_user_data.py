"""Data of the user's own: what is read, held out, left out and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.answer_text import is_number
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.load import load_task
from critique_rl.tasks.user_data import load_user_data, split_bounds


@pytest.fixture(autouse=True)
def dataset_cache(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def sums(count: int, start: int = 0) -> list[dict]:
    return [{"question": f"{i} + 1 = ?", "answer": i + 1} for i in range(start, start + count)]


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def task_of(options: dict, size: int = 4096, **settings):
    return load_task(TaskConfig("data", size=size, options=options, **settings), seed=0)


def test_a_question_is_wrapped_and_judged_by_its_number(tmp_path) -> None:
    task = task_of({"train": written(tmp_path / "a.jsonl", sums(100)), "system": "Be brief."})
    row = task.train[0]
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": row["question"]},
    ]
    assert row["family"] == "data"
    assert task.verifier(f"Answer: {row['answer']}", row).outcome == "right"
    assert task.verifier("Answer: -5", row).outcome == "wrong"


def test_no_question_is_in_two_splits_and_more_rows_move_none(tmp_path) -> None:
    def split(count: int) -> dict[str, set]:
        task = task_of({"train": written(tmp_path / f"{count}.jsonl", sums(count))})
        held = {
            name: {row["question"] for row in task.held_out(name, 10**6)}
            for name in ("validation", "test")
        }
        return {"train": {row["question"] for row in task.train}, **held}

    few, many = split(200), split(400)
    assert sum(map(len, few.values())) == len(set.union(*few.values())) == 200
    # A tenth each: 20 of 200, with a deviation of 4.2.
    assert all(5 < len(few[name]) < 40 for name in ("validation", "test"))
    assert all(few[name] <= many[name] for name in few)


def test_seeds_order_the_training_rows_and_leave_the_held_out_ones(tmp_path) -> None:
    config = TaskConfig(
        "data", size=50, options={"train": written(tmp_path / "a.jsonl", sums(200))}
    )
    first, second = load_task(config, 1), load_task(config, 2)
    assert len(first.train) == 50
    assert first.train != second.train
    assert first.held_out("test", 5) == second.held_out("test", 5)
    assert len(first.held_out("test", 5)) == 5


def test_what_cannot_be_used_is_counted_with_its_reason(tmp_path, capsys) -> None:
    rows = [
        *sums(50),
        {"question": "0 + 1 =  ?", "answer": 1},
        {"question": "0 + 1 = ?", "answer": 2},
        {"question": " ", "answer": 1},
    ]
    rows += [{"question": "none?", "answer": None}, {"question": None, "answer": 3}]
    test = written(tmp_path / "test.jsonl", sums(3))
    data = load_user_data(DataOptions(written(tmp_path / "a.jsonl", rows), test=test))
    # 0 + 1, 1 + 1 and 2 + 1 are asked in the test file, the first of them three times in train.
    assert data.left_out == {"asked in test too": 5, "no question": 2, "no answer": 1}
    assert len(data.splits["test"]) == 3
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 47
    assert "5 left out: asked in test too" in capsys.readouterr().err
    alone = load_user_data(DataOptions(written(tmp_path / "b.jsonl", rows)))
    assert alone.left_out == {
        "the same question again": 1,
        "the same question again, with another answer": 1,
        "no question": 2,
        "no answer": 1,
    }


def test_a_tenth_is_held_out_for_each_split_without_a_file() -> None:
    assert split_bounds(["train"]) == {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
    assert split_bounds(["test", "train"]) == {"train": (0, 90), "validation": (90, 100)}
    assert split_bounds(["test", "validation", "train"]) == {"train": (0, 100)}


def test_parquet_with_other_names_families_and_solutions(tmp_path) -> None:
    rows = [
        {
            "problem": f"{i} + 1",
            "gold": f"so\n#### {i + 1}",
            "how": f"{i}, then one more",
            "level": i % 2,
            "source": "book",
        }
        for i in range(100)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    options = {
        "train": str(tmp_path / "a.parquet"),
        "question": "problem",
        "answer": "gold",
        "solution": "how",
        "family": "level",
    }
    task = task_of(options, families={"0": 3, "1": 1}, size=40)
    assert [sum(row["family"] == family for row in task.train) for family in ("0", "1")] == [30, 10]
    row = task.train[0]
    assert row["solution"].endswith("then one more")
    assert row["source"] == "book"
    assert task.verifier(row["answer"], row).outcome == "right"
    assert {row["family"] for row in task.held_out("test", 1)} == {"0", "1"}
    # Of the 80 or so rows about 40 are of family 1: three to one with all of family 1's 40 would
    # take 120, so family 0 sets the size.
    everything = task_of(options, families={"0": 3, "1": 1})
    zero, one = (sum(row["family"] == family for row in everything.train) for family in ("0", "1"))
    assert zero == sum(
        row["family"] == "0" for row in load_user_data(DataOptions(**options)).splits["train"]
    )
    assert one == round(zero / 3)


def test_a_worked_answer_is_its_end_and_its_working_a_solution(tmp_path) -> None:
    rows = [
        {"question": f"How many are {i} times 3?", "answer": f"3*{i}.\n#### {3 * i:,}"}
        for i in range(500, 540)
    ]
    path = written(tmp_path / "a.jsonl", rows)
    row = next(row for row in task_of({"train": path}).train if row["id"] == "train/1")
    assert (row["answer"], row["solution"]) == ("1,503", "3*501.\n#### 1,503")
    for i, row in enumerate(rows):
        row["solution"] = f"of the book {i}"
    own = task_of({"train": written(tmp_path / "b.jsonl", rows)}).train[0]
    assert own["solution"].startswith("of the book")
    assert "#" not in own["answer"]


def test_a_solution_or_family_that_is_no_text_ends_no_run(tmp_path) -> None:
    rows = [{**row, "solution": ["a", {"b": 1}], "family": {"of": [1]}} for row in sums(30)]
    row = task_of({"train": written(tmp_path / "a.jsonl", rows)}).train[0]
    assert (row["solution"], row["family"]) == ('["a", {"b": 1}]', '{"of": [1]}')


@pytest.mark.parametrize("answer", ["#### ", "#### a\nb", "C#", "a #### b ####", "x\n#### a\n\nb"])
def test_marks_without_an_answer_after_them_are_text(tmp_path, answer) -> None:
    rows = [{"question": f"{i}?", "answer": answer} for i in range(30)]
    path = written(tmp_path / "a.jsonl", rows)
    assert task_of({"train": path}, verifier="boxed_answer").train[0]["answer"] == answer.strip()


@pytest.mark.parametrize(
    "prompt",
    [
        "How much is {}?",
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How much is {}?"}],
    ],
)
def test_a_prompt_is_taken_as_it_is(tmp_path, prompt) -> None:
    rows = [
        {"prompt": json.loads(json.dumps(prompt).replace("{}", str(i))), "answer": i}
        for i in range(60)
    ]
    task = task_of({"train": written(tmp_path / "a.jsonl", rows)})
    [row] = [
        row
        for row in (*task.train, *task.held_out("validation", 60), *task.held_out("test", 60))
        if row["answer"] == "7"
    ]
    assert row["prompt"] == rows[7]["prompt"]
    assert row["question"] == "How much is 7?"


def test_a_text_is_sampled_from_as_trl_does_it(tiny_policy) -> None:
    from critique_rl.policy import load_policy
    from critique_rl.sampling.sample import prompt_lengths, sample
    from critique_rl.sampling.settings import Sampling
    from critique_rl.sampling.tokens import prompt_text

    model, tokenizer = load_policy(tiny_policy)
    messages = [{"role": "user", "content": "3 A-7"}]
    assert (
        tokenizer(prompt_text(tokenizer, "3 A-7"), add_special_tokens=False)["input_ids"]
        == tokenizer("3 A-7")["input_ids"]
    )
    assert prompt_text(tokenizer, messages) == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert prompt_lengths(tokenizer, ["3 A-7", messages]) == [
        len(tokenizer("3 A-7")["input_ids"]),
        len(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]),
    ]
    assert len(sample(model, tokenizer, ["3 A-7", messages], Sampling(max_new_tokens=3))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "{}/qustions.jsonl"}, "no file .*did you mean 'questions.jsonl'"),
        (
            {"train": "{}/questions.jsonl", "answer": "anwser"},
            "no column 'anwser' .*did you mean 'answer'",
        ),
        ({"train": "{}/questions.jsonl", "family": "level"}, "options.family: no column 'level'"),
        (
            {"train": "{}/questions.jsonl", "anser": "x"},
            "unknown key 'anser'; did you mean 'answer'",
        ),
        ({"answer": "x"}, "no 'train'"),
        ({"train": "{}/questions.jsonl", "system": 3}, "options.system: got 3"),
        ({"train": "{}/empty.jsonl"}, "cannot read .*empty.jsonl: it holds nothing"),
        ({"train": "{}/broken.jsonl"}, "cannot read .*broken.jsonl"),
        ({"train": "{}/latin.jsonl"}, "cannot read .*latin.jsonl: it is no UTF-8"),
        (
            {"train": "{}/words.jsonl"},
            "answers are no plain numbers, such as 'Paris'; choose one: math",
        ),
        ({"train": "{}/lists.jsonl"}, "column 'answer': got .*expected a text or a number"),
        ({"train": "{}/said.jsonl"}, "column 'prompt': got .*the last is the user's"),
        ({"train": "{}/questions.jsonl", "family": "all"}, "options.family: 'all'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(tmp_path, options, message) -> None:
    written(tmp_path / "questions.jsonl", [{**row, "all": "all"} for row in sums(40)])
    written(tmp_path / "words.jsonl", [{"question": f"{i}?", "answer": "Paris"} for i in range(40)])
    written(tmp_path / "lists.jsonl", [{"question": f"{i}?", "answer": [1, 2]} for i in range(40)])
    written(
        tmp_path / "said.jsonl",
        [{"prompt": [{"role": "assistant", "content": str(i)}], "answer": 1} for i in range(40)],
    )
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "latin.jsonl").write_bytes('{"question": "Café?", "answer": 1}\n'.encode("latin-1"))
    (tmp_path / "broken.jsonl").write_text('{"question": "a", "answer": 1}\n{"question": ')
    with pytest.raises(ConfigError, match=message):
        task_of(
            {
                key: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value
                for key, value in options.items()
            }
        )


def test_text_parts_of_a_prompt_become_one_text(tmp_path) -> None:
    rows = []
    for i in range(60):
        parts = [{"type": "text", "text": "How much "}, {"type": "text", "text": f"is {i}?"}]
        rows.append({"prompt": [{"role": "user", "content": parts}], "answer": i})
    task = task_of({"train": written(tmp_path / "a.jsonl", rows)})
    for row in task.train:
        question = f"How much is {row['answer']}?"
        assert row["prompt"] == [{"role": "user", "content": question}]
        assert row["question"] == question


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"role": "user", "content": [{"type": "image"}]}, "got a part 'image', expected parts"),
        ({"role": "assistant", "content": "So"}, "got a last message of 'assistant', expected the"),
        ({"role": "tool", "content": "5"}, "got a last message of 'tool', expected the user's"),
    ],
)
def test_a_prompt_that_a_pipeline_cannot_ask_is_refused(tmp_path, last, message) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"{i}?"}, last], "answer": i} for i in range(9)]
    with pytest.raises(ConfigError, match=f"column 'prompt': {message}"):
        task_of({"train": written(tmp_path / "a.jsonl", rows)})


def test_too_few_rows_to_hold_some_out_are_refused_when_they_are_wanted(tmp_path) -> None:
    task = task_of(
        {
            "train": written(tmp_path / "a.jsonl", sums(1)),
            "test": written(tmp_path / "b.jsonl", sums(2, 10)),
        }
    )
    assert len(task.held_out("test", 9)) == 2
    with pytest.raises(
        ConfigError,
        match=r"no row is left for validation .of 1 for train.; "
        "give more rows, or validation: a file",
    ):
        task.held_out("validation", 1)


@pytest.mark.processes
def test_a_verifier_of_ones_own_needs_no_answer(tmp_path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question": f"{i}?"} for i in range(60)])
    verifier = {"kind": "python", "target": "user_verifiers:same", "deadline": 300}
    task = task_of({"train": path}, verifier=verifier)
    assert task.train[0]["answer"] == ""
    task.verifier.worker.stop()
    with pytest.raises(ConfigError, match="no column 'answer'"):
        task_of({"train": path}, verifier="choice")


@pytest.mark.parametrize(
    "answer",
    [
        "18",
        "-3.5",
        "1,200",
        "$18",
        "5 %",
        "1/2",
        "so it is\n#### 18",
        "\\boxed{7}",
        "\\frac{1}{2}",
        "7.",
    ],
)
def test_plain_numbers(answer) -> None:
    assert is_number(answer)


@pytest.mark.parametrize(
    "answer", ["", "Paris", "12 apples", "x = 3", "\\sqrt{2}", "3 and 4", "in 1990"]
)
def test_no_plain_numbers(answer) -> None:
    assert not is_number(answer)
