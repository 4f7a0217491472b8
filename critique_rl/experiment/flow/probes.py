"""The probes of held-out problems: completions whose probability is asked of every checkpoint.

In a lab world they are listed, so masses are sums of probabilities, and exact:

    mass(c) = sum over listed y of class c of pi(y | x),    mass(rest) = 1 - sum over listed y

Elsewhere, and where the caller asks for it, they are 64 samples of the base per problem, to which
each checkpoint adds samples of its own (`masses`). Classes are those of `analysis.flow.classes`:
the first that fits. The base's own wrong answers are the distinct wrong ones among its samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.analysis.flow.classes import BASE_WRONG, NEAR_MISS, OTHER_WRONG, REST, RIGHT
from critique_rl.config.checks import ConfigError
from critique_rl.sampling.sample import Sample, sample
from critique_rl.sampling.settings import OFF, Sampling
from critique_rl.sampling.tokens import prompt_ids
from critique_rl.tasks.judging import judge_in_portions
from critique_rl.tasks.row import Row
from critique_rl.tasks.task import Support, Task
from critique_rl.types import Verdict

LEAST_ALIKE = 0.95
"""Share of a policy's answers in the list's spelling, from which on a list is summed."""


@dataclass(frozen=True)
class Probe:
    """A completion, or the beginning of one, whose probability is a mass."""

    ids: tuple[int, ...]
    """Its tokens, the end token included where it is complete."""
    kind: str
    """Its class, one of `CLASSES`."""


@dataclass(frozen=True)
class ProbedProblem:
    """A held-out problem and its probes."""

    id: str
    family: str
    prompt_ids: tuple[int, ...]
    """Tokens of its prompt."""
    probes: tuple[Probe, ...]
    wrong_answers: tuple[str, ...] = ()
    """The base's own wrong answers, where probes are sampled."""


@dataclass(frozen=True)
class ProbeSet:
    """The probes of all problems of a pipeline."""

    problems: tuple[ProbedProblem, ...]
    listed: bool
    """Whether probes are listed, and masses are exact; else they are samples of the base."""
    temperature: float
    """Of the policy whose masses are asked: that of rollouts."""
    samples: int
    """Samples of the base per problem."""
    near_miss: str = ""
    """The rule of a near miss in words; "" where there is none."""

    def to_json(self) -> dict[str, Any]:
        """The set as plain data."""
        return asdict(self)


def probes_from_json(data: Mapping[str, Any]) -> ProbeSet:
    """The inverse of `ProbeSet.to_json`."""
    problems = []
    for item in data["problems"]:
        probes = [Probe(tuple(probe["ids"]), probe["kind"]) for probe in item["probes"]]
        problem = ProbedProblem(
            id=item["id"],
            family=item["family"],
            prompt_ids=tuple(item["prompt_ids"]),
            probes=tuple(probes),
            wrong_answers=tuple(item["wrong_answers"]),
        )
        problems.append(problem)
    return ProbeSet(**{**data, "problems": tuple(problems)})


def build_probes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    sampling: Sampling,
    samples: int = 64,
    seed: int = 0,
    listed: bool = True,
) -> ProbeSet:
    """The probes of held-out rows.

    Args:
        model: The policy before training, whose wrong answers are asked for.
        tokenizer: Its tokenizer.
        task: Its verifier judges; its `support`, if it has one, lists.
        rows: The problems, with "prompt", "id" and "family".
        sampling: Decoding settings of the run's rollouts.
        samples: Samples of the base per problem.
        seed: Of the samples; the caller's random state is left as it was.
        listed: Whether a list is used where the task has one, and the base spells answers in one
            way.
    """
    prompts = [row["prompt"] for row in rows for _ in range(samples)]
    answers = sample(model, tokenizer, prompts, sampling, seed)
    if task.support is None or not is_spelled_once(tokenizer, task.support, answers):
        listed = False
    ids = prompt_ids(tokenizer, [row["prompt"] for row in rows], sampling.chat_template_kwargs)
    problems = []
    for i, row in enumerate(rows):
        answers_of_row = answers[i * samples : (i + 1) * samples]
        if task.support is None or not listed:
            probes, wrong = _sampled(task, row, answers_of_row)
        else:
            probes = _listed(tokenizer, task, task.support, row, answers_of_row)
            # A rollout is cut before such an answer ends, so its mass belongs to the rest.
            probes = tuple(probe for probe in probes if len(probe.ids) <= sampling.max_new_tokens)
            wrong = ()
        name = str(row["id"])
        family = str(row["family"])
        problem = ProbedProblem(name, family, tuple(ids[i]), probes, wrong)
        problems.append(problem)
    near_miss = ""
    if task.support is not None:
        near_miss = task.support.near_miss
    return ProbeSet(
        tuple(problems),
        listed=listed,
        temperature=sampling.temperature,
        samples=samples,
        near_miss=near_miss,
    )


# ---- listed probes -------------------------------------------------------------------------------


def refuse_cut(sampling: Sampling, asked: str = "flow") -> None:
    """Refuse decoding settings under which answers are not samples of the softmax.

    Args:
        sampling: The settings.
        asked: The setting that asks for probabilities.

    Raises:
        ConfigError: The setting. Masses would be those of another policy than the one that samples.
    """
    off = {**OFF, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    given = {
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        **sampling.generation_kwargs,
    }
    for name, value in given.items():
        if name in off and value != off[name]:
            raise ConfigError(
                f"{asked}: got {name} {value!r}, and masses are those of the softmax; "
                f"set it to {off[name]!r}, or drop {asked}"
            )


def is_spelled_once(
    tokenizer: PreTrainedTokenizerBase, support: Support, answers: Sequence[Sample]
) -> bool:
    """Whether a policy writes an answer with the tokens that a list would have.

    A tokenizer with merges has several spellings of one text, and a list holds one of them: its sum
    would be too small.

    Args:
        tokenizer: The policy's tokenizer.
        support: The list.
        answers: Samples of the policy.
    """
    number = 0
    alike = 0
    for answer in answers:
        text = support.listed_part(answer.text)
        if text is None or answer.truncated:
            continue
        ids = listed_ids(tokenizer, support, text)
        number += 1
        alike += tuple(answer.ids[: len(ids)]) == ids
    # Without a complete answer nothing is known of its spelling.
    return number > 0 and alike >= LEAST_ALIKE * number


def _listed(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Support,
    row: Row,
    answers: Sequence[Sample],
) -> tuple[Probe, ...]:
    """The base's distinct answers to a row, and those that its world lists."""
    ids_by_text: dict[str, tuple[int, ...]] = {}
    sampled: list[str] = []
    for answer in answers:
        text = support.listed_part(answer.text)
        if text is None:
            continue
        ids = listed_ids(tokenizer, support, text)
        # A truncated answer, or one with special tokens in it, is no answer that can be listed.
        if tuple(answer.ids[: len(ids)]) == ids:
            ids_by_text[text] = ids
            sampled.append(text)
    for text in support.answers(row):
        ids_by_text.setdefault(text, listed_ids(tokenizer, support, text))
    texts = list(ids_by_text)
    verdicts = judge_listed(task, support, row, texts)
    seen = set(sampled)
    probes = []
    for text, verdict in zip(texts, verdicts, strict=True):
        if verdict.outcome == "unscored":
            continue
        kind = OTHER_WRONG
        if verdict.outcome == "right":
            kind = RIGHT
        elif text in seen:
            kind = BASE_WRONG
        elif support.is_near_miss(text, row):
            kind = NEAR_MISS
        probes.append(Probe(ids_by_text[text], kind))
    return tuple(probes)


def judge_listed(task: Task, support: Support, row: Row, texts: Sequence[str]) -> list[Verdict]:
    """The verdict on each listed answer to a row."""
    return _judge(task, row, [text + support.judged_with for text in texts])


def listed_ids(tokenizer: PreTrainedTokenizerBase, support: Support, text: str) -> tuple[int, ...]:
    """Tokens of a listed answer, with the end token where the answer is complete."""
    # Any: transformers annotates these ids as texts too.
    ids: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    end: Any = tokenizer.eos_token_id
    if not support.mark:
        ids = [*ids, end]
    return tuple(ids)


def _judge(task: Task, row: Row, texts: Sequence[str]) -> list[Verdict]:
    verifier = task.evaluator or task.verifier
    return judge_in_portions(verifier, texts, [row] * len(texts))


# ---- sampled probes ------------------------------------------------------------------------------


def _sampled(
    task: Task, row: Row, answers: Sequence[Sample]
) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
    """The base's samples of a row with their classes, and its distinct wrong answers."""
    verdicts = _judge(task, row, [answer.text for answer in answers])
    wrong = {str(verdict.answer) for verdict in verdicts if verdict.outcome == "wrong"}
    return classify(task, row, answers, verdicts, wrong), tuple(sorted(wrong))


def judge_samples(
    task: Task, row: Row, answers: Sequence[Sample], wrong_answers: Sequence[str]
) -> tuple[Probe, ...]:
    """A checkpoint's samples of a row as probes, by the base's wrong answers."""
    verdicts = _judge(task, row, [answer.text for answer in answers])
    return classify(task, row, answers, verdicts, set(wrong_answers))


def classify(
    task: Task,
    row: Row,
    answers: Sequence[Sample],
    verdicts: Sequence[Verdict],
    wrong_answers: set[str],
) -> tuple[Probe, ...]:
    """Classes of sampled answers: by the verdict, what the base answered, and the task's rule of a
    near miss, if it has one.

    Unscored ones are left out.
    """
    probes = []
    for answer, verdict in zip(answers, verdicts, strict=True):
        if verdict.outcome == "unscored":
            continue
        kind = REST
        if verdict.outcome == "right":
            kind = RIGHT
        elif verdict.outcome == "wrong":
            kind = OTHER_WRONG
            if str(verdict.answer) in wrong_answers:
                kind = BASE_WRONG
            elif _is_near_miss(task, row, answer.text):
                kind = NEAR_MISS
        probes.append(Probe(tuple(answer.ids), kind))
    return tuple(probes)


def _is_near_miss(task: Task, row: Row, text: str) -> bool:
    if task.support is None:
        return False
    part = task.support.listed_part(text)
    return part is not None and task.support.is_near_miss(part, row)
