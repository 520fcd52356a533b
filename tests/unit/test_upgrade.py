"""What an upgrade keeps: every object that a released version stored is valid, and every output is continued.

tests/fixtures/released holds what each released version accepted and recorded; tests/released.py writes it.
"""

import json

import pytest
from admission import refusals
from tests.cases import each
from tests.released import FOLDER, flattened, run_of, schema

from tunesmith import __version__
from tunesmith.api.crd import crd
from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.open import open_store
from tunesmith.jobs.output_lock import OutputState, inspect
from tunesmith.names import FINGERPRINT_KEY, Kind
from tunesmith.plan.run import canonical

RELEASED = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CRDS = {kind: crd(kind) for kind in Kind}
OBJECTS = [(version, one["object"]) for version, found in RELEASED.items() for one in found["objects"]]
SETTINGS = [
    (version, one["object"], one["settings"])
    for version, found in RELEASED.items()
    for one in found["objects"]
]
# Fields that a version no longer takes, or limits further, and which the changelog names: {"kind.path": why}.
TAKEN_AWAY: dict[str, str] = {}
LOWER = ("minimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
SAME = ("type", "format", "pattern", "exclusiveMinimum", "exclusiveMaximum", "x-kubernetes-int-or-string")
INF = float("inf")


def narrower(old, new):
    """What a field no longer allows, as words; nothing if it allows at least what it did."""
    if new is None:
        return ["is gone"]
    found = [
        f"{key} {old.get(key)} is {new.get(key)}" for key in SAME if new.get(key) not in (None, old.get(key))
    ]
    found += [
        f"{key} {old.get(key)} is {new[key]}" for key in LOWER if new.get(key, -INF) > old.get(key, -INF)
    ]
    found += [f"{key} {old.get(key)} is {new[key]}" for key in UPPER if new.get(key, INF) < old.get(key, INF)]
    if "enum" in new and (gone := [one for one in old.get("enum", ["any"]) if one not in new["enum"]]):
        found.append(f"{gone} is no longer allowed")
    if needed := set(new.get("required", ())) - set(old.get("required", ())):
        found.append(f"{sorted(needed)} must be set")
    if "default" in old and old["default"] != new.get("default"):
        found.append(f"default {old['default']} is {new.get('default')}")
    return found


def taken_away(before, after):
    """Each field of a released schema that is narrower now, with how."""
    return {path: words for path, node in before.items() if (words := narrower(node, after.get(path)))}


@each(("version", "kind"), [(version, kind) for version in RELEASED for kind in Kind])
def test_every_field_is_there_and_takes_what_it_took(version, kind):
    found = taken_away(RELEASED[version]["schemas"][kind], dict(flattened(schema(kind))))
    assert {path: how for path, how in found.items() if f"{kind}.{path}" not in TAKEN_AWAY} == {}


@each(("version", "document"), OBJECTS)
def test_every_object_of_before_is_valid(version, document):
    assert refusals(CRDS[Kind(document["kind"])], document) == []
    parse_document(document, version, 0)


@each(("version", "document", "settings"), SETTINGS)
def test_an_output_of_before_is_continued(version, document, settings, tmp_path):
    """A new field must not make the output of an unchanged manifest another job's."""
    run = run_of(document)
    store = open_store(f"file://{tmp_path}/{hash(canonical(document))}")
    store.put(FINGERPRINT_KEY, canonical({"spec": settings, "day": "2026-11-30"}).encode())
    again = inspect(
        store, run.spec.output, run.result_fields(), "", run.growth(), run.result_fields(defaults=False)
    )
    wanted = {"replace": OutputState.REPLACE}.get(run.spec.output.on_existing, OutputState.RESUME)
    assert run.spec.output.on_existing == "fail" or again.state is wanted


def test_the_version_before_is_among_them():
    assert RELEASED
    assert __version__ not in RELEASED, "after a release: `python -m release.version NEXT`"


NODE = {"type": "integer", "minimum": 1, "maximum": 9, "enum": [1, 2], "required": ["a"], "default": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "string"}, "type integer is string"),
        ({"minimum": 2}, "minimum 1 is 2"),
        ({"maximum": 8}, "maximum 9 is 8"),
        ({"maxLength": 8}, "maxLength None is 8"),
        ({"enum": [1, 3]}, "[2] is no longer allowed"),
        ({"required": ["a", "b"]}, "['b'] must be set"),
        ({"default": 2}, "default 1 is 2"),
        ({"pattern": "x"}, "pattern None is x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_narrower_is_seen(change, words):
    assert taken_away({"a.b": NODE, "c": NODE}, {"a.b": NODE | change, "c": NODE}) == {"a.b": [words]}


def test_what_is_wider_is_no_loss_and_a_field_that_is_gone_is():
    wider = {"type": "integer", "minimum": 0, "enum": [1, 2, 3], "default": 1}
    assert taken_away({"a": NODE}, {"a": wider, "b": NODE}) == {}
    assert taken_away({"a": NODE}, {}) == {"a": ["is gone"]}
