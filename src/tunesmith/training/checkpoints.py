"""Checkpoints in the output: published by a manifest written last, verified before they are used.

Each node uploads what its ranks wrote; rank 0 writes the manifest when all have, so a checkpoint is complete
or does not exist. uploads.py coordinates the ranks. The collectives are passed in, so that this file needs
no process group.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.artifacts.checkpoints import list_checkpoints, published_steps
from tunesmith.artifacts.publish import (
    FileInfo,
    fetch_verified,
    publish_manifest,
    read_manifest,
    unpublish,
)
from tunesmith.artifacts.store import Store, TransferProgress
from tunesmith.errors import CorruptObjectError, OutputConflictError
from tunesmith.names import MANIFEST_KEY, checkpoint_key

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others, and the two collectives needed here."""

    rank: int
    local_rank: int
    world: int
    gather: Callable[[Any], list[Any]]
    """Returns the values of all ranks, in order, on every rank."""


class Checkpoints:
    """The checkpoints of one output."""

    def __init__(
        self,
        store: Store,
        keep: int,
        ranks: Ranks,
        progress: TransferProgress | None = None,
        tied_by: str = "",
    ) -> None:
        """Initialise. `tied_by` is the setting for which only as many processes can resume; "" if any can."""
        self.store, self.ranks = store, ranks
        self.known: tuple[int, ...] = ()
        """Steps of published checkpoints, newest first, as last shared with all ranks."""
        self._keep, self._progress, self._tied_by = keep, progress, tied_by
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Return the steps of published checkpoints, newest first."""
        return published_steps(self.store)

    def clear(self, step: int) -> None:
        """Delete whatever exists of a checkpoint of this step.

        It is damaged, incomplete, or of an attempt that was thought dead.
        """
        unpublish(self.store, checkpoint_key(step))

    def publish(self, step: int, files: Sequence[FileInfo]) -> None:
        """Write the manifest of a checkpoint whose files are all uploaded."""
        extra = {"step": step, "world": self.ranks.world}
        publish_manifest(self.store, checkpoint_key(step), files, extra)
        self._damaged.discard(step)

    def delete_old(self, newest: int, best: int | None) -> tuple[int, ...]:
        """Delete checkpoints over the limit now that `newest` is published; return the steps that are left.

        Damaged ones are deleted too, and those that were never finished: nobody will finish them.
        """
        listed = list_checkpoints(self.store)
        published = {step for step, names in listed.items() if MANIFEST_KEY in names}
        whole = [step for step in listed if step in published and step not in self._damaged]
        kept = {step for step in whole if step == best} | set(whole[: self._keep])
        unfinished = {step for step in listed if step not in published and step < newest}
        for step in sorted(published - kept | unfinished):
            self.clear(step)
        self._damaged.clear()
        return tuple(step for step in whole if step in kept)

    def fetch(self, step: int, folder: Path) -> None:
        """Fetch one checkpoint into `folder` and verify it. Raises CorruptObjectError."""
        shutil.rmtree(folder, ignore_errors=True)
        fetch_verified(self.store, checkpoint_key(step), folder, self._progress)

    def newest(self, folder: Path) -> int | None:
        """Fetch the newest intact checkpoint into `folder/checkpoint-<step>`; return its step, or None.

        A damaged one is skipped with a warning, and deleted once another is published. Rank 0 decides; the
        first rank of each node fetches.
        Raises OutputConflictError if it can only be resumed by another number of processes.
        """
        here = self._newest_here(folder) if self.ranks.rank == 0 else None
        chosen: int | None
        chosen, self.known = self.ranks.gather(here)[0]
        if chosen is not None and self.ranks.rank != 0 and self.ranks.local_rank == 0:
            self.fetch(chosen, folder / checkpoint_key(chosen))
        self.ranks.gather(None)
        return chosen

    def _newest_here(self, folder: Path) -> tuple[int | None, tuple[int, ...]]:
        """Return the step of the newest intact checkpoint, and that step with all older ones."""
        steps = self.steps()
        for number, step in enumerate(steps):
            try:
                self._refuse_tied(step)
                self.fetch(step, folder / checkpoint_key(step))
            except CorruptObjectError as error:
                log.warning("Skipping damaged checkpoint %s: %s", step, error.message)
                self._damaged.add(step)
                continue
            return step, tuple(steps[number:])
        return None, ()

    def _refuse_tied(self, step: int) -> None:
        manifest = read_manifest(self.store, checkpoint_key(step)) if self._tied_by else None
        made_by = manifest.extra.get("world") if manifest else None
        if made_by in (None, self.ranks.world):
            return
        them = f"{made_by} process{'' if made_by == 1 else 'es'}"
        raise OutputConflictError(
            f"{checkpoint_key(step)} in {self.store.uri} was made by {them}, and this run has "
            f"{self.ranks.world}: {self._tied_by} ties it to that number. Run with {them}, or set "
            "output.onExisting: replace."
        )
