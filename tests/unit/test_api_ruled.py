"""Every field that opens, sends, or chooses is marked with the rule that speaks of it."""

import pytest
from full_manifests import FULL

from tunesmith.api.admission import variables
from tunesmith.api.base import Model
from tunesmith.api.common import SecretRef
from tunesmith.api.crd import MUTABLE, WHILE_SUSPENDED, crd
from tunesmith.api.field_paths import ITEMS, KEYS, VALUES
from tunesmith.api.manifest import SPECS, parse_documents
from tunesmith.api.openapi import SchemaError
from tunesmith.api.ruled import WORDS, ruled_fields, ruled_values
from tunesmith.names import Kind

# What a schema's node holds if it is something a rule speaks of.
PATTERNS = ("s3://", "https?://", ":[A-Za-z_]")
NAMES = ("runtime", "priorityClassName", "trustRemoteCode")


def fields(node, path=()):
    """Paths to all that is not an object with known fields or a list."""
    if "properties" in node:
        for name, child in node["properties"].items():
            yield from fields(child, (*path, name))
    elif "items" in node:
        yield from fields(node["items"], (*path, ITEMS))
    elif "properties" in node.get("additionalProperties", {}):
        yield from fields(node["additionalProperties"], (*path, VALUES))
    else:
        yield path, node


def of_interest(path, node):
    secret = path[-1] == "name" and path[-2].lower().endswith("secretref")
    taint = path[-2:] == (ITEMS, "key")
    return secret or taint or path[-1] in NAMES or any(p in node.get("pattern", "") for p in PATTERNS)


@pytest.mark.parametrize("kind", Kind)
def test_no_field_is_forgotten(kind):
    """Found without the marks: by what the CRD says of each field."""
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    found = {path for path, node in fields(schema) if of_interest(path, node)}
    found.add(("placement", "nodeSelector", KEYS))
    assert found == {path for path, _ in ruled_fields(SPECS[kind])}


@pytest.mark.parametrize("kind", Kind)
def test_what_may_change_after_creation_is_ruled_by_nothing(kind):
    """Where it is, the policy looks at it: when a job is created, and when its placement changes."""
    may_change = {path[0] for path, _ in ruled_fields(SPECS[kind]) if path[0] in (*MUTABLE, *WHILE_SUSPENDED)}
    assert may_change == {"placement"}


def test_the_values_of_a_spec():
    (job,), _ = parse_documents([FULL["DialogueGenJob"]], "job.yaml")
    found = ruled_values(job.spec)
    assert found == [
        ("uris", "s3://data/dialogues"),
        ("uris", "s3://data/seeds.jsonl"),
        ("uris", "hf://org/small"),
        ("uris", "s3://data/question.txt"),
        ("endpoints", "https://s3.example"),
        ("endpoints", "https://hub.example"),
        ("endpoints", "https://api.wandb.ai"),
        ("endpoints", "https://mlflow.example"),
        ("endpoints", "https://api.example.com/v1"),
        ("secrets", "s3"),
        ("secrets", "hub"),
        ("secrets", "wandb"),
        ("secrets", "mlflow"),
        ("secrets", "big"),
        ("runtimes", "default"),
        ("priorityClasses", "high"),
        ("tolerations", "gpu"),
        ("nodeSelectors", "zone"),
    ]


def test_every_rule_has_a_variable_and_the_last_is_all_of_them():
    names = {name for kind in Kind for name, _ in variables(kind)}
    assert names == {*WORDS, "refused"}
    assert [variables(kind)[-1][0] for kind in Kind] == ["refused"] * 3


def test_what_cel_cannot_say_is_an_error(monkeypatch):
    class Shelf(Model):
        secrets: list[SecretRef]

    class Library(Model):
        shelves: list[Shelf]

    monkeypatch.setitem(SPECS, Kind.FINE_TUNE, Library)
    with pytest.raises(SchemaError, match="shelves"):
        variables(Kind.FINE_TUNE)
