"""The table of wrong objects, which the CRDs refuse too: the path and words that Tunesmith must give.

One mistake a row.
"""

from typing import Any, NamedTuple

from good_manifests import DIALOGUE, FINE_TUNE, REMOVED, SAMPLE, changed


class Wrong(NamedTuple):
    id: str
    document: Any
    path: str
    words: str


def ft(id_, changes, path, words):
    return Wrong(id_, changed(FINE_TUNE, changes), path, words)


def rs(id_, changes, path, words):
    return Wrong(id_, changed(SAMPLE, changes), path, words)


def dg(id_, changes, path, words):
    return Wrong(id_, changed(DIALOGUE, changes), path, words)


MODEL, DATA, OUT = "spec.model.uri", "spec.datasets[0].uri", "spec.output.uri"
FROM = "spec.datasets[0].fromJob"
ITSELF = {"kind": FINE_TUNE["kind"], "name": FINE_TUNE["metadata"]["name"]}
PREVIEW = {"name": "a", "user": "hello"}
EVALUATION = {
    "name": "e",
    "prompts": {"uri": "s3://data/e.json", "chat": {}},
    "verifier": {"exactMatch": {"field": "x"}},
}

TRAINS_NOTHING = "cannot be combined with method none, which trains nothing; remove it"
EXAM = changed(
    FINE_TUNE,
    {"spec.method": {"none": {}}, "spec.datasets": REMOVED, "spec.evaluation": [EVALUATION]},
)


def exam(id_, changes, path, words):
    return Wrong(id_, changed(EXAM, changes), path, words)


PUSHED = {"hub": {"repoId": "org/m"}}

OBJECTS = [
    # export
    ft("export-of-nothing", {"spec.export": {}}, "spec.export", "set at least one of merged, gguf and hub"),
    ft("push-without-token", {"spec.export": PUSHED}, "spec.export.hub", "needs hub.tokenSecretRef"),
    ft(
        "push-offline",
        {"spec.export": PUSHED, "spec.hub": {"offline": True, "tokenSecretRef": {"name": "h", "key": "t"}}},
        "spec.export.hub",
        "cannot be combined with hub.offline",
    ),
    ft(
        "repository-without-organisation",
        {"spec.export": {"hub": {"repoId": "model"}}},
        "spec.export.hub.repoId",
        "must be organisation/name",
    ),
    ft(
        "unknown-quantisation",
        {"spec.export": {"gguf": {"quantization": "Q9"}}},
        "spec.export.gguf.quantization",
        "F32",
    ),
    exam("export-without-training", {"spec.export": {"merged": {}}}, "spec.export", "which trains nothing"),
    # fields of records
    ft(
        "columns-of-another-format",
        {"spec.datasets[0].columns": {"output": "answer"}},
        "spec.datasets[0].columns",
        "chat has messages, conversations",
    ),
    *(
        ft(
            f"columns-of-{name}",
            {"spec.datasets[0]": {"uri": "s3://data/x", name: block, "columns": {"messages": "x"}}},
            "spec.datasets[0].columns",
            f"{name} has",
        )
        for name, block in {
            "instruction": {},
            "text": {},
            "userSimulation": {},
            "character": {"name": "Ann"},
            "sampled": {},
        }.items()
    ),
    ft("columns-empty", {"spec.datasets[0].columns": {}}, "spec.datasets[0].columns", "at least 1"),
    ft(
        "columns-no-name",
        {"spec.datasets[0].columns": {"messages": ""}},
        "spec.datasets[0].columns.messages",
        "at least 1",
    ),
    ft(
        "columns-without-uri",
        {"spec.validation": {"columns": {"messages": "x"}}},
        "spec.validation.columns",
        "leave it out without uri",
    ),
    dg(
        "columns-of-seeds",
        {"spec.seeds.columns": {"reply": "x"}},
        "spec.seeds.columns",
        "seeds have question",
    ),
    # names of fields
    ft(
        "unknown-field-near",
        {"spec.training.learningrate": 1},
        "spec.training.learningrate",
        '"learningRate"',
    ),
    ft("unknown-field-far", {"spec.output.zzz": 1}, "spec.output.zzz", "valid fields: onExisting, uri"),
    ft("unknown-field-null", {"spec.output.zzz": None}, "spec.output.zzz", "unknown field"),
    ft("snake-case-field", {"spec.training.max_length": 9}, "spec.training.max_length", '"maxLength"'),
    ft("unknown-at-top-of-spec", {"spec.dataset": []}, "spec.dataset", '"datasets"'),
    ft("unknown-beside-spec", {"specs": {}}, "specs", '"spec"'),
    ft(
        "unknown-in-list",
        {"spec.datasets[0].sytemPrompt": "x"},
        "spec.datasets[0].sytemPrompt",
        '"systemPrompt"',
    ),
    dg("unknown-in-map", {"spec.endpoints.big.limit": {}}, "spec.endpoints.big.limit", '"limits"'),
    ft(
        "field-of-empty-block",
        {"spec.method": {"full": {"r": 1}}},
        "spec.method.full.r",
        "this object has no fields",
    ),
    # exactly one of
    ft("two-methods", {"spec.method.full": {}}, "spec.method", "exactly one of full, lora, qlora and none"),
    ft("no-method", {"spec.method": {}}, "spec.method", "exactly one of full, lora, qlora and none"),
    ft("method-with-null", {"spec.method": {"full": None}}, "spec.method", "write full: {}"),
    ft("method-missing", {"spec.method": REMOVED}, "spec.method", "is required"),
    ft(
        "uri-and-from-job",
        {"spec.model.fromJob": {"kind": "FineTuneJob", "name": "other"}},
        "spec.model",
        "exactly one of uri and fromJob",
    ),
    ft(
        "two-templates",
        {"spec.model.chatTemplate": {"name": "chatml", "text": "{{ messages }}"}},
        "spec.model.chatTemplate",
        "at most one of name, uri and text",
    ),
    ft("no-model", {"spec.model": {}}, "spec.model", "exactly one of uri and fromJob"),
    ft(
        "two-formats",
        {"spec.datasets[0].text": {}},
        "spec.datasets[0]",
        "exactly one of chat, instruction, text",
    ),
    ft("no-format", {"spec.datasets[0].chat": REMOVED}, "spec.datasets[0]", "exactly one of chat"),
    dg(
        "endpoint-with-two-engines",
        {"spec.endpoints.big.vllm": {"model": {"uri": "hf://a/b"}}},
        "spec.endpoints.big",
        "exactly one of openai, vllm and transformers",
    ),
    rs(
        "two-engines", {"spec.engine": {"vllm": {}, "transformers": {}}}, "spec.engine", "exactly one of vllm"
    ),
    rs("no-engine", {"spec.engine": {}}, "spec.engine", "exactly one of vllm and transformers"),
    rs(
        "two-verifiers",
        {"spec.verifier": {"python": {"function": "a:b"}, "legalJudgement": {}}},
        "spec.verifier",
        "one of",
    ),
    rs(
        "no-verifier",
        {"spec.prompts.legalJudgement": REMOVED, "spec.prompts.chat": {}},
        "spec.verifier",
        "is required, since only legalJudgement",
    ),
    rs(
        "no-prompt-format",
        {"spec.prompts.legalJudgement": REMOVED},
        "spec.prompts",
        "exactly one of legalJudgement",
    ),
    ft(
        "deepspeed-stage-and-config",
        {"spec.deepspeed": {"zeroStage": 2, "config": {}}},
        "spec.deepspeed",
        "exactly one",
    ),
    ft("deepspeed-nothing", {"spec.deepspeed": {}}, "spec.deepspeed", "exactly one of zeroStage and config"),
    # numbers
    ft(
        "negative-epochs",
        {"spec.training.numTrainEpochs": -1},
        "spec.training.numTrainEpochs",
        "more than 0, not -1",
    ),
    ft(
        "zero-batch",
        {"spec.training.perDeviceTrainBatchSize": 0},
        "spec.training.perDeviceTrainBatchSize",
        "at least 1, not 0",
    ),
    ft("negative-nodes", {"spec.resources.nodes": -1}, "spec.resources.nodes", "at least 1, not -1"),
    ft("limit-zero", {"spec.datasets[0].limit": 0}, "spec.datasets[0].limit", "at least 1, not 0"),
    ft("repeat-zero", {"spec.datasets[0].repeat": 0}, "spec.datasets[0].repeat", "more than 0, not 0"),
    ft(
        "subset-ratio-2",
        {"spec.datasets[0].subset": {"ratio": 2}},
        "spec.datasets[0].subset.ratio",
        "at most 1, not 2",
    ),
    ft("validation-ratio-1", {"spec.validation.ratio": 1}, "spec.validation.ratio", "less than 1, not 1"),
    ft("huge-seed", {"spec.training.seed": 2**40}, "spec.training.seed", "at most 4294967295"),
    ft(
        "fraction-for-count",
        {"spec.training.maxSteps": 1.5},
        "spec.training.maxSteps",
        "whole number, not 1.5",
    ),
    ft(
        "text-for-number",
        {"spec.training.learningRate": "fast"},
        "spec.training.learningRate",
        'a number, not "fast"',
    ),
    ft(
        "number-in-quotes",
        {"spec.training.maxLength": "4096"},
        "spec.training.maxLength",
        'whole number, not "4096"',
    ),
    ft("bool-for-number", {"spec.training.seed": True}, "spec.training.seed", "whole number, not true"),
    ft("number-for-text", {"spec.runtime": 5}, "spec.runtime", "must be text, not 5"),
    ft("text-for-bool", {"spec.hub.offline": "yes"}, "spec.hub.offline", 'true or false, not "yes"'),
    ft("number-for-bool", {"spec.run.suspend": 1}, "spec.run.suspend", "true or false, not 1"),
    ft(
        "auto-misspelt",
        {"spec.training.tokensPerDevice": "auot"},
        "spec.training.tokensPerDevice",
        "auto or a whole number",
    ),
    ft(
        "auto-zero",
        {"spec.training.tokensPerDevice": 0},
        "spec.training.tokensPerDevice",
        "auto or a whole number",
    ),
    ft(
        "auto-or-bool",
        {"spec.training.gradientCheckpointing": 1},
        "spec.training.gradientCheckpointing",
        "auto, true or false",
    ),
    ft("quantity-words", {"spec.resources.memory": "512 GB"}, "spec.resources.memory", "is not a quantity"),
    ft("quantity-fraction", {"spec.resources.cpu": 0.5}, "spec.resources.cpu", 'text such as "0.5"'),
    ft("quantity-negative", {"spec.resources.cpu": -1}, "spec.resources.cpu", "is not a quantity"),
    # one of some words
    ft("dtype-near", {"spec.model.dtype": "bfloat"}, "spec.model.dtype", 'did you mean "bfloat16"'),
    ft("packing", {"spec.training.packing": True}, "spec.training.packing", "must be tree or none, not true"),
    ft(
        "kind-of-from-job",
        {"spec.model": {"fromJob": {"kind": "FineTune", "name": "a"}}},
        "spec.model.fromJob.kind",
        "FineTuneJob",
    ),
    # addresses
    ft("data-on-hub", {DATA: "hf://org/data"}, DATA, "write hf://datasets/organisation/name or"),
    ft("data-on-hub-path", {DATA: "hf://datasets/org/data/x.csv"}, DATA, "and name files in dataFiles"),
    ft("data-on-hub-revision", {DATA: "hf://datasets/org/data@../x"}, DATA, "is not a data set on the hub"),
    ft("model-is-data", {MODEL: "hf://datasets/name"}, MODEL, "is a data set on the hub, not a model"),
    ft(
        "config-of-a-file",
        {"spec.datasets[0].config": "main"},
        "spec.datasets[0].config",
        "is for data sets on the hub",
    ),
    ft(
        "files-and-split",
        {"spec.datasets[0]": {"uri": "hf://datasets/a/b", "chat": {}, "split": "train", "dataFiles": ["x"]}},
        "spec.datasets[0].dataFiles",
        "leave out config and split",
    ),
    ft("http-model", {MODEL: "https://x/y"}, MODEL, "write hf://organisation/name, s3://"),
    ft("hub-without-organisation", {MODEL: "hf://model"}, MODEL, "hf://organisation/name"),
    ft("relative-path", {DATA: "data/train.json"}, DATA, "is not an address"),
    ft("file-relative", {DATA: "file://data/x"}, DATA, "absolute path"),
    ft("dots", {DATA: "s3://data/../other"}, DATA, "'..'"),
    ft("double-slash", {DATA: "s3://data//x"}, DATA, "'//'"),
    ft("double-slash-file", {DATA: "file:///a//x"}, DATA, "'//'"),
    ft("control-character", {DATA: "s3://data/a\nb"}, DATA, "control characters"),
    ft("encoded-dots", {DATA: "file:///data/%2e%2e/x"}, DATA, "an encoded '.'"),
    ft("encoded-slash", {DATA: "file:///data/..%2Fx"}, DATA, "an encoded '.'"),
    dg(
        "encoded-dots-of-a-server",
        {"spec.endpoints.big.openai.baseUrl": "https://a.example/v1/%2e%2e/x"},
        "spec.endpoints.big.openai.baseUrl",
        "must not contain '..'",
    ),
    ft("escape-character", {DATA: "s3://data/a\x1bb"}, DATA, "control characters"),
    ft("bucket-capitals", {DATA: "s3://Data/x"}, DATA, "lower-case bucket"),
    ft("bucket-short", {DATA: "s3://ab/x"}, DATA, "is not an S3 address"),
    ft("output-is-bucket", {OUT: "s3://models"}, OUT, "needs a folder below the bucket"),
    ft("output-on-hub", {OUT: "hf://a/b"}, OUT, "is not an address"),
    ft("uri-too-long", {DATA: "s3://data/" + "x" * 1100}, DATA, "at most 1024 characters"),
    ft("uri-empty", {DATA: ""}, DATA, "is not an address"),
    dg(
        "password-in-url",
        {"spec.endpoints.big.openai.baseUrl": "https://u:p@h/v1"},
        "spec.endpoints.big.openai.baseUrl",
        "reference a Secret",
    ),
    dg(
        "url-scheme",
        {"spec.endpoints.big.openai.baseUrl": "ftp://h/v1"},
        "spec.endpoints.big.openai.baseUrl",
        "web address",
    ),
    dg(
        "url-space",
        {"spec.endpoints.big.openai.baseUrl": "https://h/v 1"},
        "spec.endpoints.big.openai.baseUrl",
        "spaces",
    ),
    ft(
        "endpoint-without-host",
        {"spec.storage.endpointUrl": "http://"},
        "spec.storage.endpointUrl",
        "web address",
    ),
    # names
    ft("name-too-long", {"metadata.name": "a" * 41}, "metadata.name", "at most 40 characters"),
    ft("name-digit-first", {"metadata.name": "1a"}, "metadata.name", "begin with a letter"),
    ft("name-capitals", {"metadata.name": "Tune"}, "metadata.name", "a-z, 0-9"),
    ft("name-hyphen-last", {"metadata.name": "tune-"}, "metadata.name", "end with a letter or digit"),
    ft(
        "secret-name",
        {"spec.storage.secretRef": {"name": "My Secret"}},
        "spec.storage.secretRef.name",
        "Kubernetes name",
    ),
    ft(
        "secret-key",
        {"spec.hub.tokenSecretRef": {"name": "a", "key": "a b"}},
        "spec.hub.tokenSecretRef.key",
        "key of a Secret",
    ),
    ft(
        "secret-without-key",
        {"spec.hub.tokenSecretRef": {"name": "a"}},
        "spec.hub.tokenSecretRef.key",
        "is required",
    ),
    ft("gpu-resource", {"spec.resources.gpuResource": "gpu"}, "spec.resources.gpuResource", "nvidia.com/gpu"),
    ft(
        "from-job-name",
        {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "A"}}},
        "spec.model.fromJob.name",
        "40 characters",
    ),
    dg(
        "endpoint-name",
        {"spec.endpoints.a b": {"transformers": {"model": {"uri": "hf://a/b"}}}},
        "spec.endpoints.a b",
        "63 letters",
    ),
    rs(
        "function",
        {"spec.verifier": {"python": {"function": "judge"}}},
        "spec.verifier.python.function",
        "package.module:function",
    ),
    # fields against each other
    ft(
        "changed-articles-alone",
        {
            "spec.datasets[0]": {
                "uri": "s3://data/a.json",
                "sampled": {"changedArticlesUri": "s3://data/b.json"},
            }
        },
        "spec.datasets[0].sampled.changedArticlesUri",
        "needs articlesUri",
    ),
    ft("model-of-itself", {"spec.model": {"fromJob": ITSELF}}, "spec.model.fromJob", "wait for itself"),
    ft(
        "compared-with-itself",
        {"spec.evaluation": [EVALUATION], "spec.compareWith": [{"uri": "hf://org/x"}, {"fromJob": ITSELF}]},
        "spec.compareWith[1].fromJob",
        "wait for itself",
    ),
    ft(
        "model-from-sampling",
        {"spec.model": {"fromJob": {"kind": "RejectionSampleJob", "name": "a"}}},
        "spec.model.fromJob.kind",
        "FineTuneJob",
    ),
    ft(
        "checkpoint-of-dialogues",
        {
            "spec.datasets[0]": {
                "fromJob": {"kind": "DialogueGenJob", "name": "a", "checkpoint": 100},
                "chat": {},
            }
        },
        f"{FROM}.checkpoint",
        "belongs to a FineTuneJob",
    ),
    ft(
        "checkpoint-before-the-first",
        {"spec.model": {"fromJob": {"kind": "FineTuneJob", "name": "a", "checkpoint": 0}}},
        "spec.model.fromJob.checkpoint",
        "1",
    ),
    ft(
        "from-job-wrong-kind-for-format",
        {"spec.datasets[0]": {"fromJob": {"kind": "DialogueGenJob", "name": "a"}, "sampled": {}}},
        f"{FROM}.kind",
        "a DialogueGenJob chat",
    ),
    ft(
        "from-job-that-trains",
        {"spec.datasets[0]": {"fromJob": {"kind": "FineTuneJob", "name": "a"}, "chat": {}}},
        f"{FROM}.kind",
        "sampled",
    ),
    ft(
        "from-job-without-format",
        {"spec.datasets[0]": {"fromJob": {"kind": "DialogueGenJob", "name": "a"}}},
        "spec.datasets[0]",
        "one of chat",
    ),
    rs(
        "prompts-from-sampling",
        {
            "spec.prompts": {"fromJob": {"kind": "RejectionSampleJob", "name": "a"}, "chat": {}},
            "spec.verifier": {"legalJudgement": {}},
        },
        "spec.prompts.fromJob.kind",
        "only a DialogueGenJob",
    ),
    ft(
        "early-stopping-without-validation",
        {"spec.training.earlyStopping": {}},
        "spec.training.earlyStopping",
        "validation.ratio",
    ),
    ft(
        "eval-steps-without-validation",
        {"spec.training.evalSteps": 5},
        "spec.training.evalSteps",
        "needs a validation set",
    ),
    ft(
        "validation-ratio-and-uri",
        {"spec.validation": {"ratio": 0.1, "uri": "s3://data/v", "chat": {}}},
        "spec.validation.ratio",
        "with uri",
    ),
    ft(
        "validation-uri-without-format",
        {"spec.validation": {"uri": "s3://data/v"}},
        "spec.validation",
        "one format with uri",
    ),
    ft(
        "validation-format-without-uri",
        {"spec.validation": {"ratio": 0.1, "chat": {}}},
        "spec.validation",
        "none without it",
    ),
    ft(
        "offload-all-at-stage-2",
        {"spec.deepspeed": {"zeroStage": 2, "offload": "all"}},
        "spec.deepspeed.offload",
        "zeroStage 3",
    ),
    ft(
        "offload-with-config",
        {"spec.deepspeed": {"config": {}, "offload": "all"}},
        "spec.deepspeed.offload",
        "together with config",
    ),
    ft(
        "two-limits-per-user",
        {
            "spec.datasets[0]": {
                "uri": "s3://d-d/x",
                "userSimulation": {"maxSamplesPerUser": 2, "oneSamplePerUser": True},
            }
        },
        "spec.datasets[0].userSimulation.maxSamplesPerUser",
        "oneSamplePerUser",
    ),
    ft(
        "revision-without-hub",
        {MODEL: "s3://models/m", "spec.model.revision": "main"},
        "spec.model.revision",
        "hf://",
    ),
    rs("output-over-prompts", {OUT: "s3://data/cases.json"}, OUT, "would overwrite"),
    rs(
        "output-over-articles",
        {OUT: "s3://data/a/", "spec.prompts.legalJudgement.articlesUri": "s3://data/a/x"},
        OUT,
        "overwrite",
    ),
    ft(
        "output-over-dataset",
        {OUT: "s3://data/x", DATA: "s3://data/x/train.json"},
        OUT,
        "must not contain a dataset",
    ),
    ft(
        "output-over-model",
        {OUT: "s3://models/m/", MODEL: "s3://models/m"},
        OUT,
        "must not contain the model",
    ),
    ft(
        "output-over-validation",
        {OUT: "s3://d-d/v", "spec.validation": {"uri": "s3://d-d/v", "chat": {}}},
        OUT,
        "validation",
    ),
    ft(
        "output-over-articles-of-a-dataset",
        {
            OUT: "s3://d-d/v",
            "spec.datasets[0]": {"uri": "s3://d-d/x", "sampled": {"articlesUri": "s3://d-d/v/a"}},
        },
        OUT,
        "must not contain a dataset",
    ),
    ft(
        "output-over-articles-of-the-validation-set",
        {
            OUT: "s3://d-d/v",
            "spec.validation": {"uri": "s3://d-d/x", "sampled": {"articlesUri": "s3://d-d/v/a"}},
        },
        OUT,
        "validation set",
    ),
    dg("output-over-seeds", {OUT: "s3://data/seeds.jsonl"}, OUT, "must not contain the seeds"),
    rs(
        "accepted-over-samples",
        {"spec.sampling": {"numSamples": 2, "stopAfterAccepted": 3}},
        "spec.sampling.stopAfterAccepted",
        "numSamples",
    ),
    rs(
        "parallel-does-not-divide",
        {"spec.resources.gpusPerNode": 3, "spec.engine.vllm.tensorParallelSize": 2},
        "spec.engine.vllm.tensorParallelSize",
        "must divide resources.gpusPerNode",
    ),
    ft(
        "evaluation-parallel",
        {"spec.evaluation": [EVALUATION | {"engine": {"vllm": {"tensorParallelSize": 2}}}]},
        "spec.evaluation",
        "tensorParallelSize must divide",
    ),
    ft(
        "evaluation-verifier",
        {"spec.evaluation": [{k: v for k, v in EVALUATION.items() if k != "verifier"}]},
        "spec.evaluation[0].verifier",
        "is required",
    ),
    ft(
        "evaluations-of-one-name",
        {"spec.evaluation": [EVALUATION, EVALUATION]},
        "spec.evaluation",
        "different names",
    ),
    ft("previews-of-one-name", {"spec.previews": [PREVIEW, PREVIEW]}, "spec.previews", "different names"),
    ft(
        "preview-user-and-messages",
        {"spec.previews": [PREVIEW | {"messages": [{"role": "user", "content": "x"}]}]},
        "spec.previews[0]",
        "exactly one of user and messages",
    ),
    ft(
        "preview-ends-with-assistant",
        {"spec.previews": [{"name": "a", "messages": [{"role": "assistant", "content": "x"}]}]},
        "spec.previews[0].messages",
        "end with a user message",
    ),
    ft(
        "preview-two-systems",
        {
            "spec.previews": [
                {
                    "name": "a",
                    "system": "s",
                    "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}],
                }
            ]
        },
        "spec.previews[0].system",
        "cannot be set together",
    ),
    dg(
        "role-without-endpoint",
        {"spec.roles.answer.endpoint": "medium"},
        "spec.roles.answer.endpoint",
        "an entry of endpoints",
    ),
    dg(
        "role-question",
        {"spec.roles.question.endpoint": "x"},
        "spec.roles.question.endpoint",
        "an entry of endpoints",
    ),
    dg(
        "role-correction",
        {"spec.roles.correction.endpoint": "x"},
        "spec.roles.correction.endpoint",
        "an entry of endpoints",
    ),
    dg("role-missing", {"spec.roles.answer": REMOVED}, "spec.roles.answer", "is required"),
    dg(
        "extra-body-model",
        {"spec.endpoints.big.openai.extraBody": {"model": "another"}},
        "spec.endpoints.big.openai.extraBody",
        "must not contain model",
    ),
    dg(
        "extra-body-max-tokens",
        {"spec.endpoints.big.openai.extraBody": {"max_completion_tokens": 7}},
        "spec.endpoints.big.openai.extraBody",
        "max_completion_tokens",
    ),
    dg(
        "extra-body-messages",
        {"spec.endpoints.big.openai.extraBody": {"messages": [{"role": "user", "content": "Hi."}]}},
        "spec.endpoints.big.openai.extraBody",
        "must not contain model, messages",
    ),
    dg(
        "tokens-field",
        {"spec.endpoints.big.openai.maxTokensField": "max_new_tokens"},
        "spec.endpoints.big.openai.maxTokensField",
        "max_completion_tokens",
    ),
    dg(
        "batch-discount-zero",
        {"spec.endpoints.big.openai.batch": {"discount": 0}},
        "spec.endpoints.big.openai.batch.discount",
        "more than 0",
    ),
    dg(
        "batch-discount-above-one",
        {"spec.endpoints.big.openai.batch": {"discount": 1.5}},
        "spec.endpoints.big.openai.batch.discount",
        "at most 1",
    ),
    dg(
        "batch-wait",
        {"spec.endpoints.big.openai.batch": {"maxWaitSeconds": 59}},
        "spec.endpoints.big.openai.batch.maxWaitSeconds",
        "at least 60",
    ),
    dg(
        "batch-of-an-engine",
        {"spec.endpoints.small.transformers.batch": {}},
        "spec.endpoints.small.transformers.batch",
        "unknown field",
    ),
    dg("budget-zero", {"spec.budget.maxUsd": 0}, "spec.budget.maxUsd", "more than 0"),
    dg("two-nodes", {"spec.resources.nodes": 2}, "spec.resources.nodes", "at most 1, not 2"),
    dg("no-endpoints", {"spec.endpoints": {}, "spec.budget": REMOVED}, "spec.endpoints", "at least 1 entry"),
    ft(
        "scratch-class-without-size",
        {"spec.resources.scratch.storageClassName": "fast"},
        "spec.resources.scratch.size",
        "is required",
    ),
    ft(
        "toleration-without-key",
        {"spec.placement.tolerations": [{}]},
        "spec.placement.tolerations[0].key",
        "is required unless",
    ),
    ft(
        "toleration-value",
        {"spec.placement.tolerations": [{"operator": "Exists", "value": "x"}]},
        "spec.placement.tolerations[0].value",
        "absent",
    ),
    ft(
        "toleration-seconds",
        {"spec.placement.tolerations": [{"operator": "Exists", "tolerationSeconds": 5}]},
        "spec.placement.tolerations[0].tolerationSeconds",
        "NoExecute",
    ),
    ft(
        "selector-value",
        {"spec.placement.nodeSelector": {"a": "b c"}},
        "spec.placement.nodeSelector.a",
        "label's value",
    ),
    # shapes
    ft("datasets-empty", {"spec.datasets": []}, "spec.datasets", "is required, unless method is none"),
    # only evaluating
    exam(
        "none-with-datasets",
        {"spec.datasets": FINE_TUNE["spec"]["datasets"]},
        "spec.datasets",
        TRAINS_NOTHING,
    ),
    exam("none-with-training", {"spec.training": {"seed": 1}}, "spec.training", TRAINS_NOTHING),
    exam("none-with-validation", {"spec.validation": {"ratio": 0.1}}, "spec.validation", TRAINS_NOTHING),
    exam(
        "none-with-mlflow",
        {"spec.tracking": {"mlflow": {"experiment": "e"}}},
        "spec.tracking.mlflow",
        TRAINS_NOTHING,
    ),
    exam("none-with-deepspeed", {"spec.deepspeed": {"zeroStage": 2}}, "spec.deepspeed", TRAINS_NOTHING),
    exam(
        "none-and-lora", {"spec.method.lora": {}}, "spec.method", "exactly one of full, lora, qlora and none"
    ),
    exam("nothing-to-do", {"spec.evaluation": REMOVED}, "spec.evaluation", "there is nothing else to do"),
    exam(
        "none-on-two-nodes",
        {"spec.resources": {"nodes": 2}},
        "spec.resources.nodes",
        "must be 1 with method none",
    ),
    exam("compare-with-nothing", {"spec.compareWith": []}, "spec.compareWith", "at least 1 entry"),
    exam(
        "compared-in-output",
        {"spec.compareWith": [{"uri": "s3://models/tune/final_model"}]},
        "spec.output.uri",
        "must not contain a model of compareWith",
    ),
    ft(
        "compared-without-prompts",
        {"spec.compareWith": [{"uri": "hf://org/x"}]},
        "spec.compareWith",
        "needs evaluation",
    ),
    ft("datasets-object", {"spec.datasets": {"uri": "x"}}, "spec.datasets", "must be a list, not an object"),
    ft("dataset-text", {"spec.datasets": ["s3://a"]}, "spec.datasets[0]", "must be an object"),
    ft("dataset-null", {"spec.datasets": [None]}, "spec.datasets[0]", "must be an object, not null"),
    ft("model-text", {"spec.model": "hf://a/b"}, "spec.model", 'must be an object, not "hf://a/b"'),
    ft("text-object", {"spec.runtime": {"a": 1}}, "spec.runtime", "must be text, not an object"),
    ft(
        "stop-tokens-text",
        {"spec.previews": [PREVIEW | {"generation": {"stopTokens": "x"}}]},
        "spec.previews[0].generation.stopTokens",
        "a list",
    ),
    ft("config-list", {"spec.deepspeed": {"config": []}}, "spec.deepspeed.config", "must be an object"),
    ft("spec-missing", {"spec": REMOVED}, "spec", "is required"),
    ft("spec-null", {"spec": None}, "spec", "is required"),
    ft("spec-list", {"spec": []}, "spec", "must be an object, not []"),
    ft(
        "long-system-prompt",
        {"spec.datasets[0].systemPrompt": "x" * 20000},
        "spec.datasets[0].systemPrompt",
        "at most 16384 characters",
    ),
    ft(
        "too-many-previews",
        {"spec.previews": [PREVIEW | {"name": f"p{i}"} for i in range(33)]},
        "spec.previews",
        "at most 32 entries",
    ),
    ft(
        "api-version",
        {"apiVersion": "tunesmith.dev/v1"},
        "apiVersion",
        'must be tunesmith.dev/v1alpha1, not "tunesmith.dev/v1"',
    ),
    ft("api-version-missing", {"apiVersion": REMOVED}, "apiVersion", "must be tunesmith.dev/v1alpha1"),
]
