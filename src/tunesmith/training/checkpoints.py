"""Checkpoints in the output: published by a manifest written last, verified before they are used.

Each node uploads what its ranks wrote; rank 0 writes the manifest when all have, so a checkpoint is there
whole or not at all. The collectives are handed in, so that this file needs no process group of its own.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.artifacts.publish import (
    FileInfo,
    fetch_verified,
    publish_manifest,
    read_manifest,
    unpublish,
)
from tunesmith.artifacts.store import Store
from tunesmith.artifacts.transfer import put_tree
from tunesmith.errors import CorruptObjectError, OutputConflictError
from tunesmith.names import CHECKPOINT_PREFIX, MANIFEST_KEY, checkpoint_key

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others, and the two collectives needed here."""

    rank: int
    local_rank: int
    world: int
    gather: Callable[[Any], list[Any]]
    """Values of all ranks, in order, on every rank."""


ALONE = Ranks(0, 0, 1, lambda value: [value])


class Checkpoints:
    """The checkpoints of one output."""

    def __init__(self, store: Store, keep: int, ranks: Ranks) -> None:
        self._store, self._keep, self._ranks = store, keep, ranks
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Steps of published checkpoints, newest first."""
        found = []
        for entry in self._store.list(CHECKPOINT_PREFIX):
            folder, _, name = entry.key.partition("/")
            step = folder.removeprefix(CHECKPOINT_PREFIX)
            if name == MANIFEST_KEY and step.isdigit():
                found.append(int(step))
        return sorted(found, reverse=True)

    def publish(self, step: int, folder: Path, best: int | None) -> None:
        """Upload what the ranks wrote into `folder`, publish it, then delete what is over the limit.

        One of this step that is there already (damaged, or of an attempt that was thought dead) makes way.
        Called by every rank; returns when the checkpoint is there for all.
        """
        if self._ranks.rank == 0:
            unpublish(self._store, checkpoint_key(step))
        self._ranks.gather(None)  # all ranks have written
        mine: Sequence[FileInfo] = []
        if self._ranks.local_rank == 0:
            mine = put_tree(self._store, folder, checkpoint_key(step))
        everyone = [info for infos in self._ranks.gather(list(mine)) for info in infos]
        if self._ranks.rank == 0:
            extra = {"step": step, "world": self._ranks.world}
            prefix = checkpoint_key(step)
            publish_manifest(self._store, prefix, _within(prefix, everyone), extra)
            self._damaged.discard(step)
            self._delete_old(best)
            log.info("Checkpoint %s is published.", prefix)
        self._ranks.gather(None)

    def _delete_old(self, best: int | None) -> None:
        whole = [step for step in self.steps() if step not in self._damaged]
        for step in [*self._damaged, *whole[self._keep :]]:
            if step != best:
                unpublish(self._store, checkpoint_key(step))
        self._damaged.clear()

    def fetch(self, step: int, folder: Path) -> None:
        """One checkpoint, verified, into `folder`. Raises CorruptObjectError."""
        shutil.rmtree(folder, ignore_errors=True)
        fetch_verified(self._store, checkpoint_key(step), folder)

    def newest(self, folder: Path) -> int | None:
        """Fetch the newest checkpoint that is whole into `folder/checkpoint-<step>`; its step, or None.

        A damaged one is passed over, saying so, and deleted once another is published. Rank 0's word decides;
        the first rank of each node fetches.
        Raises OutputConflictError when it was made by another number of processes.
        """
        step = self._newest_here(folder) if self._ranks.rank == 0 else None
        chosen: int | None = self._ranks.gather(step)[0]
        if chosen is not None and self._ranks.rank != 0 and self._ranks.local_rank == 0:
            self.fetch(chosen, folder / checkpoint_key(chosen))
        self._ranks.gather(None)
        return chosen

    def _newest_here(self, folder: Path) -> int | None:
        for step in self.steps():
            try:
                self._check_world(step)
                self.fetch(step, folder / checkpoint_key(step))
            except CorruptObjectError as error:
                log.warning("Checkpoint %s is damaged and is passed over: %s", step, error.message)
                self._damaged.add(step)
                continue
            return step
        return None

    def _check_world(self, step: int) -> None:
        manifest = read_manifest(self._store, checkpoint_key(step))
        made_by = manifest.extra.get("world") if manifest else None
        if made_by is not None and made_by != self._ranks.world:
            raise OutputConflictError(
                f"{checkpoint_key(step)} in {self._store.uri} was made by {made_by} processes; this run has "
                f"{self._ranks.world}. Run with {made_by} processes, or set output.onExisting: replace."
            )


def _within(prefix: str, files: Sequence[FileInfo]) -> list[FileInfo]:
    """Keys relative to the checkpoint, whichever way the transfer named them."""
    head = prefix + "/"
    return [FileInfo(info.key.removeprefix(head), info.size, info.sha256) for info in files]
