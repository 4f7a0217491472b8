"""Checksums of all files of a folder, and what is damaged by them.

Files that file systems and desktops leave behind do not count, nor half-written ones of ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from critique_rl.hashing import file_checksum

LITTER = (".nfs", ".DS_Store", "._", "Thumbs.db", ".critique_rl.json.")
"""Begin the names of files that do not count. Other hidden files do: torch's `.metadata` is one."""


def folder_checksums(folder: Path, left_out: Collection[str] = ()) -> dict[str, str]:
    """Path within the folder -> checksum, of every file.

    Args:
        folder: the folder.
        left_out: paths that are not read.

    Raises:
        OSError: a file cannot be read.
    """
    checksums = {}
    for name in _files(folder):
        if name not in left_out:
            checksums[name] = file_checksum(folder / name)
    return checksums


def first_fault(folder: Path, checksums: Mapping[str, Any], left_out: Collection[str] = ()) -> str:
    """What is wrong with a folder by its checksums, in a few words; "" where nothing is.

    Args:
        folder: the folder.
        checksums: from `folder_checksums`.
        left_out: paths without a checksum that may be there.
    """
    present = set(_files(folder)) - set(left_out)
    missing = sorted(checksums.keys() - present)
    if missing:
        return f"{missing[0]} is missing"
    added = sorted(present - checksums.keys())
    if added:
        return f"{added[0]} is no file of it"
    for name, checksum in checksums.items():
        path = folder / name
        # A named pipe in place of a file would hold up the reader for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{name} is no file"
        if file_checksum(path) != checksum:
            return f"{name} has another checksum"
    return ""


def _files(folder: Path) -> list[str]:
    """Paths within a folder of everything that is no folder, litter aside.

    Raises:
        OSError: a folder cannot be read.
    """
    names = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        # A link to a folder is listed here, and not walked into.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            if not name.startswith(LITTER):
                names.append(Path(parent, name).relative_to(folder).as_posix())
    return sorted(names)


def _raise(error: OSError) -> None:
    """Raises OSError: always; `os.walk` would leave out what it cannot read."""
    raise error
