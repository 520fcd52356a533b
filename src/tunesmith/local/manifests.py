"""The manifests a command names: files, folders and standard input, with the command's overrides applied."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tunesmith.api.checkpoints import checkpoint_problems
from tunesmith.api.manifest import Job, manifest_files, parse_documents
from tunesmith.api.references import duplicate_problems, in_order, no_model_problems
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, Problem
from tunesmith.local.overrides import apply_override, parse_override

STDIN = "-"


def _documents(path: Path, problems: list[Problem]) -> list[Any]:
    try:
        text = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
        return load_documents(text, _source(path))
    except ManifestError as error:
        problems += error.problems
    except OSError as error:
        problems.append(Problem(_source(path), 0, "", "", f"cannot be read: {error.strerror}"))
    return []


def _source(path: Path) -> str:
    return "standard input" if str(path) == STDIN else str(path)


def load_jobs(paths: list[Path], overrides: list[str] | None = None) -> list[Job]:
    """Return the jobs of the files, in order of dependency. Raises ManifestError with every problem found."""
    files, problems = manifest_files(paths)
    loaded = {path: _documents(path, problems) for path in files}
    for text in overrides or []:
        every = [document for documents in loaded.values() for document in documents]
        apply_override(every, *parse_override(text))
    jobs: list[Job] = []
    for path, documents in loaded.items():
        if not documents and any(problem.source == _source(path) for problem in problems):
            continue
        found, wrong = parse_documents(documents, _source(path))
        jobs += found
        problems += wrong
    problems += duplicate_problems(jobs) + checkpoint_problems(jobs) + no_model_problems(jobs)
    ordered, cycle = in_order(jobs)
    if problems or cycle:
        raise ManifestError(problems + cycle)
    return ordered
