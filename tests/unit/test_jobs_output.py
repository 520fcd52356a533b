"""What an attempt does with what it finds at its output."""

import json
from contextlib import suppress
from datetime import date

import pytest
from tests.cases import each
from tests.support import finetune

from tunesmith.api.common import OutputSpec
from tunesmith.artifacts import fetch_verified, publish, read_manifest
from tunesmith.artifacts.open import open_store
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.first_attempt import first_processes
from tunesmith.jobs.output_lock import (
    PROCESSES,
    ExistingOutput,
    OutputState,
    claim,
    inspect,
    remove_outgrown,
)
from tunesmith.plan.growth import Growth, any_change, changed, not_smaller

SPEC = {"training": {"learningRate": 0.1, "seed": 1}, "datasets": [{"uri": "s3://a/b"}]}
OTHER = {"training": {"learningRate": 0.2, "seed": 1}, "datasets": [{"uri": "s3://a/c"}]}
FACTS = {"data": "d1", "model": "m1"}
DAY = date(2024, 2, 29)


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


def begun(store, spec=SPEC):
    """An attempt of `spec` has claimed the output and saved something."""
    claim(store, ExistingOutput(OutputState.NEW, day=DAY, owner="me"), {"spec": spec, **FACTS})
    store.put("checkpoint-2/model.safetensors", b"weights")


def finished(store, spec=SPEC):
    begun(store, spec)
    store.put("manifest.json", b'{"version":1,"files":[]}')


def foreign(store):
    store.put("photos/cat.jpg", b"cat")


SETUPS = {"nothing": lambda store: None, "foreign": foreign, "begun": begun, "finished": finished}
SETUPS["other begun"] = lambda store: begun(store, OTHER)
SETUPS["other finished"] = lambda store: finished(store, OTHER)
FOREIGN, FAIL = "contains files that are not Tunesmith's", "output.onExisting is fail"
FIELDS = r"other settings: spec\.datasets\[0\]\.uri, spec\.training\.learningRate"
CASES = [
    # there, onExisting, for another job, for the job that began it: a State or the message of a refusal
    ("nothing", "resume", OutputState.NEW, OutputState.NEW),
    ("nothing", "replace", OutputState.NEW, OutputState.NEW),
    ("nothing", "fail", OutputState.NEW, OutputState.NEW),
    ("foreign", "resume", FOREIGN, FOREIGN),
    ("foreign", "replace", FOREIGN, FOREIGN),
    ("foreign", "fail", FOREIGN, FOREIGN),
    ("begun", "resume", OutputState.RESUME, OutputState.RESUME),
    ("begun", "replace", OutputState.REPLACE, OutputState.RESUME),
    ("begun", "fail", FAIL, OutputState.RESUME),
    ("finished", "resume", OutputState.FINISHED, OutputState.FINISHED),
    ("finished", "replace", OutputState.REPLACE, OutputState.FINISHED),
    ("finished", "fail", FAIL, OutputState.FINISHED),
    ("other begun", "resume", FIELDS, FIELDS),
    ("other begun", "replace", OutputState.REPLACE, FIELDS),
    ("other begun", "fail", FAIL, FIELDS),
    ("other finished", "resume", FIELDS, FIELDS),
    ("other finished", "replace", OutputState.REPLACE, FIELDS),
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
    if isinstance(expected, OutputState):
        assert inspect(store, output, SPEC, uid).state is expected
    else:
        with pytest.raises(OutputConflictError, match=expected):
            inspect(store, output, SPEC, uid)
    assert {entry.key: store.read(entry.key) for entry in store.list()} == before


def test_the_day_and_the_digest_are_the_first_attempts(store):
    finished(store)
    found = inspect(store, OutputSpec(uri=store.uri), SPEC, "another")
    assert found.day == DAY
    assert len(found.digest) == 64


def test_replacing_leaves_the_new_fingerprint_only(store):
    finished(store, OTHER)
    foreign(store)
    found = inspect(store, OutputSpec(uri=store.uri, on_existing="replace"), SPEC, "another")
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
        claim(Killed(), inspect(store, output, SPEC, "new"), {"spec": SPEC, **FACTS})
        died = False
    except KeyboardInterrupt:
        died = True
    found = inspect(store, output, SPEC, "new")
    assert found.state is (OutputState.REPLACE if died else OutputState.RESUME)
    claim(store, found, {"spec": SPEC, **FACTS})
    assert [entry.key for entry in store.list()] == ["fingerprint.json"]
    assert inspect(store, output, SPEC, "new").state is OutputState.RESUME


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"data": "d2", "model": "m1"}, "different input: the content of the datasets"),
        ({"data": "d1", "model": "m2"}, "different input: the model's files"),
        ({"data": "d2", "model": "m2"}, "the content of the datasets, the model's files"),
    ],
)
def test_other_data_or_another_model_is_refused(store, facts, words):
    begun(store)
    found = inspect(store, OutputSpec(uri=store.uri), SPEC, "me")
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


# What may grow.

GROWTH = Growth({"sampling.numSamples": not_smaller, "prompts.uri": any_change}, "Samples may grow.")
SMALL = {"sampling": {"numSamples": 8, "seed": 1}, "prompts": {"uri": "s3://a/b"}}
GREAT = {"sampling": {"numSamples": 16, "seed": 1}, "prompts": {"uri": "s3://a/b"}}


def look(store, spec, uid="another"):
    return inspect(store, OutputSpec(uri=store.uri), spec, uid, GROWTH)


def publish_another(store):
    store.put("manifest.json", b'{"version":1,"files":[],"kind":"greater"}')


def test_a_finished_output_whose_fields_grew_is_resumed_and_stays_valid_until_the_new_one_is_published(store):
    finished(store, SMALL)
    found = look(store, GREAT)
    assert (found.state, found.grown) == (OutputState.RESUME, ("spec.sampling.numSamples",))
    assert found.outgrown == found.digest != ""
    claim(store, found, {"spec": GREAT, **FACTS})
    for uid in ("another", "me"):  # killed here, it does not take the smaller result for the new one
        again = look(store, GREAT, uid)
        assert (again.state, again.grown, again.outgrown) == (OutputState.RESUME, (), found.digest)
        claim(store, again, {"spec": GREAT, **FACTS})
    assert store.exists("manifest.json")
    remove_outgrown(store, again)
    assert not store.exists("manifest.json")
    assert look(store, GREAT).state is OutputState.RESUME
    remove_outgrown(store, again)
    publish_another(store)
    remove_outgrown(store, again)  # an attempt that was thought dead
    assert look(store, GREAT).state is OutputState.FINISHED


def test_an_unfinished_output_grows_too(store):
    begun(store, SMALL)
    found = look(store, GREAT)
    assert (found.state, found.grown, found.outgrown) == (
        OutputState.RESUME,
        ("spec.sampling.numSamples",),
        "",
    )
    claim(store, found, {"spec": GREAT, **FACTS})
    assert json.loads(store.read("fingerprint.json"))["spec"] == GREAT
    with pytest.raises(OutputConflictError, match=r"numSamples \(16 → 8; it may only grow\)"):
        look(store, SMALL)


def test_what_shrinks_or_changes_otherwise_is_refused_and_the_message_says_what_may_grow(store):
    finished(store, GREAT)
    other = {"sampling": {"numSamples": 8, "seed": 2}, "prompts": {"uri": "s3://a/c"}}
    with pytest.raises(OutputConflictError) as refused:
        look(store, other)
    message = str(refused.value)
    assert "settings: spec.sampling.numSamples (16 → 8; it may only grow), spec.sampling.seed. " in message
    assert "Samples may grow. Choose another" in message


def test_a_field_that_an_earlier_version_did_not_know_is_no_other_setting_while_it_has_its_default(store):
    finished(store, SMALL)
    later = {
        "sampling": {**SMALL["sampling"], "topK": 50},
        "prompts": {**SMALL["prompts"], "parts": [{"a": 1}]},
    }
    found = inspect(store, OutputSpec(uri=store.uri), later, "another", GROWTH, SMALL)
    assert (found.state, found.grown) == (OutputState.FINISHED, ())
    claim(store, found, {"spec": later, **FACTS})
    chosen = {"sampling": {"topK": 50}}
    with pytest.raises(OutputConflictError, match=r"settings: spec\.sampling\.topK\. "):
        inspect(store, OutputSpec(uri=store.uri), later, "another", GROWTH, chosen)
    other = {**later, "sampling": {"numSamples": 8, "seed": 7, "topK": 50}}  # a default that has changed
    with pytest.raises(OutputConflictError, match=r"settings: spec\.sampling\.seed\. "):
        inspect(store, OutputSpec(uri=store.uri), other, "another", GROWTH, {})


def test_a_default_that_was_given_up_is_no_other_setting_while_nothing_else_is_chosen(store):
    old = {"training": {"maxLength": 4096, "seed": 42}}
    finished(store, old)
    given_up, shorter = {"training": {"seed": 42}}, {"training": {"maxLength": 512, "seed": 42}}
    found = inspect(store, OutputSpec(uri=store.uri), given_up, "another", chosen={})
    assert found.state is OutputState.FINISHED
    claim(store, found, {"spec": given_up, **FACTS})
    with pytest.raises(OutputConflictError, match=r"settings: spec\.training\.maxLength\. "):
        inspect(store, OutputSpec(uri=store.uri), shorter, "another", chosen={"training": {"maxLength": 512}})


def test_data_that_grew_is_claimed_only_by_who_says_so(store):
    finished(store, SMALL)
    found = look(store, SMALL)
    assert found.state is OutputState.FINISHED
    more = {"spec": SMALL, "data": "d2", "model": "m1"}
    with pytest.raises(OutputConflictError, match="the content of the datasets"):
        claim(store, found, more)
    grown = found.outgrow("data")
    with pytest.raises(OutputConflictError, match="the model's files"):
        claim(store, grown, {**more, "model": "m2"})
    claim(store, grown, more)
    assert look(store, SMALL).state is OutputState.RESUME
    with pytest.raises(OutputConflictError, match="another job in the meantime"):
        claim(store, found.outgrow("data"), {**more, "data": "d3"})


def test_a_growth_is_never_less():
    cases = [
        (not_smaller, 8, 8, True), (not_smaller, 8, 9, True), (not_smaller, 8, 7, False),
        (not_smaller, None, 8, False), (not_smaller, 8, None, True), (not_smaller, None, None, True),
    ]  # fmt: skip
    assert [case for case in cases if case[0](case[1], case[2]) is not case[3]] == []


class Mortal:
    """A store whose process dies before one of its writes."""

    def __init__(self, store, lives):
        self._store, self._lives = store, lives

    def __getattr__(self, name):
        method = getattr(self._store, name)
        return self._deadly(method) if name in ("put", "put_file", "delete") else method

    def _deadly(self, method):
        def call(*arguments, **options):
            if not self._lives:
                raise KeyboardInterrupt
            self._lives -= 1
            return method(*arguments, **options)

        return call


def test_killed_before_any_write_a_growing_output_is_never_half_new_and_looks_finished(tmp_path):
    files = {name: tmp_path / name for name in ("small", "great")}
    for name, folder in files.items():
        folder.mkdir()
        for part in ("a", "b", "c"):
            (folder / part).write_text(f"{name} {part}")
    facts = {"spec": GREAT, **FACTS}

    def grow(store):
        found = look(store, GREAT)
        if found.state is OutputState.FINISHED:
            return
        claim(store, found, facts)
        remove_outgrown(store, found)
        publish(store, "", files["great"])

    states = []
    for lives in range(20):
        real = open_store(f"file://{tmp_path / str(lives)}")
        claim(real, ExistingOutput(OutputState.NEW, day=DAY), {"spec": SMALL, **FACTS})
        publish(real, "", files["small"])
        with suppress(KeyboardInterrupt):
            grow(Mortal(real, lives))
        whole = read_manifest(real, "") is not None
        if whole:
            fetch_verified(real, "", tmp_path / f"read-{lives}")
        states.append((whole, look(real, GREAT).state is OutputState.FINISHED))
        grow(real)
        assert look(real, GREAT).state is OutputState.FINISHED
        assert real.read("b") == b"great b"
        fetch_verified(real, "", tmp_path / f"grown-{lives}")
    assert list(dict.fromkeys(states)) == [(True, False), (False, False), (True, True)]


def attempt(store, processes, spec=SPEC):
    """The number of processes that a first attempt had, as one with so many finds and claims it."""
    found = inspect(store, OutputSpec(uri="file:///out"), spec, "me")
    first = first_processes(store, found, processes)
    claim(store, found, {"spec": spec, **FACTS, PROCESSES: first})
    return first


def checkpoint(store, tmp_path, step, world):
    (tmp_path / str(step)).mkdir()
    (tmp_path / str(step) / "weights").write_bytes(b"w")
    publish(store, f"checkpoint-{step}", tmp_path / str(step), extra={"step": step, "world": world})


def test_the_steps_are_those_of_the_first_attempt_also_without_a_checkpoint(store, tmp_path):
    assert [attempt(store, processes) for processes in (4, 2)] == [4, 4]
    checkpoint(store, tmp_path, 2, world=2)
    assert [attempt(store, processes) for processes in (3, 4)] == [4, 4]


def test_an_output_of_an_earlier_version_has_the_number_in_its_checkpoints(store, tmp_path):
    """Those that another number makes later do not change it."""
    begun(store)
    assert attempt(open_store(store.uri), 3) == 3
    begun_before = json.loads(store.read("fingerprint.json"))
    assert begun_before.pop(PROCESSES) == 3
    store.put("fingerprint.json", json.dumps(begun_before).encode())
    checkpoint(store, tmp_path, 2, world=4)
    store.put("checkpoint-4/manifest.json", b"{")  # a damaged one
    assert attempt(store, 2) == 4
    checkpoint(store, tmp_path, 6, world=2)
    assert attempt(store, 2) == 4


def test_another_job_that_replaces_the_output_has_steps_of_its_own(store):
    assert attempt(store, 4) == 4
    found = inspect(store, OutputSpec(uri="file:///out", on_existing="replace"), SPEC, "you")
    assert first_processes(store, found, 2) == 2
