"""The checker of word problems in words: which working leads to the answer, and wrong sums.

It names the working of `workings`, without its last result. On a question without one it says
nothing, and the attempt is skipped.
"""

from __future__ import annotations

import re
from fractions import Fraction

from critique_rl.tasks.words.workings import Step, Working, derive_working
from critique_rl.types import Attempt

OPERAND = r"(\d{1,12}(?:\.\d{1,9})?)"
EQUATION = re.compile(rf"(?<![\d.]){OPERAND} ?([-+*/x\u00d7\u00f7]) ?{OPERAND} ?= ?{OPERAND}(?!\d)")
"""An operation with its result, as attempts write it."""
PLAIN_SIGNS = {"x": "*", "\u00d7": "*", "\u00f7": "/"}
MOST_SLIPS = 2


def oracle_critique(attempt: Attempt) -> str:
    """What is wrong with an attempt, by rule; "" for a question without a working."""
    working = derive_working(attempt.question, str(attempt.row["answer"]))
    if not working:
        return ""
    sentences = _slips(attempt.text)[:MOST_SLIPS]
    sentences.append(directive(working))
    return " ".join(sentences)


def directive(working: Working) -> str:
    """The instruction to work it out; results of all steps but the last are stated."""
    *first, last = working
    steps = [str(step) for step in first]
    steps.append(last.expression)
    listed = ", then ".join(steps)
    return f"Work out {listed}."


def _slips(text: str) -> list[str]:
    """One sentence for each different equation of a text that does not hold."""
    sentences = []
    for match in EQUATION.finditer(text):
        left, sign, right, result = match.groups()
        step = Step(Fraction(left), PLAIN_SIGNS.get(sign, sign), Fraction(right))
        # Nobody can say what a division by 0 gives.
        if step.sign == "/" and step.right == 0:
            continue
        if step.result != Fraction(result):
            sentences.append(f"{left} {sign} {right} is not {result}.")
    return list(dict.fromkeys(sentences))
