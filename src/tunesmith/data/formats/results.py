"""Results of tools among the parts of a user's turn, as Anthropic has them."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.data.formats.fields import Fields
from tunesmith.data.formats.turn_text import part_text, result_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message


def has_results(content: object) -> bool:
    """Return whether the content of a user's turn is parts with results of tools."""
    return isinstance(content, list) and any(map(_is_result, content))


def result_turns(turn: Fields, field: str, name: str, label: str) -> list[Message]:
    """Return a turn that `has_results` as those of the tools and, if there is text, the user's.

    Raises RecordProblem unless the results come first, as Anthropic wants them.
    """
    turns, text = list[Message](), ""
    for index, part in enumerate(turn[field]):
        inside = f"{name}[{index}]"
        if not _is_result(part):
            text += part_text(turn, part, inside, label)
        elif text:
            raise RecordProblem(f"{inside} is a result after text; put it before the text")
        else:
            turns.append(_result(turn.part(part, label), inside, label))
    return [*turns, Message("user", text)] if text else turns


def _is_result(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "tool_result"


def _result(part: Fields, name: str, label: str) -> Message:
    part.know("type")
    given, id_ = part.get("content"), part.get("tool_use_id")
    said = "" if given is None else result_of(part, "content", f"{name}.content", label)
    return Message("tool", said, call_id="" if id_ is None else str(id_))
