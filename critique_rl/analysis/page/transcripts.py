"""A bounded sample of rollouts with what became of them: rollout -> verdict -> critique ->
refinement, spread over arms, seeds, and early and late steps.

Which ones is decided by the files alone, never by chance: the same folder gives the same page. Of
every run the first and the last few rollout files are opened, of every file the flags are read
before any text. Left out: a full browser of all rollouts; they are parquet, and tools for that
exist.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.config.run_folder import RunFolder

MOST = 120
"""Transcripts of a page."""
FILES = 3
"""Rollout files looked through at each end of a run."""
LONGEST = 2400
"""Characters of a text that are shown at most; halved until all texts fit `BYTES`."""
BYTES = 600_000
"""Of all texts together, as the page spells them."""
KINDS = ("rescued", "not rescued", "leaked", "no critique", "not refined")
"""What can become of a failed rollout; `leaked` is beside one of the others: the critique gave the
answer away.
"""


class Shown(dict[int, int | str]):
    """For `str.translate`: what a reader cannot see is spelled out. Controls, format characters
    (some turn the reading direction, so that a text shows another; tags and zero-width ones hide a
    text in a text), and the two separators that break lines.
    """

    def __missing__(self, code: int) -> int | str:
        hidden = (
            unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")
            and chr(code) not in "\t\n\f\r"
        )
        self[code] = shown = f"[U+{code:04X}]" if hidden else code
        return shown


INVISIBLE = Shown()
PHASES = ("late", "early")
FLAGS = ["role", "attempt", "outcome", "critique_status", "leaked", "chosen"]


@dataclass(frozen=True)
class Cut:
    """A text with its middle left out; `left_out` characters, 0 where it is whole and `tail` is
    empty.
    """

    head: str
    left_out: int = 0
    tail: str = ""


@dataclass(frozen=True)
class Transcript:
    """A failed rollout (columns as in `runs`, texts as `Cut`), its refinement or None, and its
    `kinds`.
    """

    arm: str
    seed: int
    kinds: tuple[str, ...]
    rollout: Mapping[str, Any]
    candidate: Mapping[str, Any] | None


@dataclass(frozen=True)
class Sample:
    """The transcripts of a page, how many characters of a text were shown at most, and what could
    not be read.
    """

    transcripts: Sequence[Transcript]
    longest: int
    unreadable: Sequence[str] = ()
    """Rollout files that could not be read, and why."""

    def values(self, of: str) -> list[Any]:
        """The different values of "arm", "seed" or "family", for a filter."""
        found = (
            t.rollout["family"] if of == "family" else getattr(t, of) for t in self.transcripts
        )
        return sorted(dict.fromkeys(found)) if of != "arm" else list(dict.fromkeys(found))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in KINDS if any(kind in t.kinds for t in self.transcripts)]


def sample(runs: Mapping[str, Mapping[int, RunFolder]], most: int = MOST) -> Sample:
    """At most `most` transcripts. Round by round every arm gives one of each kind, each round and
    each neighbour from another seed and phase.
    """
    cells = {
        (arm, seed): {phase: _ends(run, phase) for phase in PHASES}
        for arm, of in runs.items()
        for seed, run in of.items()
    }
    places = list(product(PHASES, dict.fromkeys(seed for of in runs.values() for seed in of)))
    found: dict[tuple[str, int, str], dict[str, Transcript]] = {}
    taken: dict[int, Transcript] = {}
    unreadable: dict[str, None] = {}
    for turn in range(len(places)):
        for (i, arm), (j, kind) in product(enumerate(runs), enumerate(KINDS)):
            phase, seed = places[(turn + i + j) % len(places)]
            if (arm, seed, phase) not in found:
                found[arm, seed, phase] = _of_files(
                    arm, seed, cells.get((arm, seed), {}).get(phase, ()), unreadable
                )
            one = found[arm, seed, phase].get(kind)
            if one is not None and len(taken) < most:
                taken.setdefault(id(one), one)
        if len(taken) >= most:
            break
    return replace(_fitted(list(taken.values())), unreadable=list(unreadable))


def _ends(run: RunFolder, phase: str) -> list[Path]:
    """The files of one end of a run, the outermost first; a file is in one end only."""
    files = sorted(run.rollouts.glob("*.parquet"))
    late = files[len(files) // 2 :]
    return late[::-1][:FILES] if phase == "late" else files[: len(files) // 2][:FILES]


def _of_files(
    arm: str, seed: int, files: Sequence[Path], unreadable: dict[str, None]
) -> dict[str, Transcript]:
    """The first of each kind; what is no rollout file is added to `unreadable`."""
    found: dict[str, Transcript] = {}
    for file in files:
        try:
            transcripts = list(
                _read(arm, seed, file, [kind for kind in KINDS if kind not in found])
            )
        except (pa.ArrowException, OSError) as error:
            unreadable[f"{arm}/seed{seed}/{file.name}: {' '.join(str(error).split())}"] = None
            continue
        for transcript in transcripts:
            for kind in transcript.kinds:
                found.setdefault(kind, transcript)
        if len(found) == len(KINDS):
            break
    return found


def _read(arm: str, seed: int, file: Path, wanted: Sequence[str]) -> Iterator[Transcript]:
    flags = pq.read_table(file, columns=FLAGS).to_pydict()
    chosen = _first_of_each(flags, wanted)
    if not chosen:
        return
    numbers = sorted({number for pair in chosen.values() for number in pair if number is not None})
    table = pq.read_table(file)
    rows = dict(zip(numbers, table.take(pa.array(numbers)).to_pylist(), strict=True))
    for (rollout, candidate), kinds in {
        pair: tuple(k for k, p in chosen.items() if p == pair) for pair in chosen.values()
    }.items():
        yield Transcript(
            arm, seed, kinds, rows[rollout], None if candidate is None else rows[candidate]
        )


def _first_of_each(
    flags: Mapping[str, list[Any]], wanted: Sequence[str]
) -> dict[str, tuple[int, int | None]]:
    """The first (row of the rollout, row of its refinement or None) of each wanted kind,
    refinements that were trained on before others.
    """
    failed = [
        i
        for i, role in enumerate(flags["role"])
        if role == "rollout" and flags["outcome"][i] in ("wrong", "unreadable")
    ]
    best: dict[int, int] = {}
    for i, (role, attempt) in enumerate(zip(flags["role"], flags["attempt"], strict=True)):
        if role == "candidate" and (
            attempt not in best or (flags["chosen"][i] and not flags["chosen"][best[attempt]])
        ):
            best[attempt] = i
    found: dict[str, tuple[int, int | None]] = {}
    for i in failed:
        for kind in _kinds(flags, i, best.get(i)):
            if kind in wanted:
                found.setdefault(kind, (i, best.get(i)))
    return found


def _kinds(flags: Mapping[str, list[Any]], i: int, candidate: int | None) -> Iterator[str]:
    if candidate is not None:
        yield "rescued" if flags["outcome"][candidate] == "right" else "not rescued"
    elif flags["critique_status"][i] != "ok":
        yield "no critique"
    else:
        yield "not refined"
    if flags["leaked"][i]:
        yield "leaked"


def _fitted(transcripts: Sequence[Transcript]) -> Sample:
    """All texts cut to the same length, the longest that keeps them within `BYTES`."""
    longest = LONGEST
    while longest > 100 and sum(_spelled(t, longest) for t in transcripts) > BYTES:
        longest //= 2
    return Sample([_with_cuts(t, longest) for t in transcripts], longest)


def _spelled(transcript: Transcript, longest: int) -> int:
    """Bytes of the texts on the page, where & is five."""
    texts = [*_texts(transcript.rollout), *_texts(transcript.candidate or {})]
    return sum(len(escape(part).encode()) for text in texts for part in _ends_of(text, longest))


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row[name])
        for name in (
            "question",
            "text",
            "critique",
            "answer",
            "critique_reason",
            "critic",
            "family",
        )
        if row.get(name)
    ]


def _ends_of(text: str, longest: int) -> tuple[str, str]:
    found = cut(text, longest)
    return found.head, found.tail


def cut(text: str | None, longest: int) -> Cut:
    """The first two thirds and the last third of `longest` characters: answers stand at the end."""
    text = text or ""
    if len(text) <= longest:
        return Cut(text.translate(INVISIBLE))
    head, tail = 2 * longest // 3, longest // 3
    return Cut(
        text[:head].translate(INVISIBLE), len(text) - head - tail, text[-tail:].translate(INVISIBLE)
    )


def _with_cuts(transcript: Transcript, longest: int) -> Transcript:
    def shown(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if row is None:
            return None
        texts = {name: cut(row[name], longest) for name in ("question", "text", "critique")}
        labels = {
            name: cut(row[name], 120)
            for name in ("answer", "critique_reason")
            if row[name] is not None
        }
        names = {name: row[name][:80].translate(INVISIBLE) for name in ("family", "critic")}
        return {**row, **texts, **labels, **names}

    return Transcript(
        transcript.arm,
        transcript.seed,
        transcript.kinds,
        shown(transcript.rollout),
        shown(transcript.candidate),
    )
