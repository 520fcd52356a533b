"""A manifest of each kind that sets as many fields as go together."""

from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed

COMMON = {
    "storage": {"secretRef": {"name": "s3"}, "endpointUrl": "https://s3.example", "region": "eu-1"},
    "resources": {
        "nodes": 3,
        "gpusPerNode": 2,
        "gpuResource": "amd.com/gpu",
        "cpu": "8",
        "memory": "64Gi",
        "sharedMemory": "8Gi",
        "scratch": {"size": "100Gi", "storageClassName": "fast"},
    },
    "placement": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 5}],
        "priorityClassName": "high",
    },
    "run": {
        "maxAttempts": 5,
        "activeDeadlineSeconds": 100,
        "startDeadlineSeconds": 100,
        "ttlSecondsAfterFinished": 100,
    },
    "hub": {"endpoint": "https://hub.example", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "tracking": {
        "wandb": {
            "project": "p",
            "runName": "r",
            "entity": "e",
            "apiKeySecretRef": {"name": "wandb", "key": "k"},
        },
        "mlflow": {
            "experiment": "e",
            "runName": "r",
            "trackingUri": "https://mlflow.example",
            "secretRef": {"name": "mlflow"},
        },
    },
}
FULL = {
    "FineTuneJob": changed(
        FINE_TUNE,
        {f"spec.{name}": value for name, value in COMMON.items()}
        | {
            "metadata.annotations": {"note": "text"},
            "spec.export": {
                "merged": {},
                "gguf": {"quantization": "Q4_K_M"},
                "hub": {"repoId": "org/name", "private": False},
            },
            "spec.model": {"uri": "hf://org/model", "revision": "main", "adapterUri": "s3://models/a"},
            "spec.datasets": [
                {
                    "uri": "s3://data/a",
                    "chat": {},
                    "systemPrompt": "Be brief.",
                    "columns": {"messages": "conversation.turns"},
                },
                {
                    "uri": "s3://data/b",
                    "character": {
                        "name": "Ann",
                        "speakers": ["any"],
                        "backgroundKeys": ["k"],
                        "backgroundInstruction": "b",
                        "settingsInstruction": "s",
                        "imitationInstruction": "i",
                    },
                },
                {"uri": "hf://datasets/org/files", "dataFiles": ["data/*.jsonl"], "text": {}},
            ],
            "spec.validation": {
                "uri": "hf://datasets/org/set@v1",
                "config": "main",
                "split": "test",
                "chat": {},
                "systemPrompt": "Be brief.",
            },
            "spec.previews": [
                {
                    "name": "a",
                    "system": "s",
                    "systemSuffix": "x",
                    "user": "u",
                    "generation": {"stopTokens": ["END"]},
                },
                {"name": "b", "messages": [{"role": "user", "content": "c"}]},
            ],
            "spec.evaluation": [
                {
                    "name": "e",
                    "prompts": {"uri": "s3://data/e.json", "instruction": {}, "systemPrompt": "Be brief."},
                    "verifier": {"regex": {"pattern": "a", "field": "b"}},
                    "engine": {"vllm": {"extra": {"kv_cache_dtype": "fp8"}}},
                }
            ],
        },
    ),
    "RejectionSampleJob": changed(
        SAMPLE,
        {f"spec.{name}": value for name, value in COMMON.items()}
        | {
            "spec.verifier": {"exactMatch": {"field": "answer"}},
            "spec.sampling": {"stopTokens": ["END"]},
            "spec.engine": {"vllm": {"extra": {"kv_cache_dtype": "fp8"}}},
        },
    ),
    "DialogueGenJob": changed(
        DIALOGUE,
        {f"spec.{name}": value for name, value in COMMON.items()}
        | {
            "spec.resources": {**COMMON["resources"], "nodes": 1},
            "spec.endpoints.big.openai.apiKeySecretRef": {"name": "big", "key": "api-key"},
            "spec.endpoints.big.openai.extraBody": {"user": "me"},
            "spec.endpoints.big.openai.batch": {"maxWaitSeconds": 7200, "discount": 0.4},
            "spec.roles.question.promptUri": "s3://data/question.txt",
        },
    ),
}


def text_fields(value, path=""):
    """Paths of all texts in plain values, lists and objects walked."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from text_fields(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from text_fields(item, f"{path}.{name}" if path else name)
