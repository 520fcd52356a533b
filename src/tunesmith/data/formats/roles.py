"""The role of a turn, under the names that public formats have for it. Does not depend on what it says."""

from __future__ import annotations

from tunesmith.data.formats.fields import Fields, text_field
from tunesmith.data.formats.tools import CALL_ROLES
from tunesmith.data.formats.turn_text import name_of
from tunesmith.data.record import RecordProblem

_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "bot", "chatgpt", "model", "bing", "bard", *CALL_ROLES),
    "system": ("system", "sys", "developer"),
    "tool": (
        "tool", "observation", "function", "function_response", "tool_response", "tool_result", "ipython",
    ),
}  # fmt: skip
ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
SIMPLE = ROLE_OF.keys() - set(CALL_ROLES)
"""Roles of turns whose text is what they say."""


def role_of(turn: Fields, name: str) -> str:
    """Return a turn's role. Raises RecordProblem."""
    field = name_of(turn, ("role", "from"), name)
    if field is None:
        raise RecordProblem(f"{name}.role is missing")
    given = text_field(turn, field, name)
    role = ROLE_OF.get(given) or ROLE_OF.get(given.strip().lower())
    if role is None:
        raise RecordProblem(f'{name}.{field} is "{given[:40]}"; valid are {", ".join(ROLE_OF)}')
    return role


def is_call(turn: Fields) -> bool:
    """Return whether the text of an assistant's turn is a call, by its role."""
    return str(turn.get("role") or turn.get("from")).strip().lower() in CALL_ROLES
