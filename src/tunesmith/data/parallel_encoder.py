"""Encode and check items: in this process if there are few, on all processors if there are many.

The result is the same either way. Does not depend on files, splits and tables.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from tunesmith.data.lengths import too_long
from tunesmith.data.read import Item, ReadResult
from tunesmith.data.record import BadRecord, Skipped
from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.checks import Checker, SampleError
from tunesmith.tokens.conversation import Conversation, Document, Encoded, Message
from tunesmith.tokens.source import TokenizerSource

# Input above this size is worth the second or two that other processes need to start.
WORTH_HELP = 8_000_000
BATCH = 60_000
MOST_WORKERS = 16

Content = Conversation | Document
EncodeResult = tuple[Item, Encoded] | BadRecord | Skipped


@dataclass(frozen=True, slots=True)
class EncodingSettings:
    """Settings for making samples from contents, by the manifest's names.

    `vocab_size` and `positions` are the model's, if known.
    """

    max_length: int
    train_on: str = "allAssistant"
    truncate_reply: bool = False
    vocab_size: int | None = None
    truncate_prompt: bool = True
    positions: int | None = None


def encode_all(
    tokenizer: ChatTokenizer, settings: EncodingSettings, contents: Sequence[Content]
) -> list[Encoded | str]:
    """Return the samples of contents of one dataset, or why there are none.

    Raises SampleError, whose index is that of the content, if labels are not what training needs.
    """
    with tokenizer.ahead(contents, settings.train_on):
        encoded = [_encode(tokenizer, settings, content) for content in contents]
    if any(isinstance(each, Encoded) for each in encoded):
        _check(tokenizer, settings, encoded, "text" if isinstance(contents[0], Document) else "chat")
    return encoded


def _encode(tokenizer: ChatTokenizer, settings: EncodingSettings, content: Content) -> Encoded | str:
    limit = settings.max_length
    try:
        if isinstance(content, Document):
            encoded = Encoded.of(
                tokenizer.document_samples(
                    content,
                    max_length=limit,
                    truncate_reply=settings.truncate_reply,
                    truncate_prompt=settings.truncate_prompt,
                )
            )
        else:
            samples = tokenizer.samples(
                content,
                train_on=settings.train_on,
                max_length=limit,
                truncate_reply=settings.truncate_reply,
                truncate_prompt=settings.truncate_prompt,
            )
            encoded = Encoded.of(samples)
    except RecordError as error:
        return error.message
    return too_long(max(encoded.lengths), limit, settings.positions) or encoded


def _check(
    tokenizer: ChatTokenizer, settings: EncodingSettings, encoded: Sequence[Encoded | str], kind: str
) -> None:
    """Check all samples at once."""
    good = [(at, each) for at, each in enumerate(encoded) if isinstance(each, Encoded)]
    ids = np.frombuffer(b"".join(each.ids for _, each in good), np.int32)
    weights = np.frombuffer(b"".join(each.weights for _, each in good), np.float32)
    lengths = [length for _, each in good for length in each.lengths]
    try:
        Checker(tokenizer, settings.vocab_size).check(
            ids, weights, lengths, kind, truncate_reply=settings.truncate_reply
        )
    except SampleError as error:
        owners = [at for at, each in good for _ in each.lengths]
        raise SampleError(owners[error.index], error.message) from None


class ParallelEncoder:
    """Encodes items in order. Use as a context manager: it may start processes, which exit with it."""

    def __init__(self, tokenizer: ChatTokenizer, workers: int | None = None) -> None:
        self._tokenizer = tokenizer
        most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(most, MOST_WORKERS) if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None
        self._starting: list[Future[None]] = []

    def __enter__(self) -> ParallelEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def expect(self, size: int) -> None:
        """Set the expected bytes of input: for many, other processes are started."""
        if size < WORTH_HELP or self._workers < 2 or self._tokenizer.source is None:
            return
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__, "transformers.models.auto.tokenization_auto"])
        self._pool = ProcessPoolExecutor(
            self._workers, context, initializer=partial(_begin, self._tokenizer.source)
        )
        self._starting = [self._pool.submit(_nothing) for _ in range(self._workers)]

    def encode(self, items: Iterable[ReadResult], settings: EncodingSettings) -> Iterator[EncodeResult]:
        """Yield each item with its samples, in order, among what the reader, or the tokenizer, found bad."""
        waiting: deque[tuple[list[ReadResult], Future[list[Encoded | str]]]] = deque()
        for batch in _batches(items):
            if not self._helped():
                yield from _joined(batch, partial(encode_all, self._tokenizer, settings, _contents(batch)))
                continue
            waiting.append((batch, self._submit(batch, settings)))
            if len(waiting) > 2 * self._workers:
                done, future = waiting.popleft()
                yield from _joined(done, future.result)
        for done, future in waiting:
            yield from _joined(done, future.result)

    def _helped(self) -> bool:
        """Return whether other processes do it: until they have started, this one does."""
        return self._pool is not None and all(future.done() for future in self._starting)

    def _submit(self, batch: list[ReadResult], settings: EncodingSettings) -> Future[list[Encoded | str]]:
        assert self._pool is not None
        return self._pool.submit(_work, [_packed(content) for content in _contents(batch)], settings)


def _only(batch: Iterable[ReadResult]) -> Iterator[Item]:
    return (item for item in batch if isinstance(item, Item))


def _contents(batch: Iterable[ReadResult]) -> list[Content]:
    return [item.content for item in _only(batch)]


# There are millions of plain conversations, and tuples of strings are pickled much faster than objects.
PackedContent = Document | tuple[tuple[tuple[Any, ...], ...], tuple[Any, ...]]
_PACKED = ("system", "merge", "opening", "tools", "arguments", "learn_thoughts")


def _packed(content: Content) -> PackedContent:
    if isinstance(content, Document):
        return content
    return tuple(map(_packed_message, content.messages)), tuple(getattr(content, name) for name in _PACKED)


def _packed_message(message: Message) -> tuple[Any, ...]:
    plain = (message.role, message.content, message.weight)
    more = (message.calls, message.name, message.call_id)
    return (*plain, *more) if any(more) else plain


def _unpacked(packed: PackedContent) -> Content:
    if isinstance(packed, Document):
        return packed
    messages, rest = packed
    return Conversation(tuple(Message(*message) for message in messages), *rest)


def _size(item: Item) -> int:
    content = item.content
    if isinstance(content, Document):
        return len(content.prompt) + len(content.text)
    return len(content.tools) + sum(len(text) for message in content.messages for text in message.texts)


def _batches(items: Iterable[ReadResult]) -> Iterator[list[ReadResult]]:
    batch: list[ReadResult] = []
    size = 0
    for item in items:
        batch.append(item)
        size += _size(item) if isinstance(item, Item) else 100
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _joined(batch: list[ReadResult], encode: Callable[[], list[Encoded | str]]) -> Iterator[EncodeResult]:
    """Put the results of a batch's items in their places."""
    try:
        results = iter(encode())
    except SampleError as error:
        raise LabelError(f"{list(_only(batch))[error.index].place}: {error.message}") from None
    for each in batch:
        if isinstance(each, Item):
            result = next(results)
            yield BadRecord(each.place, result) if isinstance(result, str) else (each, result)
        else:
            yield each


# What follows runs in the worker processes.

_TOKENIZER: list[ChatTokenizer] = []


def _begin(source: TokenizerSource | None) -> None:
    assert source is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to exit
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _TOKENIZER[:] = [ChatTokenizer.load(source.folder, trust_remote_code=source.trusted, today=source.today)]


def _nothing() -> None:
    """Do nothing: when this first task is done, the process has started."""


def _end_with_parent() -> None:
    """Exit if the parent was killed; else the process would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(contents: list[PackedContent], settings: EncodingSettings) -> list[Encoded | str]:
    return encode_all(_TOKENIZER[0], settings, [_unpacked(content) for content in contents])
