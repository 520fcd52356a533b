"""Push what a FineTuneJob exports to the hub, while this process shows that it lives and may be told to stop.

An upload takes as long as it takes, and the library says nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.hub.push import HubRepository, push
from tunesmith.jobs.secrets import hub_token

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession

_EVERY = 1.0


def repository_of(spec: FineTuneSpec) -> HubRepository:
    """Return the repository of `export.hub`, which must be set."""
    assert spec.export is not None
    assert spec.export.hub is not None
    wanted = spec.export.hub
    return HubRepository(wanted.repo_id, wanted.private, spec.hub.endpoint, spec.hub.offline, hub_token(spec))


def push_watched(
    session: TrainingSession, repository: HubRepository, files: Mapping[str, Path], message: str
) -> str:
    """Return the commit of `push`, which runs in a thread. Raises what it does, and StoppedError."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # a log is no terminal
    done = Future[str]()

    def work() -> None:
        try:
            done.set_result(push(repository, files, message))
        except BaseException as error:  # noqa: BLE001 - raised again below
            done.set_exception(error)

    Thread(target=work, name="push", daemon=True).start()
    while not wait([done], _EVERY).done:
        session.stop.check()
        session.hang_detector.beat(phase=f"pushing to {repository.name}")
    return done.result()
