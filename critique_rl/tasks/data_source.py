"""Where the user's data are, and how a data set is read: a file, a folder, or a Hub id."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.split_rule import SPLIT_RULE
from critique_rl.tasks.rows.written import WrittenFile, WrittenSource

READERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
"""Suffix of a file -> its format."""
MEDIA = ("Image", "Audio", "Video")
SINGLES = ("float16", "float32")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
NEAR_REPEATS = ("refuse", "leave_out", "keep")


@dataclass(frozen=True)
class DataOptions:
    """Where the rows are, and how their columns are called. Files are looked for from the folder
    that the command runs in.
    """

    train: str
    """A file, a folder, or a Hub id."""
    validation: str = ""
    """The same for validation problems; "": a tenth of train."""
    test: str = ""
    """The same for test problems; "": a tenth of train."""
    subset: str = ""
    """Subset of a Hub id, such as "main" of openai/gsm8k."""
    question: str = ""
    """Column of the question; "": `prompt` if there is one, else `question`."""
    answer: str = "answer"
    """Column of the gold answer, which the verifier reads."""
    solution: str = ""
    """Column of a worked solution, which critics and teachers may read; "": `solution`, if there is
    one.
    """
    family: str = ""
    """Column that evaluations are split by; "": `family` if there is one, else all rows are of the
    family "data".
    """
    system: str = ""
    """A system message before each question."""
    choices: str = ""
    """Column of the choices of a multiple choice, or several columns with commas between; "": found
    by its name (choices, options, endings; A, B, C, D; option_a, ...). They are written below the
    question as A., B., and so on, and the gold answer becomes the letter. "none": those columns are
    no choices.
    """
    near_repeats: str = "refuse"
    """For questions of `train` that `test` or `validation` asks in nearly the same words (other
    case, spaces, quotes, punctuation or system message): "refuse" the data, "leave_out" what would
    be trained on, or "keep" both.
    """
    split_rule: int = SPLIT_RULE
    """Version of the rule that holds questions out of `train`. 2: by the last user message without
    case, spaces, quotes and punctuation. 1: by the prompt as it is, system message included, as in
    run folders of earlier versions, which keep it.
    """

    def __post_init__(self) -> None:
        """Raise ConfigError for values that the two options do not have."""
        if self.near_repeats not in NEAR_REPEATS:
            advice = suggest(self.near_repeats, NEAR_REPEATS)
            raise ConfigError(f"near_repeats: got {self.near_repeats!r}; {advice}")
        if self.split_rule not in (1, SPLIT_RULE):
            raise ConfigError(f"split_rule: got {self.split_rule}, expected 1 or {SPLIT_RULE}")


class Source(Protocol):
    """Rows that can be read several times."""

    @property
    def column_names(self) -> list[str]: ...

    def __iter__(self) -> Iterator[dict[str, Any]]: ...


def read_dataset(name: str, split: str = "train", subset: str = "") -> Source:
    """Read a data set. Cells of JSON and CSV files are as they are written.

    Args:
        name: A file or a folder, else a Hub id.
        split: Split of a folder or a Hub id. A file has one split.
        subset: Subset of a Hub id.

    Returns:
        `WrittenSource` for JSON and CSV, `ParquetSource` for Parquet, else `TypedSource`.

    Raises:
        ConfigError: With the cause, where it cannot be read.
    """
    path = Path(name).expanduser()
    # Of a.jsonl.gz the suffix that tells the format is not the last one.
    known = [suffix for suffix in path.suffixes if suffix in READERS]
    suffix = known[0] if known else ""
    # Any other name may be a Hub id.
    is_path = bool(suffix) or name.startswith((".", "/", "~"))
    if is_path and not path.exists():
        raise ConfigError(f"no file {name}; {_file_advice(path)}")
    try:
        if suffix and path.is_file():
            return _read_file(path, suffix, split)
        source = str(path) if path.is_dir() else name
        return _read_folder(source, split, subset)
    except UnicodeDecodeError as error:
        raise utf8_error(name, error) from error
    # pandas, pyarrow and the Hub raise all kinds of errors for files that are not what they are
    # called; an empty file raises StopIteration.
    except Exception as error:
        message = _cause_message(error) or "it holds nothing"
        if isinstance(error, LookupError):
            # Of a reader that found nothing, which says so by an index.
            message = "no table of rows was found in it; name a file such as rows.jsonl"
        raise ConfigError(f"cannot read {name}: {message}") from error


def utf8_error(name: str, error: UnicodeDecodeError) -> ConfigError:
    """The error for a file of another encoding."""
    return ConfigError(
        f"cannot read {name}: it is no UTF-8 ({error.reason}); "
        "save it as UTF-8, for instance by iconv -f latin1 -t utf-8"
    )


def _read_file(path: Path, suffix: str, split: str) -> Source:
    """Raises ConfigError for a file of another format than its suffix says."""
    from fsspec.utils import infer_compression

    kind = READERS[suffix]
    if kind == "parquet":
        return ParquetSource(str(path))
    compression = infer_compression(str(path))
    delimiter = "\t" if suffix == ".tsv" else ""
    file = WrittenFile(str(path), kind, compression, key=split, delimiter=delimiter)
    return WrittenSource([file])


def _read_folder(source: str, split: str, subset: str) -> Source:
    """A folder or a Hub id, whose README may name subsets and files."""
    from datasets import DownloadManager, load_dataset_builder
    from fsspec.utils import infer_compression

    builder = load_dataset_builder(source, subset or None)
    kind = type(builder).__module__.rpartition(".")[2]
    data_files = builder.config.data_files or {}
    names = [str(name) for name in data_files.get(split, ())]
    # An archive of several files is left to the loader, which unpacks it.
    is_archive = any(name.endswith(ARCHIVES) for name in names)
    if kind not in ("json", "csv") or not names or is_archive:
        return _load(source, split=split, name=subset or None)
    key = getattr(builder.config, "field", None) or split
    delimiter = getattr(builder.config, "sep", None) or ""
    files = []
    for name in names:
        local = DownloadManager().download(name)
        compression = infer_compression(name)
        files.append(WrittenFile(local, kind, compression, key, delimiter.strip(",")))
    return WrittenSource(files)


def _load(source: str, **options: Any) -> Source:
    """Read by the loader of `datasets`. Raises ConfigError for columns of pictures."""
    from datasets import load_dataset

    dataset = load_dataset(source, **options)
    for column, feature in dataset.features.items():
        _refuse_media(column, repr(feature))
    singles = []
    for column, feature in dataset.features.items():
        if getattr(feature, "dtype", "") in SINGLES:
            singles.append(column)
    return TypedSource(dataset, dataset.column_names, singles)


def _refuse_media(column: str, feature: str) -> None:
    """Raise ConfigError for columns of pictures, sounds or films, which no prompt here can show."""
    if any(f"{name}(" in feature for name in MEDIA):
        raise ConfigError(
            f"column {column!r} holds pictures or sounds, and questions are asked as text; "
            "remove the column if they can be answered without it"
        )


class TypedSource:
    """Rows of typed values, with the digits of single floats: 0.1, not 0.10000000149011612."""

    def __init__(self, rows: Iterable[Any], column_names: list[str], singles: Sequence[str]):
        self.rows = rows
        self.column_names = column_names
        self.singles = singles

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for raw in self.rows:
            row = dict(raw)
            for name in self.singles:
                if row[name] is not None:
                    row[name] = float(str(np.float32(row[name])))
            yield row


class ParquetSource(TypedSource):
    """Rows of a Parquet file, read in parts; the loader of `datasets` refuses columns of maps."""

    def __init__(self, path: str):
        """Read the schema. Raises ConfigError for columns of pictures, as `datasets` marks them."""
        import pyarrow.parquet as pq

        self.path = path
        schema = pq.read_schema(path)
        metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(metadata).get("info", {}).get("features") or {}
        for column, feature in features.items():
            types = re.findall(r"'_type': '(\w+)'", repr(feature))
            _refuse_media(column, " ".join(f"{name}()" for name in types))
        singles = [field.name for field in schema if str(field.type) in ("float", "halffloat")]
        super().__init__(self, list(schema.names), singles)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from TypedSource(batch.to_pylist(), self.column_names, self.singles)


def _cause_message(error: Exception) -> str:
    from datasets.exceptions import DatasetGenerationError

    cause: BaseException = error
    # datasets wraps the error of its reader in one that says only that it failed.
    if isinstance(error, DatasetGenerationError) and error.__cause__:
        cause = error.__cause__
    words = str(cause).split()
    return " ".join(words)[:300]


def _file_advice(path: Path) -> str:
    """The nearest data file of the folder, or the kinds of files that can be read."""
    files = []
    if path.parent.is_dir():
        siblings = path.parent.glob("*")
        files = [file.name for file in siblings if file.suffix in READERS]
    if files:
        return suggest(path.name, files)
    return "give a file of JSONL, JSON, CSV, TSV or Parquet, or a Hub id"
