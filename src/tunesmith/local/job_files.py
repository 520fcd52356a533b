"""Read the files that a local run keeps of a job, while it runs and afterwards."""

from __future__ import annotations

from pathlib import Path

from tunesmith.text import visible

_BYTES_PER_LINE = 400
"""So much is read of a file's end for each line at first; more, if lines turn out longer."""


def last_lines(path: Path, most: int) -> list[str]:
    """Return the last lines of a file, fit for a terminal; none if there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            wanted = _BYTES_PER_LINE * most
            while True:
                start = max(0, size - wanted)
                file.seek(start)
                lines = file.read(size - start).decode("utf-8", "replace").splitlines()
                if start == 0 or len(lines) > most:
                    return [visible(line) for line in (lines if start == 0 else lines[1:])[-most:]]
                wanted *= 4
    except OSError:
        return []
