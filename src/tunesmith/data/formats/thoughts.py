"""Thoughts of replies: in a field of their own or in the text, learned, context or left out.

Does not depend on how a chat template writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunesmith.data.formats.fields import named, same_text
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.thoughts import (
    CLOSES_THOUGHT,
    KNOWN,
    OPENS_THOUGHT,
    THINK,
    SplitReply,
    Tags,
    split,
    thought_of,
    with_thought,
)

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts")
"""Names of the field."""


def with_thoughts(turn: Mapping[str, object], text: str, name: str) -> str:
    """Return a reply's text, after the thoughts that the turn has in a field of their own.

    Raises RecordProblem if the text holds other thoughts.
    """
    thought, field = same_text(turn, THOUGHTS, name)
    return after_thought(thought, text, named(field, name))


def after_thought(thought: str, text: str, name: str) -> str:
    """Return a reply's text after a thought that stands apart from it, as `name`.

    Raises RecordProblem if the text holds other thoughts.
    """
    if not thought.strip():
        return text
    if _split(text) is None:
        return with_thought(thought, text)
    found = thought_of(Message("assistant", text))
    if found is None or found[1].strip() != thought.strip():
        raise RecordProblem(f"{name} and the text both hold thoughts; keep one of them")
    return text


def chosen_thoughts(messages: Sequence[Message], thoughts: str) -> list[Message]:
    """Return the turns with the thoughts that `thoughts` ("learn", "context", "drop") leaves them.

    Raises RecordProblem for a reply whose thoughts cannot be told from its answer.
    """
    return [
        _chosen(message, thoughts, f"reply in message {number}") if message.role == "assistant" else message
        for number, message in enumerate(messages, 1)
    ]


def _chosen(message: Message, thoughts: str, name: str) -> Message:
    found = _split(message.content, (THINK,) if thoughts == "learn" else KNOWN)
    if found is None:
        return message
    begins = message.content.lstrip().startswith(OPENS_THOUGHT)
    if found.unended and (thoughts != "learn" or (begins and message.weight > 0)):
        raise RecordProblem(
            f"the {name} opens thoughts and does not close them, so its answer cannot be told from them; "
            "close them, or remove the record"
        )
    if thoughts == "drop":
        return replace(message, content=found.answer)
    if thoughts == "context" and message.weight > 0:
        first = thought_of(message)
        rest = _split(message.content if first is None else first[2], KNOWN)
        if rest is not None and (rest.reasoning or rest.unended):
            raise RecordProblem(
                f"the {name} has thoughts elsewhere than between {OPENS_THOUGHT} and {CLOSES_THOUGHT} at its "
                "beginning, so they cannot be context; learn or drop them"
            )
    return message


def _split(text: str, tags: Sequence[Tags] = (THINK,)) -> SplitReply | None:
    """Return the parts of a reply that thinks; None for others, also if they mention the tags in quotes."""
    if not any(tag.begin in text or tag.end in text for tag in tags):
        return None
    found = split(text, tags)
    return found if found.unended or found.answer != text.strip() else None
