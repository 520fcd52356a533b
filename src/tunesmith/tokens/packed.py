"""Messages as short JSON lists, for files of millions of them. What a message lacks is not written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.tokens.conversation import Message, ToolCall


def pack_call(call: ToolCall) -> list[str]:
    """Return a call as `ToolCall(*packed)` takes it."""
    return [call.name, call.arguments, call.id]


def pack_message(message: Message) -> list[Any]:
    """Return a message without its weight: role, content, and calls, name and call id if there are any."""
    more = [[pack_call(call) for call in message.calls], message.name, message.call_id]
    return [message.role, message.content, *(more if any(more) else ())]


def unpack_message(
    role: str, content: str, calls: Sequence[Sequence[str]] = (), name: str = "", call_id: str = ""
) -> Message:
    """Return the message that `pack_message` has packed."""
    return Message(role, content, 1.0, tuple(ToolCall(*call) for call in calls), name, call_id)
