"""A command a file: arguments, what is printed, exit status."""

from critique_rl.cli.entry import main

__all__ = ["main"]
