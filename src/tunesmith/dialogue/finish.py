"""Why a reply has ended, by the server's `finish_reason`: whole, truncated at its token limit, or blocked.

Known good values are listed. Any other value, or a missing one, means that the server has failed.
"""

from __future__ import annotations

from enum import Enum


class Finish(Enum):
    """The meaning of a `finish_reason`."""

    WHOLE = "whole"
    CUT = "cut"
    BLOCKED = "blocked"
    BROKEN = "broken"


WHOLE = frozenset(
    {
        "stop", "eos", "eos_token", "end_turn", "end_of_turn", "stop_sequence", "stop_token", "stop_str",
        "complete", "completed", "done", "normal",
    }
)  # fmt: skip
CUT = frozenset(
    {
        "length", "max_tokens", "max_token", "model_length", "max_length", "max_output_tokens",
        "max_new_tokens", "token_limit", "model_context_window_exceeded", "context_length",
    }
)  # fmt: skip
_BLOCKED = (
    "content_filter", "safety", "prohibited_content", "recitation", "blocklist", "spii", "image_safety",
    "sensitive", "refusal", "guardrail", "error_toxic",
)  # fmt: skip


def finish_of(reason: object) -> Finish:
    """Return the meaning of a `finish_reason`."""
    word = reason.strip().lower().replace("-", "_") if isinstance(reason, str) else ""
    word = word.removeprefix("finish_reason_")
    if word in WHOLE:
        return Finish.WHOLE
    if word in CUT:
        return Finish.CUT
    return Finish.BLOCKED if word.startswith(_BLOCKED) else Finish.BROKEN
