"""`critique-rl init`: write a first pipeline for the user's data, which `critique-rl run` takes.

Columns are guessed by their names, the verifier by the answers. Left out: any guess about hardware;
the batch fits one GPU and a small model.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_rl.cli.arguments import Commands
from critique_rl.config.checks import ConfigError
from critique_rl.config.names import check_name, shown
from critique_rl.config.terminal import say

if TYPE_CHECKING:
    from critique_rl.config.schema import Pipeline
    from critique_rl.tasks.user_data import UserData

QUESTIONS = (
    "prompt",
    "question",
    "problem",
    "query",
    "instruction",
    "input",
    "question_stem",
    "ctx",
    "sentence",
    "goal",
    "question_content",
    "text",
)
ANSWERS = (
    "answer",
    "final_answer",
    "answerkey",
    "answer_key",
    "correct_answer",
    "gold",
    "target",
    "label",
    "ground_truth",
    "expected_answer",
    "correct",
    "cop",
)
FAMILIES = ("family", "level", "subject", "category", "type", "difficulty")
SHOWN = 400
"""Characters of a question and of an answer that are printed."""
MOST_FAMILIES = 12
"""A column with more values than these is no family, but an id."""
BOXED = "Reason step by step, and put the final answer into \\boxed{}."


@dataclass(frozen=True)
class AnswerForm:
    """The form of answers that a verifier reads."""

    system: str
    """The system message that asks for it."""
    comment: str
    """The end of the comment beside `verifier:` in the pipeline."""


ANSWER_FORMS = {
    "last_number": AnswerForm(
        'Reason step by step. End with a line "Answer: " followed by the number.',
        ": one number each, compared exactly",
    ),
    "choice": AnswerForm(
        'Reason step by step. End with a line "Answer: " followed by the letter.',
        ", one letter each",
    ),
    "math": AnswerForm(BOXED, " by Math-Verify: pip install '.[math]' in the checkout"),
    "boxed_answer": AnswerForm(BOXED, ": short texts in \\boxed{}; math: LaTeX"),
}
"""Name of a verifier -> its form."""
CODE_FORM = AnswerForm(
    "Write the program that is asked for. Answer with one fenced block of Python.",
    ", each by the tests of its row, in a sandbox (pip extra `code`)",
)
"""The form of answers that are programs."""
COMMAND_FORM = AnswerForm(
    "", " by your program; say in options, system: which form of answers it reads"
)
"""The form of answers that a program of the user's judges, which nobody here knows."""
SOLUTIONS = ("solution", "canonical_solution", "reference_solution", "code", "answer")
"""Columns that may hold a right program."""
LOOKED_AT = 20
"""Rows in which a column of tests is looked for."""
END = "```python\nimport sys\nsys.exit(0)\n```"
"""A program that ends before its tests."""
COMPLETION = 512
"""Tokens of a completion, where the policy's context has room for it."""
COMPLETION_SHARE = 8
"""A critic's prompt and a refinement's hold question, attempt and critique: an eighth of the
context fits into them twice.
"""
SELF_CONTEXT = 1024
"""Tokens of a context in which a policy can criticise itself: its prompt alone may need 600."""
JUDGED_PROGRAMS = 5
"""Right programs that `init` runs."""
TRY = (
    "seeds=[0]",
    "budget={optimizer_steps: 2}",
    "trl.num_generations=4",
    "trl.per_device_train_batch_size=4",
    "trl.gradient_accumulation_steps=1",
    "trl.max_completion_length=64",
    "evaluation.problems=4",
    "evaluation.samples=2",
    "evaluation.ks=[1, 2]",
    "evaluation.curve_every=0",
)
"""Overrides for a first run of minutes."""


@dataclass(frozen=True)
class Columns:
    """The names of columns that the user gave; "" is to be guessed."""

    question: str = ""
    answer: str = ""
    family: str = ""


@dataclass(frozen=True)
class FirstTask:
    """The `task:` section of a first pipeline, and the rows that it reads."""

    options: dict[str, str]
    """`task.options`, see `user_data.DataOptions`."""
    verifier: str
    """The verifier that reads all gold answers, as YAML: a name, or a mapping with a kind."""
    rows: UserData
    is_code: bool = False
    """Whether answers are programs, which tests judge."""
    is_command: bool = False
    """Whether a program of the user's judges them."""

    @property
    def form(self) -> AnswerForm:
        if self.is_command:
            return COMMAND_FORM
        return CODE_FORM if self.is_code else ANSWER_FORMS[self.verifier]

    @property
    def families(self) -> list[str]:
        return _families(self.rows)

    @property
    def counts(self) -> str:
        """Rows per split in words, such as "90 train, 5 validation, 5 test"."""
        splits = self.rows.splits.items()
        return ", ".join(f"{len(rows)} {split}" for split, rows in splits)


def add_command(commands: Commands) -> None:
    """Add `init` to the parser."""
    help = (
        "look at your data (JSONL, JSON, CSV, Parquet, a folder, a Hub id) "
        "and write a first pipeline for it"
    )
    command = commands.add_parser("init", help=help, description=help)
    command.add_argument("data", metavar="DATA")
    command.add_argument(
        "--out",
        type=Path,
        default=Path("pipeline.yaml"),
        help="the pipeline to write; never written over (default: pipeline.yaml)",
    )
    command.add_argument(
        "--model",
        default="Qwen/Qwen2.5-0.5B-Instruct",
        help="the policy: a folder, or a Hub id (default: Qwen/Qwen2.5-0.5B-Instruct)",
    )
    for name in ("question", "answer", "family"):
        command.add_argument(
            f"--{name}",
            default="",
            metavar="COLUMN",
            help=f"the column of the {name} (default: by its name)",
        )
    command.add_argument("--subset", default="", help="of a Hub id, such as main of openai/gsm8k")
    command.add_argument(
        "--judge",
        default="",
        metavar="COMMAND",
        help="a program of yours that judges the answers, such as "
        "'.venv-judge/bin/python judge.py' (default: a rule, by what the answers look like)",
    )
    command.set_defaults(command=init)


def init(arguments: argparse.Namespace) -> int:
    """Write a first pipeline and print the next commands.

    Raises:
        ConfigError: See `write_first_pipeline`.
    """
    columns = Columns(arguments.question, arguments.answer, arguments.family)
    message = write_first_pipeline(
        arguments.data,
        arguments.out,
        arguments.model,
        columns,
        arguments.subset,
        shlex.split(arguments.judge),
    )
    say(message, file=sys.stdout)
    return 0


def write_first_pipeline(
    data: str, out: Path, model: str, columns: Columns, subset: str = "", argv: Sequence[str] = ()
) -> str:
    """Write a pipeline for the user's data.

    Args:
        data: A file, a folder, or a Hub id.
        out: The pipeline file to write.
        model: The policy: a folder, or a Hub id.
        columns: Names that the user gave.
        subset: Of a Hub id.
        argv: A program of the user's that judges, with its arguments; (): a rule does.

    Returns:
        The message for the user: what was written, and the next commands.

    Raises:
        ConfigError: `out` exists, the data cannot be read, or a column cannot be guessed.
    """
    import yaml

    from critique_rl.config.pipeline_file import parse_pipeline

    # Reading the data may take minutes.
    check_name(out.stem, f"--out {shown(out.name)}", is_folder=False)
    if out.exists():
        raise ConfigError(f"--out: {out} exists already; give another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: no folder {out.parent}; make it first")
    task = _inspect_data(data, columns, subset, argv)
    text = _render_pipeline(data, out, model, task)
    # Only a file that `run` takes is written.
    pipeline = parse_pipeline(out.stem, yaml.safe_load(text))
    # "x": reading the data may take minutes, in which the file can have been made.
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    return _next_steps(out, task, pipeline)


def _inspect_data(data: str, columns: Columns, subset: str, argv: Sequence[str]) -> FirstTask:
    """Guess the columns and the verifier from the data. Raises ConfigError where it cannot."""
    from critique_rl.tasks.answers.choose import choose_verifier
    from critique_rl.tasks.code.user_tests import guess_columns, unread_tests
    from critique_rl.tasks.data_source import DataOptions, read_dataset
    from critique_rl.tasks.user_data import load_user_data

    source = read_dataset(data, "train", subset)
    names = source.column_names
    question = columns.question or _guess_column(QUESTIONS, names, data, "question")
    first_rows = list(islice(source, LOOKED_AT))
    tests = guess_columns(first_rows)
    if tests and not columns.answer and not argv:
        return _code_task(data, question, columns.family, subset, names, tests)
    try:
        answer = columns.answer or _guess_column(ANSWERS, names, data, "answer")
    except ConfigError as error:
        fault = unread_tests(first_rows)
        if fault:
            raise ConfigError(fault) from error
        raise
    options: dict[str, Any] = {"train": data, "question": question, "answer": answer}
    if subset:
        options["subset"] = subset
    rows = load_user_data(DataOptions(**options))
    family = columns.family or next((name for name in FAMILIES if name in names), "")
    if family:
        grouped = load_user_data(DataOptions(**options, family=family))
        if columns.family or len(_families(grouped)) <= MOST_FAMILIES:
            options["family"] = family
            rows = grouped
    if argv:
        # YAML reads a list of JSON.
        verifier = f"{{kind: command, argv: {json.dumps(list(argv), ensure_ascii=False)}}}"
        return FirstTask(options, verifier, rows, is_command=True)
    verifier = choose_verifier(_gold_answers(rows))
    # A column `prompt` is taken as it is, with the system message that it may hold.
    if question != "prompt":
        options["system"] = ANSWER_FORMS[verifier].system
    return FirstTask(options, verifier, rows)


def _code_task(
    data: str, question: str, family: str, subset: str, names: Sequence[str], tests: dict[str, str]
) -> FirstTask:
    """A task of programs.

    Args:
        data: A file, a folder, or a Hub id.
        question: Column of the question.
        family: Column of the family; "" is to be guessed.
        subset: Of a Hub id.
        names: All columns.
        tests: Options of the verifier, see `guess_columns`.
    """
    from critique_rl.tasks.code.user_tests import with_tests
    from critique_rl.tasks.data_source import DataOptions
    from critique_rl.tasks.user_data import load_user_data

    family = family or next((name for name in FAMILIES if name in names), "")
    solution = next((name for name in SOLUTIONS if name in names), "")
    options: dict[str, Any] = {"train": data, "question": question}
    for name, value in (("subset", subset), ("family", family), ("solution", solution)):
        if value:
            options[name] = value
    if question != "prompt":
        options["system"] = CODE_FORM.system
    verifier = {"kind": "tests", **tests}
    rows = with_tests(load_user_data(DataOptions(**options), needs_answer=False), verifier)
    # Column names are words; YAML reads any of them in quotes.
    parts = ["kind: tests"]
    for name, value in tests.items():
        if name != value:
            parts.append(f"{name}: {_json(value)}")
    text = ", ".join(parts)
    return FirstTask(options, f"{{{text}}}", rows, is_code=True)


def _guess_column(candidates: Sequence[str], names: Sequence[str], data: str, role: str) -> str:
    """The first column whose name is a candidate, whatever its case.

    Raises:
        ConfigError: None is.
    """
    by_lower_name = {name.lower(): name for name in names}
    for candidate in candidates:
        if candidate in by_lower_name:
            return by_lower_name[candidate]
    raise ConfigError(
        f"{data}: which column is the {role}? give --{role} one of: {', '.join(names)}"
    )


def _families(data: UserData) -> list[str]:
    families = set()
    for rows in data.splits.values():
        families |= {row["family"] for row in rows}
    return sorted(families)


def _gold_answers(data: UserData) -> list[str]:
    answers = []
    for rows in data.splits.values():
        answers += [row["answer"] for row in rows]
    return answers


def _judged_programs(task: FirstTask) -> list[str]:
    """Lines on how the tests judge right programs, and answers that are none; faults come last."""
    import yaml

    from critique_rl.tasks.isolated_verifiers import build_verifier
    from critique_rl.tasks.judging import judge_answers

    try:
        verifier = build_verifier(yaml.safe_load(task.verifier))
    except ConfigError as error:
        return [f"WARNING: no example could be judged: {error}"]
    rows = task.rows.splits["train"]
    examples = [("no program", "I do not know.", rows[0]), ("ends at once", END, rows[0])]
    for row in rows[:JUDGED_PROGRAMS]:
        if row.get("solution"):
            program = f"```python\n{row['solution']}\n```"
            examples.append(("solution", program, row))
    texts = [text for _, text, _ in examples]
    verdicts = judge_answers(verifier, texts, [row for _, _, row in examples])
    lines = ["judged by the tests, as rollouts will be:"]
    faults = 0
    for (kind, _, row), verdict in zip(examples, verdicts, strict=True):
        lines.append(f"  {verdict.outcome:<10} {kind:<14} {row['id']:<12} {verdict.reason[:80]}")
        faults += (kind == "solution") != (verdict.outcome == "right")
    if faults:
        return [*lines, f"WARNING: {faults} of {len(examples)} are not judged as they should be"]
    return [*lines, f"all {len(examples)} are judged as they should be"]


def _judged_by_command(task: FirstTask) -> list[str]:
    """Lines on how the user's program judges gold answers."""
    import yaml

    from critique_rl.tasks.isolated_verifiers import build_verifier
    from critique_rl.tasks.workers.command import CommandVerifier

    try:
        verifier = build_verifier(yaml.safe_load(task.verifier))
        assert isinstance(verifier, CommandVerifier)
        warning = verifier.check_gold_answers(task.rows.splits["train"])
    except ConfigError as error:
        return [f"WARNING: {error}"]
    verifier.worker.stop()
    if warning:
        return [f"WARNING: {warning}"]
    return ["your program calls gold answers right"]


def _judged_examples(task: FirstTask) -> list[str]:
    """Lines on how the chosen verifier judges right and perturbed answers; faults come last."""
    if task.is_code:
        return _judged_programs(task)
    if task.is_command:
        return _judged_by_command(task)
    from critique_rl.cli.judge import judge_rows
    from critique_rl.tasks.answers.choose import judged_examples

    examples = judged_examples(_gold_answers(task.rows), task.verifier)
    rows = [{"completion": example.completion, "answer": example.gold} for example in examples]
    try:
        verdicts = judge_rows(rows, task.verifier)
    except ConfigError as error:
        return [f"WARNING: no example could be judged: {error}"]
    lines = [f"judged by {task.verifier}, as rollouts will be:"]
    faults = []
    for example, verdict in zip(examples, verdicts, strict=True):
        shown = " ".join(example.completion.split())[-44:]
        gold = " ".join(example.gold.split())[-24:]
        line = f"  {verdict.outcome:<10} {example.kind:<20} {shown:<44} gold {gold}"
        lines.append(line)
        if (verdict.outcome == "right") != example.is_right:
            faults.append(line)
    if faults:
        lines.append(
            f"WARNING: {len(faults)} of {len(examples)} are not judged as they should be. "
            "Train nothing before the verifier fits the answers (task.verifier):"
        )
        return lines + faults
    return [*lines, f"all {len(examples)} are judged as they should be"]


def _render_pipeline(data: str, out: Path, model: str, task: FirstTask) -> str:
    """The text of the pipeline file."""
    import jinja2

    from critique_rl.tasks.user_rows import DEFAULT_FAMILY

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    # A YAML file, no page: nothing is escaped; values are written as JSON, which YAML reads.
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    pairs = []
    for name, value in task.options.items():
        pairs.append(f"{name}: {_json(value)}")
    options = ", ".join(pairs)
    metrics: list[str] = []
    if task.families != [DEFAULT_FAMILY]:
        # They go into a comment, which a line break would end.
        metrics = [f"pass@1/{family}" for family in task.families if "\n" not in family]
    context = _context(model)
    return environment.get_template("pipeline.yaml.jinja").render(
        name=" ".join(data.split()),
        file=shlex.quote(str(out)),
        counts=task.counts,
        options=f"{{{options}}}",
        verifier=task.verifier,
        verifier_words=task.form.comment,
        is_code=task.is_code,
        model=_json(model),
        completion=max(1, min(COMPLETION, context // COMPLETION_SHARE)),
        is_short=context < SELF_CONTEXT,
        families=", ".join(metrics),
    )


def _context(model: str) -> int:
    """Tokens of a policy's context, where its folder states them; else enough for `COMPLETION`."""
    from critique_rl.policy import resolve_model

    try:
        settings = json.loads((Path(resolve_model(model)) / "config.json").read_text())
        return int(settings["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        # An id of the Hub, or an architecture without a limit.
        return COMPLETION * COMPLETION_SHARE


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _reach(pipeline: Pipeline) -> list[str]:
    """What the comparison can show, and what a larger one could."""
    from critique_rl.analysis.power import advice, describe, planned_design
    from critique_rl.cli.arguments import held_out_families

    try:
        design = planned_design(pipeline, held_out_families(pipeline))
    except ConfigError:
        # Without held-out problems nothing is shown; a line above says so.
        return []
    assert design is not None, "a first pipeline compares pass@1"
    lines = [describe(pipeline, design)]
    larger = advice(pipeline, design)
    if larger:
        lines.append(larger)
    return lines


def _first_row(task: FirstTask) -> list[str]:
    """A question as it is asked and its gold answer, which show how the file was read."""
    row = task.rows.splits["train"][0]
    question = "\n  ".join(row["question"].splitlines())
    gold = row["answer"][:SHOWN]
    lines = ["The first question for training:", f"  {question[:SHOWN]}"]
    if not task.is_code:
        lines.append(f"  gold answer: {gold}")
    return lines


def _next_steps(out: Path, task: FirstTask, pipeline: Pipeline) -> str:
    file = shlex.quote(str(out))
    short = shlex.join(TRY)
    lines = [f"wrote {out}: {task.counts}; {len(task.families)} families"]
    empty = [split for split, rows in task.rows.splits.items() if not rows]
    for split in empty:
        lines.append(
            f"no question was left to hold out for {split}: give more, or a file as {split}:"
        )
    try_critics = (
        f"  critique-rl critics {file} --out runs/try    # what each critic rescues of the "
        "policy's failed attempts; nothing here, nothing in training"
    )
    lines += _first_row(task)
    lines += _judged_examples(task)
    lines += _reach(pipeline)
    missing = " and ".join(empty)
    lines += [
        f"Next, once there are questions for {missing}:" if empty else "Next:",
        f"  critique-rl doctor {file}",
        f"  critique-rl run {file} {short} --out runs/try    # minutes: does everything run?",
        try_critics,
        f"  critique-rl run {file}",
    ]
    return "\n".join(lines)
