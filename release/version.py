"""Write the version of src/tunesmith/__init__.py wherever else it has to stand.

`python -m release.version` is part of `make generate`; `python -m release.version 0.3.0` changes the version
first. What a version means to users is in CHANGELOG.md, which is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/tunesmith/__init__.py"
VERSION = r"\d+\.\d+\.\d+"
PLACES = re.compile(
    r"(\btunesmith-(?:operator:|training:)?|\bcharts/tunesmith --version |^version: |^appVersion: \")"
    rf"{VERSION}(?![\d.]*\d)",
    re.MULTILINE,
)
"""Names of our images and files, the chart's own fields, and Helm's option."""


def current() -> str:
    """Return the version. Raises ValueError if the file does not say it in the usual form."""
    found = re.search(rf'^__version__ = "({VERSION})"$', SOURCE.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f'{SOURCE}: a line __version__ = "1.2.3" is missing')
    return found[1]


def pages() -> Iterator[Path]:
    """Yield the files that name the version: the chart's, README and docs/."""
    yield from (ROOT / "charts/tunesmith" / name for name in ("Chart.yaml", "values.yaml"))
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def with_version(text: str, version: str) -> str:
    """Return a text with every version of ours replaced."""
    return PLACES.sub(rf"\g<1>{version}", text)


def write(version: str) -> list[Path]:
    """Write the version into all files that name another; return those."""
    changed = []
    for path in pages():
        text = path.read_text("utf-8")
        if (new := with_version(text, version)) != text:
            path.write_text(new, "utf-8")
            changed.append(path)
    return changed


def main(words: list[str]) -> int:
    """Set the version if one is given; then write it everywhere."""
    if words:
        if not re.fullmatch(VERSION, words[0]):
            print(f"{words[0]!r} is no version such as 0.3.0", file=sys.stderr)
            return 2
        text = SOURCE.read_text()
        SOURCE.write_text(text.replace(f'"{current()}"', f'"{words[0]}"'))
    for path in write(current()):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
