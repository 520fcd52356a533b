"""What an attempt does with what it finds at its output."""

import json
from datetime import date

import pytest
from tests.cases import each
from tests.support import finetune

from tunesmith.api.common import OutputSpec
from tunesmith.artifacts.store import open_store
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.output import Found, State, changed, claim, examine

SPEC = {"training": {"learningRate": 0.1, "seed": 1}, "datasets": [{"uri": "s3://a/b"}]}
OTHER = {"training": {"learningRate": 0.2, "seed": 1}, "datasets": [{"uri": "s3://a/c"}]}
FACTS = {"data": "d1", "model": "m1"}
DAY = date(2024, 2, 29)


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


def begun(store, spec=SPEC):
    """An attempt of `spec` has claimed the output and saved something."""
    claim(store, Found(State.NEW, day=DAY, owner="me"), {"spec": spec, **FACTS})
    store.put("checkpoint-2/model.safetensors", b"weights")


def finished(store, spec=SPEC):
    begun(store, spec)
    store.put("manifest.json", b'{"version":1,"files":[]}')


def foreign(store):
    store.put("photos/cat.jpg", b"cat")


SETUPS = {"nothing": lambda store: None, "foreign": foreign, "begun": begun, "finished": finished}
SETUPS["other begun"] = lambda store: begun(store, OTHER)
SETUPS["other finished"] = lambda store: finished(store, OTHER)
FOREIGN, FAIL = "holds files that are not of Tunesmith", "output.onExisting is fail"
FIELDS = r"other settings: spec\.datasets\[0\]\.uri, spec\.training\.learningRate"
CASES = [
    # there, onExisting, for another job, for the job that began it: a State or the message of a refusal
    ("nothing", "resume", State.NEW, State.NEW),
    ("nothing", "replace", State.NEW, State.NEW),
    ("nothing", "fail", State.NEW, State.NEW),
    ("foreign", "resume", FOREIGN, FOREIGN),
    ("foreign", "replace", FOREIGN, FOREIGN),
    ("foreign", "fail", FOREIGN, FOREIGN),
    ("begun", "resume", State.RESUME, State.RESUME),
    ("begun", "replace", State.REPLACE, State.RESUME),
    ("begun", "fail", FAIL, State.RESUME),
    ("finished", "resume", State.FINISHED, State.FINISHED),
    ("finished", "replace", State.REPLACE, State.FINISHED),
    ("finished", "fail", FAIL, State.FINISHED),
    ("other begun", "resume", FIELDS, FIELDS),
    ("other begun", "replace", State.REPLACE, FIELDS),
    ("other begun", "fail", FAIL, FIELDS),
    ("other finished", "resume", FIELDS, FIELDS),
    ("other finished", "replace", State.REPLACE, FIELDS),
    ("other finished", "fail", FAIL, FIELDS),
]


@each("uid", ["another", "me", ""])
@each(("there", "on_existing", "another", "mine"), CASES, ids=lambda v: v if v in SETUPS else None)
def test_every_case(store, there, on_existing, another, mine, uid):
    store.delete([entry.key for entry in store.list()])
    SETUPS[there](store)
    before = {entry.key: store.read(entry.key) for entry in store.list()}
    output = OutputSpec(uri=store.uri, on_existing=on_existing)
    expected = mine if uid == "me" else another
    if isinstance(expected, State):
        assert examine(store, output, SPEC, uid).state is expected
    else:
        with pytest.raises(OutputConflictError, match=expected):
            examine(store, output, SPEC, uid)
    assert {entry.key: store.read(entry.key) for entry in store.list()} == before


def test_the_day_and_the_digest_are_the_first_attempts(store):
    finished(store)
    found = examine(store, OutputSpec(uri=store.uri), SPEC, "another")
    assert found.day == DAY
    assert len(found.digest) == 64


def test_replacing_leaves_the_new_fingerprint_only(store):
    finished(store, OTHER)
    foreign(store)
    found = examine(store, OutputSpec(uri=store.uri, on_existing="replace"), SPEC, "another")
    claim(store, found, {"spec": SPEC, **FACTS})
    assert [entry.key for entry in store.list()] == ["fingerprint.json", "photos/cat.jpg"]
    assert json.loads(store.read("fingerprint.json"))["spec"] == SPEC


@pytest.mark.parametrize("deletions", range(4))
@pytest.mark.parametrize("setup", ["finished", "other begun", "other finished"])
def test_replacing_that_was_interrupted_is_gone_on_with(store, setup, deletions):
    """Killed in the middle of wiping: the next attempt wipes the rest, and trains nothing on top of it."""
    SETUPS[setup](store)
    output = OutputSpec(uri=store.uri, on_existing="replace")
    left = [deletions]

    class Killed:
        """Dies after some deletions."""

        def __getattr__(self, name):
            return getattr(store, name)

        def delete(self, keys):
            for key in keys:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                store.delete([key])

    try:
        claim(Killed(), examine(store, output, SPEC, "new"), {"spec": SPEC, **FACTS})
        died = False
    except KeyboardInterrupt:
        died = True
    found = examine(store, output, SPEC, "new")
    assert found.state is (State.REPLACE if died else State.RESUME)
    claim(store, found, {"spec": SPEC, **FACTS})
    assert [entry.key for entry in store.list()] == ["fingerprint.json"]
    assert examine(store, output, SPEC, "new").state is State.RESUME


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"data": "d2", "model": "m1"}, "something else: the content of the datasets"),
        ({"data": "d1", "model": "m2"}, "something else: the model's files"),
        ({"data": "d2", "model": "m2"}, "the content of the datasets, the model's files"),
    ],
)
def test_other_data_or_another_model_is_refused(store, facts, words):
    begun(store)
    found = examine(store, OutputSpec(uri=store.uri), SPEC, "me")
    claim(store, found, {"spec": SPEC, **FACTS})  # the same is fine
    with pytest.raises(OutputConflictError, match=words):
        claim(store, found, {"spec": SPEC, **facts})


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c"]),
        ({"a": 1}, {"a": 1, "b": None}, []),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({"a": [1, {"x": 1}]}, {"a": [1, {"x": 2}]}, ["a[1].x"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
        ({"method": {"lora": {"r": 1}}}, {"method": {"full": {}}}, ["method.full", "method.lora"]),
    ],
)
def test_changed_names_the_fields(old, new, paths):
    assert changed(old, new) == paths


def test_what_does_not_change_results_is_not_in_the_fingerprint():
    from tunesmith.api.manifest import parse_documents
    from tunesmith.plan.build import build, output_uris

    def fields(**spec):
        document = finetune("x", model="s3://models/m", data="s3://data/d", output="s3://models/o")
        document["spec"].update(spec)
        jobs, problems = parse_documents([document], "x.yaml")
        assert not problems
        return build(jobs[0], output_uris(jobs)).run.result_fields()

    base = fields()
    same = [
        {"run": {"maxAttempts": 9}}, {"resources": {"gpusPerNode": 4}}, {"tracking": {"tensorboard": True}},
        {"storage": {"region": "eu-1"}}, {"output": {"uri": "s3://models/p", "onExisting": "replace"}},
    ]  # fmt: skip
    assert all(fields(**spec) == base for spec in same)
    assert changed(base, fields(previews=[{"name": "p", "user": "hi"}])) == ["previews"]
