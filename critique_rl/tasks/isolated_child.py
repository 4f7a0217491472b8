"""The judges that a verifier's worker runs: mathematics by Math-Verify, and the user's function.

Only the worker's process imports this module (`workers.child`, `isolated_verifiers`). Left out:
Math-Verify's string extraction, which reads neither "(B)" nor "\\boxed{B}"; `verifiers.choice`
reads letters.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.config.user_code import load_target
from critique_rl.tasks.answers.formulas import Judgement, compare_formulas
from critique_rl.tasks.row import Row
from critique_rl.types import Outcome, Verdict

VerdictFields = list[Any]
"""The fields of a Verdict as JSON: [outcome, answer or None, reason] or [..., confidence]."""
Judge = Callable[[Mapping[str, Any]], VerdictFields]
LONGEST_SHOWN = 400
"""Characters of an answer that a verdict keeps."""
LONGEST_USERS = 10_000
"""The same for the verdicts of a user's function, and for their reasons."""


def math_judge() -> Judge:
    """Build the judge of {"text", "gold"} by Math-Verify: LaTeX, expressions, numbers, sets.

    Raises:
        ImportError: Without the package math-verify.
    """
    try:
        from latex2sympy2_extended import NormalizationConfig
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as error:
        raise ImportError(
            f"verifier math needs the package math-verify; {extra_advice('math')}"
        ) from error
    # They warn that timeouts are off, which is meant here.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    # Math-Verify's timeouts are off: they raise in threads, and cannot interrupt big-number work
    # (its issues 59, 63, 65). The worker's deadline stands in for them.
    # Without its normalisation of units, which reads "2ab" as 2, and without the second reader,
    # which takes the first digits of what the first one cannot read.
    normalisation = NormalizationConfig(
        units=False, malformed_operators=True, nits=True, boxed="none"
    )
    latex = LatexExtractionConfig(normalization_config=normalisation)

    def read(expression: str) -> Any:
        """The sympy object of an expression; None where the library reads none."""
        candidates = parse(f"${expression}$", [latex], parsing_timeout=None)
        if not candidates or isinstance(candidates[0], str):
            return None
        return _defined(candidates[0])

    def same(gold_text: str, answer_text: str) -> Judgement:
        gold = read(gold_text)
        answer = read(answer_text)
        if gold is None or answer is None:
            return "unreadable", "no mathematics that is known"
        numbers = compare_numbers(gold, answer)
        if numbers is not None:
            return numbers
        if _has_letter_i(gold) != _has_letter_i(answer):
            return "unreadable", "i may be the imaginary unit"
        gold = _exact(gold)
        answer = _exact(answer)
        # Some comparisons of the library hold one way only.
        is_right = verify(gold, answer, timeout_seconds=None) and verify(
            answer, gold, timeout_seconds=None
        )
        return _outcome(is_right), ""

    def judge(question: Mapping[str, Any]) -> VerdictFields:
        text = question["text"]
        outcome, reason = compare_formulas(question["gold"], text, same)
        return [outcome, text[:LONGEST_SHOWN] or None, reason]

    # The first call builds parsers and tables: now, not within the first answer's deadline.
    judge({"text": "\\frac{1}{2}+x", "gold": "x+0.5"})
    return judge


def compare_numbers(gold: Any, answer: Any) -> Judgement | None:
    """Compare two sympy expressions without variables by their values to 30 digits.

    Returns:
        None where one of them is no such expression. A value that is near the gold answer's, which
        may be a rounding, is unreadable.
    """
    import sympy

    for value in (gold, answer):
        if not isinstance(value, sympy.Expr):
            return None
        if value.free_symbols:
            return None
        if not value.is_finite:
            return None
    difference = abs(_exact(gold) - _exact(answer)).evalf(30)
    size = abs(_exact(gold)).evalf(30)
    if not (difference.is_Float or difference.is_Integer or difference.is_zero):
        return None
    if difference < sympy.Float("1e-20") * max(size, 1):
        return "right", ""
    is_rounded = not (gold.is_integer or answer.is_integer) and difference < size / 200
    if is_rounded:
        return ("unreadable", "one is rounded")
    return ("wrong", "")


def _defined(expression: Any) -> Any:
    """The sympy object; None where it divides by 0, which the library compares by chance."""
    import sympy

    for power in expression.atoms(sympy.Pow):
        if power.exp.is_negative and power.base.doit() == 0:
            return None
    return expression


def _has_letter_i(expression: Any) -> bool:
    """Whether a sympy object holds the variable i, which may be the imaginary unit."""
    names = [str(symbol) for symbol in getattr(expression, "free_symbols", ())]
    return "i" in names


def _exact(expression: Any) -> Any:
    """An expression with its decimal numbers as fractions; other objects of sympy as they are."""
    import sympy

    if not isinstance(expression, sympy.Expr):
        return expression
    exact = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    return expression.xreplace(exact)


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
        answer = value.answer
        if answer is not None:
            answer = str(answer)[:LONGEST_USERS]
        confidence = value.confidence
        if confidence is not None:
            # NumPy's numbers are no JSON.
            confidence = float(confidence)
        reason = str(value.reason)[:LONGEST_USERS]
        return [value.outcome, answer, reason, confidence, _short_details(value.details)]
    if isinstance(value, str):
        raise TypeError(f"got {value!r}, expected True, False, a number, None or a Verdict")
    number = float(value)
    # NaN, which differs from itself: it is under no threshold and over none, so it decides nothing.
    if number != number:
        return ["unscored", None, "nan"]
    return [_outcome(number >= threshold), None, ""]


def _short_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's details as JSON; {} where they are none, or too long."""
    text = json.dumps(dict(details), default=str)
    plain: dict[str, Any] = json.loads(text) if len(text) <= LONGEST_USERS else {}
    return plain


def _outcome(is_right: bool) -> Outcome:
    if is_right:
        return "right"
    return "wrong"
