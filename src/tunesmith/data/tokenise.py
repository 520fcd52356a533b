"""Items to tokens, checked: in this process while there are few, on all processors once there are many.

What comes out is the same wherever it was made. Knows nothing of files, splits and tables.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from tunesmith.data.place import BadRecord, Place, Skipped
from tunesmith.data.read import Item
from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError, TokenizerSource
from tunesmith.tokens.checks import check_sample
from tunesmith.tokens.conversation import Conversation, Document, Encoded, Sample

# So many characters are tokenised before other processes are started: that takes a second or two.
ALONE = 4_000_000
BATCH = 200_000
MOST_WORKERS = 16

Content = Conversation | Document
Read = Item | BadRecord | Skipped
Made = tuple[Item, Encoded] | BadRecord | Skipped


@dataclass(frozen=True, slots=True)
class Settings:
    """How contents become samples; the names are the manifest's. `vocab_size` is the model's, if known."""

    max_length: int
    train_on: str = "allAssistant"
    truncate_reply: bool = False
    vocab_size: int | None = None


def encode(
    tokenizer: ChatTokenizer, settings: Settings, place: Place, content: Content
) -> Encoded | BadRecord:
    """The samples of one content. Raises LabelError where labels are not what training needs."""
    try:
        return Encoded.of(_samples(tokenizer, place, content, settings))
    except RecordError as error:
        return BadRecord(place, error.message)


def _samples(tokenizer: ChatTokenizer, place: Place, content: Content, settings: Settings) -> list[Sample]:
    limit, truncate = settings.max_length, settings.truncate_reply
    if isinstance(content, Document):
        samples = tokenizer.document_samples(content, max_length=limit)
    else:
        samples = tokenizer.samples(
            content, train_on=settings.train_on, max_length=limit, truncate_reply=truncate
        )
    kind = "text" if isinstance(content, Document) else "chat"
    for sample in samples:
        try:
            check_sample(sample, tokenizer, kind, truncate_reply=truncate, vocab_size=settings.vocab_size)
        except LabelError as error:
            raise LabelError(f"{place}: {error.message}") from None
    return samples


class Tokeniser:
    """Encodes items in order. Use as a context manager: it may start processes, which end with it."""

    def __init__(self, tokenizer: ChatTokenizer, workers: int | None = None) -> None:
        self._tokenizer = tokenizer
        most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(most, MOST_WORKERS) if workers is None else workers
        self._alone = ALONE
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Tokeniser:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, items: Iterable[Read], settings: Settings) -> Iterator[Made]:
        """Each item with its samples, in order, among what the reader, or the tokenizer, found bad."""
        waiting: deque[tuple[list[Read], Future[list[Encoded | BadRecord]]]] = deque()
        for batch in _batches(items):
            if not self._helped(batch):
                yield from _joined(batch, [self._encode(item, settings) for item in _only(batch)])
                continue
            waiting.append((batch, self._submit(batch, settings)))
            if len(waiting) > 2 * self._workers:
                done, future = waiting.popleft()
                yield from _joined(done, future.result())
        for done, future in waiting:
            yield from _joined(done, future.result())

    def _encode(self, item: Item, settings: Settings) -> Encoded | BadRecord:
        return encode(self._tokenizer, settings, item.place, item.content)

    def _helped(self, batch: list[Read]) -> bool:
        """Whether other processes do it: only once there was a good deal, and where they can."""
        if self._pool is None and self._alone > 0:
            self._alone -= sum(map(_size, _only(batch)))
        return self._workers > 1 and self._tokenizer.source is not None and self._alone <= 0

    def _submit(self, batch: list[Read], settings: Settings) -> Future[list[Encoded | BadRecord]]:
        if self._pool is None:
            context = get_context("forkserver")
            context.set_forkserver_preload([__name__, "transformers.models.auto.tokenization_auto"])
            self._pool = ProcessPoolExecutor(
                self._workers, context, initializer=partial(_begin, self._tokenizer.source)
            )
        return self._pool.submit(_work, [(item.place, item.content) for item in _only(batch)], settings)


def _only(batch: Iterable[Read]) -> Iterator[Item]:
    return (item for item in batch if isinstance(item, Item))


def _size(item: Item) -> int:
    content = item.content
    if isinstance(content, Document):
        return len(content.text)
    return sum(len(message.content) for message in content.messages)


def _batches(items: Iterable[Read]) -> Iterator[list[Read]]:
    batch: list[Read] = []
    size = 0
    for item in items:
        batch.append(item)
        size += _size(item) if isinstance(item, Item) else 100
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _joined(batch: list[Read], encoded: list[Encoded | BadRecord]) -> Iterator[Made]:
    results = iter(encoded)
    for each in batch:
        if isinstance(each, Item):
            result = next(results)
            yield result if isinstance(result, BadRecord) else (each, result)
        else:
            yield each


# What follows runs in the other processes.

_TOKENIZER: list[ChatTokenizer] = []


def _begin(source: TokenizerSource | None) -> None:
    assert source is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started us says when to end
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _TOKENIZER[:] = [ChatTokenizer.load(source.folder, trust_remote_code=source.trusted, today=source.today)]


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(contents: list[tuple[Place, Content]], settings: Settings) -> list[Encoded | BadRecord]:
    return [encode(_TOKENIZER[0], settings, place, content) for place, content in contents]
