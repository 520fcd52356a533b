"""Replies of a model to the previews where no training has it in memory: in a process of its own.

When that process ends, all memory of the device is free again for the next model or engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from multiprocessing import get_context

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import PreviewSpec
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import TemporaryError
from tunesmith.jobs.world import die_with_parent
from tunesmith.names import Reason

_EVERY = 0.2


def preview_replies(
    files: ModelFiles,
    source: ModelSource,
    previews: Sequence[PreviewSpec],
    *,
    seed: int,
    day: date,
    check: Callable[[], None],
) -> dict[str, str]:
    """The model's reply to each preview, by its name. `check` is called all the time and may raise."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
        future = pool.submit(_replies, files, source, list(previews), seed, day)
        try:
            while not future.done():
                check()
                time.sleep(_EVERY)
            return future.result()
        except BrokenProcessPool:
            raise TemporaryError(
                "The process that answers the previews was killed, which mostly means that memory ran out.",
                reason=Reason.PROCESS_DIED,
            ) from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise


def _replies(
    files: ModelFiles, source: ModelSource, previews: list[PreviewSpec], seed: int, day: date
) -> dict[str, str]:
    from tunesmith.engines.batched_load import load_for_generation
    from tunesmith.engines.generate import preview_messages, reply
    from tunesmith.tokens.chat import ChatTokenizer

    tokenizer = ChatTokenizer.load(files.tokenizer, trust_remote_code=source.trust_remote_code, today=day)
    model = load_for_generation(files, source)
    return {
        preview.name: reply(model, tokenizer, preview_messages(preview), preview.generation, seed=seed)
        for preview in previews
    }
