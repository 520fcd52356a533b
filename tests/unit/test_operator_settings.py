"""What the administrator decides: settings from the environment, and what jobs may use."""

import json

import pytest
from good_manifests import DIALOGUE, FINE_TUNE, changed

pytest.importorskip("kopf")

from tests.cases import each

from tunesmith.api.manifest import parse_document
from tunesmith.names import Backend
from tunesmith.plan.runtimes import Runtime, TrainingRuntime
from tunesmith_operator.policy import denied
from tunesmith_operator.settings import Allowed, OperatorSettings, read_settings


def test_the_environment():
    settings = read_settings(
        {
            "TUNESMITH_NAMESPACES": "a, b",
            "TUNESMITH_PORT": "9000",
            "TUNESMITH_RELEASE": "ops/one",
            "TUNESMITH_METRICS_PORT": "0",
            "TUNESMITH_PATCHES_PER_SECOND": "2.5",
            "TUNESMITH_RUNTIMES": '{"default": "x@sha256:1"}',
            "TUNESMITH_ALLOWED": '[{"namespaces": ["a*"], "uris": ["s3://a"], "remoteCode": ["hf://org"]}]',
        }
    )
    assert settings.namespaces == ("a", "b")
    assert settings.release == "ops/one"
    assert (settings.port, settings.metrics_port, settings.patches_per_second) == (9000, 0, 2.5)
    assert settings.plan.runtimes == {"default": Runtime("x@sha256:1")}
    assert settings.allowed == (Allowed(("a*",), ("s3://a",), remote_code=("hf://org",)),)
    assert read_settings({}) == OperatorSettings()


def test_the_backend_and_its_runtime():
    given = {"TUNESMITH_BACKEND": "trainjob", "TUNESMITH_TRAINING_RUNTIME": "TrainingRuntime/mine"}
    settings = read_settings(given | {"TUNESMITH_RUNTIMES": '{"big": "x"}'})
    assert settings.backend == Backend.TRAIN_JOB
    mine = TrainingRuntime("mine", "TrainingRuntime")
    assert settings.plan.runtimes == {"big": Runtime("x", mine)}
    (default,) = read_settings(given).plan.runtimes.values()
    assert default.training_runtime == mine
    assert read_settings({"TUNESMITH_BACKEND": "auto"}).backend is None


WRONG = {
    "PORT": ["x", "70000", "-1"],
    "METRICS_PORT": ["1.5"],
    "BACKEND": ["TrainJob", "mpijob"],
    "TRAINING_RUNTIME": ["tunesmith", "Secret/x", "TrainingRuntime/"],
    "TICK_SECONDS": ["0", "nan", "soon"],
    "RUNTIMES": ["{", "[]", '{"default": 7}'],
    "ALLOWED": ["{}", "[7]", '[{"uri": []}]', '[{"uris": "s3://a"}]', '[{"uris": [7]}]', "nonsense"],
}


@each(("name", "value"), [(name, v) for name, values in WRONG.items() for v in values])
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"TUNESMITH_{name} "):
        read_settings({f"TUNESMITH_{name}": value})


def rules(*given):
    return read_settings({"TUNESMITH_ALLOWED": json.dumps(given)})


ALL = {"uris": ["s3://data", "s3://models", "hf://org"]}
CASES = {
    "no rules": (FINE_TUNE, {}, [], ""),
    "all allowed": (FINE_TUNE, {}, [ALL], ""),
    "a star": (FINE_TUNE, {}, [{"uris": ["*"]}], ""),
    "two rules": (FINE_TUNE, {}, [{"uris": ["s3://data"]}, {"uris": ["s3://models", "hf://org"]}], ""),
    "another namespace": (FINE_TUNE, {}, [ALL | {"namespaces": ["prod-*"]}], "namespace research"),
    "another bucket": (FINE_TUNE, {}, [{"uris": ["s3://models", "hf://org"]}], "s3://data/train.jsonl"),
    "a file of articles": (
        FINE_TUNE,
        {"spec.datasets[0]": {"uri": "s3://data/x", "sampled": {"articlesUri": "s3://law/a.json"}}},
        [ALL],
        "s3://law/a.json",
    ),
    "a bucket that begins alike": (FINE_TUNE, {"spec.output.uri": "s3://models2/x"}, [ALL], "s3://models2/x"),
    "a folder of the pod": (FINE_TUNE, {"spec.output.uri": "/etc/x"}, [ALL], "/etc/x"),
    "a Secret": (
        FINE_TUNE,
        {"spec.storage": {"secretRef": {"name": "root"}}},
        [ALL | {"secrets": ["s3-*"]}],
        "Secret root",
    ),
    "a Secret of an endpoint": (
        DIALOGUE,
        {"spec.endpoints.big.openai.apiKeySecretRef": {"name": "root", "key": "k"}},
        [ALL | {"secrets": ["llm"]}],
        "Secret root",
    ),
    "an endpoint": (DIALOGUE, {}, [ALL | {"endpoints": ["https://llm.example.com"]}], "https://api.example"),
    "an endpoint that is allowed": (DIALOGUE, {}, [ALL | {"endpoints": ["https://api.example.com"]}], ""),
    "an S3 server": (
        FINE_TUNE,
        {"spec.storage": {"endpointUrl": "https://evil.example.com"}},
        [ALL | {"endpoints": ["https://s3.example.com"]}],
        "https://evil.example.com",
    ),
    "a mirror of the hub": (
        FINE_TUNE,
        {"spec.hub": {"endpoint": "https://evil.example.com"}},
        [ALL | {"endpoints": ["https://s3.example.com"]}],
        "https://evil.example.com",
    ),
    "a runtime": (FINE_TUNE, {"spec.runtime": "big"}, [ALL | {"runtimes": ["default"]}], "runtime big"),
    "remote code without rules": (FINE_TUNE, {"spec.model.trustRemoteCode": True}, [], "hf://org/model"),
    "remote code": (FINE_TUNE, {"spec.model.trustRemoteCode": True}, [ALL], "hf://org/model"),
    "remote code that is allowed": (
        FINE_TUNE,
        {"spec.model.trustRemoteCode": True},
        [ALL | {"remoteCode": ["hf://org/model"]}],
        "",
    ),
    "remote code of an endpoint": (
        DIALOGUE,
        {"spec.endpoints.small.transformers.model.trustRemoteCode": True},
        [],
        "hf://org/small",
    ),
}


@each(("document", "changes", "given", "said"), CASES.values(), ids=CASES)
def test_what_a_job_may_use(document, changes, given, said):
    reason = denied(parse_document(changed(document, changes), "", 0), rules(*given))
    assert said in reason
    assert bool(reason) == bool(said)
