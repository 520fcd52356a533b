"""Texts of unknown origin, made fit for a terminal."""

from __future__ import annotations

# Control characters in data or replies must not steer a terminal; they are shown as their Unicode pictures.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
_VISIBLE |= dict.fromkeys(range(128, 160), 0xFFFD)


def visible(text: str) -> str:
    """The text with control characters made visible; line breaks and tabs stay."""
    return text.translate(_VISIBLE)
