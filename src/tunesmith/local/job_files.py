"""Read the files that a local run keeps of a job, while it runs and afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.text import visible

_BYTES_PER_LINE = 400
"""So much is read of a file's end for each line at first; more, if lines turn out longer."""
_CHUNK = 1 << 20


def last_lines(path: Path, most: int | None) -> list[str]:
    """Return the last lines of a file, or all of them, fit for a terminal; none if there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            wanted = size if most is None else _BYTES_PER_LINE * (most + 1)
            while True:
                start = max(0, size - wanted)
                file.seek(start)
                lines = file.read(size - start).decode("utf-8", "replace").splitlines()
                if start == 0 or (most is not None and len(lines) > most):
                    whole = lines if start == 0 else lines[1:]
                    return [visible(line) for line in (whole if most is None else whole[len(whole) - most :])]
                wanted *= 4
    except OSError:
        return []


def new_lines(
    current: Callable[[], Path],
    offset: int,
    lasting: Callable[[], bool],
    pause: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the lines that are added to a file after `offset`, until it is no longer `lasting`.

    `current` is the file at this moment; once it is another one, or was begun anew, it is read from its
    start.
    """
    path, rest = current(), b""
    while True:
        last = not lasting()
        if current() != path or _size(path) < offset:
            path, offset, rest = current(), 0, b""
        while chunk := _read(path, offset):
            offset += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (visible(line.decode("utf-8", "replace")) for line in lines)
        if last:
            break
        sleep(pause)
    if rest:
        yield visible(rest.decode("utf-8", "replace"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""
