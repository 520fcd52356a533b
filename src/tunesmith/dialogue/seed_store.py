"""Seeds on the local disk, opened by their place in the planned order: a hundred thousand cost a megabyte.

A folder of `rows` (a JSON line a seed, in the input's order), `starts` (int64, where each begins, and the
end), `order` (int64, which row comes when), `digests` (two a seed) and `facts.json`. The folder appears at
once, when it is whole. Does not depend on where seeds come from.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from tunesmith.artifacts.folder_writer import FACTS, FolderWriter
from tunesmith.artifacts.journal.key_set import digest_of
from tunesmith.artifacts.local_files import explained
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.formats.seeds import SeedRound
from tunesmith.data.hash_split import rank
from tunesmith.data.report import counted
from tunesmith.dialogue.state import PlannedSeed
from tunesmith.tokens.conversation import ToolCall
from tunesmith.tokens.packed import pack_call, pack_message, unpack_message

_ROWS, _DIGESTS = "rows", "digests"
_NUMBER = np.dtype("<i8")
_NAMED = 3


class SeedWriter(FolderWriter):
    """Writes one folder. Use as a context manager: without `finish`, nothing is left behind.

    `shuffle_seed` orders the seeds by their keys alone; without it they stay as they come.
    """

    def __init__(self, folder: Path, shuffle_seed: int | None) -> None:
        super().__init__(folder, (_ROWS, _DIGESTS))
        self._shuffle_seed = shuffle_seed
        self._starts, self._ranks, self._digest = array("q", [0]), array("Q"), sha256()

    def add(self, seed: PlannedSeed) -> None:
        """Append a seed, whose texts hold no lone surrogates."""
        rounds = [_values(each) for each in seed.rounds]
        offered = [seed.tools] if seed.tools else []
        row = (
            json.dumps([seed.id, seed.key, rounds, seed.seed, *offered], ensure_ascii=False).encode() + b"\n"
        )
        told = json.dumps([seed.id, rounds, *offered], ensure_ascii=False)
        with explained("write", self.temp):
            self.files[_ROWS].write(row)
            self.files[_DIGESTS].write(digest_of(seed.key) + digest_of(told))
        self._digest.update(row)
        self._starts.append(self._starts[-1] + len(row))
        if self._shuffle_seed is not None:
            self._ranks.append(rank(self._shuffle_seed, "dialogue", seed.key))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Give the folder its name, replacing what exists."""
        order = np.arange(len(self))
        if self._shuffle_seed is not None:
            order = np.argsort(np.asarray(self._ranks), kind="stable")
        told = {"digest": self._digest.hexdigest(), "facts": dict(facts)}
        starts = np.asarray(self._starts)
        files = {"starts": starts.astype(_NUMBER).tobytes(), "order": order.astype(_NUMBER).tobytes()}
        self.finish_folder(files, told)


class StoredSeeds:
    """The seeds of a finished folder, in the planned order; iterate as often as you like. Close when done.

    Reads a seed when it is asked for and keeps none. `digest` is a SHA-256 over all ids and texts. `facts`
    are the preparation's counts: `records`, `bad` with the first `bad_records`, `equal`, `repeated` (ids),
    `skipped_files`.
    """

    def __init__(self, folder: Path) -> None:
        with explained("read", folder / FACTS):
            told = json.loads((folder / FACTS).read_text("utf-8"))
            self._starts = np.fromfile(folder / "starts", _NUMBER)
            self._order = np.fromfile(folder / "order", _NUMBER)
            self._rows = FileIO(folder / _ROWS)
        self.folder = folder
        self.digest: str = told["digest"]
        self.facts: dict[str, Any] = told["facts"]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> PlannedSeed:
        """Return the seed at this place, from 0. Raises IndexError past the last."""
        row = int(self._order[position])
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        with explained("read", self.folder / _ROWS):
            name, key, rounds, seed, *tools = json.loads(os.pread(self._rows.fileno(), end - start, start))
        return PlannedSeed(name, key, tuple(_round(*each) for each in rounds), seed, *tools)

    def __iter__(self) -> Iterator[PlannedSeed]:
        return (self[position] for position in range(len(self)))

    def sentences(self) -> list[str]:
        """Return the facts in words; what is zero is left out. The first one is always there."""
        facts = self.facts
        lines = [f"{counted(facts['records'], 'record')} → {counted(len(self), 'seed')}"]
        if facts["equal"]:
            lines.append(f"{counted(facts['equal'], 'seed')} equal to an earlier one")
        if facts["repeated"]:
            repeated = counted(facts["repeated"], "seed")
            lines.append(f"{repeated} with the id of an earlier one: made ids, `seed` has theirs")
        if facts["bad"]:
            lines.append(f"{counted(facts['bad'], 'bad record')}, as maxBadRecords allows; the first:")
            lines += facts["bad_records"][:_NAMED]
        lines += [f"not read: {unread_text(facts['unread'])}"] if facts.get("unread") else []
        return [*lines, *(f"file left out: {each}" for each in facts["skipped_files"])]

    @property
    def digests(self) -> Path:
        """A file of two digests per seed, in the input's order: of its key, and of its id and texts."""
        return self.folder / _DIGESTS

    def ids(self) -> Iterator[str]:
        """Yield the id of each seed, in the input's order."""
        with explained("read", self.folder / _ROWS), (self.folder / _ROWS).open("rb") as rows:
            for row in rows:
                yield json.loads(row)[0]

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _values(round_: SeedRound) -> list[Any]:
    """Return a round as it is written; with nothing new as it ever was, so that digests stay the same."""
    values: list[Any] = [round_.question, round_.answer, round_.correction, list(round_.truncated)]
    tools = [[pack_message(step) for step in round_.steps], [pack_call(call) for call in round_.calls]]
    if round_.reasoning or any(tools):
        values.append(dict(round_.reasoning))
    return [*values, *tools] if any(tools) else values


def _round(
    question: str,
    answer: str | None,
    correction: str | None,
    truncated: list[str],
    reasoning: Mapping[str, str] = MappingProxyType({}),
    steps: Sequence[Sequence[Any]] = (),
    calls: Sequence[Sequence[str]] = (),
) -> SeedRound:
    return SeedRound(
        question,
        answer,
        correction,
        tuple(truncated),
        dict(reasoning),
        tuple(unpack_message(*step) for step in steps),
        tuple(ToolCall(*call) for call in calls),
    )
