"""The token ids of prompts, on all processors if there are many. Does not depend on records and files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from tunesmith.data.prompts.formats import RecordPrompt
from tunesmith.data.tokenizer_pool import TokenizerPool, worker_tokenizer
from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.control import refuse_control
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import Encoder, pattern_of
from tunesmith.tokens.packed import pack_message, unpack_message
from tunesmith.tokens.thoughts import THOUGHT_TAGS

BATCH = 60_000
"""Characters of prompts that are worth a message to another process."""
_ID_TYPE = np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class _Offered:
    """What the ids of a prompt are made from."""

    messages: Sequence[Message]
    tools: str
    arguments: str


class HasPrompts(Protocol):
    """A record's prompts; none for a record that is bad or left out."""

    @property
    def prompts(self) -> Sequence[RecordPrompt]:
        """The prompts whose ids are wanted."""
        ...


Ids = list[int] | str
"""A prompt's ids, or why there are none."""
Asking = TypeVar("Asking", bound=HasPrompts)


class PromptIds:
    """Makes ids by one tokenizer, in this process."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer, self._control = tokenizer, _control_tokens(tokenizer)

    def of(self, asked: RecordPrompt | _Offered) -> Ids:
        """Return a prompt's ids, or why it has none. Raises ModelError without a chat template."""
        try:
            return self._ids(asked)
        except RecordError as error:
            return error.message

    def _ids(self, asked: RecordPrompt | _Offered) -> Ids:
        for message in asked.messages:
            for text in message.texts:
                refuse_control(text, f"a message of role {message.role}", self._control)
        refuse_control(asked.tools, "a tool", self._control)
        tokenizer = self._tokenizer
        if asked.tools or asked.arguments:
            tokenizer = tokenizer.given(asked.tools, asked.arguments)
        ids = tokenizer.whole_prompt_ids(asked.messages)
        return ids or "the model's chat template renders this conversation as an empty prompt"


class ParallelPrompts:
    """Makes the ids of records' prompts in order. Use as a context manager: it may start processes."""

    def __init__(self, tokenizer: ChatTokenizer, workers: int | None = None) -> None:
        self._here, self._pool = PromptIds(tokenizer), TokenizerPool(tokenizer, workers, __name__)

    def __enter__(self) -> ParallelPrompts:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def expect(self, size: int) -> None:
        """Set the expected bytes of input: for many, other processes are started."""
        self._pool.expect(size)

    def encode(self, records: Iterable[Asking]) -> Iterator[tuple[Asking, list[Ids]]]:
        """Yield each record with the ids of its prompts. Raises ModelError without a chat template."""
        for batch, encoded in self._pool.ordered(
            _batches(records),
            lambda batch: [self._here.of(asked) for asked in _prompts(batch)],
            lambda batch: (_work, ([_packed(asked) for asked in _prompts(batch)],)),
        ):
            yield from _joined(batch, encoded)


def _prompts(batch: Iterable[HasPrompts]) -> Iterator[RecordPrompt]:
    return (asked for record in batch for asked in record.prompts)


def _batches(records: Iterable[Asking]) -> Iterator[list[Asking]]:
    batch: list[Asking] = []
    size = 0
    for record in records:
        batch.append(record)
        size += 100 + sum(_size(asked) for asked in record.prompts)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(asked: RecordPrompt) -> int:
    return len(asked.tools) + sum(len(text) for message in asked.messages for text in message.texts)


def _joined(
    batch: Sequence[Asking], encoded: Callable[[], list[bytes | Ids]]
) -> Iterator[tuple[Asking, list[Ids]]]:
    results = iter(encoded())
    for record in batch:
        yield record, [_unpacked(next(results)) for _ in record.prompts]


def _control_tokens(tokenizer: ChatTokenizer) -> re.Pattern[str]:
    markers: frozenset[str] = frozenset()
    with suppress(ModelError):  # a template that cannot be trained with may still work for generation
        markers = tokenizer.shape.markers
    return pattern_of(list({*Encoder(tokenizer.tokenizer).special, *markers}.difference(THOUGHT_TAGS)))


# Plain lists and bytes are pickled faster than messages and lists of numbers.


def _packed(asked: RecordPrompt) -> tuple[list[list[Any]], str, str]:
    return [pack_message(message) for message in asked.messages], asked.tools, asked.arguments


def _unpacked(result: bytes | Ids) -> Ids:
    return np.frombuffer(result, _ID_TYPE).tolist() if isinstance(result, bytes) else result


_IDS: list[PromptIds] = []


def _work(prompts: list[tuple[list[list[Any]], str, str]]) -> list[bytes | str]:
    """Return the ids of prompts, or why there are none, in a worker process."""
    if not _IDS:
        _IDS.append(PromptIds(worker_tokenizer()))
    found = (
        _IDS[0].of(_Offered([unpack_message(*message) for message in messages], tools, arguments))
        for messages, tools, arguments in prompts
    )
    return [ids if isinstance(ids, str) else np.asarray(ids, _ID_TYPE).tobytes() for ids in found]
