"""Manifests as texts, in tests."""

from __future__ import annotations

from tunesmith.api.manifest import Job, parse_documents
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, Problem


def parse_text(text: bytes | str, source: str) -> tuple[list[Job], list[Problem]]:
    """All jobs of one text, and all problems."""
    try:
        return parse_documents(load_documents(text, source), source)
    except ManifestError as error:
        return [], error.problems
