"""Verdict -> reward, as TRL reward functions, which work in a plain GRPOTrainer too.

    correct         1 right, 0 otherwise
    rlcr            RLCR (arXiv 2507.16806): 1[right] - (q - 1[right])^2 with the stated confidence q; `rlcr_released` has the weights of its code
    truthrl         TruthRL (arXiv 2509.25760): 1 right, 0 abstained, -1 otherwise
    random_reward, format_only, incorrect_only, majority_vote      controls (Spurious Rewards, arXiv 2506.10947)

A reward of None means "could not be judged": TRL leaves such a row out of the baseline and trains
nothing on it. It is never a 0. Left out: rewards from an LLM's judgement, which are a verifier's
business (`verifier.boxed_answer` takes a judge).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.hashing import uniform
from critique_rl.tasks.verifiers import boxed_answer, tagged_answer
from critique_rl.types import Verdict, Verifier

Value = Callable[[Verdict], float | None]
"""The reward of one verdict."""


def text_of(completion: Any) -> str:
    """The text of a completion in either of TRL's formats: a string, or a list of messages."""
    return (
        completion
        if isinstance(completion, str)
        else "".join(str(message["content"]) for message in completion)
    )


def group_wise(function: Callable) -> Callable:
    """Mark a reward function that compares the members of a group: with a critic it is called once,
    on the full group, never on part of one.
    """
    function.group_wise = True
    return function


def correct_value(verdict: Verdict) -> float | None:
    """1 right, 0 wrong, unreadable or abstained, None unscored."""
    return None if verdict.outcome == "unscored" else float(verdict.outcome == "right")


def rlcr_value(verdict: Verdict) -> float | None:
    """RLCR as in its paper: 1[right] - (q - 1[right])^2, from -1 to 1. An answer without a
    confidence gets the -1 of a sure and wrong one.
    """
    if verdict.outcome == "unscored":
        return None
    if verdict.outcome == "unreadable" or verdict.confidence is None:
        return -1.0
    right = float(verdict.outcome == "right")
    return right - (verdict.confidence - right) ** 2


def rlcr_released_value(verdict: Verdict) -> float | None:
    """RLCR as in its code: .5 format + .5 accuracy + .5 (1 - (q - accuracy)^2), where an invalid
    format gets 0 of everything.
    """
    if verdict.outcome == "unscored":
        return None
    if verdict.outcome == "unreadable" or verdict.confidence is None:
        return 0.0
    right = float(verdict.outcome == "right")
    return 0.5 + 0.5 * right + 0.5 * (1 - (verdict.confidence - right) ** 2)


def truthrl_value(verdict: Verdict) -> float | None:
    """TruthRL: 1 right, 0 abstained, -1 wrong or unreadable."""
    return {"right": 1.0, "abstained": 0.0, "unscored": None}.get(verdict.outcome, -1.0)


def format_value(verdict: Verdict) -> float | None:
    """Control: 1 for anything in the right format, right or not."""
    return None if verdict.outcome == "unscored" else float(verdict.outcome != "unreadable")


def incorrect_value(verdict: Verdict) -> float | None:
    """Control: 1 for a wrong answer in the right format."""
    return None if verdict.outcome == "unscored" else float(verdict.outcome == "wrong")


class VerifierReward:
    """A reward that depends on the verifier's verdict alone. `verdicts` holds those of the last
    call, in row order.
    """

    def __init__(self, verifier: Verifier, value: Value = correct_value, name: str = "correct"):
        self.verifier, self.value, self.__name__ = verifier, value, name
        self.verdicts: list[Verdict] = []

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        rows = [
            {key: values[i] for key, values in columns.items() if isinstance(values, list)}
            for i in range(len(completions))
        ]
        self.verdicts = [
            self.verifier(text_of(completion), row)
            for completion, row in zip(completions, rows, strict=True)
        ]
        return [self.value(verdict) for verdict in self.verdicts]


def rlcr(verifier: Verifier = tagged_answer) -> VerifierReward:
    """RLCR with the weights of its paper. Wants scale_rewards "none", as both its paper and its
    code have.
    """
    return VerifierReward(verifier, rlcr_value, "rlcr")


def rlcr_released(verifier: Verifier = tagged_answer) -> VerifierReward:
    """RLCR with the weights of its code."""
    return VerifierReward(verifier, rlcr_released_value, "rlcr_released")


def truthrl(verifier: Verifier = boxed_answer) -> VerifierReward:
    """TruthRL's ternary reward."""
    return VerifierReward(verifier, truthrl_value, "truthrl")


def format_only(verifier: Verifier) -> VerifierReward:
    """Control: the format is rewarded, whatever the answer."""
    return VerifierReward(verifier, format_value, "format_only")


def incorrect_only(verifier: Verifier) -> VerifierReward:
    """Control: wrong answers are rewarded."""
    return VerifierReward(verifier, incorrect_value, "incorrect_only")


def random_reward(rate: float, seed: int = 0) -> Callable[..., list[float]]:
    """Control: 1 with probability `rate`, whatever the answer; drawn from seed, step, place and
    prompt, so that a continued run draws the same.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"random_reward: got rate {rate}, expected a probability, from 0 to 1")

    def random(
        prompts: Sequence[Any], completions: Sequence[Any], trainer_state: Any = None, **_: Any
    ) -> list[float]:
        step = getattr(trainer_state, "global_step", 0)
        return [
            float(uniform(f"{seed}/{step}/{i}/{prompt}") < rate) for i, prompt in enumerate(prompts)
        ]

    return random


class MajorityVote:
    """Control (TTRL's pseudo-label): 1 for the answer that most of the group gave, the first of
    them where several did; unreadable answers have no vote.

    Answers are compared as the verifier read them, letter by letter; what it cannot judge, as a row
    without an answer, is None. A last group may be short.
    """

    __name__ = "majority_vote"
    group_wise = True

    def __init__(self, verifier: Verifier, num_generations: int):
        self.verifier, self.num_generations = verifier, num_generations

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        read = VerifierReward(self.verifier)
        read(completions, **columns)
        unscored = [verdict.outcome == "unscored" for verdict in read.verdicts]
        answers = [verdict.answer for verdict in read.verdicts]
        groups = [
            answers[i : i + self.num_generations]
            for i in range(0, len(answers), self.num_generations)
        ]
        votes = [reward for group in groups for reward in _votes(group)]
        return [None if skip else vote for skip, vote in zip(unscored, votes, strict=True)]


def build_reward(
    spec: Mapping[str, Any], verifier: Verifier, num_generations: int, seed: int = 0
) -> tuple[list[Callable], list[float]]:
    """Reward functions and their weights from a config's `reward:` section. ConfigError for unknown
    kinds and keys.

    Where something else than being right is rewarded, `correct` stands beside it with weight 0: it
    is logged, and says which rollouts failed.
    """
    options = {key: value for key, value in spec.items() if key != "kind"}
    kinds: dict[str, Callable[..., Callable]] = {
        "correct": lambda: VerifierReward(verifier),
        "rlcr": lambda: rlcr(verifier),
        "rlcr_released": lambda: rlcr_released(verifier),
        "truthrl": lambda: truthrl(verifier),
        "random": lambda rate: random_reward(rate, seed),
        "format_only": lambda: format_only(verifier),
        "incorrect_only": lambda: incorrect_only(verifier),
        "majority_vote": lambda: MajorityVote(verifier, num_generations),
    }
    kind = str(spec.get("kind"))
    if kind not in kinds:
        raise ConfigError(f"reward: unknown kind {kind!r}; {suggest(kind, kinds)}")
    check_keys(options, ("rate",) if kind == "random" else (), f"reward {kind}")
    try:
        function = kinds[kind](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"reward {kind}: {error}") from error
    return (
        ([function], [1.0])
        if kind == "correct"
        else ([function, VerifierReward(verifier)], [1.0, 0.0])
    )


def _votes(answers: Sequence[str | None]) -> list[float]:
    counts = Counter(answer for answer in answers if answer is not None)
    winner = counts.most_common(1)[0][0] if counts else None
    return [float(answer is not None and answer == winner) for answer in answers]
