"""What a policy writes steers nothing: 83 hostile attempts go through critic, refine prompt,
reward, record and page, and each does what a tame one does. All are harmless text: their tokens,
tags and commands mean something to nobody but these tests.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from report_pages import Page, put_evaluation, report

from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import Reply
from critique_rl.experiment.rollout_log import rollout_rows, write_rollouts
from critique_rl.lab.base import WEIGHTS
from critique_rl.prompts import neutralise, special_tokens
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer.rollout.generation import Generation, count_generation
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.types import Attempt, Critique, Refinement, Verdict

ATTACKS = [
    json.loads(line)["text"]
    for line in (Path(__file__).parent / "injections.jsonl").read_text().splitlines()
]
TASK = load_task(TaskConfig("lab/chain", size=12), 0)
ROW = {
    "prompt": [{"role": "user", "content": "3 A-7 B+9"}],
    "question": "3 A-7 B+9",
    "answer": "5",
    "family": "plateau",
}
TAME = "A-7=4\nB+9=13\n#13"
SPECIALS = [
    "<|turn_start|>",
    "<|turn_end|>",
    "<|text_end|>",
    "<|turn_end_id|>",
    "<turn>",
    "</turn>",
    "[TURN]",
    "[/TURN]",
    "<start_of_words>",
    "<think>",
    "@@TURN@@",
]
"""Tokens of no tokenizer but the one of these tests, whose template they end turns of."""
TEMPLATE = (
    "{% for m in messages %}<|turn_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|turn_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn_start|>assistant\n{% endif %}"
)


class Parrot:
    """The worst critic: it repeats every word that stands between the marks of the attempt, and
    keeps the prompts it read.
    """

    def __init__(self):
        self.prompts = []

    def answer(self, conversations):
        self.prompts += [conversation[0]["content"] for conversation in conversations]
        return [
            Reply(
                f"Step 2 is wrong. You wrote: {inside(messages[0]['content'], 'student_solution')}"
            )
            for messages in conversations
        ]


def inside(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>\n")[2].partition(f"\n</{tag}>")[0]


def attempts(texts) -> list[Attempt]:
    return [Attempt(ROW["question"], text, Verdict("wrong", "13"), ROW) for text in texts]


@pytest.fixture(scope="module")
def critiqued() -> tuple[Parrot, list[Critique]]:
    parrot = Parrot()
    return parrot, ChatCritic(parrot, is_answer=TASK.is_answer).critique(attempts([TAME, *ATTACKS]))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def marks(text: str, tag: str) -> tuple[int, int]:
    """How often <tag> and </tag> stand there, however they are spaced and written."""
    matches = re.findall(rf"[<\uff1c]\s*([/\uff0f\\]*)\s*{tag}\b", text, re.IGNORECASE)
    return sum(not slash for slash in matches), sum(bool(slash) for slash in matches)


def test_the_corpus_is_what_it_says() -> None:
    assert len(ATTACKS) == len(set(ATTACKS)) == 83


def test_the_critic_sees_one_fence_and_the_attempt_within_it(critiqued) -> None:
    for prompt in critiqued[0].prompts:
        assert marks(prompt, "student_solution") == (1, 1)
        assert prompt.endswith("Do not state the final answer.")


UNCLEAR = ("<think>", "</think>")
"""An attempt with such a mark, repeated within a sentence of the critic: nobody can tell whether
thoughts begin there, so the critique is refused with that reason, and trains nothing.
"""


def is_unclear(attack: str) -> bool:
    return any(mark in attack for mark in UNCLEAR)


def test_every_attempt_gets_one_critique_of_the_same_status(critiqued) -> None:
    expected = []
    for text in [TAME, *ATTACKS]:
        if is_unclear(text):
            expected.append(("failed", "unclear_thoughts", "api"))
        else:
            expected.append(("ok", "", "api"))
    assert [(c.status, c.reason, c.critic) for c in critiqued[1]] == expected
    assert sum(map(is_unclear, ATTACKS)) == 3
    cut = [
        text
        for text, critique in zip([TAME, *ATTACKS], critiqued[1], strict=True)
        if "attempt_cut" in critique.notes
    ]
    assert cut == ["a" * 50000]


def test_a_refine_prompt_has_the_turns_and_marks_of_a_tame_one(critiqued, tokenizer) -> None:
    specials = special_tokens(tokenizer)
    assert "@@TURN@@" in specials

    def prompt_shape(text: str, critique: Critique) -> tuple:
        prompt = refine_prompt(ROW["prompt"], attempts([text])[0], critique, "refine", specials)
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
        special = Counter(
            tokenizer.convert_ids_to_tokens(i)
            for i in ids
            if i in tokenizer.all_special_ids and i != tokenizer.unk_token_id
        )
        return (
            len(prompt),
            special,
            marks(prompt[0]["content"], "previous_solution"),
            marks(prompt[0]["content"], "critique"),
            prompt[0]["content"][-40:],
        )

    tame, *hostile = (
        prompt_shape(text, critique)
        for text, critique in zip(
            [TAME, *ATTACKS, "@@TURN@@"], [*critiqued[1], critiqued[1][0]], strict=True
        )
    )
    assert tame[1] == {"<|turn_start|>": 2, "<|turn_end|>": 1}
    assert tame[2:4] == ((1, 1), (1, 1))
    for attack, shape in zip([*ATTACKS, "@@TURN@@"], hostile, strict=True):
        # A critique that failed asks for no refinement.
        if not is_unclear(attack):
            assert shape == tame, attack


def test_without_neutral_fields_the_same_attacks_do_end_turns(tokenizer) -> None:
    def turns(text: str) -> int:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True
        )["input_ids"]
        return sum(i == tokenizer.convert_tokens_to_ids("<|turn_end|>") for i in ids)

    assert (
        sum(turns(attack) > 1 for attack in ATTACKS if attack.isprintable() or "\n" in attack) >= 2
    )
    assert all(turns(neutralise(attack)) == 1 for attack in ATTACKS)


def test_no_attempt_or_critique_changes_the_reward_of_a_refinement(critiqued) -> None:
    reward = VerifierReward(TASK.verifier)
    right, wrong = "A-7=-4\nB+9=5\n#5", "A-7=4\n#4"
    assert reward([right, wrong], answer=["5", "5"], question=[ROW["question"]] * 2) == [1.0, 0.0]
    for attempt, critique in zip(attempts([TAME, *ATTACKS]), critiqued[1], strict=True):
        refined = [
            Refinement(attempt, critique, text, TASK.verifier(text, ROW)) for text in (right, wrong)
        ]
        assert [refinement.verdict.outcome for refinement in refined] == ["right", "wrong"]


def test_counts_add_up_and_the_record_holds_every_word(critiqued, tmp_path) -> None:
    batch = generation(critiqued[1])
    counts = count_generation(batch, 84, 0)
    assert (
        counts["critique/ok"],
        counts["critique/failed"],
        counts["critique/skipped"],
        counts["outcome/wrong"],
    ) == (81, 3, 0, 84)
    run = PipelineFolder(tmp_path / "p").run("critique", 0)
    write_rollouts(run, 1, 0, batch, [0.0] * 84)
    [path] = run.rollouts.iterdir()
    rows = pq.read_table(path).to_pylist()
    assert [row["text"] for row in rows] == [
        text.encode("utf-8", "replace").decode() for text in [TAME, *ATTACKS]
    ]
    assert Counter(row["critique_status"] for row in rows) == {"ok": 81, "failed": 3}
    assert {row["reward"] for row in rows} == {0.0}


def generation(critiques: list[Critique]) -> Generation:
    tried = attempts([TAME, *ATTACKS])
    return Generation(
        84,
        tried,
        dict(enumerate(critiques)),
        order=list(range(84)),
        values=[0.0] * 84,
        rewards=torch.zeros(84, 1),
        verdicts=[attempt.verdict for attempt in tried],
    )


def test_the_page_has_the_tags_of_a_tame_one(critiqued, tmp_path) -> None:
    folder = PipelineFolder(tmp_path / "plateau")
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            put_evaluation(folder, arm, seed, 2)

    # A page shows one transcript of a kind, run and end of it: two files in each of four runs show
    # eight attempts.
    places = [
        (arm, seed, step) for arm in ("scalar", "critique") for seed in (0, 1) for step in (1, 2)
    ]

    def page(rows) -> Page:
        for (arm, seed, step), row in zip(places, rows, strict=True):
            path = folder.run(arm, seed).rollouts / f"step{step:05d}-rank0.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([{**row, "leaked": False}]), path)
        return Page(report(folder))

    rows = rollout_rows(3, generation(critiqued[1]), [0.0] * 84)
    # A critique that failed has no words, and so another page.
    rows = [row for row in rows if row["critique_status"] == "ok"]
    rows = sorted(rows, key=lambda row: len(row["critique"]) >= 1000)
    tame = page([rows[0]] * 8)
    assert tame.tags.count("article") == 8
    for start in range(0, len(rows), 8):
        some = (rows[start:] + rows)[:8]
        shown = page(some)
        assert shown.open == []
        assert shown.tags.count("article") == 8
        assert set(shown.tags) == set(tame.tags)
        # A text that is cut has tags around its gap.
        if all(len(row["text"]) < 1000 for row in some):
            assert (shown.tags, [name for name, _ in shown.attributes]) == (
                tame.tags,
                [name for name, _ in tame.attributes],
            ), some
