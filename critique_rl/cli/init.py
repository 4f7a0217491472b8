"""`critique-rl init`: look at the user's data and write a first pipeline for it, which `critique-rl
run` takes as it is.

Columns are guessed by their names, the verifier by the answers. Left out: any guess about hardware;
the batch fits one GPU and a small model.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.tasks.user_data import (
    DEFAULT_FAMILY,
    DataOptions,
    UserData,
    load_user_data,
    read_dataset,
)
from critique_rl.tasks.verifiers import choice

QUESTIONS = ("prompt", "question", "problem", "query", "instruction", "input")
ANSWERS = ("answer", "final_answer", "gold", "target", "label", "ground_truth", "expected_answer")
FAMILIES = ("family", "level", "subject", "category", "type", "difficulty")
MANY = 12
"""Families more than these are no families, but an id."""
BOXED = "Reason step by step, and put the final answer into \\boxed{}."
WAYS = {
    "": ('Reason step by step. End with a line "Answer: " followed by the number.', ""),
    "choice": (
        'Reason step by step. End with a line "Answer: " followed by the letter.',
        ", one letter each",
    ),
    "math": (BOXED, " by Math-Verify: pip install 'critique_rl[math]'"),
    "boxed_answer": (BOXED, ", short texts, by exact match in \\boxed{}; math: LaTeX"),
}
"""For each verifier the system message that asks for its form, and words for the comment."""
TRY = (
    "seeds=[0]",
    "budget={optimizer_steps: 2}",
    "trl.num_generations=4",
    "trl.per_device_train_batch_size=4",
    "trl.gradient_accumulation_steps=1",
)
TRY += (
    "trl.max_completion_length=64",
    "evaluation.problems=4",
    "evaluation.samples=2",
    "evaluation.ks=[1, 2]",
    "evaluation.curve_every=0",
)


@dataclass(frozen=True)
class Columns:
    """What the user said of the columns; "": guess."""

    question: str = ""
    answer: str = ""
    family: str = ""


def write_first_pipeline(data: str, out: Path, model: str, said: Columns, subset: str = "") -> str:
    """Write `out` and return what to tell the user. ConfigError for data that cannot be read, for
    columns nobody can guess, and where `out` exists.
    """
    if out.exists():
        raise ConfigError(f"--out: {out} exists already; give another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: no folder {out.parent}; make it first")
    options, verifier, found = _looked_at(data, said, subset)
    text = _filled(data, out, model, options, verifier, found)
    parse_pipeline(out.stem, yaml.safe_load(text))
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    return _next(out, found)


def _looked_at(data: str, said: Columns, subset: str) -> tuple[dict[str, str], str, UserData]:
    """Options of the task, the verifier's name ("": numbers), and the rows."""
    known = read_dataset(data, "train", subset).column_names
    question = said.question or _guess(QUESTIONS, known, data, "question")
    answer = said.answer or _guess(ANSWERS, known, data, "answer")
    options = {
        "train": data,
        "question": question,
        "answer": answer,
        **({"subset": subset} if subset else {}),
    }
    found = load_user_data(DataOptions(**options))
    family = said.family or next((name for name in FAMILIES if name in known), "")
    if family:
        grouped = load_user_data(DataOptions(**options, family=family))
        if said.family or len(_families(grouped)) <= MANY:
            options["family"], found = family, grouped
    verifier = _verifier(found)
    return (
        (options if question == "prompt" else {**options, "system": WAYS[verifier][0]}),
        verifier,
        found,
    )


def _guess(names: Sequence[str], known: Sequence[str], data: str, what: str) -> str:
    lower = {column.lower(): column for column in known}
    for name in names:
        if name in lower:
            return lower[name]
    raise ConfigError(
        f"{data}: which column is the {what}? give --{what} one of: {', '.join(known)}"
    )


def _families(found: UserData) -> list[str]:
    return sorted({row["family"] for rows in found.splits.values() for row in rows})


def _verifier(found: UserData) -> str:
    odd = found.without_number()
    if not odd:
        return ""
    answers = [row["answer"] for rows in found.splits.values() for row in rows]
    if all(choice("", {"answer": answer}).outcome != "unscored" for answer in answers):
        return "choice"
    return "math" if any(sign in answer for answer in odd for sign in "\\=^{") else "boxed_answer"


def _filled(
    data: str, out: Path, model: str, options: dict[str, str], verifier: str, found: UserData
) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    # A YAML file, no page: nothing is escaped; values are written as JSON, which YAML reads.
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    families = _families(found)
    return environment.get_template("pipeline.yaml.jinja").render(
        name=" ".join(data.split()),
        file=shlex.quote(str(out)),
        counts=_counts(found),
        options="{"
        + ", ".join(
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in options.items()
        )
        + "}",
        verifier=verifier,
        verifier_words=WAYS[verifier][1],
        model=json.dumps(model, ensure_ascii=False),
        families=", ".join(f"pass@1/{family}" for family in families if "\n" not in family)
        if families != [DEFAULT_FAMILY]
        else "",
    )


def _counts(found: UserData) -> str:
    return ", ".join(f"{len(rows)} {split}" for split, rows in found.splits.items())


def _next(out: Path, found: UserData) -> str:
    file = shlex.quote(str(out))
    short = shlex.join(TRY)
    return "\n".join(
        [
            f"wrote {out}: {_counts(found)}; {len(_families(found))} families",
            *(
                f"no question was left to hold out for {split}: give more, or a file as {split}:"
                for split, rows in found.splits.items()
                if not rows
            ),
            "Next:",
            f"  critique-rl doctor {file}",
            f"  critique-rl run {file} {short} --out runs/try    # minutes: does everything run?",
            f"  critique-rl critics {file} --out runs/try    # what each critic rescues of the policy's failed attempts; nothing here, nothing in training",
            f"  critique-rl run {file}",
        ]
    )


def _init_command(commands) -> None:
    help = "look at your data (JSONL, JSON, CSV, Parquet, a folder, a Hub id) and write a first pipeline for it"
    init = commands.add_parser("init", help=help, description=help)
    init.add_argument("data", metavar="DATA")
    init.add_argument(
        "--out",
        type=Path,
        default=Path("pipeline.yaml"),
        help="the pipeline to write; never written over (default: pipeline.yaml)",
    )
    init.add_argument(
        "--model",
        default="Qwen/Qwen2.5-0.5B-Instruct",
        help="the policy: a folder, or a Hub id (default: Qwen/Qwen2.5-0.5B-Instruct)",
    )
    for name in ("question", "answer", "family"):
        init.add_argument(
            f"--{name}",
            default="",
            metavar="COLUMN",
            help=f"the column of the {name} (default: by its name)",
        )
    init.add_argument("--subset", default="", help="of a Hub id, such as main of openai/gsm8k")
    init.set_defaults(command=_init)


def _init(arguments) -> int:
    from critique_rl.cli.init import Columns, write_first_pipeline

    said = Columns(arguments.question, arguments.answer, arguments.family)
    print(
        write_first_pipeline(arguments.data, arguments.out, arguments.model, said, arguments.subset)
    )
    return 0
