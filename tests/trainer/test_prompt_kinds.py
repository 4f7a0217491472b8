"""Each kind of prompt under a critic: what the policy is trained on, what the critic and the
refinement read, and which prompts are refused before training.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from datasets import Dataset, IterableDataset
from tiny_trainers import history, long_words, trainer_of
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.trainer import trl_seams
from critique_rl.types import Critique

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['content'] is string %}{{ m['content'] }}"
    "{% elif m['content'] %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endif %}"
    "{% for c in m['tool_calls'] or [] %}{{ c['function']['name'] }}"
    "({{ c['function']['arguments'] }}){% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<policy>{% endif %}"
)
"""Reads texts and parts, and all roles."""
CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": "3"}}}]


def message(role: str, content, **others) -> dict:
    return {"role": role, "content": content, **others}


def parts(text: str) -> list[dict]:
    return [{"type": "text", "text": text}]


ASKED = message("user", "3-7+9")
AGAIN = "3-7+9\n{attempt}\n> A sign lost"
KINDS = {
    "text": ["3-7+9", AGAIN],
    "question": [[ASKED], [message("user", AGAIN)]],
    "parts": [[message("user", parts("3-7+9"))], [message("user", parts(AGAIN))]],
    "system": [
        [message("system", "brief"), ASKED],
        [message("system", "brief"), message("user", AGAIN)],
    ],
    "turns": [
        [message("user", "1+1"), message("assistant", "2"), ASKED],
        [message("user", "1+1"), message("assistant", "2"), message("user", AGAIN)],
    ],
    "prefill": [
        [ASKED, message("assistant", "A-7=")],
        [message("user", AGAIN), message("assistant", "A-7=")],
    ],
    "tool result": [
        [ASKED, message("assistant", None, tool_calls=CALL), message("tool", "5", name="add")],
        [
            message("user", AGAIN),
            message("assistant", None, tool_calls=CALL),
            message("tool", "5", name="add"),
        ],
    ],
}


class Reader:
    """A critic that keeps what it reads."""

    name = "reader"

    def __init__(self):
        self.read = []

    def critique(self, attempts):
        self.read += attempts
        return [Critique("A sign lost", self.name) for _ in attempts]


def never(completions, **columns):
    return [0.0] * len(completions)


@pytest.fixture(scope="module")
def chat_policy(tiny_policy, tmp_path_factory) -> str:
    """The tiny policy with a chat template for all of `KINDS`."""
    folder = tmp_path_factory.mktemp("chat")
    shutil.copytree(tiny_policy, folder, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


def reading_trainer(policy: str, folder, data) -> CritiqueGRPOTrainer:
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        never,
        data,
        settings={"refine_template": "lab/refine", "max_steps": 1},
        critic=Reader(),
    )


def filled(prompt, attempt: str):
    """A prompt of `KINDS` with the attempt in it."""
    if isinstance(prompt, str):
        return prompt.replace("{attempt}", attempt)
    if isinstance(prompt, list):
        return [filled(entry, attempt) for entry in prompt]
    if isinstance(prompt, dict):
        return {key: filled(value, attempt) for key, value in prompt.items()}
    return prompt


def without_none(prompt):
    """Messages without the keys that Arrow adds to all messages of a column."""
    if isinstance(prompt, str):
        return prompt
    return [
        {key: value for key, value in entry.items() if value is not None or key == "content"}
        for entry in prompt
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_trained_as_it_is_and_its_question_asked_again(
    chat_policy, tmp_path, monkeypatch, kind
) -> None:
    prompt, again = KINDS[kind]
    data = Dataset.from_list([{"prompt": prompt}] * 8)
    sampled = []
    sample = trl_seams.sample

    def recorded(trainer, prompts, *rest):
        sampled.append([without_none(prompt) for prompt in prompts])
        return sample(trainer, prompts, *rest)

    monkeypatch.setattr(trl_seams, "sample", recorded)
    trainer = reading_trainer(chat_policy, tmp_path, data)
    batches = []
    trainer.on_generation = lambda batch, advantages: batches.append(batch)
    trainer.train()
    [batch] = batches
    assert {attempt.question for attempt in trainer.critic.read} == {"3-7+9"}
    rollouts, refinements = sampled
    assert rollouts == [prompt] * 6
    attempts = [attempt.text for attempt in batch.attempts]
    assert refinements == [filled(again, attempt) for attempt in attempts]
    # the reserved rows are trained under the prompt as TRL renders it
    [ids] = trl_seams.prompt_ids(trainer, [prompt])
    assert batch.columns["prompt_ids"] == [ids] * 8


def test_a_start_of_an_answer_is_warned_of_once(chat_policy, tmp_path) -> None:
    data = Dataset.from_list([{"prompt": KINDS["prefill"][0]}] * 8)
    with pytest.warns(UserWarning, match="row 0 .* TRL closes that turn and opens another one"):
        reading_trainer(chat_policy, tmp_path, data)


IMAGE = [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]


@pytest.mark.parametrize(
    ("prompt", "message_part"),
    [
        ([message("user", IMAGE)], "got a part 'image', expected parts of type 'text'"),
        ([message("system", parts("brief"))], "got messages of system, expected one of the user's"),
        (None, "got 'None', expected a text or a list of messages"),
    ],
)
def test_a_prompt_that_no_critic_can_read_is_refused(
    chat_policy, tmp_path, prompt, message_part
) -> None:
    good = {"prompt": [message("user", parts("3-7"))]}
    data = Dataset.from_list([good, good, {"prompt": prompt}])
    with pytest.raises(ValueError, match=f"row 2 of train_dataset: prompt: {message_part}"):
        reading_trainer(chat_policy, tmp_path, data)


def test_a_streamed_prompt_that_no_critic_can_read_ends_the_run(chat_policy, tmp_path) -> None:
    data = IterableDataset.from_generator(lambda: iter([{"prompt": [message("user", IMAGE)]}] * 8))
    trainer = reading_trainer(chat_policy, tmp_path, data)
    with pytest.raises(ValueError, match="a row of train_dataset: prompt: got a part 'image'"):
        trainer.train()


def test_parts_that_the_chat_template_prints_as_python_are_refused(tiny_policy, tmp_path) -> None:
    data = Dataset.from_list([{"prompt": KINDS["parts"][0]}] * 8)
    # the lab's own template writes {{ m['content'] }}
    with pytest.raises(ValueError, match=r"template prints it as Python .* Write each content as"):
        reading_trainer(tiny_policy, tmp_path, data)


class Countdown:
    """An environment that writes its own prompts."""

    def reset(self, **row):
        return "3-7+9"

    def get_reward(self):
        return 1.0


def test_rows_without_a_prompt_train_in_an_environment_without_a_critic(
    chat_policy, tmp_path
) -> None:
    data = Dataset.from_list([{"environment": "countdown"}] * 8)
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        chat_policy,
        tmp_path,
        None,
        data,
        settings={"max_steps": 1},
        environment_factory={"countdown": Countdown},
    )
    batches = []
    trainer.on_generation = lambda batch, advantages: batches.append(batch)
    trainer.train()
    assert {attempt.question for attempt in batches[0].attempts} == {"3-7+9"}
    assert trainer.state.log_history[0]["rollout/right"] == 8


class Sums(Countdown):
    """Another one, which grades what the policy writes by a tool's state: here by chance."""

    def __init__(self):
        self.resets = 0

    def reset(self, **row):
        self.resets += 1
        return f"{self.resets}+{row.get('start', 2)}"

    def get_reward(self):
        return float(self.resets % 2)


MIXED = [{"environment": "countdown", "start": 1}, {"environment": "sums", "start": 2}] * 4


@pytest.mark.parametrize(
    ("rows", "factory"),
    [
        ([{"environment": "sums"}] * 8, {"sums": Sums}),
        (MIXED, {"countdown": Countdown, "sums": Sums}),
        ([{"start": 3}] * 8, Sums),
    ],
)
def test_rows_without_a_prompt_train_as_trl_trains_them(
    chat_policy, tmp_path, rows, factory
) -> None:
    def trained(kind, config):
        trainer = trainer_of(
            kind,
            config,
            chat_policy,
            tmp_path,
            long_words,
            Dataset.from_list(rows),
            settings={"max_steps": 3},
            environment_factory=factory,
        )
        trainer.train()
        return history(trainer), list(trainer.model.state_dict().values())

    stock_history, stock_weights = trained(GRPOTrainer, GRPOConfig)
    our_history, our_weights = trained(CritiqueGRPOTrainer, CritiqueGRPOConfig)
    assert our_history == stock_history
    assert len({row["reward"] for row in our_history}) > 1
    assert all(map(torch.equal, our_weights, stock_weights))
