import copy
import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from admission import refusals
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.manifests import parse_text
from wrong_texts import GOOD_TEXT

from tunesmith.api.common import FromJob
from tunesmith.api.crd import crd
from tunesmith.api.manifest import SPECS
from tunesmith.api.references import in_order, missing_problems, no_model_problems, references
from tunesmith.errors import ManifestError
from tunesmith.local.manifests import load_jobs
from tunesmith.names import Kind

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CONTRACT = ROOT.parent / "shared" / "spec" / "manifests"
GOOD = [FINE_TUNE, SAMPLE, DIALOGUE]
CRDS = {kind: crd(kind) for kind in Kind}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_accepted_here_and_by_the_crd(path):
    assert load_jobs([path])
    for document in yaml.safe_load_all(path.read_text()):
        assert refusals(CRDS[Kind(document["kind"])], document) == []


def test_the_contracts_manifests_are_examples_word_for_word():
    if not CONTRACT.is_dir():
        pytest.skip("the contract's manifests are not beside this checkout")
    wanted = {path.name: path.read_bytes() for path in CONTRACT.glob("*.yaml")}
    assert {path.name: path.read_bytes() for path in EXAMPLES if path.name in wanted} == wanted


def test_examples_together_are_in_order():
    jobs = load_jobs([ROOT / "examples"])
    assert missing_problems(jobs) == []
    ordered = [job.name for job in in_order(list(reversed(jobs)))[0]]
    assert ordered.index("lawshift-sample") < ordered.index("lawshift-sft")
    assert ordered.index("lawshift-sft") < ordered.index("lawshift-exam")
    assert ordered.index("style-stage1") < ordered.index("style-stage2-correction")


def test_jobs_keep_the_order_given_where_nothing_else_is_said():
    sources = [Path(job.source) for job in load_jobs(EXAMPLES)]
    assert sources == sorted(sources)


def test_values_of_the_first_example():
    job = load_jobs([EXAMPLES[0]])[0]
    spec = job.spec
    assert job.key == ("research", "FineTuneJob", "lovink-profile-context")
    assert spec.training.learning_rate == 1e-5
    assert spec.training.num_train_epochs == 50
    assert spec.resources.cpu == "64"
    assert spec.deepspeed.zero_stage == 3
    assert spec.tracking.wandb.api_key_secret_ref.key == "api-key"
    assert spec.datasets[0].format == "user_simulation"
    assert spec.storage.checksums == "when_required"


# What fields.md says that a manifest does not show.
DEFAULTS = {
    Kind.FINE_TUNE: {
        "output": {"onExisting": "resume"},
        "resources": {"nodes": 1, "gpusPerNode": 1, "gpuResource": "nvidia.com/gpu"},
        "runtime": "default",
        "run": {"maxAttempts": 3, "suspend": False},
        "hub": {"offline": False},
        "tracking": {"tensorboard": True},
        "model": {"dtype": "auto", "attention": "auto", "trustRemoteCode": False},
        "validation": {"ratio": 0, "seed": 42},
        "method": {"lora": {"r": 64, "alpha": 16, "dropout": 0.05, "targetModules": "all-linear"}},
        "training": {
            "numTrainEpochs": 3,
            "perDeviceTrainBatchSize": 2,
            "gradientAccumulationSteps": 8,
            "learningRate": 2e-4,
            "lrScheduler": "cosine",
            "warmupSteps": 100,
            "weightDecay": 0.01,
            "maxGradNorm": 1.0,
            "optimizer": "auto",
            "packing": "tree",
            "shuffle": "group",
            "tokensPerDevice": "auto",
            "lossReduction": "tokenMean",
            "truncatePrompt": True,
            "truncateReply": False,
            "gradientCheckpointing": "auto",
            "seed": 42,
            "loggingSteps": 10,
            "saveSteps": 100,
            "saveTotalLimit": 3,
        },
    },
    Kind.REJECTION_SAMPLE: {
        "sampling": {
            "numSamples": 8,
            "temperature": 0.8,
            "topP": 0.95,
            "maxNewTokens": 2048,
            "seed": 0,
            "deterministic": False,
        },
        "engine": {"vllm": {"tensorParallelSize": 1, "gpuMemoryUtilization": 0.9}},
        "prompts": {"maxBadRecords": 0},
    },
    Kind.DIALOGUE_GEN: {
        "resources": {"nodes": 1, "gpusPerNode": 0},
        "context": {"maxMessages": 16},
        "dryRun": False,
        "endpoints": {"big": {"limits": {"maxParallelRequests": 16, "timeoutSeconds": 120, "maxRetries": 6}}},
    },
}


def missing(wanted, value, path=""):
    if not isinstance(wanted, dict):
        return [] if wanted == value else [path]
    return [p for name in wanted for p in missing(wanted[name], value.get(name, {}), f"{path}.{name}")]


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good["kind"])
def test_defaults(good):
    spec = parse_text(json.dumps(good), "x")[0][0].spec.to_json()
    assert missing(DEFAULTS[Kind(good["kind"])], spec) == []


def test_a_list_stands_for_its_items():
    jobs, problems = parse_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*GOOD, None]}), "x")
    assert [job.kind for job in jobs] == list(Kind)
    assert [problem.path for problem in problems] == ["kind"]


def test_what_the_api_server_adds_is_read_over():
    extra = {
        "metadata.uid": "u",
        "metadata.resourceVersion": "5",
        "metadata.generation": 1,
        "metadata.managedFields": [{}],
        "metadata.creationTimestamp": "2026-01-01T00:00:00Z",
        "status": {"phase": "Running"},
    }
    assert parse_text(json.dumps(changed(FINE_TUNE, extra)), "x")[1] == []


def test_null_is_absence_as_on_the_api_server():
    nulls = {"spec.hub": None, "spec.deepspeed": None, "spec.training": None, "metadata.labels": None}
    jobs, problems = parse_text(json.dumps(changed(FINE_TUNE, nulls)), "x")
    assert problems == []
    assert jobs[0].spec == parse_text(json.dumps(FINE_TUNE), "x")[0][0].spec


def test_folders_files_and_what_cannot_be_read(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD_TEXT)
    (tmp_path / "b.txt").write_text("not read")
    (tmp_path / "sub").mkdir()
    second = changed(FINE_TUNE, {"metadata.name": "second", "spec.output.uri": "s3://models/second"})
    (tmp_path / "sub" / "c.yml").write_text(json.dumps(second))
    (tmp_path / "empty").mkdir()
    assert [Path(job.source).name for job in load_jobs([tmp_path])] == ["a.yaml", "c.yml"]
    with pytest.raises(ManifestError) as refused:
        load_jobs([tmp_path, tmp_path / "none.yaml", tmp_path / "empty"])
    assert sorted(problem.message for problem in refused.value.problems) == [
        "cannot be read: No such file or directory",
        "this folder contains no .yaml, .yml or .json file",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_round_trip(path):
    for job in load_jobs([path]):
        again = SPECS[job.kind].model_validate(json.loads(json.dumps(job.spec.to_json())))
        assert again == job.spec
        assert again.to_json() == job.spec.to_json()


def paths_of(node, path=()):
    yield path
    if isinstance(node, dict):
        for name, child in node.items():
            yield from paths_of(child, (*path, name))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from paths_of(child, (*path, i))


ALL = [document for path in EXAMPLES for document in yaml.safe_load_all(path.read_text())] + GOOD
PLACES = [(document, path) for document in ALL for path in paths_of(document) if path]
# JSON has no infinite numbers: what Python writes for one is a text to a reader of YAML.
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def put(document, path, value):
    document = copy.deepcopy(document)
    node = document
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return document


# What no API server knows: infinite numbers, which models the table of prices has, and what a field has that
# may be a list or a text.
BEYOND_CEL = re.compile(
    "finite|genai-prices does not list|must be a list of names|must hold names|must name a module"
    "|must be 0 with targetParameters"
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JSON | st.sampled_from(PLACES).map(lambda place: place[1][-1]))
def test_a_changed_manifest_is_read_or_refused_and_the_api_server_agrees(place, value):
    document = put(*place, value)
    jobs, problems = parse_text(json.dumps(document), "x")
    assert len(jobs) + bool(problems) == 1
    assert all(str(problem) for problem in problems)
    for job in jobs:
        assert SPECS[job.kind].model_validate(job.spec.to_json()) == job.spec
        assert refusals(CRDS[job.kind], document) == []
    if problems and all(p.path.startswith("spec") and not BEYOND_CEL.search(p.message) for p in problems):
        assert refusals(CRDS[Kind(document["kind"])], document)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=3))
def test_any_value_is_refused_with_words(values):
    jobs, problems = parse_text(yaml.safe_dump_all(values, allow_unicode=True), "x")
    assert jobs == []
    assert problems


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(GOOD_TEXT)), st.integers(0, 40))
def test_any_bytes_in_a_manifest(noise, at, removed):
    text = GOOD_TEXT.encode()
    jobs, problems = parse_text(text[:at] + noise + text[at + removed :], "x")
    assert jobs or problems


def test_a_manifest_error_holds_no_half_a_character():
    problems = parse_text('"\\ud800": 1', "x")[1]
    assert problems
    str(ManifestError(problems)).encode()


def test_references_name_their_field():
    jobs = load_jobs(EXAMPLES)
    found = {(job.name, ref.path): ref.target.name for job in jobs for ref in references(job)}
    assert found == {
        ("lawshift-sft", "spec.datasets[0].fromJob"): "lawshift-sample",
        ("style-stage2-correction", "spec.model.fromJob"): "style-stage1",
        ("lawshift-exam", "spec.model.fromJob"): "lawshift-sft",
        ("lawshift-exam", "spec.compareWith[1].fromJob"): "lawshift-sft",
    }


def test_reading_a_manifest_is_quick_and_pulls_in_nothing_heavy():
    code = (
        "import sys, time; began = time.process_time()\n"
        "from tunesmith.local.manifests import load_jobs; from pathlib import Path\n"
        f"assert load_jobs([Path({str(EXAMPLES[0])!r})])\n"
        "print(time.process_time() - began, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    seconds, *heavy = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert heavy == ["False", "False"]
    if float(seconds) > 0.6:
        warnings.warn(f"reading one manifest took {seconds} s of CPU; 0.3 s is the aim", stacklevel=1)
    assert float(seconds) < 3


def test_a_model_of_a_job_that_only_evaluates_is_refused():
    jobs = load_jobs(EXAMPLES)
    exam = next(job for job in jobs if job.name == "lawshift-exam")
    after = exam.spec.model.model_copy(update={"from_job": FromJob(kind="FineTuneJob", name="lawshift-exam")})
    other = replace(
        exam,
        metadata=exam.metadata.model_copy(update={"name": "next"}),
        spec=exam.spec.model_copy(update={"compare_with": [after]}),
    )
    assert no_model_problems(jobs) == []
    (problem,) = no_model_problems([*jobs, other])
    assert (problem.subject, problem.path) == ("FineTuneJob next", "spec.compareWith[0].fromJob")
    assert "FineTuneJob lawshift-exam only evaluates (its method is none)" in problem.message
