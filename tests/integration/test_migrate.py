"""The manifests of docs/migrate.md, run on data in the form in which the scripts they replace have it.

Smaller: the model is tiny and not quantized, there is one step, and the endpoints are the stub server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.standin.openai_rules import Settings
from tests.standin.openai_stub import Stub
from tests.support import logs_of, run_cli, write_jsonl, write_manifest

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"
ARTICLES = {"133-0-0": "交通肇事的，处三年以下有期徒刑。", "264-0-0": "盗窃公私财物的，处三年以下有期徒刑。"}
CASES = [
    {"fact": "被告人驾车撞人。", "relevant_articles": ["133-0-0"], "charge": "交通肇事", "prison_time": 12},
    {"fact": "被告人窃取手机。", "relevant_articles": ["264-0-0"], "charge": "盗窃", "prison_time": 6},
]


def user(number: int) -> dict[str, Any]:
    data = [
        {
            "context": [{"source": "bot", "content": f"你喜欢什么{item}？"}],
            "continuation": f"我喜欢第{number}种{item}。",
        }
        for item in ("茶", "书")
    ]
    behaviour = {"type": "dialogue", "data": data}
    return {
        "user_hash": f"u{number}",
        "user": {"profile": {"name": f"用户{number}"}, "personality": {"structured": {}, "unstructured": ""}},
        "task": {"description": "闲聊", "task_behavior_collections": [behaviour]},
    }


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the addresses of the page hold, below a folder a bucket."""
    data = tmp_path / "datasets"
    write_json(data / "lovink/train.json", [user(number) for number in range(4)])
    write_json(data / "lawshift/training_set.json", CASES)
    for name in ("original", "poisoned"):
        write_json(data / f"lawshift/term_up/articles_{name}.json", ARTICLES)
    write_json(data / "lawshift/term_up/poisoned.json", CASES)
    # As the original script leaves it: without a prompt.
    kept = [
        {**case, "response": f"{case['charge']} | {case['prison_time']}", "num_correct_for_this_sample": 1}
        for case in CASES
    ]
    write_json(data / "lawshift/sampled_data.json", kept)
    seeds = [{"question": f"问题{n}？", "answer": "不知道。", "correction": f"答案是{n}。"} for n in range(2)]
    write_jsonl(data / "aligner/aligner-20k.jsonl", seeds)
    write_jsonl(data / "style/combined_dataset.jsonl", [{"text": "今日天气阴沉。街上没有人。"}] * 4)
    turns = [("system", "你是一名作家。"), ("user", "今天下雨。"), ("assistant", "细雨如丝，润物无声。")]
    talk = {"conversations": [{"role": role, "content": content} for role, content in turns]}
    write_jsonl(data / "style/stage2_sample_5000.jsonl", [talk] * 10)
    lines = [{"source_title": "第一幕", "speaker": "芙宁娜", "text": f"欢迎来到第{n}场。"} for n in range(3)]
    write_json(data / "character/dialogue/one.json", lines)
    settings = [{"input": "更多描述", "speaker": "芙宁娜", "text": "她是水神。"}]
    write_json(data / "character/settings.json", settings)
    return data


def manifests() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def made_small(document: dict[str, Any], model: Path, url: str) -> dict[str, Any]:
    spec = document["spec"]
    tiny = {"uri": f"file://{model}"}
    if "uri" in spec.get("model", {}):
        spec["model"] = tiny
    if "training" in spec:
        spec["training"] |= {"maxSteps": 1, "saveSteps": 1, "perDeviceTrainBatchSize": 1}
        spec["training"] |= {"gradientAccumulationSteps": 2, "maxLength": 256}
        spec["training"].pop("earlyStopping", None)
    if "qlora" in spec.get("method", {}):
        spec["method"] = {"lora": {"r": 4}}
    for dropped in ("tracking", "deepspeed", "resources"):
        spec.pop(dropped, None)
    for part in (spec, *spec.get("evaluation", ())):
        if "sampling" in part:
            part["sampling"] = {"numSamples": 2, "maxNewTokens": 4, "temperature": 1.0}
            part["engine"] = {"transformers": {}}
    if document["metadata"]["name"] == "lawshift-sft":  # the tiny model is never right
        spec["datasets"] = [
            {
                "uri": "s3://datasets/lawshift/sampled_data.json",
                "sampled": {"articlesUri": "s3://datasets/lawshift/term_up/articles_original.json"},
            }
        ]
    for endpoint in spec.get("endpoints", {}).values():
        endpoint["openai"] |= {"baseUrl": url, "model": "m"}
    for preview in spec.get("previews", ()):
        preview["generation"] = {"maxNewTokens": 4}
    return document


def test_every_manifest_of_the_page_runs(tmp_path: Path, data: Path, tiny_model: Path) -> None:
    documents = manifests()
    with Stub(Settings(latency=0.01)) as server:
        path = write_manifest(tmp_path, *(made_small(each, tiny_model, server.url) for each in documents))
        keys = {f"TUNESMITH_SECRET_{name}_API_KEY": "key" for name in ("GEMINI", "TOGETHER")}
        seeds = [f"s3://datasets/{part.name}={part}" for part in sorted(data.iterdir())]
        seeded = [word for seed in seeds for word in ("--seed", seed)]
        ended = run_cli("run", "-f", path.name, *seeded, folder=tmp_path, env=keys, timeout=600)
    said = [line for line in ended.text.splitlines() if line.startswith(("✔", "✘"))]
    assert ended.code == 0, ended.text + logs_of(tmp_path)
    assert len(said) == len(documents) == 7
