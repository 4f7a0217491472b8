"""The questions that the package reasoning-core carries (pip extra `words`), read where it lies.

Its file battery_legs.zip holds 300 questions of SVAMP (MIT) and 400 of ASDiv (CC BY-NC 4.0: not for
commercial use). They are read at run time and never copied. The package itself is not imported: it
needs thirty others, and its generators reseed the caller's random numbers. So
`pip install --no-deps reasoning-core==0.5.0` is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from critique_rl._lazy import extra_advice
from critique_rl.config.durable_files import read_object

ADVICE = (
    "run: pip install --no-deps reasoning-core==0.5.0; with all that it needs, "
    + extra_advice("words")
)
ARCHIVE = "reasoning_core/resources/battery_legs.zip"
MEMBERS = {"svamp": "svamp_eval.jsonl", "asdiv": "asdiv_eval.jsonl"}
"""Family -> the file of the archive, one JSON object per line: prompt, answer."""
END = "\nAnswer:"
"""What every prompt ends in, behind the question."""


def archive_path() -> Path:
    """The archive of the installed package.

    Raises:
        ImportError: The package is missing, or holds no such file.
    """
    try:
        package = distribution("reasoning-core")
    except PackageNotFoundError as error:
        raise ImportError(
            "task reasoning-core/words needs the package reasoning-core, which is not installed; "
            + ADVICE
        ) from error
    path = Path(str(package.locate_file(ARCHIVE)))
    if not path.is_file():
        raise ImportError(
            f"got reasoning-core {package.version} without {ARCHIVE}, expected that of 0.5.0; "
            + ADVICE
        )
    return path


def read_lines(path: Path, family: str) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Lines of a family's file: their number from 0, and their object.

    An empty line is left out. A line that holds no object gives None.

    Raises:
        ValueError: For a file that is no zip, lacks the member, or is no text.
    """
    member = MEMBERS[family]
    try:
        with ZipFile(path) as archive:
            text = archive.read(member).decode()
    except (BadZipFile, KeyError, UnicodeDecodeError, OSError) as error:
        raise ValueError(
            f"{path}: got {type(error).__name__} ({error}), expected a zip with the text "
            f"{member}, as in reasoning-core 0.5.0; install that version again"
        ) from error
    for number, line in enumerate(text.split("\n")):
        if line.strip():
            yield number, read_object(line)
