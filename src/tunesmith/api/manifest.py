"""From the text of a manifest to a typed job, or to a list of problems a person can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tunesmith.api.base import JobName, Model, ShortName
from tunesmith.api.common import JobSpec
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import API_VERSION, Kind

SPECS: dict[Kind, type[JobSpec]] = {
    Kind.FINE_TUNE: FineTuneSpec,
    Kind.REJECTION_SAMPLE: RejectionSampleSpec,
    Kind.DIALOGUE_GEN: DialogueGenSpec,
}
MAX_SPEC_BYTES = 64 * 1024
_Strings = dict[str, Annotated[str, Field(max_length=262144)]]


class Metadata(Model):
    """The part of Kubernetes' ObjectMeta that matters; what the API server adds is read over."""

    name: JobName
    namespace: ShortName = "default"
    labels: _Strings = {}
    annotations: _Strings = {}
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
        """The job's name."""
        return self.metadata.name

    @property
    def subject(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind} {self.name}"

    @property
    def key(self) -> tuple[str, str, str]:
        """Namespace, kind and name."""
        return (self.metadata.namespace, self.kind, self.name)


class _Envelope(Model):
    api_version: Literal["tunesmith.dev/v1alpha1"]
    kind: Literal["FineTuneJob", "RejectionSampleJob", "DialogueGenJob"]
    metadata: Metadata
    spec: Annotated[Any, Field()]
    status: Any = None


def _subject(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    parts = [part for part in (document.get("kind"), name) if isinstance(part, str)]
    return " ".join(parts)[:120]


def _path(loc: Sequence[str | int]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text.removesuffix(".[key]")


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Names of the fields of the object that `loc` lies in, following annotations."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in loc:
        node = _resolve(node, schema)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((option for option in node["anyOf"] if option.get("type") != "null"), {})
        else:
            return node


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


_TYPE_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _message(model: type[BaseModel], error: Any, loc: Sequence[str | int]) -> str:
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, 1, 0.6)
        hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown field; {hint}"
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        near = difflib.get_close_matches(str(value), [w.strip("'") for w in ctx["expected"].split("'")], 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return f"must be {ctx['expected'].replace(chr(39), '')}, not {_show(value)}{hint}"
    if kind in _TYPE_WORDS:
        return f"{_TYPE_WORDS[kind]}, not {_show(value)}"
    if kind == "value_error":
        return f"{ctx['error']}; it is {_show(value)}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {_show(value)}"


def _problems(
    model: type[BaseModel], error: ValidationError, prefix: str, place: tuple[str, int, str]
) -> list[Problem]:
    problems = []
    for item in error.errors(include_url=False):
        loc = item["loc"]
        base = _path((prefix, *loc)) if prefix else _path(loc)
        if item["type"] == "rules":
            for field, message in item["ctx"]["broken"]:
                path = f"{base}.{field}" if field and base else field or base
                problems.append(Problem(*place, path, message))
        else:
            problems.append(Problem(*place, base, _message(model, item, loc)))
    return problems


def _identity_problems(document: dict[str, Any], place: tuple[str, int, str]) -> list[Problem]:
    """Problems with apiVersion and kind, in words that name what is near."""
    version, kind = document.get("apiVersion"), document.get("kind")
    problems = []
    if version != API_VERSION:
        problems.append(Problem(*place, "apiVersion", f"must be {API_VERSION}, not {_show(version)}"))
    if kind not in list(Kind):
        near = difflib.get_close_matches(str(kind), list(Kind), 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        problems.append(Problem(*place, "kind", f"must be {', '.join(Kind)}, not {_show(kind)}{hint}"))
    return problems


def parse_document(document: Any, source: str, number: int) -> Job:
    """One document as a typed job. Raises ManifestError with every problem found in it."""
    place = (source, number, _subject(document))
    if not isinstance(document, dict):
        raise ManifestError([Problem(*place, "", f"must be an object with kind and spec, not {_show(document)}")])
    problems = _identity_problems(document, place)
    if problems:
        raise ManifestError(problems)
    kind = Kind(document["kind"])
    envelope, spec = None, None
    try:
        envelope = _Envelope.model_validate(document)
    except ValidationError as error:
        problems += _problems(_Envelope, error, "", place)
    if "spec" in document:
        try:
            spec = SPECS[kind].model_validate(document["spec"])
        except ValidationError as error:
            problems += _problems(SPECS[kind], error, "spec", place)
        if spec and len(json.dumps(document["spec"]).encode()) > MAX_SPEC_BYTES:
            problems.append(Problem(*place, "spec", f"is larger than {MAX_SPEC_BYTES // 1024} KiB"))
    if problems or envelope is None or spec is None:
        raise ManifestError(problems)
    return Job(kind, envelope.metadata, spec, source, number)


def _expand(document: Any) -> Iterable[Any]:
    """A `kind: List`, as kubectl prints it, stands for its items."""
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        return document["items"]
    return [document]


def parse_text(text: bytes | str, source: str) -> tuple[list[Job], list[Problem]]:
    """All jobs of one text, and all problems; one bad document does not hide the others."""
    jobs: list[Job] = []
    problems: list[Problem] = []
    try:
        documents = load_documents(text, source)
    except ManifestError as error:
        return jobs, error.problems
    for number, document in enumerate(documents, 1):
        for item in _expand(document):
            if item is None:
                continue
            try:
                jobs.append(parse_document(item, source, number))
            except ManifestError as error:
                problems += error.problems
    if not jobs and not problems:
        problems.append(Problem(source, 0, "", "", "holds no manifest"))
    return jobs, problems


def manifest_files(paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Files named, and the YAML and JSON files of folders named, sorted."""
    files: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
            files += found
            if not found:
                problems.append(Problem(str(path), 0, "", "", "this folder holds no .yaml file"))
        else:
            files.append(path)
    return files, problems


def load_files(paths: Sequence[Path]) -> tuple[list[Job], list[Problem]]:
    """All jobs of files and folders ("-" is standard input, read by the caller), and all problems."""
    files, problems = manifest_files(paths)
    jobs: list[Job] = []
    for path in files:
        try:
            text = path.read_bytes()
        except OSError as error:
            problems.append(Problem(str(path), 0, "", "", f"cannot be read: {error.strerror}"))
            continue
        found, wrong = parse_text(text, str(path))
        jobs += found
        problems += wrong
    return jobs, problems


