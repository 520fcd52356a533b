"""A base model whose generation configuration only a save refuses, trained whole: what is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.base_model import LEARNED, OWN, make_base_model
from tests.support import Ended, chat_records, finetune, logs_of, run_job, write_jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    base = make_base_model(home / "base")
    path = base / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.9, "top_p": 0.6}))
    write_jsonl(home / "train.jsonl", chat_records(12))
    return home


def run(home: Path, name: str, method: dict[str, Any], **training: Any) -> Ended:
    document = finetune(
        name, model=home / "base", data=home / "train.jsonl", output=home / name, method=method,
        training={"maxSteps": 2, "saveSteps": 1, "maxLength": None, "learningRate": 1e-6, **training},
    )  # fmt: skip
    return run_job(home, document)


def test_a_whole_model_is_trained_saved_and_stops(home: Path) -> None:
    ended = run(home, "whole", {"full": {}})
    assert ended.code == 0, ended.text + logs_of(home)
    log = (home / "whole/training_logs/detailed_training_log.txt").read_text()
    result = json.loads((home / "whole/result.json").read_text())
    trained = result["trained"]
    assert trained["share"] == 1.0
    assert trained["parameters"] == trained["totalParameters"] > 0
    count = f"{trained['parameters']:,}"
    said = f"{count} of {count} parameters (100%) in {trained['modules']} modules"
    assert f"Trained: {said}." in log
    assert said in (home / "whole/report.html").read_text()
    assert "do_sample is set to true, since temperature, top_p are set" in logs_of(home) + ended.text
    assert "Samples have up to 512 tokens" in logs_of(home) + ended.text
    for folder in (home / "whole/final_model", home / "whole/checkpoint-1"):
        config = json.loads((folder / "generation_config.json").read_text())
        assert config | {"do_sample": True, "temperature": 0.9, "eos_token_id": [1, 2]} == config, folder
        assert json.loads((folder / "config.json").read_text())["eos_token_id"] == [1, 2]
        assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == LEARNED
        assert f"A reply ends with `{LEARNED}` (1) or `{OWN}` (2)" in (folder / "README.md").read_text()


def test_what_cannot_be_is_refused_before_the_first_step(home: Path) -> None:
    ended = run(home, "names", {"lora": {"targetModules": "q_proj,query"}})
    assert ended.code == 2
    assert "spec.method.lora.targetModules: the model has no module named query." in ended.text
    assert not list((home / "names").glob("checkpoint-*"))
