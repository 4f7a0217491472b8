"""`critique-rl` as one rank of several: what `accelerate launch -m critique_rl` runs."""

from __future__ import annotations

import sys

from critique_rl.cli import entry as cli


def main(*words: str) -> None:
    status = cli.main(list(words))
    if status:
        sys.exit(status)
