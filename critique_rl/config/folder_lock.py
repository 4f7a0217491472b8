"""The lock of a folder: one process at a time trains, or runs a pipeline, in it.

The lock is the kernel's on the file `.lock`, so it ends with its process, however that ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from critique_rl.config.checks import ConfigError


class FolderLocked(ConfigError):
    """Another process holds the lock of a folder."""


def check_writable(folder: Path) -> None:
    """Check that a folder is there, or can be made.

    Raises:
        ConfigError: A file stands in its place or above it, or it cannot be written.
    """
    try:
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        fault = ""
        if not place.is_dir():
            fault = f"{place} is no folder"
        elif not os.access(place, os.W_OK | os.X_OK):
            fault = f"{place} cannot be written"
    # A name that is too long, or a NUL.
    except (OSError, ValueError) as error:
        fault = str(error)
    if fault:
        raise ConfigError(f"--out: {fault}; give another --out")


@contextmanager
def lock_folder(folder: Path, activity: str) -> Iterator[None]:
    """Lock a folder for this process until the block ends.

    Args:
        folder: Made if it does not exist.
        activity: For the message to a second process, such as "training".

    Raises:
        FolderLocked: Another process holds the lock.
        ConfigError: The folder or the file of the lock cannot be used.
    """
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; give another --out") from error
    # The ranks of one launch share the folder; rank 0 holds the lock for all of them.
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderLocked(
            f"{folder}: another process is {activity} here; "
            "wait for it, stop it, or give another --out"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{folder / '.lock'} cannot be locked ({error.strerror or error}); remove it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """True where a living process holds the folder's lock."""
    # The file `.lock` outlives its holder, so only an attempt to take the lock tells.
    try:
        with lock_folder(folder, ""):
            return False
    except FolderLocked:
        return True
