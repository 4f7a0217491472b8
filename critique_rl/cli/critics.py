"""critique-rl critics: which critics are tried, and what is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from critique_rl.cli.results import _load
from critique_rl.config.checks import ConfigError


def _critics_command(commands) -> None:
    help = "try critics before the run: what each rescues of the policy's failed rollouts, or how well it finds the first wrong step"
    critics = commands.add_parser("critics", help=help, description=help)
    critics.add_argument(
        "pipeline",
        type=Path,
        nargs="?",
        help="a YAML file; its arms' critics are tried (not with --champ)",
    )
    critics.add_argument("overrides", nargs="*", metavar="key=value")
    critics.add_argument(
        "--out", type=Path, default=Path("runs"), help="where results go (default: runs)"
    )
    critics.add_argument(
        "--critic",
        action="append",
        default=[],
        help="a kind, or '{kind: local, model: DIR}', instead of those of the arms; may be repeated",
    )
    critics.add_argument(
        "--problems", type=int, default=50, help="held-out questions a family (default: 50)"
    )
    critics.add_argument("--samples", type=int, default=4, help="rollouts a question (default: 4)")
    critics.add_argument(
        "--attempts", type=int, default=200, help="failed rollouts at most (default: 200)"
    )
    critics.add_argument(
        "--family", default="", help="questions of one family alone (default: all)"
    )
    critics.add_argument("--split", default="validation", choices=("validation", "test"))
    critics.add_argument(
        "--champ",
        action="store_true",
        help="localisation on human annotations (pip extra `champ`) instead of rescue",
    )
    critics.add_argument("--base-url", help="with --champ: an OpenAI-compatible endpoint")
    critics.add_argument("--model", help="with --base-url: the model's name there")
    critics.add_argument(
        "--limit",
        type=int,
        default=0,
        help="with --champ: so many of the 540 solutions (default: all)",
    )
    critics.add_argument(
        "--knows",
        default="nothing",
        choices=("nothing", "answer", "solution"),
        help="with --champ: what the critic is told",
    )
    form = critics.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of a table")
    critics.set_defaults(command=_critics)


def _critics(arguments) -> int:
    from critique_rl.experiment import critic_bench as bench

    given = list(arguments.critic)
    if arguments.base_url:
        # All of CHAMP is one step here, which a slow server may take hours for; what bounds it are
        # the deadlines of its calls.
        given.append(
            json.dumps(
                {
                    "kind": "api",
                    "base_url": arguments.base_url,
                    "model": arguments.model or "default",
                    "step_deadline": 86400.0,
                }
            )
        )
    if min(arguments.problems, arguments.samples, arguments.attempts) < 1 or arguments.limit < 0:
        raise ConfigError(
            "--problems, --samples, --attempts: expected 1 or more, and --limit 0 (all) or more"
        )
    if arguments.champ:
        if arguments.pipeline:
            raise ConfigError(
                f"--champ: needs no pipeline, got {arguments.pipeline}; give --base-url and --model, or --critic"
            )
        data = bench.localisation_bench(given, arguments.limit, arguments.knows)
        return _print_bench(arguments, data, bench.localisation_table(data), [])
    if arguments.pipeline is None:
        raise ConfigError("critics: give a pipeline, such as pipelines/quickstart.yaml, or --champ")
    pipeline, folder = _load(arguments)
    size = bench.BenchSize(
        arguments.problems, arguments.samples, arguments.attempts, arguments.split, arguments.family
    )
    data = bench.rescue_bench(pipeline, folder, given, size)
    return _print_bench(arguments, data, bench.rescue_table(data), bench.reason_lines(data))


def _print_bench(arguments, data, table, notes: list[str]) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from critique_rl.analysis.table import to_markdown

    if arguments.json:
        print(json.dumps(data))
    elif arguments.markdown:
        print("\n".join([to_markdown(table), *notes]))
    else:
        shown = Table(*table.heads, title=table.caption)
        for row in table.rows:
            shown.add_row(*map(escape, row))
        # A pipe has no width, and 80 columns would break every figure.
        Console(width=None if sys.stdout.isatty() else 200).print(
            shown, *map(escape, notes), sep="\n"
        )
    return 0
