"""engine.vllm.extra: what may be set, and that nothing else is."""

from __future__ import annotations

from good_manifests import SAMPLE, changed
from hostile import ENGINE_ARGUMENTS, ENGINE_VALUES

from tunesmith.api.manifest import parse_documents
from tunesmith.api.vllm_arguments import VllmArguments

FIELD = "spec.engine.vllm.extra"


def problems(extra):
    return parse_documents([changed(SAMPLE, {"spec.engine": {"vllm": {"extra": extra}}})], "job.yaml")[1]


def test_no_argument_opens_a_file_an_address_or_a_module():
    assert [name for name, value in ENGINE_ARGUMENTS.items() if not problems({name: value})] == []
    assert [name for name, value in ENGINE_VALUES.items() if not problems({name: value})] == []


def test_what_is_refused_is_named_with_what_may_be_set():
    wrong, known = problems({"worker_cls": "os.system"})
    assert (wrong.path, wrong.message) == (f"{FIELD}.worker_cls", "cannot be set here")
    assert known.path == FIELD
    assert known.message == f"may contain {', '.join(VllmArguments.model_fields)}"


HINTS = {
    "max_num_seq": 'cannot be set here; did you mean "max_num_seqs"?',
    "maxNumSeqs": 'cannot be set here; did you mean "max_num_seqs"?',
    "model": "cannot be set here; it is set by model.uri",
    "seed": "cannot be set here; it is set by sampling.seed",
    "max_model_len": "cannot be set here; it is set by engine.vllm.maxModelLen",
}


def test_hints_lead_to_what_is_meant():
    assert {name: problems({name: 1})[0].message for name in HINTS} == HINTS


def test_of_very_many_names_the_first_are_told():
    found = problems({f"name{number}": 1 for number in range(50_000)})
    assert len(found) == 22
    assert found[-2].message == "contains 49,980 more names that cannot be set"


def test_what_may_be_set_is_taken():
    good = {"max_num_seqs": 4, "enforce_eager": True, "kv_cache_dtype": "fp8", "spec_method": "ngram"}
    assert problems(good) == []
    assert problems({"cudagraph_capture_sizes": [1, 2], "cpu_offload_gb": 1.5}) == []
