"""What the verifier's worker runs: mathematics by Math-Verify, and the user's own function.
Imported in that process alone (`worker`, `verifier`).

An answer from here is [outcome, answer, reason], with a stated confidence where there is one.
Math-Verify's own timeouts are off: they raise in threads, and cannot interrupt big-number work
(Math-Verify issues 59, 63, 65). Left out: its string extraction, which reads neither "(B)" nor
"\\boxed{B}"; letters are `verifier.choice`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from critique_rl.config.user_code import load_target
from critique_rl.types import Verdict

Judged = list[Any]
"""The fields of a Verdict: [outcome, answer or None, reason] or [..., confidence]."""


def mathematics() -> Callable[[Mapping[str, Any]], Judged]:
    """Judge {"text", "gold"} by Math-Verify: LaTeX, expressions, numbers, sets, intervals."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ImportError(
            "verifier math needs the package math-verify; run: pip install 'critique-rl[math]'"
        ) from error
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def judge(question: Mapping[str, Any]) -> Judged:
        # A gold answer without any LaTeX around it is read as LaTeX first: "\\frac{1}{2}" alone is
        # no expression.
        gold = parse(f"${question['gold']}$", parsing_timeout=None) or parse(
            question["gold"], parsing_timeout=None
        )
        if not gold:
            return [
                "unscored",
                None,
                f"no gold answer: {question['gold'][:40]!r} is not mathematics",
            ]
        found = parse(question["text"], parsing_timeout=None)
        if not found:
            return ["unreadable", None, "no mathematics"]
        right = verify(gold, found, timeout_seconds=None)
        # The last one is the text it was read from: making text of the expression can hang where
        # the comparison did not.
        return [
            "right" if right else "wrong",
            str(found[-1])[:400] if isinstance(found[-1], str) else None,
            "",
        ]

    judge(
        {"text": "$\\frac{1}{2}+x$", "gold": "x+0.5"}
    )  # builds parsers and tables now, not within the first deadline
    return judge


def user_function(target: str, threshold: float) -> Callable[[Mapping[str, Any]], Judged]:
    """Judge {"text", "row"} by the user's function: `(text, row)`, or TRL's `(completions,
    **columns)`.
    """
    function = load_target(target)
    if not callable(function):
        raise ValueError(
            f"target {target!r} is a {type(function).__name__}, expected a function of (text, row), or a reward function of TRL"
        )
    names = inspect.signature(function).parameters
    trl = "completions" in names
    if not trl and len(names) < 2:
        raise ValueError(
            f"target {target!r} takes ({', '.join(names)}), expected (text, row), or (completions, **columns) as TRL's reward functions"
        )

    def judge(question: Mapping[str, Any]) -> Judged:
        text, row = question["text"], question["row"]
        if not trl:
            return _judged(function(text, row), threshold)
        chat = isinstance(row.get("prompt"), list)
        columns = {
            "prompts": [row.get("prompt")],
            "completion_ids": [None],
            **{name: [value] for name, value in row.items() if name != "prompt"},
        }
        taken = (
            columns
            if any(p.kind is p.VAR_KEYWORD for p in names.values())
            else {name: value for name, value in columns.items() if name in names}
        )
        [value] = function(
            completions=[[{"role": "assistant", "content": text}] if chat else text], **taken
        )
        return _judged(value, threshold)

    return judge


def _judged(value: Any, threshold: float) -> Judged:
    """A verdict from what a function returned: True or False, a number against the threshold, None
    (unscored), or a Verdict.
    """
    if value is None:
        return ["unscored", None, "none"]
    if isinstance(value, Verdict):
        return [value.outcome, value.answer, value.reason, value.confidence]
    if isinstance(value, str):
        raise TypeError(f"got {value!r}, expected True, False, a number, None or a Verdict")
    number = float(value)
    if number != number:
        return ["unscored", None, "nan"]
    return ["right" if number >= threshold else "wrong", None, ""]
