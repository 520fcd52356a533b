"""What a released version accepted and recorded: `python -m tests.released` writes it for the version here.

Run when a version is released; tests/unit/test_upgrade.py holds later versions against all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.api.crd import crd
from tunesmith.api.manifest import parse_document
from tunesmith.api.yaml12 import load_documents
from tunesmith.names import Kind
from tunesmith.plan.run import Run

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).parent / "fixtures" / "released"
# What says nothing about which objects are valid.
SILENT = {"description", "properties", "items", "additionalProperties", "x-kubernetes-validations"}
Node = dict[str, Any]


def schema(kind: Kind) -> Node:
    """Return the schema of a kind's spec and status."""
    whole: Node = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {"type": "object", "properties": {name: whole[name] for name in ("spec", "status")}}


def flattened(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield every field below a node with what limits its values: `spec.datasets[].uri`, `spec.roles.*`."""
    yield path, {key: value for key, value in node.items() if key not in SILENT}
    for name, child in node.get("properties", {}).items():
        yield from flattened(child, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from flattened(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from flattened(node["additionalProperties"], f"{path}.*")


def run_of(document: Node) -> Run:
    """Return the run of a manifest."""
    job = parse_document(document, "released", 0)
    return Run(job.kind, job.name, "research", job.spec)


def manifests() -> Iterator[Node]:
    """Yield manifests that this version accepts: the examples, and those in which tests set every field."""
    sys.path.insert(0, str(Path(__file__).parent / "unit"))
    from full_manifests import FULL
    from good_manifests import changed
    from test_api_right_manifests import RIGHT

    for path in sorted(ROOT.glob("examples/**/*.yaml")):
        yield from (one for one in load_documents(path.read_bytes(), str(path)) if one.get("spec"))
    yield from FULL.values()
    yield from (changed(*case) for name, case in RIGHT.items() if name != "just-small-enough")


def snapshot() -> Node:
    """Return what this version accepts, and what an output of it records of the settings."""
    return {
        "schemas": {str(kind): dict(flattened(schema(kind))) for kind in Kind},
        "objects": [{"object": one, "settings": run_of(one).result_fields()} for one in manifests()],
    }


def as_text(found: Node) -> str:
    """Return a snapshot as JSON with a field or an object on each line, so that a difference can be read."""
    fields = [
        f"{json.dumps(kind)}: {{\n"
        + ",\n".join(f"{json.dumps(path)}: {json.dumps(node, sort_keys=True)}" for path, node in each.items())
        + "\n}"
        for kind, each in found["schemas"].items()
    ]
    objects = [json.dumps(one, sort_keys=True, ensure_ascii=False) for one in found["objects"]]
    listed = ",\n".join(fields), ",\n".join(objects)
    return f'{{"schemas": {{\n{listed[0]}\n}},\n"objects": [\n{listed[1]}\n]}}\n'


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{__version__}.json").write_text(as_text(snapshot()), "utf-8")
