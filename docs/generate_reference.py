"""Write docs/reference.md, the fields of all manifests, from the models: `make generate` calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.api.common import JobSpec
from tunesmith.api.crd import crd
from tunesmith.api.json_schema import kind_schema, model_schema
from tunesmith.api.status import JobStatus
from tunesmith.names import API_VERSION, SHORT_NAMES, Kind

PAGE = Path(__file__).with_name("reference.md")
HEAD = f"""<!-- Generated from src/tunesmith/api by `make generate`; do not edit. -->
# Reference

Every field of the three kinds, API version `{API_VERSION}`. `[]` is each item of a list, `<name>` each
name of a map. `kubectl explain ftj.spec` shows the same on a cluster; [an editor](editors.md) completes it.

All of `spec` but `run` stays as it was created. A field that is absent has its default. An object without a
default is optional: if it is absent, what it describes is off.
"""
COLUMNS = "| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n"
Schema = dict[str, Any]


def fields(node: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Yield path, schema and whether it is required, of every field below a node."""
    for name, child in node.get("properties", {}).items():
        if child is False:
            continue
        yield f"{path}.{name}", child, name in node.get("required", ())
        yield from fields(child, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from fields(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from fields(node["additionalProperties"], f"{path}.<name>")


def type_of(node: Schema) -> str:
    """Return a type in words."""
    if "anyOf" in node:
        return "integer or `auto`"
    if node.get("type") == "array":
        return f"list of {type_of(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {type_of(node['additionalProperties'])}"
    if isinstance(node.get("type"), list):
        return " or ".join(node["type"])
    return str(node.get("type", "boolean or `auto`" if "enum" in node else "any"))


def allowed(node: Schema) -> str:
    """Return the allowed values in words: a choice, or bounds."""
    if "anyOf" in node:
        return f"`auto`, or {allowed(node['anyOf'][0])}"
    if "enum" in node:
        return ", ".join(
            f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in node["enum"]
        )
    sizes = {
        "": ("minimum", "maximum"),
        " characters": ("minLength", "maxLength"),
        " items": ("minItems", "maxItems"),
    }
    texts = [bounds(node.get(low), node.get(high), unit) for unit, (low, high) in sizes.items()]
    texts += [f"above {node['exclusiveMinimum']:g}"] if "exclusiveMinimum" in node else []
    texts += [f"below {node['exclusiveMaximum']:g}"] if "exclusiveMaximum" in node else []
    return ", ".join(filter(None, texts))


def bounds(low: float | None, high: float | None, unit: str) -> str:
    """Return a range in words, without limits that nobody meets."""
    high = None if high is not None and high >= 2**31 - 1 else high
    if low is not None and high is not None and not (unit and low <= 1):
        return f"{low} to {high}{unit}"
    if high is not None:
        return f"at most {high}{unit}"
    return f"at least {low}{unit}" if low is not None and not unit else ""


def row(path: str, node: Schema, required: bool) -> str:
    """Return a field as a line of a table."""
    default = "required" if required else f"`{shown(node['default'])}`" if "default" in node else ""
    cells = (f"`{path}`", type_of(node), default, allowed(node), node.get("description", ""))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def shown(value: Any) -> str:
    """Return a default as YAML would have it on one line."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def tables(node: Schema, path: str, owner: str) -> str:
    """Return a table of an object's own fields, and below a heading one for each field that has fields."""
    heads = {name: child for name, child in node["properties"].items() if [*fields(child, "")]}
    own = {f"{path}.{name}" for name in node["properties"]}
    parts = [COLUMNS, *(row(*field) for field in fields(node, path) if field[0] in own)]
    for name, child in heads.items():
        parts += [f"\n### {owner}: {path}.{name}\n\n", COLUMNS]
        parts += [row(*field) for field in fields(child, f"{path}.{name}")]
    return "".join(parts)


def rules(kind: Kind) -> str:
    """Return the rules between fields of a kind, as the API server has them."""
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    lines = []
    for path, node in [("spec", schema), *((path, node) for path, node, _ in fields(schema, "spec"))]:
        for rule in node.get("x-kubernetes-validations", ()):
            if "oldSelf" not in rule["rule"] and node.get("type") == "object":
                lines.append(f"- `{path}{rule.get('fieldPath', '')}` {rule['message']}\n")
    return "".join(dict.fromkeys(lines))


def only(schema: Schema, names: list[str]) -> Schema:
    """Return an object's schema with some of its fields."""
    return schema | {"properties": {name: schema["properties"][name] for name in names}}


def kind_section(kind: Kind, common: Schema) -> str:
    """Return the section of one kind: the fields that not every kind has, and the rules."""
    spec = kind_schema(kind)["properties"]["spec"]
    own = [name for name, node in spec["properties"].items() if node != common["properties"].get(name)]
    return (
        f"\n## {kind}\n\n{kind_schema(kind)['description']} Short name `{SHORT_NAMES[kind]}`; the fields of "
        f"[all kinds](#fields-of-all-kinds) are its fields too.\n\n{tables(only(spec, own), 'spec', kind)}\n"
        f"### Rules of a {kind}\n\n{rules(kind)}"
    )


def page() -> str:
    """Return the whole page."""
    common = model_schema(JobSpec)
    parts = [HEAD, *(kind_section(kind, common) for kind in Kind)]
    parts += ["\n## Fields of all kinds\n\n", tables(common, "spec", "All kinds")]
    parts += [
        "\n## Status\n\nWritten by the operator, alike for all kinds.\n\n",
        tables(model_schema(JobStatus), "status", "Status"),
    ]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
