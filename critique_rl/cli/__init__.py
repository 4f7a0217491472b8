"""The commands of `critique-rl`, one per file: arguments, output, exit status."""

from critique_rl.cli.entry import main

__all__ = ["main"]
