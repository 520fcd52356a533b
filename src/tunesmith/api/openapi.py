"""Generate the structural OpenAPI v3.0 schema of a CRD from a pydantic model.

Uses pydantic's own JSON Schema generator, with its keywords limited to those the API server accepts:
references inlined, `T | None` as T, `const` as `enum`, exclusive bounds as flags, rules as CEL. What a
structural schema cannot express (unions, tuples), and what has no bound (CEL costs are estimated from
bounds), is an error here, so that it cannot be forgotten.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from tunesmith.api.base import Model, Rule

Schema = dict[str, Any]
# The order of a node's keywords; others come last.
_ORDER = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "required",
    "properties",
    "items",
    "additionalProperties",
)
_DROPPED = ("title",)


class SchemaError(Exception):
    """A model needs something that a structural schema cannot express."""


@functools.cache
def _docs(cls: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field that a class itself defines, read from its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    docs: dict[str, str] = {}
    name = ""
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            docs[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return docs


def _doc(model: type[BaseModel], name: str) -> str | None:
    """Return a field's description: that of the most derived class that has one."""
    for cls in model.__mro__:
        if cls in (BaseModel, Model) or not issubclass(cls, BaseModel):
            continue
        if name in _docs(cls):
            return _docs(cls)[name]
    return None


def _validation(rule: Rule) -> Schema:
    path = {"fieldPath": f".{rule.field}"} if rule.field else {}
    return {**path, "message": rule.message, "rule": rule.cel}


class Generator(GenerateJsonSchema):
    """pydantic's generator, without what has no structural form."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """Return an object's schema with its fields' descriptions and its rules."""
        model: type[Model] = schema["cls"]
        node = super().model_schema(schema)
        for name, field in model.model_fields.items():
            doc = _doc(model, name)
            if doc:
                node["properties"][field.alias]["description"] = doc
            _keep_default(node["properties"][field.alias], field)
        if model.rules:
            node["x-kubernetes-validations"] = [_validation(rule) for rule in model.rules]
        return node

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        """Return T for `T | None`: the field may be absent, and a null counts as absent."""
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        """Return a map's schema; its keys are checked by a rule, since a CRD has no keyword for them."""
        node: Schema = {
            "type": "object",
            "additionalProperties": self.generate_inner(schema["values_schema"]),
        }
        bounds = {"minProperties": schema.get("min_length"), "maxProperties": schema.get("max_length")}
        return node | {key: value for key, value in bounds.items() if value is not None}

    def literal_schema(self, schema: Any) -> JsonSchemaValue:
        """Return the schema of an enumeration of strings."""
        if not all(isinstance(value, str) for value in schema["expected"]):
            raise SchemaError(f"only strings can be enumerated, not {schema['expected']}")
        return {"type": "string", "enum": [str(value) for value in schema["expected"]]}

    def union_schema(self, schema: Any) -> JsonSchemaValue:
        """Raise SchemaError."""
        raise SchemaError(f"a union has no structural schema: {schema['choices']}")

    def tagged_union_schema(self, schema: Any) -> JsonSchemaValue:
        """Raise SchemaError."""
        return self.union_schema(schema)

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        """Raise SchemaError."""
        raise SchemaError(f"a tuple has no structural schema: {schema['items_schema']}")


def _keep_default(node: Schema, field: FieldInfo) -> None:
    """Return a default as a user would write it: of an object, what differs from its own defaults."""
    value = field.get_default(call_default_factory=True, validated_data={})
    node.pop("default", None)
    if field.is_required() or value is None:
        return
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    node["default"] = value


def inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Replace every `$ref` by its target; the node's own description wins."""
    if isinstance(node, list):
        return [inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: value for key, value in node.items() if key != "$ref"}
    if "$ref" in node:
        own = {**definitions[node["$ref"].rsplit("/", 1)[-1]], **own}
    return {key: value if key == "default" else inlined(value, definitions) for key, value in own.items()}


def _without_default(node: Schema) -> Schema:
    """Move the default into the description.

    kubectl and GitOps tools compare lists as wholes: a default filled into an item would make every later
    `kubectl apply` of the same file a change. The programs that read a spec fill these defaults in.
    """
    if "default" not in node:
        return node
    words = json.dumps(node["default"], ensure_ascii=False)
    described = f"{node.get('description', '').rstrip('.')}. Default: {words}."
    return {key: value for key, value in node.items() if key != "default"} | {"description": described}


def _narrowed(node: Schema, where: str, in_list: bool = False) -> Schema:
    """Return a node and those below it with only the keywords of a structural schema, in order."""
    node = {key: value for key, value in node.items() if key not in _DROPPED}
    if in_list:
        node = _without_default(node)
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if flag in node:
            node |= {bound: node[flag], flag: True}
    if node.get("type") == "object" and "properties" in node:
        node.pop("additionalProperties", None)
        node["properties"] = {
            name: _narrowed(child, f"{where}.{name}", in_list) for name, child in node["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _narrowed(node[key], f"{where}[]", in_list or key == "items")
    _check_bounds(node, where)
    return {key: node[key] for key in sorted(node, key=lambda k: (_ORDER.index(k) if k in _ORDER else 99, k))}


def _check_bounds(node: Schema, where: str) -> None:
    """Check that every string, list and map has a maximum size."""
    free = node.get("x-kubernetes-preserve-unknown-fields")
    needed = {
        "string": "maxLength" if "enum" not in node else None,
        "array": "maxItems",
        "object": "maxProperties"
        if "properties" not in node and not free and "additionalProperties" in node
        else None,
    }.get(node.get("type", ""))
    if needed and needed not in node:
        raise SchemaError(f"{where} has no {needed}")


def structural_schema(model: type[Model], where: str) -> Schema:
    """Return the structural schema of a model; `where` begins the path in errors. Raises SchemaError."""
    schema = model.model_json_schema(by_alias=True, schema_generator=Generator)
    definitions = schema.pop("$defs", {})
    return _narrowed(inlined(schema, definitions), where)
