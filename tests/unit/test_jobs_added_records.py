"""Prompts that are added to the file of a finished job, and those that are changed or removed."""

import os

import pytest
from tests.support import write_jsonl
from tests.unit.test_prompts_store import make, write

from tunesmith.api.dialogue import DialogueGenSpec, SeedsSpec
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.added_records import (
    PROMPTS,
    SEEDS,
    check_growth,
    may_have_more,
    save_list,
    sources_of,
    with_added,
)
from tunesmith.jobs.output_lock import ExistingOutput, OutputState
from tunesmith.names import Kind
from tunesmith.plan.growth import compare
from tunesmith.plan.run import Run

BEFORE = [make(f"p{number}") for number in range(6)]


def finished(prompts, **fingerprint):
    return ExistingOutput(
        OutputState.FINISHED,
        "digest",
        owner="first",
        fingerprint={"data": prompts.digest, "spec": {}, **fingerprint},
    )


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def test_added_prompts_are_a_growth_whatever_their_order_and_others_are_refused_by_name(store, tmp_path):
    before = write(tmp_path / "before", *BEFORE)
    save_list(store, before, PROMPTS)
    found = finished(before)
    assert with_added(found, before) is found
    more = write(tmp_path / "more", make("x"), *reversed(BEFORE), make("y"))
    grown = with_added(found, more)
    assert (grown.state, grown.grown, grown.outgrown) == (OutputState.RESUME, ("data",), "digest")
    check_growth(store, grown, more, PROMPTS)
    changed = [make("p0", answer=1), make("p1", 2), *BEFORE[2:4], make("x")]
    fewer = write(tmp_path / "fewer", *changed)
    with pytest.raises(OutputConflictError) as refused:
        check_growth(store, with_added(found, fewer), fewer, PROMPTS)
    message = str(refused.value)
    assert (
        "2 of its 6 prompts are missing, the content of prompt p0, p1 has changed. Over an existing"
        in message
    )
    assert "prompts may be added" in message


def test_an_output_without_its_journal_cannot_grow_and_says_so(store, tmp_path):
    prompts = write(tmp_path / "before", *BEFORE)
    with pytest.raises(OutputConflictError, match="has no journal/ any more"):
        check_growth(store, finished(prompts).outgrow("spec.sampling.numSamples"), prompts, PROMPTS)
    more = write(tmp_path / "more", *BEFORE, make("x"))
    begun = ExistingOutput(OutputState.RESUME, fingerprint={"data": prompts.digest})
    with pytest.raises(OutputConflictError, match="the content of the datasets"):
        check_growth(store, with_added(begun, more), more, PROMPTS)


def test_a_finished_job_reads_its_prompts_again_only_if_their_files_changed(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("one\n")

    def now():
        return sources_of(SeedsSpec.model_validate({"uri": path.as_uri()}), StorageOptions())

    sources = now()
    found = finished(write(tmp_path / "p", *BEFORE), sources=sources)
    os.utime(path, (1, 1))
    assert not may_have_more(found, "second", now())
    path.write_text("one\ntwo\n")
    assert may_have_more(found, "second", now())
    assert not may_have_more(found, "first", now())  # a pod of it that starts once more
    assert not may_have_more(finished(write(tmp_path / "q", *BEFORE)), "second", now())
    path.unlink()
    assert not may_have_more(found, "second", now())


def seeds_of(folder, *records, **fields):
    path = write_jsonl(folder / "seeds.jsonl", records)
    return prepare_seeds(SeedsSpec(uri=path.as_uri(), **fields), StorageOptions(), folder / "prepared")


def seed(number, **fields):
    return {"question": f"Q{number}?", "answer": "A", "correction": "C", **fields}


def test_added_seeds_are_a_growth_unless_they_renumber_those_that_are_there(store, tmp_path):
    named, plain = [seed(at, id=f"s{at}") for at in range(3)], [seed(at) for at in range(3, 6)]
    before = seeds_of(tmp_path / "before", *named, *plain)
    save_list(store, before, SEEDS)
    found = finished(before)
    names = {each.key: each.names() for each in before}

    def grown(name, *records, **fields):
        made = seeds_of(tmp_path / name, *records, **fields)
        check_growth(store, with_added(found, made), made, SEEDS)
        return {each.key: each.names() for each in made}

    assert names.items() <= grown("behind", *named, *plain, seed(9), seed(10, id="s10")).items()
    assert names.items() <= grown("shuffled", *named, *plain, seed(9), shuffle_seed=3).items()
    assert names.items() <= grown("among", named[2], named[0], named[1], *plain).items()
    for name, records, words in (
        ("fewer", [*named, *plain[:2]], "1 of its 6 seeds are missing. Over an existing output, rounds"),
        ("other-text", [seed(7, id="s0"), *named[1:], *plain], "the content of seed s0 has changed"),
        ("before", [seed(9), *named, *plain], "seed r1-000005, r1-000006, r1-000007 has changed. Over an"),
    ):
        with pytest.raises(OutputConflictError, match=words) as refused:
            grown(name, *records)
        assert "after the others if they have no ids" in str(refused.value)
        assert "on a cluster: delete the job and apply it again" in str(refused.value)


def dialogue_run(**spec):
    role = {"endpoint": "e"}
    fields = {
        "seeds": {"uri": "s3://aligner/seeds.jsonl", "limit": 50, "shuffleSeed": 1},
        "rounds": 3,
        "endpoints": {"e": {"openai": {"baseUrl": "https://example.org/v1", "model": "m"}}},
        "roles": {"question": role, "answer": role, "correction": role},
        "output": {"uri": "s3://aligner/out"},
        **spec,
    }
    return Run(Kind.DIALOGUE_GEN, "talk", "default", DialogueGenSpec.model_validate(fields))


def test_a_calls_key_does_not_depend_on_fields_that_have_their_defaults():
    fields = dialogue_run().lasting_fields()
    assert "dryRun" not in fields
    assert "context" not in fields
    assert dialogue_run(context={"maxMessages": 16}).lasting_fields() == fields
    assert dialogue_run(context={"maxMessages": 15}).lasting_fields() != fields


def test_what_of_a_dialogue_job_may_grow_and_that_its_calls_stay_the_same_then():
    old, seeds = dialogue_run(), {"uri": "s3://aligner/seeds.jsonl", "limit": 50, "shuffleSeed": 1}
    cases = [
        ({"rounds": 4}, [], ["rounds"]),
        ({"seeds": seeds | {"limit": 200}}, [], ["seeds.limit"]),
        (
            {"seeds": seeds | {"limit": None, "uri": "s3://aligner/more.jsonl"}},
            [],
            ["seeds.limit", "seeds.uri"],
        ),
        ({"rounds": 2}, ["rounds"], []),
        ({"seeds": seeds | {"limit": 49}}, ["seeds.limit"], []),
        ({"seeds": seeds | {"shuffleSeed": 2}}, ["seeds.shuffleSeed"], []),
        ({"context": {"maxMessages": 2}, "rounds": 9}, ["context.maxMessages"], ["rounds"]),
    ]
    for fields, conflicts, grown in cases:
        new = dialogue_run(**fields)
        found = compare(old.result_fields(), new.result_fields(), new.growth())
        assert found == (conflicts, grown), fields
        assert (new.lasting_fields() == old.lasting_fields()) == (
            conflicts in ([], ["rounds"], ["seeds.limit"])
        )
