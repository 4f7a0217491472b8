"""How many derived workings of `reasoning-core/words` are the data sets' own equations?

    git clone --depth 1 https://github.com/arkilpatel/SVAMP
    git clone --depth 1 https://github.com/chaochun/nlu-asdiv-dataset
    python tests/benchmarks/word_workings.py SVAMP/SVAMP.json nlu-asdiv-dataset/dataset/ASDiv.xml

Two are the same where they give the same for other numbers too. Equations that are not plain
arithmetic (unknowns, LCM, ratios) are counted apart.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from fractions import Fraction
from pathlib import Path

from critique_rl.tasks.rows.question_key import question_key
from critique_rl.tasks.words.problems import load_problems
from critique_rl.tasks.words.workings import _meaning, _stand_in, derive_working

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def equations(svamp: Path, asdiv: Path) -> dict[str, str]:
    """Key of a question -> the equation that the data set has for it."""
    known = {}
    for row in json.loads(svamp.read_text()):
        known[question_key(f"{row['Body'].strip()} {row['Question'].strip()}")] = row["Equation"]
    for problem in ElementTree.parse(asdiv).getroot().iter("Problem"):
        body = (problem.findtext("Body") or "").strip()
        asked = (problem.findtext("Question") or "").strip()
        formula = problem.findtext("Formula") or ""
        known[question_key(f"{body} {asked}")] = formula.partition("=")[0]
    return known


def generic(equation: str) -> float | None:
    """What an equation gives with stand-ins for its numbers; None for other formulas."""
    if not re.fullmatch(r"[\d.()+\-*/ ]+", equation):
        return None
    replaced = NUMBER.sub(lambda match: str(_stand_in(Fraction(match[0]))), equation)
    try:
        return float(eval(replaced))
    except (SyntaxError, ZeroDivisionError):
        return None


def main() -> None:
    known = equations(Path(sys.argv[1]), Path(sys.argv[2]))
    counts: dict[str, Counter[str]] = {"svamp": Counter(), "asdiv": Counter()}
    for rows in load_problems().splits.values():
        for row in rows:
            count = counts[row["family"]]
            count["questions"] += 1
            working = derive_working(row["question"], row["answer"])
            if not working:
                continue
            count["with a working"] += 1
            value = generic(known[question_key(row["question"])])
            if value is None:
                count["equation is no plain arithmetic"] += 1
            elif abs(value - _meaning(working)) < 1e-6:
                count["same"] += 1
            else:
                count["another"] += 1
                print(f"{row['id']}: {[str(step) for step in working]}", file=sys.stderr)
    for family, count in counts.items():
        print(family, dict(count))


if __name__ == "__main__":
    main()
