"""The values passed from readers to the trainer: messages, conversations, samples of tokens."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call in an assistant's turn. `arguments` is a JSON object as text."""

    name: str
    arguments: str = "{}"
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the call in OpenAI's format, with its arguments as an object."""
        function = {"name": self.name, "arguments": json.loads(self.arguments)}
        return {"type": "function", "function": function, **({"id": self.id} if self.id else {})}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` matters for an assistant's turn only: 0 makes it context, 1 is the default.

    Thoughts are part of `content`, between `<think>` and `</think>`, however a template renders them.
    `calls` are an assistant's tool calls; `name` and `call_id` identify the call that a tool's turn answers.
    """

    role: str
    content: str
    weight: float = 1.0
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the turn: its content, then the names and arguments of its calls."""
        return self.content, *(text for call in self.calls for text in (call.name, call.arguments))

    @property
    def shown(self) -> str:
        """The turn as displayed to people: its content, then one line per call."""
        return "\n".join([*filter(None, [self.content]), *(f"{c.name}({c.arguments})" for c in self.calls)])

    def as_dict(self) -> dict[str, Any]:
        """Return the turn in OpenAI's format."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls:
            turn["tool_calls"] = [call.as_dict() for call in self.calls]
        if self.name:
            turn["name"] = self.name
        if self.call_id:
            turn["tool_call_id"] = self.call_id
        return turn


@dataclass(frozen=True, slots=True)
class Block:
    """A titled part of a system message.

    With `cut` 0 it is kept whole; otherwise its lines may be dropped, the oldest first and from the block
    with the lowest `cut` first, until `keep` are left. A block without lines is not rendered.
    """

    title: str
    lines: tuple[str, ...]
    cut: int = 0
    keep: int = 0

    def text(self, dropped: int = 0) -> str:
        """Return title and lines without the first `dropped` ones; "" if no line is left."""
        lines = self.lines[dropped:]
        return "\n".join([self.title, *lines] if self.title else lines) if lines else ""


@dataclass(frozen=True, slots=True)
class SystemText:
    """A system message made of blocks, some of which may be shortened to fit."""

    blocks: tuple[Block, ...]

    def text(self, dropped: int = 0) -> str:
        """Return the message without its first `dropped` droppable lines."""
        left = dict.fromkeys(range(len(self.blocks)), 0)
        for at in sorted(left, key=lambda at: self.blocks[at].cut):
            block = self.blocks[at]
            if block.cut:
                left[at] = min(dropped, max(0, len(block.lines) - block.keep))
                dropped -= left[at]
        parts = [block.text(left[at]) for at, block in enumerate(self.blocks)]
        return "\n\n".join(part for part in parts if part)

    @property
    def droppable(self) -> int:
        """The number of lines that may be dropped."""
        return sum(max(0, len(block.lines) - block.keep) for block in self.blocks if block.cut)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order. At least one assistant turn has a weight above zero.

    `system` is the source of the first message, if that may be shortened. With `merge` false every trained
    reply is a separate sample, even if the turns' token sequences continue each other. `opening` is the user
    turn inserted before an assistant's first turn if the model's template rejects conversations that start
    with the assistant. `tools` is a JSON list of the tools that the model is offered, `arguments` a JSON
    object of further values for the chat template; "" for none. With `learn_thoughts` false the thoughts of a
    reply are context.
    """

    messages: tuple[Message, ...]
    system: SystemText | None = None
    merge: bool = True
    opening: str = ""
    tools: str = ""
    arguments: str = ""
    learn_thoughts: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text in which every token is a label, after a `prompt` that is context."""

    text: str
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sequence.

    `ids` are token ids, shape (n,). `weights`, shape (n,), is the weight of the loss of *predicting*
    `ids[t]` from what comes before; 0 means the token is context. `weights[0]` is always 0.
    `cut_tokens` is the number of tokens of context that did not fit and were left out (0: nothing was).
    """

    ids: list[int]
    weights: list[float]
    cut_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Concatenated samples, as they are written to disk and passed between processes.

    `ids` is int32 and `weights` float32, both (tokens,) in native byte order. For each sample: its length,
    its number of labels, the tokens of context that were left out, and a 64-bit hash of its ids.
    """

    ids: bytes
    weights: bytes
    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    cut: tuple[int, ...]
    hashes: tuple[int, ...]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self:
        """Pack samples one after another."""
        ids, weights = bytearray(), bytearray()
        lengths, labels, cut, hashes = array("q"), array("q"), array("q"), array("q")
        for sample in samples:
            packed = array("i", sample.ids).tobytes()
            ids += packed
            weights += array("f", sample.weights).tobytes()
            lengths.append(len(sample.ids))
            labels.append(len(sample.weights) - sample.weights.count(0.0))
            cut.append(sample.cut_tokens)
            hashes.append(_hash(packed))
        return cls(bytes(ids), bytes(weights), *(tuple(each) for each in (lengths, labels, cut, hashes)))


def _hash(ids: bytes) -> int:
    return int.from_bytes(blake2b(ids, digest_size=8).digest(), "little", signed=True)
