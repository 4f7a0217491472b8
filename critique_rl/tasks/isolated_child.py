"""The judges that a verifier's worker runs: mathematics by Math-Verify, and the user's function.

Only the worker's process imports this module (`killable_process`, `isolated_verifiers`). Left out:
Math-Verify's string extraction, which reads neither "(B)" nor "\\boxed{B}"; `verifiers.choice`
reads letters.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from critique_rl.config.user_code import load_target
from critique_rl.tasks.row import Row
from critique_rl.types import Outcome, Verdict

VerdictFields = list[Any]
"""The fields of a Verdict as JSON: [outcome, answer or None, reason] or [..., confidence]."""
Judge = Callable[[Mapping[str, Any]], VerdictFields]
LONGEST_SHOWN = 400
"""Characters of an answer that a verdict keeps."""


def math_judge() -> Judge:
    """Build the judge of {"text", "gold"} by Math-Verify: LaTeX, expressions, numbers, sets.

    Raises:
        ImportError: Without the package math-verify.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ImportError(
            "verifier math needs the package math-verify; run: pip install 'critique-rl[math]'"
        ) from error
    # They warn that timeouts are off, which is meant here.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    # Math-Verify's timeouts are off: they raise in threads, and cannot interrupt big-number work
    # (its issues 59, 63, 65). The worker's deadline stands in for them.
    def judge(question: Mapping[str, Any]) -> VerdictFields:
        # A gold answer without any LaTeX around it is read as LaTeX first: "\\frac{1}{2}" alone is
        # no expression.
        gold = parse(f"${question['gold']}$", parsing_timeout=None)
        if not gold:
            gold = parse(question["gold"], parsing_timeout=None)
        if not gold:
            shown = question["gold"][:40]
            return ["unscored", None, f"no gold answer: {shown!r} is not mathematics"]
        candidates = parse(question["text"], parsing_timeout=None)
        if not candidates:
            return ["unreadable", None, "no mathematics"]
        is_right = verify(gold, candidates, timeout_seconds=None)
        # The last candidate is the text itself: making text of the expression can hang where the
        # comparison did not.
        source = candidates[-1]
        answer = source[:LONGEST_SHOWN] if isinstance(source, str) else None
        return [_outcome(is_right), answer, ""]

    # The first call builds parsers and tables: now, not within the first answer's deadline.
    judge({"text": "$\\frac{1}{2}+x$", "gold": "x+0.5"})
    return judge


def user_judge(target: str, threshold: float) -> Judge:
    """Build the judge of {"text", "row"} by the user's function.

    Args:
        target: "module:name" of a function `(text, row)`, or of a reward function of TRL,
            `(completions, **columns)`.
        threshold: The least number that is right.

    Raises:
        ValueError: Where the target is missing, or takes other arguments.
    """
    function = load_target(target)
    if not callable(function):
        raise ValueError(
            f"target {target!r} is a {type(function).__name__}, "
            "expected a function of (text, row), or a reward function of TRL"
        )
    parameters = inspect.signature(function).parameters
    is_trl = "completions" in parameters
    if not is_trl and len(parameters) < 2:
        raise ValueError(
            f"target {target!r} takes ({', '.join(parameters)}), "
            "expected (text, row), or (completions, **columns) as TRL's reward functions"
        )

    def judge(question: Mapping[str, Any]) -> VerdictFields:
        text = question["text"]
        row = question["row"]
        value = _call_reward_function(function, text, row) if is_trl else function(text, row)
        return _verdict_fields(value, threshold)

    return judge


def _call_reward_function(function: Callable[..., Any], text: str, row: Row) -> Any:
    """Call a reward function of TRL as TRL does, on a batch of one row."""
    prompt = row.get("prompt")
    columns = {"prompts": [prompt], "completion_ids": [None]}
    for name, value in row.items():
        if name != "prompt":
            columns[name] = [value]
    parameters = inspect.signature(function).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in set(columns) - set(parameters):
            del columns[name]
    # TRL gives completions in the format of the prompt.
    completion: Any = text
    if isinstance(prompt, list):
        completion = [{"role": "assistant", "content": text}]
    [value] = function(completions=[completion], **columns)
    return value


def _verdict_fields(value: Any, threshold: float) -> VerdictFields:
    """A verdict from a function's result: True or False, a number, None (unscored), or a Verdict.

    Raises:
        TypeError: For a text, which float() might read.
    """
    if value is None:
        return ["unscored", None, "none"]
    if isinstance(value, Verdict):
        return [value.outcome, value.answer, value.reason, value.confidence]
    if isinstance(value, str):
        raise TypeError(f"got {value!r}, expected True, False, a number, None or a Verdict")
    number = float(value)
    # NaN, which differs from itself: it is under no threshold and over none, so it decides nothing.
    if number != number:
        return ["unscored", None, "nan"]
    return [_outcome(number >= threshold), None, ""]


def _outcome(is_right: bool) -> Outcome:
    return "right" if is_right else "wrong"
