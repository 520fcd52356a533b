"""The values that flow from readers to the trainer: messages, conversations, samples of tokens."""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` counts for an assistant's turn only: 0 makes it context, 1 is usual."""

    role: str
    content: str
    weight: float = 1.0

    def as_dict(self) -> dict[str, str]:
        """The form chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order. At least one assistant turn has a weight above zero."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text in which every token is a label."""

    text: str


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
