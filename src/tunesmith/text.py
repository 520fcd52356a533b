"""Texts of unknown origin, made fit for a terminal, a log and a status."""

from __future__ import annotations

# Control characters in data, names or replies must not steer a terminal (they are shown as their Unicode
# pictures), and nothing makes a line read in another order than it stands.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
_VISIBLE |= dict.fromkeys((*range(128, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)


def visible(text: str) -> str:
    """The text with characters that steer or reorder made visible; line breaks and tabs stay."""
    return text.translate(_VISIBLE)
