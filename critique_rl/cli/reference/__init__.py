"""`docs/reference-config.md` and `docs/reference-api.md`, written from the code: `python -m
critique_rl.cli.reference`.

A test holds the committed pages to this output, and lets no key pass without a meaning. Left out: a
generator of sites, which would be a dependency for two pages; GRPOConfig's own fields, which TRL
documents.
"""

from __future__ import annotations

from pathlib import Path

from critique_rl.cli.reference.api import api_page
from critique_rl.cli.reference.config import config_page
from critique_rl.config.durable_files import write_text

DOCS = Path(__file__).parents[2] / "docs"
NOTE = (
    "Written by `python -m critique_rl.cli.reference` from the code; "
    "change the code, not this page."
)


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        write_text(DOCS / name, text)
        print(DOCS / name)


def pages() -> dict[str, str]:
    """Name of each page -> its text."""
    return {"reference-config.md": config_page(NOTE), "reference-api.md": api_page(NOTE)}
