"""When a finished FineTuneJob is only looked at again: what is compared with what its output holds."""

import json
from copy import deepcopy
from datetime import date

import pytest
from tests.support import finetune

from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.open import open_store
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.evaluate_again import compared_fields, is_looked_at
from tunesmith.jobs.output_lock import ExistingOutput, OutputState, claim, inspect
from tunesmith.plan.run import resolve

EVALUATION = {
    "name": "e",
    "prompts": {"uri": "s3://data/e.jsonl", "instruction": {}},
    "verifier": {"exactMatch": {"field": "output"}},
}
LOOKS = {
    "evaluation": [EVALUATION],
    "previews": [{"name": "p", "user": "Hello?"}],
    "compareWith": [{"uri": "hf://org/other"}],
}


def run_of(store, **spec):
    document = finetune("tune", model="hf://org/model", data="s3://data/x", output=store.uri)
    document["spec"] |= spec
    return resolve(parse_document(document, "", 0), {})


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


def finish(store, run, **extra):
    claim(
        store,
        ExistingOutput(OutputState.NEW, day=date(2024, 2, 29)),
        {"spec": run.result_fields(), "data": "d"},
    )
    store.put(
        "manifest.json", json.dumps({"version": 1, "files": [], "kind": "FineTuneJob", **extra}).encode()
    )


def state(store, run):
    return inspect(store, run.spec.output, compared_fields(store, run), "another").state


def test_what_is_looked_at_may_change_over_a_finished_output(store):
    """Each kind of it; the same again, or nothing at all, is finished already."""
    first = run_of(store, evaluation=[EVALUATION])
    finish(store, first)
    changes = {
        "evaluation": [EVALUATION, {**EVALUATION, "name": "f"}],
        "previews": LOOKS["previews"],
        "compareWith": LOOKS["compareWith"],
    }
    for field, value in changes.items():
        run = run_of(store, **{"evaluation": [EVALUATION], field: value})
        assert (state(store, run), is_looked_at(store, run)) == (OutputState.FINISHED, False), field
    assert is_looked_at(store, first)
    assert is_looked_at(store, run_of(store))


def test_what_was_published_last_counts_not_what_was_claimed_first(store):
    added = run_of(store, **LOOKS)
    finish(store, run_of(store), lookedAt=added.looked_at())
    assert is_looked_at(store, added)
    assert not is_looked_at(store, run_of(store, evaluation=[EVALUATION]))
    assert state(store, added) is OutputState.FINISHED


def test_what_changes_the_weights_is_refused_and_named(store):
    finish(store, run_of(store))
    training = run_of(store).spec.training.to_json()
    changes = {
        "spec.training.seed": {"training": {**training, "seed": 7}},
        "spec.datasets[0].repeat": {"datasets": [{"uri": "s3://data/x", "chat": {}, "repeat": 2.0}]},
        "spec.method.lora.r": {"method": {"lora": {"r": 5, "alpha": 8, "dropout": 0.1}}},
    }
    for field, change in changes.items():
        run = run_of(store, **change, **deepcopy(LOOKS))
        with pytest.raises(OutputConflictError) as error:
            state(store, run)
        assert error.value.message.split("other settings: ")[1].startswith(f"{field}. "), field


def test_an_unfinished_output_is_resumed_as_it_was_begun_only(store):
    claim(store, ExistingOutput(OutputState.NEW), {"spec": run_of(store).result_fields(), "data": "d"})
    assert state(store, run_of(store)) is OutputState.RESUME
    with pytest.raises(OutputConflictError, match=r"other settings: spec\.evaluation"):
        state(store, run_of(store, evaluation=[EVALUATION]))
