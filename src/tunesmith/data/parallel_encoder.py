"""Encode and check items: in this process if there are few, on all processors if there are many.

The result is the same either way. Does not depend on files, splits and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data.lengths import too_long
from tunesmith.data.read import Item, ReadResult
from tunesmith.data.record import BadRecord, Skipped
from tunesmith.data.tokenizer_pool import TokenizerPool, worker_tokenizer
from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.checks import Checker, SampleError
from tunesmith.tokens.conversation import Conversation, Document, Encoded, Message

BATCH = 60_000

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
        self._tokenizer, self._pool = tokenizer, TokenizerPool(tokenizer, workers, __name__)

    def __enter__(self) -> ParallelEncoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def expect(self, size: int) -> None:
        """Set the expected bytes of input: for many, other processes are started."""
        self._pool.expect(size)

    def encode(self, items: Iterable[ReadResult], settings: EncodingSettings) -> Iterator[EncodeResult]:
        """Yield each item with its samples, in order, among what the reader, or the tokenizer, found bad."""
        for batch, encoded in self._pool.ordered(
            _batches(items),
            lambda batch: encode_all(self._tokenizer, settings, _contents(batch)),
            lambda batch: (_work, ([_packed(content) for content in _contents(batch)], settings)),
        ):
            yield from _joined(batch, encoded)


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


def _work(contents: list[PackedContent], settings: EncodingSettings) -> list[Encoded | str]:
    """Encode contents in a worker process."""
    return encode_all(worker_tokenizer(), settings, [_unpacked(content) for content in contents])
