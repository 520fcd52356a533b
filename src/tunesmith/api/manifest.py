"""Parse the text of a manifest into a typed job, or a list of problems that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from tunesmith.api import self_reference
from tunesmith.api.base import Model
from tunesmith.api.common import JobSpec
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.api.scalars import JobName, LabelValue, Namespace
from tunesmith.api.validation_errors import DocumentPlace, near, show
from tunesmith.api.validation_errors import problems as _problems
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import API_VERSION, Kind

SPECS: dict[Kind, type[JobSpec]] = {
    Kind.FINE_TUNE: FineTuneSpec,
    Kind.REJECTION_SAMPLE: RejectionSampleSpec,
    Kind.DIALOGUE_GEN: DialogueGenSpec,
}
MAX_SPEC_BYTES = 64 * 1024
_M = TypeVar("_M", bound=Model)


class Metadata(Model):
    """The fields of Kubernetes' ObjectMeta that matter; those that the API server adds are ignored."""

    name: JobName
    namespace: Namespace = "default"
    labels: dict[str, LabelValue] = Field(default={})
    annotations: dict[str, Annotated[str, Field(max_length=262144)]] = Field(default={})
    uid: Any = None
    generation: Any = None
    resource_version: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    generate_name: Any = None
    managed_fields: Any = None
    owner_references: Any = None
    finalizers: Any = None
    self_link: Any = None


@dataclass(frozen=True, slots=True)
class Job:
    """One typed manifest and where it came from."""

    kind: Kind
    metadata: Metadata
    spec: JobSpec
    source: str = ""
    document: int = 0

    @property
    def name(self) -> str:
        """Return the job's name."""
        return self.metadata.name

    @property
    def subject(self) -> str:
        """Return kind and name, for messages."""
        return f"{self.kind} {self.name}"

    @property
    def key(self) -> tuple[str, str, str]:
        """Return namespace, kind and name."""
        return (self.metadata.namespace, self.kind, self.name)


class _Envelope(Model):
    api_version: Literal["tunesmith.dev/v1alpha1"]
    kind: Literal["FineTuneJob", "RejectionSampleJob", "DialogueGenJob"]
    metadata: Metadata
    spec: Any
    status: Any = None


def _subject(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    parts = [part for part in (document.get("kind"), name) if isinstance(part, str)]
    return " ".join(parts)[:120]


def _identity_problem(document: dict[str, Any], place: DocumentPlace) -> Problem | None:
    """Return the problem with apiVersion or kind: one, since nothing else can be checked then."""
    version, kind = document.get("apiVersion"), document.get("kind")
    kinds = ", ".join(Kind)
    if kind in list(Kind):
        if version == API_VERSION:
            return None
        return Problem(*place, "apiVersion", f"must be {API_VERSION}, not {show(version)}")
    if kind is None:
        return Problem(*place, "kind", f"is required: {kinds}")
    return Problem(*place, "kind", f"must be {kinds}, not {show(kind)}{near(kind, list(Kind))}")


def _validated(
    model: type[_M], value: Any, prefix: str, place: DocumentPlace
) -> tuple[_M | None, list[Problem]]:
    try:
        return model.model_validate(value, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, _problems(model, value, error, prefix, place)


def parse_document(document: Any, source: str, number: int) -> Job:
    """Return one document as a typed job. Raises ManifestError with every problem found in it."""
    place = (source, number, _subject(document))
    if not isinstance(document, dict):
        message = f"must be an object with apiVersion, kind, metadata and spec, not {show(document)}"
        raise ManifestError([Problem(*place, "", message)])
    unknown = _identity_problem(document, place)
    if unknown:
        raise ManifestError([unknown])
    kind = Kind(document["kind"])
    envelope, problems = _validated(_Envelope, document, "", place)
    value = document.get("spec")
    spec = None
    if value is not None:
        spec, more = _validated(SPECS[kind], value, "spec", place)
        problems += more
        if spec and len(json.dumps(value, ensure_ascii=False).encode()) > MAX_SPEC_BYTES:
            problems.append(Problem(*place, "spec", f"must be at most {MAX_SPEC_BYTES // 1024} KiB"))
    if envelope and spec:
        own = self_reference.self_references(kind, envelope.metadata.name, spec)
        problems += [Problem(*place, path, self_reference.MESSAGE) for path in own]
    if problems or envelope is None or spec is None:
        raise ManifestError(problems)
    return Job(kind, envelope.metadata, spec, source, number)


def _expand(document: Any) -> list[Any]:
    """Return the items of a `kind: List`, as kubectl prints it."""
    if (
        isinstance(document, dict)
        and document.get("kind") == "List"
        and isinstance(document.get("items"), list)
    ):
        return [{} if item is None else item for item in document["items"]]
    return [] if document is None else [document]


def parse_documents(documents: Sequence[Any], source: str) -> tuple[list[Job], list[Problem]]:
    """Return all jobs of documents already read, and all problems."""
    jobs: list[Job] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, 1):
        for item in _expand(document):
            try:
                jobs.append(parse_document(item, source, number))
            except ManifestError as error:
                problems += error.problems
    if not jobs and not problems:
        problems.append(Problem(source, 0, "", "", "contains no manifest"))
    return jobs, problems


def manifest_files(paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the files given, and the YAML and JSON files of the folders given, sorted."""
    files: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            found = sorted(
                p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json") and p.is_file()
            )
            files += found
            if not found:
                problems.append(
                    Problem(str(path), 0, "", "", "this folder contains no .yaml, .yml or .json file")
                )
        else:
            files.append(path)
    return files, problems
