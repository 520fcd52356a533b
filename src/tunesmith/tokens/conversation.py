"""The values that flow from readers to the trainer: messages, conversations, samples of tokens."""

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
    """One call of a tool in an assistant's turn. `arguments` is a JSON object as text."""

    name: str
    arguments: str = "{}"
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the call as OpenAI writes it, with its arguments as an object."""
        function = {"name": self.name, "arguments": json.loads(self.arguments)}
        return {"type": "function", "function": function, **({"id": self.id} if self.id else {})}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` counts for an assistant's turn only: 0 makes it context, 1 is usual.

    Thoughts are part of `content`, between `<think>` and `</think>`, whatever a template makes of them.
    `calls` are an assistant's; `name` and `call_id` say of which call a tool's turn is the result.
    """

    role: str
    content: str
    weight: float = 1.0
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return all that the turn says: its content, then the names and arguments of its calls."""
        return self.content, *(text for call in self.calls for text in (call.name, call.arguments))

    @property
    def shown(self) -> str:
        """Return what people are shown of the turn: its content, then a line for each call."""
        return "\n".join([*filter(None, [self.content]), *(f"{c.name}({c.arguments})" for c in self.calls)])

    def as_dict(self) -> dict[str, Any]:
        """Return the turn as OpenAI writes it."""
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

    `cut` 0 keeps it whole; else its lines may go, the oldest first, from the block with the lowest `cut`
    first, until `keep` are left. A block without lines is not shown.
    """

    title: str
    lines: tuple[str, ...]
    cut: int = 0
    keep: int = 0

    def text(self, dropped: int = 0) -> str:
        """Title and lines without the first `dropped` ones; empty if no line is left."""
        lines = self.lines[dropped:]
        return "\n".join([self.title, *lines] if self.title else lines) if lines else ""


@dataclass(frozen=True, slots=True)
class SystemText:
    """A system message made of blocks, some of which may be shortened where room is short."""

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
        """Return how many lines may go."""
        return sum(max(0, len(block.lines) - block.keep) for block in self.blocks if block.cut)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order. At least one assistant turn has a weight above zero.

    `system` is what the first message was made of, where it may be shortened. With `merge` false every
    trained reply is a sample of its own, though the turns' token sequences continue each other. `opening`
    is said before an assistant's first turn where the model's template refuses to begin with one. `tools` is
    a JSON list of the tools that the model is shown, `arguments` a JSON object of further values for the chat
    template; "" for none. With `learn_thoughts` false the thoughts of a reply are context.
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
    `cut_tokens` says how many tokens of context did not fit and were left out (0: nothing was cut).
    """

    ids: list[int]
    weights: list[float]
    cut_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Samples end to end, as they go to the disk and from one process to another.

    `ids` is int32 and `weights` float32, both (tokens,) in the machine's order. For each sample: its length,
    its number of labels, the tokens of context that were cut, and a 64-bit hash of its ids.
    """

    ids: bytes
    weights: bytes
    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    cut: tuple[int, ...]
    hashes: tuple[int, ...]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self:
        """Pack samples, one after the other."""
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
