import copy
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from admission import change_refusals, refusals
from good_manifests import DIALOGUE, FINE_TUNE, REMOVED, SAMPLE, changed
from pydantic import Field
from structural import crd_complaints, filled, node_complaints, unknown_fields, valid
from tests.cases import each

from tunesmith.api.base import Model
from tunesmith.api.crd import crd, crd_text, write_crds
from tunesmith.api.manifest import SPECS, parse_document
from tunesmith.api.openapi import SchemaError, structural_schema
from tunesmith.api.status import JobStatus
from tunesmith.names import Kind

ROOT = Path(__file__).resolve().parents[2]
GOOD = {Kind(document["kind"]): document for document in (FINE_TUNE, SAMPLE, DIALOGUE)}
CRDS = {kind: crd(kind) for kind in Kind}


def schema(kind):
    return CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


@pytest.mark.parametrize("kind", Kind)
def test_the_api_server_would_take_the_crd(kind):
    assert list(crd_complaints(CRDS[kind])) == []


@pytest.mark.parametrize("kind", Kind)
def test_the_committed_file_is_what_the_models_say(kind, tmp_path):
    for path in write_crds(tmp_path):
        assert path.read_text() == (ROOT / "crds" / path.name).read_text(), "run `make generate`"
    assert yaml.safe_load(crd_text(kind)) == CRDS[kind]
    assert len(crd_text(kind)) < 200_000, "kubectl apply keeps a copy in an annotation of 256 KiB"


BAD_NODES = {
    "no-type": {},
    "any-of": {"type": "string", "maxLength": 1, "anyOf": [{"type": "integer"}]},
    "ref": {"$ref": "#/x"},
    "const": {"type": "string", "maxLength": 1, "const": "a"},
    "title": {"type": "boolean", "title": "x"},
    "exclusive-number": {"type": "integer", "exclusiveMinimum": 0},
    "both-properties": {
        "type": "object",
        "maxProperties": 1,
        "properties": {"a": {"type": "boolean"}},
        "additionalProperties": {"type": "boolean"},
    },
    "additional-false": {"type": "object", "maxProperties": 1, "additionalProperties": False},
    "type-list": {"type": "null"},
    "type-of-int-or-string": {"type": "string", "maxLength": 1, "x-kubernetes-int-or-string": True},
    "list-without-items": {"type": "array", "maxItems": 1},
    "unbounded-string": {"type": "string"},
    "unbounded-list": {"type": "array", "items": {"type": "boolean"}},
    "unbounded-map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "default-of-other-type": {"type": "integer", "default": "a"},
    "default-out-of-bounds": {"type": "integer", "minimum": 1, "default": 0},
    "default-null": {"type": "string", "maxLength": 1, "default": None},
    "default-not-pruned": {"type": "object", "properties": {"a": {"type": "boolean"}}, "default": {"b": 1}},
    "default-lacks-required": {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "boolean"}},
        "default": {},
    },
    "enum-of-other-type": {"type": "string", "enum": ["a", 1]},
    "required-unknown": {"type": "object", "required": ["b"], "properties": {"a": {"type": "boolean"}}},
    "lookahead": {"type": "string", "maxLength": 1, "pattern": "^(?!a)"},
    "rule-key": {"type": "boolean", "x-kubernetes-validations": [{"cel": "self"}]},
    "rule-without-message": {"type": "boolean", "x-kubernetes-validations": [{"rule": "self"}]},
    "rule-about-nothing": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "x-kubernetes-validations": [{"rule": "self.b", "message": "x"}],
    },
    "field-path-to-nothing": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "x-kubernetes-validations": [{"rule": "self.a", "message": "x", "fieldPath": ".b"}],
    },
    "too-many-runs": {
        "type": "array",
        "maxItems": 10000,
        "items": {"type": "boolean", "x-kubernetes-validations": [{"rule": "self", "message": "x"}]},
    },
}


@each("node", BAD_NODES.values(), ids=BAD_NODES)
def test_the_checker_sees_what_is_not_structural(node):
    assert list(node_complaints(node, "x"))


def test_the_checker_sees_wrong_columns_and_names():
    bad = copy.deepcopy(CRDS[Kind.FINE_TUNE])
    columns = bad["spec"]["versions"][0]["additionalPrinterColumns"]
    columns[0]["jsonPath"] = ".status.fase"
    columns[1]["name"] = columns[2]["name"]
    bad["metadata"]["name"] = "x"
    assert len(list(crd_complaints(bad))) == 3


def test_the_list_says_why_only_if_it_may_be_wide():
    for document in CRDS.values():
        columns = document["spec"]["versions"][0]["additionalPrinterColumns"]
        assert [c["name"] for c in columns if c.get("priority")] == ["Reason"]


class Inner(Model):
    """Words of the class."""

    count: Annotated[int, Field(gt=0, lt=9)] = 3
    """How many."""


class Outer(Model):
    """An outer object."""

    plain: Inner
    said: Inner | None = None
    """Words of the field."""
    filled: Inner = Inner()
    changed: Inner = Inner(count=4)


def test_references_are_written_out_and_the_fields_own_words_win():
    node = structural_schema(Outer, "x")
    count = {
        "description": "How many.",
        "type": "integer",
        "default": 3,
        "exclusiveMaximum": True,
        "exclusiveMinimum": True,
        "maximum": 9,
        "minimum": 0,
    }
    inner = {"description": "Words of the class.", "type": "object", "properties": {"count": count}}
    assert node["required"] == ["plain"]
    assert node["properties"] == {
        "plain": inner,
        "said": inner | {"description": "Words of the field."},
        "filled": inner | {"default": {}},
        "changed": inner | {"default": {"count": 4}},
    }


class Union(Model):
    a: int | str = 1


class Tuple(Model):
    a: tuple[int, int] = (1, 2)


class Text(Model):
    a: str = ""


class List(Model):
    a: list[int] = Field(default=[])


class Map(Model):
    a: dict[str, int] = Field(default={})


@pytest.mark.parametrize("model", [Union, Tuple, Text, List, Map])
def test_what_has_no_bounded_structural_form_is_an_error(model):
    with pytest.raises(SchemaError):
        structural_schema(model, "x")


def nodes(node, where=""):
    yield where, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{where}[]")


@pytest.mark.parametrize("kind", Kind)
def test_every_field_is_described(kind):
    silent = [
        where
        for part in ("spec", "status")
        for where, node in nodes(schema(kind)[part], part)
        if not where.endswith("[]") and not node.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("kind", Kind)
def test_nothing_is_filled_into_lists_or_a_second_apply_would_change_them(kind):
    filled_in = [where for where, node in nodes(schema(kind)["spec"]) if "default" in node and "[]." in where]
    assert [where for where in filled_in if not where.startswith(".endpoints[]")] == []


@pytest.mark.parametrize("kind", Kind)
def test_defaults_filled_in_by_the_api_server_are_those_of_the_models(kind):
    spec = GOOD[kind]["spec"]
    ours = SPECS[kind].model_validate(spec).to_json()
    theirs = filled(schema(kind)["spec"], spec)
    assert SPECS[kind].model_validate(theirs).to_json() == ours
    assert {k: v for k, v in theirs.items() if k != "datasets"} == {
        k: v for k, v in ours.items() if k != "datasets"
    }
    assert refusals(CRDS[kind], changed(GOOD[kind], {"spec": ours})) == []


@pytest.mark.parametrize("kind", Kind)
def test_names_are_checked_at_the_root(kind):
    for name, right in (("a" * 40, True), ("a" * 41, False), ("1a", False), ("a-", False), ("A", False)):
        assert (refusals(CRDS[kind], changed(GOOD[kind], {"metadata.name": name})) == []) is right, name


@each(
    "field",
    ["suspend", "activeDeadlineSeconds", "startDeadlineSeconds", "ttlSecondsAfterFinished", "maxAttempts"],
)
@each("kind", Kind)
def test_run_may_change(kind, field):
    new = changed(GOOD[kind], {f"spec.run.{field}": True if field == "suspend" else 9})
    assert change_refusals(CRDS[kind], GOOD[kind]["spec"], new["spec"]) == []
    assert change_refusals(CRDS[kind], new["spec"], GOOD[kind]["spec"]) == []


@pytest.mark.parametrize("kind", Kind)
def test_everything_else_may_not_change(kind):
    spec = schema(kind)["spec"]
    unchangeable = {r["fieldPath"][1:] for r in spec["x-kubernetes-validations"] if "oldSelf" in r["rule"]}
    assert unchangeable == set(spec["properties"]) - {"run"}


@each(
    ("change", "path"),
    [
        ({"spec.resources.nodes": 3}, ".resources"),
        ({"spec.resources.gpusPerNode": 2, "spec.resources.memory": "9Gi"}, ".resources"),
        ({"spec.placement": {"nodeSelector": {"pool": "small"}}}, ".placement"),
    ],
    ids=["nodes", "of a pod", "placement"],
)
@each("kind", Kind)
def test_where_pods_run_may_change_while_suspended(kind, change, path):
    """Before the job is resumed or as it is; as it is suspended, too, but not while it runs."""
    runs, stands = GOOD[kind], changed(GOOD[kind], {"spec.run.suspend": True})
    now_runs, now_stands = changed(runs, change)["spec"], changed(stands, change)["spec"]
    definition, runs, stands = CRDS[kind], runs["spec"], stands["spec"]
    assert change_refusals(definition, stands, now_stands) == []
    assert change_refusals(definition, stands, now_runs) == []
    assert change_refusals(definition, runs, now_stands) == []
    assert change_refusals(definition, runs, now_runs) == [path]


@each("kind", Kind)
def test_nothing_else_may_change_while_suspended(kind):
    stands = changed(GOOD[kind], {"spec.run.suspend": True})["spec"]
    for change in (
        {"spec.output.onExisting": "replace"},
        {"spec.hub": {"offline": True}},
        {"spec.runtime": "x"},
    ):
        new = changed(GOOD[kind], change | {"spec.run.suspend": True})["spec"]
        (field,) = {path.split(".")[1] for path in change}
        assert change_refusals(CRDS[kind], stands, new) == [f".{field}"]


CHANGES = {
    "changed": (FINE_TUNE, {"spec.model.uri": "hf://org/other"}, ".model"),
    "list-longer": (FINE_TUNE, {"spec.datasets": FINE_TUNE["spec"]["datasets"] * 2}, ".datasets"),
    "default-changed": (FINE_TUNE, {"spec.training.seed": 1}, ".training"),
    "optional-added": (FINE_TUNE, {"spec.deepspeed": {"zeroStage": 2}}, ".deepspeed"),
    "verifier-added": (SAMPLE, {"spec.verifier": {"legalJudgement": {}}}, ".verifier"),
    "budget-removed": (DIALOGUE, {"spec.budget": REMOVED}, ".budget"),
}


@pytest.mark.parametrize(("document", "changes", "path"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_refused_both_ways(document, changes, path):
    new, definition = changed(document, changes)["spec"], CRDS[Kind(document["kind"])]
    assert change_refusals(definition, document["spec"], new) == [path]
    assert change_refusals(definition, new, document["spec"]) == [path]


def test_writing_the_default_out_is_no_change():
    new = changed(FINE_TUNE, {"spec.training": {"seed": 42}, "spec.hub": None})["spec"]
    assert change_refusals(CRDS[Kind.FINE_TUNE], FINE_TUNE["spec"], new) == []


STATUS = {
    "phase": "Running",
    "observedGeneration": 1,
    "attempts": 1,
    "startTime": "2026-01-01T00:00:00Z",
    "progress": {"text": "1200/4000", "eta": "1h5m", "step": 1200, "total": 4000, "loss": 1.25, "epoch": 0.5},
    "conditions": [
        {
            "type": "Running",
            "status": "True",
            "reason": "PodsRunning",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


def test_status_is_strict():
    node = schema(Kind.FINE_TUNE)["status"]
    assert valid(node, STATUS) == []
    assert list(unknown_fields(node, STATUS)) == []
    assert JobStatus.model_validate(STATUS).to_json() == STATUS
    assert valid(node, STATUS | {"phase": "Done"})
    assert list(unknown_fields(node, STATUS | {"progress": {"secret": "x"}})) == [".progress.secret"]
    assert node["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("kind", Kind)
def test_the_models_read_what_the_crd_takes(kind):
    job = parse_document(GOOD[kind] | {"status": STATUS}, "cluster", 0)
    again = {"retryFailed": False} if kind == Kind.DIALOGUE_GEN else {}
    assert job.spec.to_json()["run"] == {"maxAttempts": 3, "suspend": False, **again}
