"""Print what CHANGELOG.md says of the version that is here, for its release page."""

from __future__ import annotations

import re

from release.version import ROOT, current


def changes(text: str, version: str) -> str:
    """Return the section of a version, without its heading. Raises ValueError if there is none."""
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"CHANGELOG.md has no heading '## {version}'")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    print(changes((ROOT / "CHANGELOG.md").read_text("utf-8"), current()), end="")
