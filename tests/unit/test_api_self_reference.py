"""A job cannot wait for itself: the CEL of every place where a `fromJob` may be, and the same check here."""

from admission import holds
from tests.cases import each

from tunesmith.api.field_paths import ITEMS, VALUES
from tunesmith.api.manifest import SPECS
from tunesmith.api.self_reference import from_job_paths, self_reference_rules
from tunesmith.names import Kind

PLACES = [
    (kind, path, rule["rule"])
    for kind in Kind
    for path, rule in zip(from_job_paths(SPECS[kind]), self_reference_rules(kind, SPECS[kind]), strict=True)
]


def below(path, value):
    """The smallest object with a value at a path."""
    for part in reversed(path):
        value = {ITEMS: [value], VALUES: {"first": value}}.get(part) or {part: value}
    return value


def document(path, kind, name):
    return {"metadata": {"name": "mine"}, "spec": below(path, {"kind": str(kind), "name": name})}


@each(("kind", "path", "rule"), PLACES, ids=[f"{kind}-{'.'.join(path)}" for kind, path, _ in PLACES])
def test_the_rule_of_each_place_refuses_the_job_itself_and_nothing_else(kind, path, rule):
    assert not holds(rule, document(path, kind, "mine"))
    assert holds(rule, document(path, kind, "other"))
    assert holds(rule, document(path, "AnotherKind", "mine"))
    assert holds(rule, {"metadata": {"name": "mine"}, "spec": {}})


def test_every_place_is_found():
    found = {kind: {".".join(path) for path in from_job_paths(SPECS[kind])} for kind in Kind}
    assert found == {
        Kind.FINE_TUNE: {
            "model.fromJob",
            "compareWith.[].fromJob",
            "datasets.[].fromJob",
            "evaluation.[].prompts.fromJob",
        },
        Kind.REJECTION_SAMPLE: {"model.fromJob", "prompts.fromJob"},
        Kind.DIALOGUE_GEN: {
            "endpoints.{}.vllm.model.fromJob",
            "endpoints.{}.transformers.model.fromJob",
        },
    }
