"""The Makefile: what it leaves in the tree is no part of it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_what_clean_removes_is_ignored_by_git():
    (removed,) = re.findall(r"^clean:\n\trm -rf (.*)$", MAKEFILE, re.MULTILINE)
    (environment,) = re.findall(r"^VENV := (.*)$", MAKEFILE, re.MULTILINE)
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert set(removed.replace("$(VENV)", environment).split()) <= ignored
