"""The terminal: whatever is printed on it, texts of other origin do not steer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from tunesmith.text import visible


class Console(rich.console.Console):
    """rich's console, which shows characters that steer or reorder instead of sending them."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Render anything; rich's own colours and movements are not part of a segment's text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
