"""Verdict -> reward, as TRL reward functions, which work in a plain GRPOTrainer too.

    correct          1 right, 0 otherwise
    rlcr             RLCR (arXiv 2507.16806): 1[right] - (q - 1[right])^2, q the stated confidence
    rlcr_released    the same with the weights of its code
    truthrl          TruthRL (arXiv 2509.25760): 1 right, 0 abstained, -1 otherwise
    random_reward, format_only, incorrect_only, majority_vote
                     controls (Spurious Rewards, arXiv 2506.10947)

A reward of None means "could not be judged": TRL leaves such a row out of the baseline and trains
nothing on it. It is never a 0. Left out: rewards from an LLM's judgement, which belong in a
verifier (`verifiers.boxed_answer` takes a judge).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.hashing import uniform
from critique_rl.tasks.judging import judge_answers
from critique_rl.tasks.messages import text_of
from critique_rl.tasks.row import TRL_ARGUMENTS
from critique_rl.tasks.verifiers import boxed_answer, tagged_answer
from critique_rl.types import Verdict, Verifier

Reward = float | None
"""None: could not be judged."""
Value = Callable[[Verdict], Reward]
"""The reward of one verdict."""
RewardFunction = Callable[..., list[Reward]]
"""A reward function of TRL: (completions, **columns) -> rewards, in row order."""
Function = TypeVar("Function", bound=Callable[..., Any])


def group_wise(function: Function) -> Function:
    """Mark a reward function that compares the members of a group.

    With a critic it is called once, on the full group, never on part of one.
    """
    # TRL takes plain functions, so the mark is an attribute, which the trainer looks for.
    marked: Any = function
    marked.group_wise = True
    return function


def correct_value(verdict: Verdict) -> Reward:
    """1 right, 0 wrong, unreadable or abstained, None where unscored."""
    if verdict.outcome == "unscored":
        return None
    return float(verdict.outcome == "right")


def rlcr_value(verdict: Verdict) -> Reward:
    """RLCR as in its paper: 1[right] - (q - 1[right])^2, from -1 to 1.

    An answer without a confidence gets the -1 of a sure and wrong one.
    """
    if verdict.outcome == "unscored":
        return None
    if verdict.outcome == "unreadable" or verdict.confidence is None:
        return -1.0
    right = float(verdict.outcome == "right")
    squared_error = (verdict.confidence - right) ** 2
    return right - squared_error


def rlcr_released_value(verdict: Verdict) -> Reward:
    """RLCR as in its code: .5 format + .5 accuracy + .5 (1 - (q - accuracy)^2), where an invalid
    format gets 0 of everything.
    """
    if verdict.outcome == "unscored":
        return None
    if verdict.outcome == "unreadable" or verdict.confidence is None:
        return 0.0
    right = float(verdict.outcome == "right")
    squared_error = (verdict.confidence - right) ** 2
    return 0.5 + 0.5 * right + 0.5 * (1 - squared_error)


def truthrl_value(verdict: Verdict) -> Reward:
    """TruthRL: 1 right, 0 abstained, -1 wrong or unreadable."""
    values = {"right": 1.0, "abstained": 0.0, "unscored": None}
    return values.get(verdict.outcome, -1.0)


def format_value(verdict: Verdict) -> Reward:
    """Control: 1 for anything in the right format, right or not."""
    if verdict.outcome == "unscored":
        return None
    return float(verdict.outcome != "unreadable")


def incorrect_value(verdict: Verdict) -> Reward:
    """Control: 1 for a wrong answer in the right format."""
    if verdict.outcome == "unscored":
        return None
    return float(verdict.outcome == "wrong")


class VerifierReward:
    """A reward that depends on the verifier's verdict alone.

    Args:
        verifier: Judges each completion, given its row. A function of yours runs in this process,
            which it can hold; `build_verifier(function)` gives it processes of its own.
        value: Verdict -> reward.
        name: TRL logs the reward as `rewards/<name>/mean`.
    """

    def __init__(self, verifier: Verifier, value: Value = correct_value, name: str = "correct"):
        self.verifier = verifier
        self.value = value
        self.__name__ = name
        # Of the last call, in row order: the trainer asks for critiques by them.
        self.verdicts: list[Verdict] = []

    def __call__(self, completions: list[Any], **columns: Any) -> list[Reward]:
        texts = [text_of(completion) for completion in completions]
        rows = [_row_of(columns, i) for i in range(len(completions))]
        self.verdicts = judge_answers(self.verifier, texts, rows)
        return [self.value(verdict) for verdict in self.verdicts]


def _row_of(columns: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The dataset's row, as evaluations hand it to the verifier too."""
    row = {}
    # TRL passes the prompts apart from the other columns.
    if "prompts" in columns:
        row["prompt"] = columns["prompts"][i]
    for key, values in columns.items():
        if key not in TRL_ARGUMENTS and isinstance(values, list):
            row[key] = values[i]
    return row


def rlcr(verifier: Verifier = tagged_answer) -> VerifierReward:
    """RLCR with the weights of its paper. It wants scale_rewards "none", as its paper and code."""
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


VERIFIER_REWARDS: dict[str, Callable[[Verifier], VerifierReward]] = {
    "correct": VerifierReward,
    "rlcr": rlcr,
    "rlcr_released": rlcr_released,
    "truthrl": truthrl,
    "format_only": format_only,
    "incorrect_only": incorrect_only,
}
"""Kinds of the `reward:` section without options, which read the verifier's verdict alone."""


def random_reward(rate: Any, seed: int = 0) -> RewardFunction:
    """Control: 1 with probability `rate`, whatever the answer.

    Args:
        rate: The probability, from 0 to 1.
        seed: Drawn from with step, place and prompt, so that a continued run draws the same.

    Raises:
        ValueError: For a rate outside of 0 to 1.
    """
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not is_number or not 0 <= rate <= 1:
        raise ValueError(f"random_reward: got rate {rate}, expected a probability, from 0 to 1")

    # TRL logs the reward under the function's name.
    def random(
        prompts: Sequence[Any], completions: Sequence[Any], trainer_state: Any = None, **_: Any
    ) -> list[Reward]:
        step = getattr(trainer_state, "global_step", 0)
        rewards: list[Reward] = []
        for i, prompt in enumerate(prompts):
            key = f"{seed}/{step}/{i}/{prompt}"
            is_rewarded = uniform(key) < rate
            rewards.append(float(is_rewarded))
        return rewards

    marked: Any = random
    marked.by_chance = True
    return random


class MajorityVote:
    """Control (TTRL's pseudo-label): 1 for the answer that most of the group gave.

    Of several such answers the first one counts. Unreadable answers have no vote, and what the
    verifier cannot judge, as a row without an answer, is None. Answers are compared as the verifier
    read them, letter by letter. A last group may be short.
    """

    __name__ = "majority_vote"
    group_wise = True

    def __init__(self, verifier: Verifier, num_generations: int):
        self.verifier = verifier
        self.num_generations = num_generations

    def __call__(self, completions: list[Any], **columns: Any) -> list[Reward]:
        reward = VerifierReward(self.verifier)
        reward(completions, **columns)
        answers = [verdict.answer for verdict in reward.verdicts]
        votes: list[Reward] = []
        size = self.num_generations
        for start in range(0, len(answers), size):
            group = answers[start : start + size]
            votes += _vote(group)
        for i, verdict in enumerate(reward.verdicts):
            if verdict.outcome == "unscored":
                votes[i] = None
        return votes


def _vote(answers: Sequence[str | None]) -> list[float]:
    """1 for each answer of a group that equals its most frequent one, else 0."""
    counts = Counter(answers)
    # Unreadable answers have no vote. A Counter takes the deletion of a missing key.
    del counts[None]
    if not counts:
        return [0.0] * len(answers)
    # Counter keeps the order of first occurrence among equal counts.
    [(winner, _)] = counts.most_common(1)
    return [float(answer == winner) for answer in answers]


def build_reward(
    spec: Mapping[str, Any], verifier: Verifier, num_generations: int, seed: int = 0
) -> tuple[list[RewardFunction], list[float]]:
    """Build reward functions from a config's `reward:` section.

    Args:
        spec: {"kind": ...}, with `rate` for kind random.
        verifier: Judges completions.
        num_generations: Rows of a group, for kind majority_vote.
        seed: For kind random.

    Returns:
        (functions, their weights). Where something else than being right is rewarded, `correct`
        stands beside it with weight 0: it is logged, and tells which rollouts failed.

    Raises:
        ConfigError: For unknown kinds and keys.
    """
    options = dict(spec)
    kind = str(options.pop("kind", None))
    kinds = (*VERIFIER_REWARDS, "random", "majority_vote")
    if kind not in kinds:
        advice = suggest(kind, kinds)
        raise ConfigError(f"reward: unknown kind {kind!r}; {advice}")
    known = ("rate",) if kind == "random" else ()
    check_keys(options, known, f"reward {kind}")
    function: RewardFunction
    if kind == "random":
        try:
            function = random_reward(options.get("rate"), seed)
        # A missing rate, or one out of range.
        except ValueError as error:
            raise ConfigError(f"reward {kind}: {error}") from error
    elif kind == "majority_vote":
        function = MajorityVote(verifier, num_generations)
    else:
        function = VERIFIER_REWARDS[kind](verifier)
    if kind == "correct":
        return [function], [1.0]
    correct = VerifierReward(verifier)
    return [function, correct], [1.0, 0.0]
