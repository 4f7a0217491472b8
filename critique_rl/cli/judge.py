"""`critique-rl judge`: judge the rows of a file by a verifier, and say why.

Also the way to audit a grader: a file of completions whose outcome is known. Rows need the columns
`completion` and `answer`, or a column of tests. Left out: models; nothing is sampled and nothing is
trained.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_rl.cli.arguments import Commands, add_json_argument
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.terminal import printable, printable_json, say

if TYPE_CHECKING:
    from critique_rl.types import Verdict

COMPLETION = "completion"
ANSWER = "answer"
TESTS = "tests"
LOOKED_AT = 20
"""Rows in which a column of tests is looked for."""
MOST_REASONS = 5
"""Reasons of unscored answers that the summary names."""
SHOWN = 48
"""Characters of an answer in the table."""


def add_command(commands: Commands) -> None:
    """Add `judge` to the parser."""
    help = (
        "judge the rows of a file (columns completion, and answer or tests; JSONL, JSON, CSV, "
        "Parquet): outcome, extracted answer and reason of each"
    )
    command = commands.add_parser("judge", help=help, description=help)
    command.add_argument("file", metavar="FILE")
    command.add_argument(
        "--verifier",
        default="",
        metavar="NAME",
        help="last_number, choice, boxed_answer, math, tests, ..., module:function for your own, "
        "or a pipeline file, whose task.verifier judges (default: the one that init "
        "would choose for these answers; tests where rows have some and no answer)",
    )
    add_json_argument(command)
    command.set_defaults(command=judge)


def judge(arguments: argparse.Namespace) -> int:
    """Judge all rows and print the verdicts.

    Raises:
        ConfigError: The file cannot be read, lacks a column, or the verifier cannot be built.
    """
    rows = read_judged_rows(arguments.file, arguments.verifier == TESTS)
    verifier = arguments.verifier
    if not verifier:
        verifier = _choose(rows)
        say(f"verifier: {verifier}, as init would choose")
    verdicts = judge_rows(rows, verifier)
    _warn_of_losses(verdicts)
    if arguments.json:
        records = [_record(verdict) for verdict in verdicts]
        print(printable_json(records, indent=1))
    else:
        _print_table(rows, verdicts, verifier)
    return 0


def read_judged_rows(file: str, has_tests: bool = False) -> list[dict[str, Any]]:
    """The rows of a file, with `completion` and `answer` as texts; None where a cell is empty.

    Args:
        file: A file of rows.
        has_tests: Whether tests judge them; also where a column has some and none is `answer`.

    Raises:
        ConfigError: The file cannot be read, is empty, or lacks a column.
    """
    from critique_rl.tasks.code.user_tests import guess_columns
    from critique_rl.tasks.data_source import read_dataset

    dataset = read_dataset(file, "train")
    needed = [COMPLETION, ANSWER]
    if has_tests or (
        ANSWER not in dataset.column_names and guess_columns(list(islice(dataset, LOOKED_AT)))
    ):
        needed = [COMPLETION]
    for column in needed:
        if column not in dataset.column_names:
            advice = suggest(column, dataset.column_names)
            raise ConfigError(f"{file}: no column {column!r}; {advice}")
    rows = []
    for raw in dataset:
        row = dict(raw)
        row[COMPLETION] = _read_completion(row[COMPLETION])
        row[ANSWER] = _read_answer(row.get(ANSWER))
        rows.append(row)
    return rows


def _read_completion(value: Any) -> str | None:
    """A completion in either of TRL's formats as text; None where there is none."""
    from critique_rl.tasks.rewards import text_of

    if isinstance(value, str):
        return value
    is_chat = isinstance(value, list) and all(
        isinstance(message, Mapping) and isinstance(message.get("content"), str)
        for message in value
    )
    if is_chat and value:
        return text_of(value)
    if value is None or isinstance(value, list | Mapping | bytes):
        return None
    return str(value)


def _read_answer(value: Any) -> str | None:
    from critique_rl.tasks.answer_text import final_answer
    from critique_rl.tasks.rows.cells import cell_text

    if value is None or isinstance(value, list | Mapping | bytes):
        return None
    # As a run reads it: "... #### 42" is 42, a Parquet file's 18.0 is 18.
    text = final_answer(cell_text(value, ANSWER))
    return text or None


def _choose(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verifier that `init` would choose for the rows' answers."""
    from critique_rl.tasks.answers.choose import choose_verifier

    golds = [row[ANSWER] for row in rows if row[ANSWER] is not None]
    if golds:
        return choose_verifier(golds)
    return TESTS if _tests_columns(rows) else "boxed_answer"


def _tests_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The options of `verifier: {kind: tests}` for these rows; {} where they have no tests."""
    from critique_rl.tasks.code.user_tests import guess_columns

    return guess_columns([dict(row) for row in rows[:LOOKED_AT]])


def _spec_of(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The `task.verifier` that --verifier names.

    Raises:
        ConfigError: A pipeline that cannot be read, or names no verifier.
    """
    from critique_rl.config.pipeline_file import load_pipeline

    if name.endswith((".yaml", ".yml")):
        arm = next(iter(load_pipeline(Path(name)).arms.values()))
        if not arm.task.verifier:
            raise ConfigError(f"--verifier: {name} has no task.verifier; give the verifier's name")
        return arm.task.verifier
    if name == TESTS:
        return {"kind": TESTS, **_tests_columns(rows)}
    if ":" in name:
        return {"kind": "python", "target": name}
    return name


def judge_rows(rows: Sequence[Mapping[str, Any]], name: str) -> list[Verdict]:
    """The verdict of each row; a row that cannot be judged is unscored, with its reason.

    Raises:
        ConfigError: The verifier cannot be built.
    """
    from critique_rl.tasks.isolated_verifiers import build_verifier
    from critique_rl.tasks.judging import judge_in_portions
    from critique_rl.tasks.workers.verifier import WorkerVerifier
    from critique_rl.types import Verdict

    spec = _spec_of(rows, name)
    # Rules compare with the answer; a user's code and tests need none.
    kind = spec.get("kind") if isinstance(spec, Mapping) else spec
    needs_answer = kind not in ("python", "command", TESTS)
    try:
        verifier = build_verifier(spec)
    except ConfigError as error:
        message = str(error).replace("task.verifier", "--verifier")
        raise ConfigError(message) from error
    verdicts: list[Verdict] = [Verdict("unscored", reason="no completion")] * len(rows)
    judged = []
    for place, row in enumerate(rows):
        if row[COMPLETION] is not None:
            verdicts[place] = Verdict("unscored", reason="no gold answer")
            if row[ANSWER] is not None or not needs_answer:
                judged.append(place)
    texts = [rows[place][COMPLETION] for place in judged]
    new_verdicts = judge_in_portions(verifier, texts, [rows[place] for place in judged])
    for place, verdict in zip(judged, new_verdicts, strict=True):
        verdicts[place] = verdict
    if isinstance(verifier, WorkerVerifier):
        verifier.worker.stop()
        if verifier.worker.restarts:
            say(
                f"note: {verifier.worker.restarts} times a process was lost or stopped, and its "
                "answer was tried again, or counted as below"
            )
    return verdicts


def _warn_of_losses(verdicts: Sequence[Verdict]) -> None:
    from critique_rl.tasks.judging import count_lost, lost_sentences

    for sentence in lost_sentences(count_lost(verdicts)).values():
        say(f"warning: {sentence}")


def _record(verdict: Verdict) -> dict[str, Any]:
    return {"outcome": verdict.outcome, "answer": verdict.answer, "reason": verdict.reason}


def _print_table(
    rows: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], verifier: str
) -> None:
    import rich.markup
    from rich.console import Console
    from rich.table import Table

    table = Table("row", "outcome", "answer", "gold answer", "reason")
    for place, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
        cells = (str(place), verdict.outcome, verdict.answer, row[ANSWER], verdict.reason)
        shown = []
        for cell in cells:
            line = printable(" ".join(str(cell or "").split()))
            shown.append(rich.markup.escape(line[:SHOWN]))
        table.add_row(*shown)
    Console().print(table)
    say(summary(verdicts, verifier), file=sys.stdout)


def summary(verdicts: Sequence[Verdict], verifier: str) -> str:
    """One line: how many rows had which outcome, and why some were not scored."""
    from critique_rl.tasks.judging import count_lost

    counts = Counter(verdict.outcome for verdict in verdicts)
    parts = [f"{count} {outcome}" for outcome, count in counts.most_common()]
    unscored = [verdict for verdict in verdicts if verdict.outcome == "unscored"]
    # A user's function may put an answer into its reason.
    reasons = Counter(verdict.reason[: 2 * SHOWN] for verdict in unscored)
    timeouts = count_lost(verdicts)["timeout"]
    if timeouts:
        parts.append(f"wrong for 'timeout': {timeouts}")
    shown = reasons.most_common(MOST_REASONS)
    parts += [f"unscored for {reason!r}: {count}" for reason, count in shown]
    if len(reasons) > len(shown):
        others = len(unscored) - sum(count for _, count in shown)
        parts.append(f"unscored for {len(reasons) - len(shown)} other reasons: {others}")
    return f"{verifier}: {len(verdicts)} rows; " + ", ".join(parts)
