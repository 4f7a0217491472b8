"""`critique-rl critics`: try critics before a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_rl.cli.arguments import Commands, load, whole_number
from critique_rl.config.checks import ConfigError
from critique_rl.config.folder_lock import check_writable
from critique_rl.config.terminal import printable, say

if TYPE_CHECKING:
    from critique_rl.analysis.table import Table


def add_command(commands: Commands) -> None:
    """Add `critics` to the parser."""
    help = (
        "try critics before the run: what each rescues of the policy's failed rollouts, "
        "or how well it finds the first wrong step"
    )
    command = commands.add_parser("critics", help=help, description=help)
    _add_rescue_arguments(command)
    _add_localisation_arguments(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of a table")
    command.set_defaults(command=critics)


def _add_rescue_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "pipeline",
        type=Path,
        nargs="?",
        help="a YAML file; its arms' critics are tried (not with --champ)",
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument(
        "--out", type=Path, default=Path("runs"), help="where results go (default: runs)"
    )
    command.add_argument(
        "--critic",
        action="append",
        default=[],
        help=(
            "a kind, or '{kind: local, model: DIR}', instead of those of the arms; may be repeated"
        ),
    )
    command.add_argument(
        "--problems",
        type=whole_number,
        default=50,
        help="held-out questions a family (default: 50)",
    )
    command.add_argument(
        "--samples", type=whole_number, default=4, help="rollouts a question (default: 4)"
    )
    command.add_argument(
        "--attempts", type=whole_number, default=200, help="failed rollouts at most (default: 200)"
    )
    command.add_argument("--family", help="questions of one family alone (default: all)")
    command.add_argument("--split", default="validation", choices=("validation", "test"))


def _add_localisation_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--champ",
        action="store_true",
        help="localisation on human annotations (pip extra `champ`) instead of rescue",
    )
    command.add_argument("--base-url", help="with --champ: an OpenAI-compatible endpoint")
    command.add_argument("--model", help="with --base-url: the model's name there")
    command.add_argument(
        "--limit",
        type=whole_number,
        default=0,
        help="with --champ: so many of the 540 solutions (default: all)",
    )
    command.add_argument(
        "--knows",
        default="nothing",
        choices=("nothing", "answer", "solution"),
        help="with --champ: what the critic is told",
    )


def critics(arguments: argparse.Namespace) -> int:
    """Try the critics and print how well they did.

    Raises:
        ConfigError: Numbers out of range, or neither a pipeline nor --champ.
    """
    specs = list(arguments.critic)
    if arguments.base_url:
        specs.append(_endpoint_spec(arguments.base_url, arguments.model))
    counts = (arguments.problems, arguments.samples, arguments.attempts)
    if min(counts) < 1 or arguments.limit < 0:
        raise ConfigError(
            "--problems, --samples, --attempts: expected 1 or more, and --limit 0 (all) or more"
        )
    if arguments.family is not None and not arguments.family.strip():
        raise ConfigError("--family: got an empty name; leave it out for all families")
    if arguments.champ and arguments.pipeline:
        raise ConfigError(
            f"--champ: needs no pipeline, got {arguments.pipeline}; "
            "give --base-url and --model, or --critic"
        )
    if arguments.champ:
        from critique_rl.experiment import critic_bench as bench

        data = bench.localisation_bench(specs, arguments.limit, arguments.knows)
        _print_bench(arguments, data, bench.localisation_table(data), [])
        return 0
    if arguments.pipeline is None:
        raise ConfigError("critics: give a pipeline, such as pipelines/quickstart.yaml, or --champ")
    pipeline, folder = load(arguments)
    check_writable(folder.path)
    # Imported after the checks above, which then answer without torch and TRL.
    from critique_rl.experiment import critic_bench as bench

    size = bench.BenchSize(
        arguments.problems,
        arguments.samples,
        arguments.attempts,
        arguments.split,
        arguments.family or "",
    )
    data = bench.rescue_bench(pipeline, folder, specs, size)
    _print_bench(arguments, data, bench.rescue_table(data), bench.reason_lines(data))
    return 0


def _endpoint_spec(base_url: str, model: str | None) -> str:
    """The section of an api critic at --base-url, as --critic takes it."""
    # All of CHAMP is one step here, which a slow server may take hours for; what bounds it are the
    # deadlines of its calls.
    spec = {
        "kind": "api",
        "base_url": base_url,
        "model": model or "default",
        "step_deadline": 86400.0,
    }
    return json.dumps(spec)


def _print_bench(
    arguments: argparse.Namespace, data: Mapping[str, Any], table: Table, notes: Sequence[str]
) -> None:
    """Print JSON, Markdown or a table, the last two with their notes."""
    from rich.console import Console
    from rich.table import Table as RichTable

    from critique_rl.analysis.table import to_markdown

    if arguments.json:
        print(json.dumps(data))
        return
    if arguments.markdown:
        say(to_markdown(table), *notes, file=sys.stdout)
        return
    shown = RichTable(*map(_shown, table.heads), title=_shown(table.caption))
    for row in table.rows:
        # Names come from the user, and rich would read [x] in them as a colour.
        shown.add_row(*map(_shown, row))
    # A pipe has no width, and 80 columns would break every figure.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(shown, *map(_shown, notes), sep="\n")


def _shown(text: str) -> str:
    """A text as rich prints it unchanged."""
    from rich.markup import escape

    return escape(printable(text))
