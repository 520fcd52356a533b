"""Unusual but right manifests: accepted here and by the CRDs."""

import json

from admission import refusals
from good_manifests import DIALOGUE, FINE_TUNE, REMOVED, SAMPLE, changed
from tests.cases import each
from tests.manifests import parse_text

from tunesmith.api.crd import crd
from tunesmith.names import Kind

CRDS = {kind: crd(kind) for kind in Kind}
MODEL, DATA, OUT = "spec.model.uri", "spec.datasets[0].uri", "spec.output.uri"
LOCAL_MODEL = {"uri": "file:///models/m", "adapterUri": "s3://models/a"}
PROMPTS = {"uri": "s3://data/e.json", "instruction": {}}

RIGHT = {
    "file": (FINE_TUNE, {DATA: "file:///data/训练 1.json", OUT: "file:///out"}),
    "plain-path": (FINE_TUNE, {DATA: "/data/train.json", MODEL: "/models/m", OUT: "/out/"}),
    "whole-bucket": (FINE_TUNE, {DATA: "s3://data"}),
    "folder": (FINE_TUNE, {DATA: "s3://my.data-2/a/"}),
    "dots-in-names": (FINE_TUNE, {DATA: "s3://data/..a/b..c", MODEL: "hf://Qwen/Qwen2.5-7B_x.y"}),
    "output-beside": (FINE_TUNE, {DATA: "s3://data/x-1/t", OUT: "s3://data/x"}),
    "offline": (FINE_TUNE, {"spec.hub.offline": True, "spec.model": LOCAL_MODEL}),
    "offline-from-the-cache": (FINE_TUNE, {"spec.hub.offline": True, "spec.model.adapterUri": "hf://a/b"}),
    "mirror": (FINE_TUNE, {"spec.hub.endpoint": "http://hub.local:8080/a?b=c@d"}),
    "revision": (FINE_TUNE, {"spec.model.revision": "refs/pr/1"}),
    "numbers-as-whole": (FINE_TUNE, {"spec.training": {"learningRate": 1, "numTrainEpochs": 2.5}}),
    "auto": (FINE_TUNE, {"spec.training": {"tokensPerDevice": 4096, "gradientCheckpointing": False}}),
    "quantities": (FINE_TUNE, {"spec.resources": {"cpu": 8, "memory": "1.5Gi", "sharedMemory": "1e3"}}),
    "scratch": (FINE_TUNE, {"spec.resources.scratch": {"size": "500Gi", "storageClassName": "fast"}}),
    "placement": (
        FINE_TUNE,
        {
            "spec.placement": {
                "nodeSelector": {"a.b/c": "d"},
                "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoExecute"}],
            }
        },
    ),
    "deepspeed-config": (FINE_TUNE, {"spec.deepspeed": {"config": {"a": [1, None, {"b": "auto"}]}}}),
    "deepspeed-offload": (FINE_TUNE, {"spec.deepspeed": {"zeroStage": 1, "offload": "optimizer"}}),
    "early-stopping": (FINE_TUNE, {"spec.validation.ratio": 0.1, "spec.training.earlyStopping": {}}),
    "validation-of-its-own": (
        FINE_TUNE,
        {"spec.validation": {"uri": "s3://data/v", "chat": {}}, "spec.training.evalSteps": 5},
    ),
    "from-jobs": (
        FINE_TUNE,
        {
            "spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "a", "checkpoint": 100}},
            "spec.datasets": [
                {"fromJob": {"kind": "RejectionSampleJob", "name": "b"}, "sampled": {}},
                {"fromJob": {"kind": "DialogueGenJob", "name": "c"}, "chat": {}, "repeat": 0.5},
            ],
        },
    ),
    "evaluate-only": (
        FINE_TUNE,
        {
            "spec.method": {"none": {}},
            "spec.datasets": REMOVED,
            "spec.previews": [{"name": "a", "user": "hello"}],
            "spec.compareWith": [{"fromJob": {"kind": "FineTuneJob", "name": "b", "checkpoint": 100}}],
        },
    ),
    "evaluation": (
        FINE_TUNE,
        {
            "spec.resources.gpusPerNode": 4,
            "spec.evaluation": [
                {
                    "name": "e",
                    "prompts": PROMPTS,
                    "verifier": {"jsonSchema": {"schema": {"type": "object"}}},
                    "engine": {"vllm": {"tensorParallelSize": 2, "extra": {"enforce_eager": True}}},
                }
            ],
        },
    ),
    "preview-messages": (
        FINE_TUNE,
        {
            "spec.previews": [
                {
                    "name": "a",
                    "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "x"}],
                }
            ]
        },
    ),
    "prompts-from-job": (
        SAMPLE,
        {
            "spec.prompts": {"fromJob": {"kind": "DialogueGenJob", "name": "a"}, "chat": {}},
            "spec.verifier": {"python": {"function": "judge.main:score"}},
        },
    ),
    "transformers": (
        SAMPLE,
        {"spec.engine": {"transformers": {"batchSize": 4}}, "spec.resources.gpusPerNode": 0},
    ),
    "no-budget-no-price": (DIALOGUE, {"spec.budget": REMOVED, "spec.endpoints.big.price": REMOVED}),
    "free-price": (
        DIALOGUE,
        {"spec.endpoints.big.price": {"inputPerMillion": 0, "outputPerMillion": 0}, "spec.dryRun": True},
    ),
    "extra-body": (DIALOGUE, {"spec.endpoints.big.openai.extraBody": {"reasoning": {"effort": "low"}}}),
    "just-small-enough": (FINE_TUNE, {"spec.deepspeed": {"config": {"x": "é" * 32000}}}),
}


@each(("document", "changes"), RIGHT.values(), ids=RIGHT)
def test_unusual_manifests_are_right(document, changes):
    document = changed(document, changes)
    problems = parse_text(json.dumps(document), "file.yaml")[1]
    assert [str(problem) for problem in problems] == []
    assert refusals(CRDS[Kind(document["kind"])], document) == []
