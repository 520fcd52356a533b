"""The JSON Schemas by which editors complete manifests, and the reference: generated, and true."""

import json
import re
from pathlib import Path

import pytest
import yaml
from docs.generate_reference import PAGE, page
from full_manifests import FULL
from good_manifests import DIALOGUE, FINE_TUNE, REMOVED, SAMPLE, changed
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from test_api_right_manifests import RIGHT
from tests.cases import each
from tests.manifests import parse_text

from tunesmith.api.json_schema import ANY_KIND, any_kind_schema, file_name, kind_schema, write_schemas
from tunesmith.api.manifest import SPECS
from tunesmith.names import Kind

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
CONTRACT = sorted((ROOT.parent / "shared" / "spec").glob("manifests*/*.yaml"))
SCHEMAS = {file_name(kind): kind_schema(kind) for kind in Kind}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
VALIDATOR = Draft7Validator(any_kind_schema(), registry=REGISTRY)
GOOD = {Kind(document["kind"]): document for document in (FINE_TUNE, SAMPLE, DIALOGUE)}


def complaints(document):
    """Return place and message of all that an editor would underline."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)]


def test_the_committed_files_are_what_the_models_say(tmp_path):
    written = write_schemas(tmp_path)
    assert [path.name for path in written][-1] == ANY_KIND
    for path in written:
        assert path.read_text() == (ROOT / "schemas" / path.name).read_text(), "run `make generate`"
    assert page() == PAGE.read_text("utf-8"), "run `make generate`"


@each("schema", [any_kind_schema(), *SCHEMAS.values()], ids=[ANY_KIND, *SCHEMAS])
def test_each_is_a_schema_of_its_draft(schema):
    Draft7Validator.check_schema(schema)


@each("path", [*EXAMPLES, *CONTRACT], ids=lambda path: path.name)
def test_no_manifest_that_can_be_read_is_underlined(path):
    documents = [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    _, problems = parse_text(path.read_text("utf-8"), path.name)
    assert path in CONTRACT or not problems
    assert problems or [complaints(document) for document in documents] == [[] for _ in documents]


@each("document", FULL.values(), ids=FULL)
def test_nor_is_one_with_every_field(document):
    assert complaints(document) == []


@each(("document", "changes"), RIGHT.values(), ids=RIGHT)
def test_nor_are_unusual_ones(document, changes):
    assert complaints(changed(document, changes)) == []


LORA, CHAT = {"lora": {}}, {"uri": "s3://data/a", "chat": {}}
WRONG = {
    "kind": (FINE_TUNE, {"kind": "FinetuneJob"}, "$.kind: 'FinetuneJob' is not one of"),
    "api-version": (SAMPLE, {"apiVersion": "v1"}, "$.apiVersion: 'v1' is not one of"),
    "name": (FINE_TUNE, {"metadata.name": "A b"}, "$.metadata.name: 'A b' does not match"),
    "unknown-field": (FINE_TUNE, {"spec.training": {"maxStep": 3}}, "('maxStep' was unexpected)"),
    "field-of-another-kind": (SAMPLE, {"spec.training": {}}, "('training' was unexpected)"),
    "choice": (FINE_TUNE, {"spec.training": {"packing": "yes"}}, "packing: 'yes' is not one of"),
    "type": (FINE_TUNE, {"spec.training": {"maxSteps": "3"}}, "maxSteps: '3' is not of type 'integer'"),
    "above": (FINE_TUNE, {"spec.training": {"learningRate": 0}}, "learningRate: 0 is less than or equal to"),
    "auto": (FINE_TUNE, {"spec.training": {"tokensPerDevice": 0}}, "tokensPerDevice: 0 is not valid"),
    "bool-or-auto": (FINE_TUNE, {"spec.training": {"gradientCheckpointing": 1}}, "Checkpointing: 1 is not"),
    "required": (DIALOGUE, {"spec.roles": REMOVED}, "$.spec: 'roles' is a required property"),
    "two-of-one": (FINE_TUNE, {"spec.method": {"full": {}, "lora": {}}}, "$.spec.method: {'full': {}, "),
    "none-of-one": (FINE_TUNE, {"spec.datasets": [{"uri": "s3://data/a"}]}, "$.spec.datasets[0]: {'uri'"),
    "address": (FINE_TUNE, {"spec.output.uri": "out"}, "$.spec.output.uri: 'out' does not match"),
    "quantity": (FINE_TUNE, {"spec.resources.cpu": -1}, "$.spec.resources.cpu: -1 is less than the minimum"),
    "set-by-tunesmith": (
        DIALOGUE,
        {"spec.endpoints.big.openai.extraBody": {"n": 2}},
        "openai.extraBody: False schema does not allow 2",
    ),
}  # fmt: skip


@each(("document", "changes", "words"), WRONG.values(), ids=WRONG)
def test_a_mistake_of_one_field_is_underlined(document, changes, words):
    found = complaints(changed(document, changes))
    assert any(words in one for one in found), found


def paths(value, path):
    """Yield the paths of a value as the reference writes them; what is free-form is one field."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{path}.{name}"
            yield from paths(item, f"{path}.{name}")


@pytest.mark.parametrize("kind", Kind)
def test_the_reference_has_the_fields_and_their_defaults(kind):
    section = PAGE.read_text("utf-8").split(f"\n## {kind}\n")[1]
    spec = SPECS[kind].model_validate(GOOD[kind]["spec"]).to_json()
    for path in paths({name: spec[name] for name in spec if name not in ("datasets", "endpoints")}, "spec"):
        assert f"| `{path}` |" in section, path
    assert "| `spec.run.maxAttempts` | integer | `3` | 1 to 100 |" in section


def test_the_reference_can_be_read_by_people():
    text = PAGE.read_text("utf-8")
    assert "| `spec.training.packing` | string | `tree` | `tree`, `none` | " in text
    assert "| `spec.training.tokensPerDevice` | integer or `auto` | `auto` | `auto`, or at least 1 |" in text
    assert "| `spec.endpoints.<name>.openai.baseUrl` | string | required |" in text
    assert re.search(r"^- `spec\.method` .*\bfull, lora, qlora and none$", text, re.MULTILINE)
    assert [line for line in text.splitlines() if line.startswith("| `") and line.count(" | ") != 4] == []
    assert json.dumps("x-kubernetes") not in json.dumps([*SCHEMAS.values()])
