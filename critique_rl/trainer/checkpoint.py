"""Sealed checkpoints: a checkpoint is whole, or it is not continued from.

transformers writes a checkpoint's files one by one. Here they are flushed to disk first; then
`critique_rl.json` is written. It holds the state that transformers does not keep (token counts,
metrics not logged yet, states of callbacks), the run that it is of, and a checksum of every file.
It seals the checkpoint: one without it was never finished. Where a checksum differs, or the run is
another one, the checkpoint is damaged, and the one before it is taken. Seals of earlier versions
have no checksums: there only what can be seen without them is checked. Left out: the lock on a run
folder, which is the experiment's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from critique_rl.config.durable_files import write_text
from critique_rl.config.folder_checksums import first_fault, folder_checksums
from critique_rl.config.run_identity import KEY, RunIdentity
from critique_rl.hashing import text_checksum

STATE = "critique_rl.json"
PREFIX = "checkpoint-"
GENERATION = "generation-rank{}.pt"
"""One rank's generation in progress, in checkpoints that lie inside a generation."""
IN_FLIGHT = "in_flight-rank{}.json"
"""One rank's batch that is sampled and not trained yet, in runs with `critique_staleness`."""
FILES = "files"
"""Key of the seal: path within the checkpoint -> checksum."""
CHECKSUM = "checksum"
"""Key of the seal: the checksum of all else in it."""
LARGE = 1 << 26
"""Bytes above which checksums are made beside the flush."""
ASIDE = "damaged-"
"""Begins the name of a damaged checkpoint."""
FIRST_KEY = "kept_steps"
"""A key of every seal, those of the first version too."""
PARTS = ("optimizer", "scheduler", "rng_state")
"""Begin the names of files without which transformers continues, and takes another course."""


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not whole; the message says what is wrong with it."""


# ---- write ---------------------------------------------------------------------------------------


def seal(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Flush a written checkpoint to disk, then seal it by writing `state` and checksums."""
    paths = list(checkpoint.rglob("*"))
    is_large = sum(path.stat().st_size for path in paths) > LARGE
    with ThreadPoolExecutor(1) as reader:
        # Of a large one while the disk writes: what was just written is still in memory. For a
        # small one, taking turns with a thread takes longer than that.
        if is_large:
            reading = reader.submit(folder_checksums, checkpoint, [STATE])
        # The folder too: its entries are data of their own, and a power cut may lose them.
        for path in [*paths, checkpoint]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        checksums = reading.result() if is_large else folder_checksums(checkpoint, [STATE])
    # NaN is allowed: a metric that is not logged yet may be one.
    content = {**state, FILES: checksums}
    plain = json.loads(json.dumps(content))
    checksum = _content_checksum(plain)
    write_text(checkpoint / STATE, json.dumps({**plain, CHECKSUM: checksum}))


def _content_checksum(content: Mapping[str, Any]) -> str:
    return text_checksum(json.dumps(content))


def copy_checkpoint(checkpoint: Path, folder: Path, identity: RunIdentity | None = None) -> None:
    """Copy a sealed checkpoint into another run's folder, without samples that wait for training.

    The other run may make its batches in another way.

    The seal is written last, so an interrupted copy is ignored, and the same call completes it.
    It names the run `identity` as its own, where one is given.
    """
    target = folder / checkpoint.name
    left_out = shutil.ignore_patterns(STATE, GENERATION.format("*"), IN_FLIGHT.format("*"))
    shutil.copytree(checkpoint, target, ignore=left_out, dirs_exist_ok=True)
    state = read_state(checkpoint)
    if identity is not None:
        state[KEY] = identity.to_json()
    seal(target, state)


def rotate(folder: Path, limit: int | None, kept: Collection[Path] = ()) -> None:
    """Delete all sealed checkpoints but the newest `limit` (None or 0: all stay) and those `kept`.

    A kept checkpoint does not count against the limit.
    """
    if not limit:
        return
    candidates = [path for path in sealed_checkpoints(folder) if path not in kept]
    for path in candidates[:-limit]:
        delete(path)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint, or what lies in its place."""
    if checkpoint.is_symlink() or checkpoint.is_file():
        checkpoint.unlink()
    elif checkpoint.exists():
        # The seal goes first: a checkpoint that is half deleted is never picked.
        state = checkpoint / STATE
        if state.is_file() or state.is_symlink():
            state.unlink()
        shutil.rmtree(checkpoint)


def remove_unsealed(folder: Path) -> list[Path]:
    """Delete checkpoints that a killed process left half-written or half-deleted.

    Folders of the user such as `checkpoint-best` stay, and so do plain files.

    Returns:
        Those deleted.
    """
    unsealed = [path for path in _checkpoints(folder) if not _is_sealed(path)]
    unsealed = [path for path in unsealed if path.is_dir() and not path.is_symlink()]
    for path in unsealed:
        delete(path)
    return unsealed


def set_files_aside(folder: Path) -> list[Path]:
    """Rename files and links in place of checkpoints, which no run has written; their new paths."""
    unsealed = [path for path in _checkpoints(folder) if not _is_sealed(path)]
    return [set_aside(path) for path in unsealed if path.is_symlink() or not path.is_dir()]


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that the run can write its step again; the new path."""
    target = checkpoint.with_name(f"{ASIDE}{checkpoint.name}")
    delete(target)
    checkpoint.rename(target)
    return target


# ---- read ----------------------------------------------------------------------------------------


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state that `seal` wrote; {} for a checkpoint of stock transformers.

    Raises:
        DamagedCheckpoint: the seal cannot be read.
    """
    if not _is_sealed(checkpoint):
        return {}
    content = _read_seal(checkpoint)
    return {key: value for key, value in content.items() if key not in (FILES, CHECKSUM)}


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which the checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def sealed_checkpoints(folder: Path) -> list[Path]:
    """The sealed checkpoints of a folder, by step; their checksums are not read."""
    sealed = [path for path in _checkpoints(folder) if _is_sealed(path)]
    return sorted(sealed, key=step_of)


def last_sealed(folder: Path) -> Path | None:
    """The newest sealed checkpoint, or None."""
    sealed = sealed_checkpoints(folder)
    if sealed:
        return sealed[-1]
    return None


def newest_whole(
    folder: Path, identity: RunIdentity | None = None
) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint without a fault.

    Args:
        folder: the folder of checkpoints.
        identity: the run that they are of; None where nobody knows.

    Returns:
        It, or None; and the newer ones, each with its fault.
    """
    damaged: dict[Path, str] = {}
    sealed = sealed_checkpoints(folder)
    for i, path in reversed(list(enumerate(sealed))):
        words = fault(path, identity) or _lost_parts(path, sealed[:i])
        if not words:
            return path, damaged
        damaged[path] = words
    return None, damaged


LATER_PARTS = {FILES: "has lost its checksums", KEY: "does not say which run it is of"}
"""Keys that seals of earlier versions lack -> words for one that follows a seal with the key."""


def _lost_parts(checkpoint: Path, earlier: Sequence[Path]) -> str:
    """A fault where a whole checkpoint lacks what an earlier one has."""
    content = _read_seal(checkpoint)
    for key, words in LATER_PARTS.items():
        if key in content:
            continue
        if any(not fault(path) and key in _read_seal(path) for path in earlier):
            return f"{STATE} {words}"
    return ""


def fault(checkpoint: Path, identity: RunIdentity | None = None) -> str:
    """What is wrong with a sealed checkpoint, in a few words; "" where it is whole.

    Args:
        checkpoint: its folder.
        identity: the run that it should be of; None where nobody knows.
    """
    try:
        seal_content = _read_seal(checkpoint)
        foreign = identity.fault(seal_content.get(KEY)) if identity is not None else ""
        if foreign:
            return foreign
        _check_step(checkpoint)
        if FILES in seal_content:
            return first_fault(checkpoint, seal_content[FILES], [STATE])
        return _visible_fault(checkpoint)
    except DamagedCheckpoint as error:
        return str(error)
    except OSError as error:
        name = Path(str(error.filename or checkpoint)).name
        return f"{name} cannot be read: {error.strerror or error}"


def has_checksums(checkpoint: Path) -> bool:
    """False for a whole checkpoint of an earlier version, whose files have no checksums."""
    return FILES in _read_seal(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    """Everything with the name of a checkpoint of a step."""
    paths = []
    for path in folder.glob(f"{PREFIX}*"):
        if re.fullmatch(rf"{PREFIX}[0-9]+", path.name):
            paths.append(path)
    return paths


def _is_sealed(checkpoint: Path) -> bool:
    try:
        # Not `exists`: a seal that is a broken link, or that may not be read, is damage.
        (checkpoint / STATE).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_seal(checkpoint: Path) -> dict[str, Any]:
    """The seal.

    Raises:
        DamagedCheckpoint: it is not what `seal` wrote.
        OSError: it cannot be read.
    """
    if not (checkpoint / STATE).is_file():
        raise DamagedCheckpoint(f"{STATE} is no file")
    try:
        content = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{STATE} is no JSON") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{STATE} is no seal")
    is_new = FILES in content or CHECKSUM in content
    if not is_new and FIRST_KEY in content:
        return content
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if not isinstance(content.get(FILES), dict) or content.get(CHECKSUM) != _content_checksum(rest):
        raise DamagedCheckpoint(f"{STATE} has another checksum")
    return content


def _check_step(checkpoint: Path) -> None:
    """Raises DamagedCheckpoint where the folder's name says another step than its state."""
    path = checkpoint / TRAINER_STATE_NAME
    # Seals in tests of this room have no files of transformers.
    if not path.is_file():
        return
    try:
        step = json.loads(path.read_text(encoding="utf-8"))["global_step"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{TRAINER_STATE_NAME} is no state of a trainer") from error
    if step != step_of(checkpoint):
        raise DamagedCheckpoint(f"it is of step {step}")


def _visible_fault(checkpoint: Path) -> str:
    """The fault of a checkpoint without checksums, as far as it shows; "" where none does."""
    names = sorted(path.name for path in checkpoint.iterdir())
    if TRAINER_STATE_NAME not in names:
        return f"{TRAINER_STATE_NAME} is missing"
    for part in PARTS:
        if not any(name.startswith(part) for name in names):
            return f"{part} is missing"
    if not any(name.endswith((".safetensors", ".bin")) or "fsdp" in name for name in names):
        return "the weights are missing"
    for path in sorted(checkpoint.iterdir()):
        words = _format_fault(path)
        if words:
            return f"{path.name} {words}"
    return ""


def _format_fault(path: Path) -> str:
    """What is wrong with a file by its format, in a few words; "" where nothing shows."""
    if path.suffix not in (".json", ".safetensors", ".pt", ".pth", ".bin"):
        return ""
    if not path.is_file():
        return "is no file"
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
            return ""
        if path.suffix == ".safetensors":
            return _safetensors_fault(path)
        # torch saves archives, which have checksums of their own.
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, EOFError):
        return "is damaged"
    if bad:
        return "is damaged"
    return ""


def _safetensors_fault(path: Path) -> str:
    """Raises ValueError, KeyError or TypeError for a header that cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length + 8 > size:
            return "is cut short"
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if 8 + length + end != size:
        return "is cut short"
    return ""
