"""Texts of unknown origin, made fit for a terminal, a log and a status."""

from __future__ import annotations

import logging

# Control characters in data, names or replies must not steer a terminal (they are shown as their Unicode
# pictures), and nothing makes a line read in another order than it stands.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
REORDERING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""What makes the rest of a line read in another order (embeddings, overrides and isolates)."""
_VISIBLE |= dict.fromkeys((*range(128, 160), *map(ord, REORDERING)), 0xFFFD)


def visible(text: str) -> str:
    """The text with characters that steer or reorder made visible; line breaks and tabs stay."""
    return text.translate(_VISIBLE)


class VisibleFormatter(logging.Formatter):
    """Log lines that do not steer the terminal on which they are read, whatever was logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return visible(super().format(record))


def log_to_stderr(who: str) -> None:
    """Log what is at least information to standard error, with the time and whose line it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(f"%(asctime)s {who} %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
