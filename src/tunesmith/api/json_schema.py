"""JSON Schemas by which editors complete and check manifests as they are written, from the models.

They hold what one field, or one choice between fields, can say. Rules across fields are checked by
`tunesmith validate` and by the API server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import JsonSchemaValue

from tunesmith.api.base import Model
from tunesmith.api.manifest import SPECS
from tunesmith.api.openapi import Generator, Schema, inlined
from tunesmith.api.scalars import INT_OR_AUTO_RULE, JOB_NAME, MAX_JOB_NAME, NOT_ALLOWED
from tunesmith.names import API_VERSION, Kind

DRAFT = "http://json-schema.org/draft-07/schema#"
ANY_KIND = "manifest.json"
_EXTENSION = "x-kubernetes-"
_METADATA: Schema = {
    "description": "Name, namespace, labels and annotations.",
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "description": "Name of the job.",
            "type": "string",
            "maxLength": MAX_JOB_NAME,
            "pattern": f"^{JOB_NAME}$",
        },
        "namespace": {"description": "Namespace of the job.", "type": "string", "maxLength": 63},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


class _Generator(Generator):
    """As for the CRDs, but choices between fields are keywords, and unknown fields are refused."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """Return an object whose rules `one_of` are choices."""
        node = super().model_schema(schema)
        model: type[Model] = schema["cls"]
        choices = [rule.one_of for rule in model.rules if rule.one_of]
        if choices:
            node["allOf"] = [{"oneOf": [{"required": [name]} for name in names]} for names in choices]
        return node


def _plain(node: Any) -> Any:
    """Return a node and those below it without Kubernetes' own keywords."""
    if not isinstance(node, dict):
        return node
    if node.get("description") == NOT_ALLOWED:
        return False
    kept = {key: value for key, value in node.items() if not key.startswith(_EXTENSION) and key != "title"}
    if f"{_EXTENSION}int-or-string" in node:
        kept |= _int_or_string(node)
    if "properties" in kept:
        kept["properties"] = {name: _plain(child) for name, child in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _plain(kept[key])
    return kept


def _int_or_string(node: Schema) -> Schema:
    if INT_OR_AUTO_RULE in node[f"{_EXTENSION}validations"]:
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]}
    return {"type": ["integer", "string"], "minimum": 0}


def model_schema(model: type[Model]) -> Schema:
    """Return the JSON Schema of a part of a manifest, with all references written out."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    return dict(_plain(inlined(schema, definitions)))


def kind_schema(kind: Kind) -> Schema:
    """Return the JSON Schema of the manifests of one kind."""
    spec = model_schema(SPECS[kind])
    return {
        "$schema": DRAFT,
        "title": str(kind),
        "description": spec["description"],
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"description": "Group and version.", "enum": [API_VERSION]},
            "kind": {"description": "Kind of job.", "enum": [str(kind)]},
            "metadata": _METADATA,
            "spec": spec | {"description": "What the job shall do."},
            "status": {"description": "Written by the operator.", "type": "object"},
        },
    }


def file_name(kind: Kind) -> str:
    """Return the name of the file with the schema of a kind."""
    return f"{kind.lower()}.json"


def any_kind_schema() -> Schema:
    """Return the schema of a manifest of any kind, which refers to the files of the kinds."""
    head = {"apiVersion": {"enum": [API_VERSION]}, "kind": {"enum": [str(kind) for kind in Kind]}}
    return {
        "$schema": DRAFT,
        "title": "Tunesmith",
        "type": "object",
        "required": [*head],
        "properties": head,
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"enum": [str(kind)]}}},
                "then": {"$ref": file_name(kind)},
            }
            for kind in Kind
        ],
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write the schema of each kind and that of any kind; return the files."""
    schemas = {file_name(kind): kind_schema(kind) for kind in Kind} | {ANY_KIND: any_kind_schema()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=1, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    return [folder / name for name in schemas]
