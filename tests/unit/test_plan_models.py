"""Names of models in reports: short, unique, and as the manifest names them."""

from good_manifests import FINE_TUNE, REMOVED, changed

from tunesmith.api.manifest import parse_document
from tunesmith.plan.models import model_key, model_names
from tunesmith.plan.run import parse_run, resolve

EVALUATION = {
    "name": "e",
    "prompts": {"uri": "s3://data/e.json", "chat": {}},
    "verifier": {"exactMatch": {"field": "x"}},
}
TUNE = {"kind": "FineTuneJob", "name": "tune-a"}


def job(**spec):
    changes = {f"spec.{name}": value for name, value in {"evaluation": [EVALUATION], **spec}.items()}
    return parse_document(changed(FINE_TUNE, changes), "", 0)


def none(model, *others):
    compared = {"compareWith": list(others)} if others else {}
    return job(method={"none": {}}, datasets=REMOVED, model=model, **compared)


def test_names_of_every_kind_of_source():
    sources = {
        "Qwen3-0.6B": {"uri": "hf://Qwen/Qwen3-0.6B"},
        "m@v1": {"uri": "hf://org/m", "revision": "v1"},
        "tune-a": {"fromJob": TUNE},
        "tune-a checkpoint-100": {"fromJob": {**TUNE, "checkpoint": 100}},
        "mine": {"uri": "s3://models/mine/"},
        "sft": {"uri": "s3://models/sft/final_model"},
        "sft checkpoint-20": {"uri": "file:///data/sft/checkpoint-20"},
        "base-model + style": {
            "uri": "s3://models/base-model",
            "adapterUri": "s3://models/style/final_model",
        },
        "bucket": {"uri": "s3://bucket"},
    }
    assert {name: model_names(none(source).spec) for name, source in sources.items()} == {
        name: (name,) for name in sources
    }


def test_equal_names_are_numbered_and_keys_are_unique():
    same = [{"uri": f"s3://{bucket}/m"} for bucket in ("aaa", "bbb", "ccc")]
    names = model_names(none(*same).spec)
    assert names == ("m", "m (2)", "m (3)")
    assert [model_key(name) for name in names] == ["m", "m-2", "m-3"]
    odd = model_names(none({"uri": "file:///x/a b"}, {"uri": "file:///x/a_b"}, {"uri": "file:///x/a-b"}).spec)
    assert len({model_key(name) for name in odd}) == 3


def test_a_job_that_trains_has_base_and_tuned_first():
    assert model_names(job().spec) == ()
    found = model_names(job(compareWith=[{"uri": "file:///x/base"}, {"uri": "hf://org/m"}]).spec)
    assert found == ("base", "tuned", "base (2)", "m")


def test_names_survive_in_run_json_where_addresses_stand_for_jobs():
    outputs = {("research", "FineTuneJob", "tune-a"): "s3://models/elsewhere"}
    run = resolve(none({"fromJob": TUNE}, {"fromJob": {**TUNE, "checkpoint": 7}}), outputs)
    again = parse_run(run.to_json())
    assert again.to_json() == run.to_json()
    assert again.models == ("tune-a", "tune-a checkpoint-7")
    assert [again.spec.model.uri, again.spec.compare_with[0].uri] == [
        "s3://models/elsewhere/final_model", "s3://models/elsewhere/checkpoint-7",
    ]  # fmt: skip
    assert "models" not in resolve(job(), {}).to_json().split('"spec"')[0]
