"""The one rule for names: of pipelines, arms and external runs.

A name becomes a folder, a word of a shell and a key of YAML. So it is short plain text that no
system reads otherwise, and none of the names that a folder of results has itself. Families are
data and become no file: any line of text that is no path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import ClaimsFolder, PipelineFolder, RunFolder, result_names

MOST_BYTES = 100
"""A trial's name and a seed's come on top, and a file name has at most 255 bytes."""
SIGNS = " _-.,+=@#%()[]{}'!~^"
"""What a name may hold beside letters, digits and their accents."""
FIRST_SIGNS = "_(["
"""Signs that a name may begin with."""
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for its devices, whatever their suffix."""
ENCODED = re.compile(r"%[0-9a-fA-F]{2}")
"""A sign as addresses write it: %2f is a slash to a browser that opens a report."""
SEED = re.compile(r"seed\d+", re.IGNORECASE)
ADVICE = (
    f"expected letters, digits and any of {SIGNS.strip()} or a space between them, "
    f"at most {MOST_BYTES} bytes; give it another name"
)
FREE_FOLDERS = frozenset({"critic"})
"""Names inside a run's folder that an arm may have: many arms are called so."""


def check_name(name: Any, what: str, is_folder: bool = True) -> str:
    """Check a name.

    Args:
        name: As YAML, a file or a word has it.
        what: What is named, with which the message begins, such as "arm".
        is_folder: Whether it stands beside the files and folders of a pipeline's results.

    Returns:
        The name.

    Raises:
        ConfigError: It is no text, or no name.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{what}: got {name!r} ({type(name).__name__}), expected a name; "
            "YAML reads numbers, true, on, null and the like without quotes: put it in quotes"
        )
    fault = _fault(name) or _taken(name, is_folder)
    if fault:
        raise ConfigError(f"{what}: got {shown(name)}, {fault}; {ADVICE}")
    return name


def _fault(name: str) -> str:
    """What makes a text no name; "" where nothing does."""
    if not name.strip():
        return "an empty name"
    size = len(name.encode(errors="surrogatepass"))
    if size > MOST_BYTES:
        return f"a name of {size} bytes"
    for sign in name:
        if not _is_plain(sign):
            return f"whose {sign!r} is a sign of paths, shells or terminals"
    if not (_is_letter(name[0]) or name[0] in FIRST_SIGNS):
        return f"which begins with {name[0]!r}"
    if name[-1] in " .":
        return f"which ends with {name[-1]!r}"
    if ENCODED.search(name):
        return "which holds a sign as addresses encode it"
    if DEVICE.fullmatch(name):
        return "which Windows keeps for a device"
    return ""


def _is_plain(sign: str) -> bool:
    return sign in SIGNS or _is_letter(sign)


def _is_letter(sign: str) -> bool:
    """A letter, a digit or an accent, in any script."""
    category = unicodedata.category(sign)
    return category[0] in "LM" or category == "Nd"


def _taken(name: str, is_folder: bool) -> str:
    """Words where a folder of results has this name itself; else ""."""
    folded = name_key(name)
    ours = result_names(PipelineFolder, RunFolder, ClaimsFolder)
    if not is_folder:
        # A pipeline's folder lies beside those of others: only a file's name would mislead.
        ours = frozenset(taken for taken in ours if "." in taken)
    is_ours = folded in ours - FREE_FOLDERS
    if is_ours or (is_folder and SEED.fullmatch(name)):
        return "the name of a file or folder of results"
    return ""


def name_key(name: str) -> str:
    """What names differ by: macOS and Windows keep one folder for names of other case or accents'
    coding.
    """
    return unicodedata.normalize("NFC", name).casefold()


def check_names(names: Iterable[Any], what: str, is_folder: bool = True) -> None:
    """Check names that stand beside each other.

    Args:
        names: The names.
        what: What they name, such as "arm".
        is_folder: See `check_name`.

    Raises:
        ConfigError: One is no name, or two are the same on a system that knows no case.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = name_key(check_name(name, what, is_folder))
        if key in seen:
            raise ConfigError(
                f"{what}: got {seen[key]!r} and {name!r}, expected names that differ by more than "
                "upper and lower case: macOS and Windows keep one folder for both; "
                "give one of them another name"
            )
        seen[key] = name


def shown(name: str) -> str:
    """A name for an error, in quotes and cut."""
    if len(name) <= MOST_BYTES:
        return repr(name)
    return f"{name[:40]!r}..."


def path_word(path: Path) -> str:
    """A path as a word of a command line, which is taken for no option."""
    word = str(path)
    if word.startswith("-"):
        return f"./{word}"
    return word


# ---- families ------------------------------------------------------------------------------------


def family_fault(family: str) -> str:
    """What makes a text no family of the user's data, in words; "" where nothing does."""
    if family == "all":
        return "is the name of all families together"
    size = len(family.encode(errors="surrogatepass"))
    if not family.strip() or size > 2 * MOST_BYTES:
        return f"has {size} bytes, expected 1 to {2 * MOST_BYTES}"
    if any(unicodedata.category(sign)[0] in "CZ" and sign != " " for sign in family):
        return "holds a control character or another kind of space"
    parts = re.split(r"[/\\]", family)
    is_relative = any(part.strip() in (".", "..") for part in parts)
    if is_relative or family[0] in "/\\~":
        return "is a path"
    # -1 is a level.
    if family[0] == "-" and not family[1:2].isdigit():
        return "begins with '-', as options do"
    return ""
