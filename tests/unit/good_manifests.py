"""One small right manifest of each kind, and a way to change one."""

import copy
import re

REMOVED = object()
API = "tunesmith.dev/v1alpha1"

FINE_TUNE = {
    "apiVersion": API,
    "kind": "FineTuneJob",
    "metadata": {"name": "tune", "namespace": "research"},
    "spec": {
        "model": {"uri": "hf://org/model"},
        "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
        "method": {"lora": {}},
        "output": {"uri": "s3://models/tune"},
    },
}
SAMPLE = {
    "apiVersion": API,
    "kind": "RejectionSampleJob",
    "metadata": {"name": "sample", "namespace": "research"},
    "spec": {
        "model": {"uri": "hf://org/model"},
        "prompts": {
            "uri": "s3://data/cases.json",
            "legalJudgement": {"articlesUri": "s3://data/articles.json"},
        },
        "output": {"uri": "s3://data/sampled"},
    },
}
DIALOGUE = {
    "apiVersion": API,
    "kind": "DialogueGenJob",
    "metadata": {"name": "talk", "namespace": "research"},
    "spec": {
        "seeds": {"uri": "s3://data/seeds.jsonl"},
        "rounds": 3,
        "endpoints": {
            "big": {
                "openai": {"baseUrl": "https://api.example.com/v1", "model": "big"},
                "price": {"inputPerMillion": 0.1, "outputPerMillion": 0.4},
            },
            "small": {"transformers": {"model": {"uri": "hf://org/small"}}},
        },
        "roles": {
            "question": {"endpoint": "big"},
            "answer": {"endpoint": "small"},
            "correction": {"endpoint": "big"},
        },
        "budget": {"maxUsd": 2.0},
        "output": {"uri": "s3://data/dialogues"},
    },
}


def changed(document, changes):
    """A copy with values at dotted paths (`spec.datasets[0].uri`) set, or REMOVED."""
    document = copy.deepcopy(document)
    for path, value in changes.items():
        parts = [int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path)]
        node = document
        for part in parts[:-1]:
            node = node[part] if isinstance(part, int) else node.setdefault(part, {})
        if value is REMOVED:
            del node[parts[-1]]
        else:
            node[parts[-1]] = value
    return document
