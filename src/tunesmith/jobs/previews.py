"""Answer previews with models that are not in training's memory, in a separate process.

When it exits, all device memory is free again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Self

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import PreviewSpec
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.hf.generate import preview_messages
from tunesmith.engines.model_process import ModelProcess

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession


class Previewer:
    """Answers previews with one model after the other. Use as a context manager; its process exits with it.

    `check` is called continuously and may raise.
    """

    def __init__(self, previews: Sequence[PreviewSpec], seed: int, check: Callable[[], None]) -> None:
        self._previews, self._seed = list(previews), seed
        self._process = ModelProcess("answers the previews", check)

    def replies(self, files: ModelFiles, source: ModelSource, day: date) -> dict[str, str]:
        """Return the model's reply to each preview, by its name. Raises what loading the model does."""
        return self._process.call(_replies, files, source, self._previews, self._seed, day)

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(*exception)


def show_previews(session: TrainingSession, who: str, replies: Mapping[str, str]) -> None:
    """Show replies to the previews, by the previews' names, on the page of the running job."""
    for preview in session.spec.previews:
        if preview.name in replies:
            messages = [message.as_dict() for message in preview_messages(preview)]
            session.progress.live.preview(preview.name, messages, who, replies[preview.name])


def _replies(
    files: ModelFiles, source: ModelSource, previews: list[PreviewSpec], seed: int, day: date
) -> dict[str, str]:
    import torch

    from tunesmith.engines.hf.generate import reply
    from tunesmith.engines.hf.load import load_for_generation
    from tunesmith.tokens.chat import ChatTokenizer

    tokenizer = ChatTokenizer.load(files.tokenizer, trust_remote_code=source.trust_remote_code, today=day)
    model = load_for_generation(files, source)
    try:
        return {
            preview.name: reply(model, tokenizer, preview_messages(preview), preview.generation, seed=seed)
            for preview in previews
        }
    finally:
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
