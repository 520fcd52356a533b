"""Which commits of data sets on the hub an attempt reads."""

import pytest
from good_manifests import FINE_TUNE, changed

from tunesmith.api.manifest import parse_document
from tunesmith.errors import CorruptObjectError
from tunesmith.jobs.inputs import refuse_other_data
from tunesmith.jobs.output_lock import COMMITS, ExistingOutput, OutputState
from tunesmith.jobs.reading import hub_sources, reading_options

URI = "hf://datasets/org/set"


def spec(**fields):
    document = changed(FINE_TUNE, {f"spec.{name}": value for name, value in fields.items()})
    return parse_document(document, "m.yaml", 1).spec


def test_an_output_that_is_resumed_names_the_commits(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    job = spec(datasets=[{"uri": URI, "chat": {}}], hub={"endpoint": "https://hub.example"})
    commits = {URI: "a" * 40}
    for state in OutputState:
        found = ExistingOutput(state, fingerprint={COMMITS: commits})
        access = reading_options(job, found).hub
        assert dict(access.commits) == (commits if state is OutputState.RESUME else {}), state
        assert (access.endpoint, access.token) == ("https://hub.example", "hf_x")
    begun_by_an_earlier_version = ExistingOutput(OutputState.RESUME, fingerprint={"spec": {}})
    assert reading_options(job, begun_by_an_earlier_version).hub.commits == ()


def test_a_job_without_data_of_the_hub_asks_for_no_token(monkeypatch):
    job = spec(hub={"tokenSecretRef": {"name": "none", "key": "here"}})
    assert reading_options(job).hub.token is None


def test_every_source_of_records_may_be_on_the_hub():
    evaluation = {
        "name": "e",
        "prompts": {"uri": URI, "chat": {}},
        "verifier": {"exactMatch": {"field": "x"}},
    }
    job = spec(
        datasets=[{"uri": "s3://data/x", "chat": {}}, {"uri": URI, "chat": {}}],
        validation={"uri": URI, "chat": {}},
        evaluation=[evaluation],
    )
    assert [keys for keys, _ in hub_sources(job)] == [
        ("datasets", 1),
        ("validation",),
        ("evaluation", 0, "prompts"),
    ]


def test_nodes_that_have_read_other_data_do_not_train_together():
    refuse_other_data(["a", "a"])
    with pytest.raises(CorruptObjectError, match="The nodes have read different data"):
        refuse_other_data(["a", "a", "b"])
