"""`critique-rl audit`: a verdict on logs of runs that somebody else made."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from critique_rl.cli.arguments import Commands, add_json_argument, whole_number
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.terminal import printable, say

if TYPE_CHECKING:
    from critique_rl.experiment.audit.audit import RunPath

SEED = re.compile(r"(?:^|[-_./ ])(?:seed|s)[-_ ]?(\d+)$", re.IGNORECASE)
"""The seed at the end of a name, such as grpo-seed3, or as the folder around it, seed3/grpo."""
NAMED = re.compile(r"([^=:/\\]+)(?::(\d+))?=(.+)")
"""ARM:SEED=PATH, or ARM=PATH."""
OTHER_SEED = re.compile(r"([^=:/\\]+):([^=/\\]*)=(.+)")
"""The same with a seed that is no number."""


def add_command(commands: Commands) -> None:
    """Add `audit` to the parser."""
    help = "judge runs of any trainer by their logs: a verdict, and what is missing or unfair"
    command = commands.add_parser("audit", help=help, description=help)
    command.add_argument(
        "runs",
        nargs="+",
        metavar="[ARM[:SEED]=]PATH",
        help="a run's log, or the folder of its logs, such as scalar:0=logs/grpo-seed0; without "
        "a name the arm is the folder's name, and its seed what stands behind seed in it",
    )
    command.add_argument(
        "--control", help="the arm that others are compared with (by its name, else the first)"
    )
    command.add_argument(
        "--metric", default="pass@1/all", help="such as pass@4/math (default: pass@1/all)"
    )
    command.add_argument(
        "--last",
        type=whole_number,
        default=10,
        metavar="STEPS",
        help="steps of training that count where no held-out answers are logged (default: 10)",
    )
    command.add_argument(
        "--mapping", type=Path, help="YAML: names of columns, and what the logs do not hold"
    )
    command.add_argument("--out", type=Path, help="write audit.json into this folder too")
    command.add_argument(
        "--paper",
        type=Path,
        metavar="FOLDER",
        help="write figures, LaTeX tables and a methods paragraph there (pip extra paper)",
    )
    add_json_argument(command)
    command.set_defaults(command=audit_runs)


def audit_runs(arguments: argparse.Namespace) -> int:
    """Print the verdict and the findings.

    Raises:
        ConfigError: A log cannot be read, or two arms cannot be compared.
    """
    from critique_rl.experiment.audit.audit import audit
    from critique_rl.experiment.audit.mapping import LogMapping, read_mapping

    if arguments.paper is not None:
        from critique_rl.analysis.paper.style import check_matplotlib

        check_matplotlib()
    mapping = LogMapping()
    if arguments.mapping is not None:
        mapping = read_mapping(arguments.mapping)
    runs = name_runs(arguments.runs)
    if arguments.last < 1:
        raise ConfigError(f"--last: got {arguments.last} steps, expected at least 1")
    result = audit(runs, mapping, arguments.control, arguments.metric, arguments.last)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "audit.json", result.to_json())
    if arguments.paper is not None:
        from critique_rl.analysis.paper.files import write_paper

        written = write_paper(arguments.paper, result.comparison, result.setup())
        for note in written.notes:
            say(f"figures: {note}")
    if arguments.json:
        print(json.dumps(result.to_json()))
        return 0
    from rich.console import Console

    from critique_rl.analysis.table import to_terminal

    console = Console()
    console.print(*map(to_terminal, result.tables()), sep="\n")
    console.print(*map(printable, result.lines()), sep="\n", markup=False, highlight=False)
    return 0


def name_runs(words: list[str]) -> list[RunPath]:
    """Arm, seed and path of each word.

    Raises:
        ConfigError: Two runs have one arm and seed.
    """
    from critique_rl.experiment.audit.audit import RunPath
    from critique_rl.experiment.audit.files import stem_of

    runs: list[RunPath] = []
    for word in words:
        path = Path(word)
        arm = ""
        seed: int | None = None
        match = NAMED.fullmatch(word)
        if match and not path.exists():
            arm = match[1]
            path = Path(match[3])
            if match[2]:
                seed = int(match[2])
        wrong = OTHER_SEED.fullmatch(word)
        if wrong and not match and not path.exists():
            raise ConfigError(f"{word}: got the seed {wrong[2]!r}, expected a number such as 0")
        stem = stem_of(path.name)
        around = path.parent.name
        ending = SEED.search(stem) or SEED.fullmatch(around)
        if seed is None and ending:
            seed = int(ending[1])
        if not arm:
            arm = SEED.sub("", stem) or around
        if seed is None:
            seed = sum(run.arm == arm for run in runs)
        taken = [(run.arm, run.seed) for run in runs]
        if (arm, seed) in taken:
            raise ConfigError(
                f"{word}: got {arm} with seed {seed} twice, expected one log per arm and seed: "
                "name them, ARM:SEED=PATH"
            )
        runs.append(RunPath(arm, seed, path))
    return runs
