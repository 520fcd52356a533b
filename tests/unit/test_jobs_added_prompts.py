"""Prompts that are added to the file of a finished job, and those that are changed or removed."""

import os

import pytest
from tests.unit.test_prompts_store import make, write

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.store import StorageOptions, open_store
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.added_prompts import check_growth, may_have_more, save_list, sources_of, with_added
from tunesmith.jobs.output import Found, State

BEFORE = [make(f"p{number}") for number in range(6)]


def finished(prompts, **fingerprint):
    return Found(
        State.FINISHED,
        "digest",
        owner="first",
        fingerprint={"data": prompts.digest, "spec": {}, **fingerprint},
    )


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def test_added_prompts_are_a_growth_whatever_their_order_and_others_are_refused_by_name(store, tmp_path):
    before = write(tmp_path / "before", *BEFORE)
    save_list(store, before)
    found = finished(before)
    assert with_added(found, before) is found
    more = write(tmp_path / "more", make("x"), *reversed(BEFORE), make("y"))
    grown = with_added(found, more)
    assert (grown.state, grown.grown, grown.outgrown) == (State.RESUME, ("data",), "digest")
    check_growth(store, grown, more)
    changed = [make("p0", answer=1), make("p1", 2), *BEFORE[2:4], make("x")]
    fewer = write(tmp_path / "fewer", *changed)
    with pytest.raises(OutputConflictError) as refused:
        check_growth(store, with_added(found, fewer), fewer)
    message = str(refused.value)
    assert (
        "2 of its 6 prompts are missing, the content of prompt p0, p1 has changed. Over an existing"
        in message
    )
    assert "prompts may be added" in message


def test_an_output_without_its_journal_cannot_grow_and_says_so(store, tmp_path):
    prompts = write(tmp_path / "before", *BEFORE)
    with pytest.raises(OutputConflictError, match="has no journal/ any more"):
        check_growth(store, finished(prompts).outgrow("spec.sampling.numSamples"), prompts)
    more = write(tmp_path / "more", *BEFORE, make("x"))
    begun = Found(State.RESUME, fingerprint={"data": prompts.digest})
    with pytest.raises(OutputConflictError, match="the content of the datasets"):
        check_growth(store, with_added(begun, more), more)


def test_a_finished_job_reads_its_prompts_again_only_if_their_files_changed(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("one\n")
    spec, options = PromptsSpec(uri=path.as_uri(), instruction={}), StorageOptions()
    sources = sources_of(spec, options)
    found = finished(write(tmp_path / "p", *BEFORE), sources=sources)
    os.utime(path, (1, 1))
    assert not may_have_more(found, "second", sources_of(spec, options))
    path.write_text("one\ntwo\n")
    assert may_have_more(found, "second", sources_of(spec, options))
    assert not may_have_more(found, "first", sources_of(spec, options))  # a pod of it that starts once more
    assert not may_have_more(finished(write(tmp_path / "q", *BEFORE)), "second", sources_of(spec, options))
    path.unlink()
    assert not may_have_more(found, "second", sources_of(spec, options))
