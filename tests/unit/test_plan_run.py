"""run.json: the same bytes for the same job, nothing of the machine in it, references replaced."""

import json

import pytest
from full_manifests import FULL
from good_manifests import DIALOGUE, FINE_TUNE, REMOVED, SAMPLE, changed

from tunesmith.api.manifest import parse_document
from tunesmith.errors import ManifestError
from tunesmith.plan.run import canonical, digest, parse_run, resolve
from tunesmith.plan.show import as_yaml


def run(document, outputs=None):
    return resolve(parse_document(document, "m.yaml", 1), outputs or {})


@pytest.mark.parametrize("kind", FULL)
def test_a_run_survives_the_way_there_and_back(kind):
    text = run(FULL[kind]).to_json()
    again = parse_run(text)
    assert again.to_json() == text
    assert (again.kind, again.name, again.namespace) == (kind, FULL[kind]["metadata"]["name"], "research")


def test_equal_jobs_give_equal_bytes_whatever_the_order_and_the_defaults():
    reordered = {key: FINE_TUNE[key] for key in reversed(FINE_TUNE)}
    reordered["spec"] = {key: FINE_TUNE["spec"][key] for key in reversed(FINE_TUNE["spec"])}
    spelt = changed(
        FINE_TUNE, {"spec.training": {"numTrainEpochs": 3, "seed": 42}, "spec.method.lora": {"r": 64}}
    )
    assert run(FINE_TUNE).to_json() == run(reordered).to_json() == run(spelt).to_json()


def test_where_it_runs_changes_nothing():
    elsewhere = changed(FINE_TUNE, {
        "spec.resources": {"nodes": 4, "gpusPerNode": 8, "cpu": 4, "memory": "1Gi"}, "spec.runtime": "big",
        "spec.placement": {"nodeSelector": {"a": "b"}}, "spec.run": {"maxAttempts": 9},
        "metadata.labels": {"a": "b"},
    })  # fmt: skip
    assert run(elsewhere).to_json() == run(FINE_TUNE).to_json()


def test_the_fingerprint_is_what_changes_results():
    fields = run(FULL["FineTuneJob"]).result_fields()
    assert (
        not {"storage", "hub", "tracking", "output", "resources", "placement", "runtime", "run"}
        & fields.keys()
    )
    assert {"model", "datasets", "method", "training", "validation", "previews"} <= fields.keys()


def test_by_which_interface_a_model_is_asked_changes_no_result():
    def fields(batch):
        return run(changed(DIALOGUE, {"spec.endpoints.big.openai.batch": batch})).result_fields()

    assert fields({}) == fields({"discount": 0.3}) == run(DIALOGUE).result_fields()


def test_text_stays_readable():
    text = run(changed(FINE_TUNE, {"spec.previews": [{"name": "a", "user": "你好 $(x)"}]})).to_json()
    assert "你好 $(x)" in text
    assert text.endswith("}\n")


FROM_JOBS = changed(FINE_TUNE, {
    "spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "a"}},
    "spec.datasets": [
        {"fromJob": {"kind": "RejectionSampleJob", "name": "a"}, "sampled": {}},
        {"fromJob": {"kind": "DialogueGenJob", "name": "a"}, "chat": {}},
    ],
})  # fmt: skip
OUTPUTS = {
    ("research", "FineTuneJob", "a"): "s3://out/model/",
    ("research", "RejectionSampleJob", "a"): "s3://out/sampled",
    ("research", "DialogueGenJob", "a"): "file:///out/dialogues",
}


def test_references_become_addresses_of_what_each_kind_makes():
    spec = json.loads(run(FROM_JOBS, OUTPUTS).to_json())["spec"]
    assert spec["model"]["uri"] == "s3://out/model/final_model"
    assert [d["uri"] for d in spec["datasets"]] == [
        "s3://out/sampled/sampled_data.json",
        "file:///out/dialogues/messages.jsonl",
    ]
    assert "fromJob" not in json.dumps(spec)


def test_two_references_to_one_job_keep_their_own_parts():
    """The final model and a checkpoint of the same job, wherever a model is named."""
    target = {"kind": "FineTuneJob", "name": "a"}
    checkpoint = {"model": {"fromJob": {**target, "checkpoint": 100}}}
    endpoints = {
        "spec.endpoints.one": {"transformers": {"model": {"fromJob": target}}},
        "spec.endpoints.two": {"vllm": checkpoint},
    }
    spec = json.loads(run(changed(DIALOGUE, endpoints), OUTPUTS).to_json())["spec"]
    assert spec["endpoints"]["one"]["transformers"]["model"]["uri"] == "s3://out/model/final_model"
    assert spec["endpoints"]["two"]["vllm"]["model"]["uri"] == "s3://out/model/checkpoint-100"
    for document in (
        changed(FINE_TUNE, {"spec.model": checkpoint["model"]}),
        changed(SAMPLE, {"spec.model": checkpoint["model"]}),
    ):
        assert run(document, OUTPUTS).spec.model.uri == "s3://out/model/checkpoint-100"


def test_a_field_called_from_job_in_a_json_object_is_left_alone():
    document = changed(FINE_TUNE, {"spec.deepspeed": {"config": {"fromJob": {"kind": "x", "name": "y"}}}})
    assert run(document).spec.deepspeed.config == {"fromJob": {"kind": "x", "name": "y"}}


def test_an_unknown_reference_names_its_field():
    with pytest.raises(ManifestError) as caught:
        run(FROM_JOBS, {key: uri for key, uri in OUTPUTS.items() if key[1] == "DialogueGenJob"})
    assert [problem.path for problem in caught.value.problems] == [
        "spec.model.fromJob",
        "spec.datasets[0].fromJob",
    ]
    assert "FineTuneJob a is not among the manifests given" in str(caught.value)


def test_a_reference_stays_in_its_namespace():
    other = {("default", *key[1:]): uri for key, uri in OUTPUTS.items()}
    with pytest.raises(ManifestError):
        run(FROM_JOBS, other)


def test_a_namespace_that_is_not_given_is_default():
    assert run(changed(FINE_TUNE, {"metadata.namespace": REMOVED})).namespace == "default"


def test_canonical_json_and_its_digest():
    assert canonical({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"é"],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": "1"})
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_yaml_has_no_anchors_and_reads_back():
    import yaml

    shared = {"x": "1", "text": "a\nb\n", "no": "no", "when": "2024-01-01", "多": "$(x)"}
    text = as_yaml([{"one": shared, "two": shared}, {}])
    assert "&id" not in text
    assert "|\n" in text
    assert list(yaml.safe_load_all(text)) == [{"one": shared, "two": shared}, {}]
