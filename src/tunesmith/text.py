"""Texts of unknown origin, made fit for a terminal, a log and a status."""

from __future__ import annotations

import logging

# Control characters in data, names or replies must not steer a terminal (they are shown as their Unicode
# pictures), and nothing may change the order in which a line is displayed.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
REORDERING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Bidirectional controls, which reorder the rest of a line (embeddings, overrides and isolates)."""
_VISIBLE |= dict.fromkeys((*range(128, 160), *map(ord, REORDERING)), 0xFFFD)


def visible(text: str) -> str:
    """Make control and reordering characters visible; line breaks and tabs stay."""
    return text.translate(_VISIBLE)


class VisibleFormatter(logging.Formatter):
    """Log lines without control characters for the terminal, whatever was logged."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return visible(super().format(record))


def log_to_stderr(who: str) -> None:
    """Log at level INFO and above to standard error, with the time and the program's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(f"%(asctime)s {who} %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
