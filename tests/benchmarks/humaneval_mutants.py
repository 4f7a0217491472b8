"""HumanEval in the sandbox: are all canonical solutions right, and what is said of wrong ones?

Of each canonical solution one operator or constant is changed, at every place in turn. Of the
mutants that the tests kill: in how many does the reason name the input, what came, and what was
expected? A mutant that never ends, or ends by an exception, has no value that came; it counts
where call and expectation are named.

    python tests/benchmarks/humaneval_mutants.py [--per-problem 3]

Needs the extra `code`.
"""

from __future__ import annotations

import argparse
import ast
import random
import time
from collections import Counter
from collections.abc import Iterator

from critique_rl.tasks.code.humaneval import humaneval_rows
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import judge_answers
from critique_rl.tasks.row import Row
from critique_rl.types import Verdict

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(source: str) -> Iterator[str]:
    """The programs that differ from one in one operator or constant."""
    places = sum(1 for _ in ast.walk(ast.parse(source)))
    for place in range(places):
        tree = ast.parse(source)
        node = list(ast.walk(tree))[place]
        if change(node):
            yield ast.unparse(tree)


def change(node: ast.AST) -> bool:
    """Change a node in place; whether it was an operator or a constant."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        node.ops[0] = OPERATORS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value += 1
    else:
        return False
    return True


def is_told(verdict: Verdict) -> bool:
    """Whether a verdict names input, what came, and what was expected."""
    details = verdict.details
    came = "got" in details or details.get("error") not in (None, "AssertionError")
    return bool(details.get("call")) and bool(details.get("expected")) and came


def answers(rows: list[Row], most: int) -> tuple[list[str], list[Row]]:
    """Mutants as answers, at most so many per problem, and the row of each."""
    texts = []
    text_rows = []
    rng = random.Random(0)
    for row in rows:
        source = row["answer"].removeprefix("```python\n").removesuffix("```")
        changed = list(mutants(source))
        rng.shuffle(changed)
        for program in changed[:most]:
            texts.append(f"```python\n{program}\n```")
            text_rows.append(row)
    return texts, text_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-problem", type=int, default=3)
    options = parser.parse_args()
    rows = humaneval_rows()
    verifier = build_verifier({"kind": "tests", "step_deadline": 7200})
    start = time.perf_counter()
    canonical = judge_answers(verifier, [row["answer"] for row in rows], rows)
    seconds = time.perf_counter() - start
    right = sum(verdict.outcome == "right" for verdict in canonical)
    print(f"canonical solutions: {right} of {len(rows)} right, {seconds:.1f} s")
    for row, verdict in zip(rows, canonical, strict=True):
        if verdict.outcome != "right":
            print(f"  {row['id']}: {verdict.outcome}, {verdict.reason}")
    texts, text_rows = answers(rows, options.per_problem)
    start = time.perf_counter()
    verdicts = judge_answers(verifier, texts, text_rows)
    seconds = time.perf_counter() - start
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    killed = [verdict for verdict in verdicts if verdict.outcome == "wrong"]
    told = sum(is_told(verdict) for verdict in killed)
    print(f"mutants: {len(texts)}, {dict(outcomes)}, {seconds:.1f} s")
    print(
        f"reason names input, got and expected: {told} of {len(killed)} ({told / len(killed):.3f})"
    )
    others = Counter(verdict.reason[:60] for verdict in killed if not is_told(verdict))
    for reason, count in others.most_common(12):
        print(f"  {count} x {reason}")


if __name__ == "__main__":
    main()
