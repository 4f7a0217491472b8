"""`critique-rl`: run, watch, train, evaluate, compare, audit, report, paper, flow, claims, critics,
judge, doctor, init, plan, lab.

Heavy imports happen inside the commands, so `--help` answers at once.

Exit status: 0 success, 1 a run failed or an arm's critiques never came, 2 wrong use or bad input.
130 where Ctrl-C or SIGTERM ended it (the same command continues).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from critique_rl.cli import (
    audit,
    claims,
    compare,
    critics,
    evaluate,
    flow,
    init,
    judge,
    lab,
    paper,
    plan,
    report,
    run,
    train,
    watch,
)
from critique_rl.cli.doctor import command as doctor
from critique_rl.config.checks import ConfigError
from critique_rl.config.terminal import cut_words, guard_terminal, printable, say

COMMANDS = (
    run,
    watch,
    train,
    evaluate,
    compare,
    audit,
    report,
    paper,
    flow,
    claims,
    critics,
    judge,
    doctor,
    init,
    plan,
    lab,
)
"""In the order of `--help`."""
MISPLACED = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names.

    Args:
        argv: The words after `critique-rl`; None for those of the process.

    Returns:
        The exit status.
    """
    guard_terminal()
    arguments = parse_arguments(argv)
    try:
        return arguments.command(arguments)
    except ConfigError as error:
        say(f"critique-rl: {cut_words(error)}")
        return 2
    except OSError as error:
        # A file of the user's that may not be read, or is a folder; others are faults of ours.
        if error.filename is None or not isinstance(error, MISPLACED):
            raise
        say(f"critique-rl: {error.filename}: {error.strerror}; put it right or remove it")
        return 1
    except KeyboardInterrupt:
        say("critique-rl: interrupted; the same command continues")
        return 130


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the words of a command line.

    Raises:
        SystemExit: Status 2 for wrong words, 0 after --help.
    """
    parser = _build_parser()
    # argparse takes overrides directly after the pipeline only; people write them last.
    arguments, rest = parser.parse_known_args(argv)
    takes_overrides = hasattr(arguments, "overrides")
    are_overrides = all("=" in word and not word.startswith("-") for word in rest)
    if rest and not (takes_overrides and are_overrides):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


class _Parser(argparse.ArgumentParser):
    """A parser, also of subcommands, whose errors do not repeat keys and escapes."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and end with status 2."""
        super().error(printable(cut_words(message)))


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "critique-rl",
        description=(
            "Critique-augmented GRPO: train arms, judge them on the same problems, compare them."
        ),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
