"""A job whose result is exported: merged, as GGUF and to a hub, each proved, and what a failure leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.adapters import make_adapter
from tests.fixtures.tiny_model import make_tiny_model
from tests.standin.hub import HubStub, serving
from tests.support import Ended, chat_records, finetune, logs_of, run_cli, run_job, write_jsonl

pytestmark = pytest.mark.slow
TOKEN = {"TUNESMITH_SECRET_HUGGINGFACE_TOKEN": "hf_good", "NO_PROXY": "*", "HF_HUB_OFFLINE": "0"}
SUMS = {
    "name": "sums",
    "prompts": {"uri": "", "instruction": {}},
    "verifier": {"exactMatch": {"field": "output"}},
    "sampling": {"numSamples": 1, "temperature": 0.0, "maxNewTokens": 8},
    "engine": {"transformers": {}},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_tiny_model(home / "model")
    (home / "model/README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    write_jsonl(home / "train.jsonl", chat_records(12))
    write_jsonl(home / "sums.jsonl", [{"instruction": f"say {n}", "output": "x"} for n in range(6)])
    return home


def hub_of(hub: HubStub | None) -> dict[str, Any]:
    token = {"name": "huggingface", "key": "token"}
    return {} if hub is None else {"hub": {"endpoint": hub.url, "tokenSecretRef": token}}


def run(home: Path, hub: HubStub | None = None, **spec: Any) -> Ended:
    evaluation = {**SUMS, "prompts": {**SUMS["prompts"], "uri": f"file://{home / 'sums.jsonl'}"}}
    document = finetune(
        "job", model=home / "model", data=home / "train.jsonl", output=home / "out",
        previews=[{"name": "river", "user": "What is river number 3?"}], evaluation=[evaluation],
        **hub_of(hub), **spec,
    )  # fmt: skip
    return run_job(home, document, env=TOKEN, timeout=560)


def test_three_forms_are_made_proved_and_pushed_and_another_later(home: Path) -> None:
    export = {"merged": {}, "gguf": {"quantization": "Q8_0"}, "hub": {"repoId": "org/tiny"}}
    with serving(HubStub()) as hub:
        ended = run(home, hub, export=export)
        pushed = hub.models["org/tiny"].files
    assert ended.code == 0, ended.text + logs_of(home)
    out = home / "out"
    manifest, result = (json.loads((out / name).read_text()) for name in ("manifest.json", "result.json"))
    merged, gguf = result["exports"]
    assert merged["trainingType"]["equalTokens"] == 1.0
    assert gguf["equalTokens"] > 0.5
    assert gguf["sameTemplate"]
    assert [form["evaluations"][0]["within"] for form in (merged, gguf)] == [True, True]
    keys = {file["key"] for file in manifest["files"]}
    assert {"export/merged/model.safetensors", "export/gguf/job-Q8_0.gguf", "final_model/README.md"} <= keys
    assert not (out / "exporting").exists()
    assert not list((out / "evaluation").rglob("merged"))
    page = (out / "report.html").read_text()
    for words in ("export/gguf/job-Q8_0.gguf", "100.0% of", "org/tiny"):
        assert words in page
    assert pushed["job-Q8_0.gguf"] == (out / "export/gguf/job-Q8_0.gguf").read_bytes()
    assert pushed["model.safetensors"] == (out / "export/merged/model.safetensors").read_bytes()
    assert b"license: mit" in pushed["README.md"]
    assert b"| sums | " in pushed["README.md"]
    for place in (out, home / ".tunesmith"):
        texts = [path for path in place.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
        assert not any(b"hf_good" in path.read_bytes() for path in texts)
    before = (out / "final_model/adapter_model.safetensors").read_bytes(), merged
    later = run(home, export={"merged": {}, "gguf": {"quantization": "BF16"}})
    assert later.code == 0, later.text + logs_of(home)
    result = json.loads((out / "result.json").read_text())
    assert [form["name"] for form in result["exports"]] == ["merged", "gguf BF16"]
    assert ((out / "final_model/adapter_model.safetensors").read_bytes(), result["exports"][0]) == before
    assert sorted(path.name for path in (out / "export/gguf").iterdir()) == ["job-BF16.gguf"]
    again = run(home, export={"merged": {}, "gguf": {"quantization": "BF16"}})
    assert again.code == 0
    assert "nothing to do" in logs_of(home) or "finished already" in again.text


def test_what_cannot_be_exported_is_refused_before_training(home: Path) -> None:
    ended = run(home, export={"hub": {"repoId": "org/tiny"}})
    assert ended.code == 2
    assert "needs hub.tokenSecretRef" in ended.text


SMOLLM2 = Path(__file__).parents[2] / ".demo/model"


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="`make demo` makes the model")
def test_the_command_exports_smollm2(tmp_path: Path) -> None:
    """An adapter over a real model, in three forms, each loaded by the program that serves it."""
    adapter = make_adapter(SMOLLM2.resolve(), tmp_path / "adapter", r=8, target_modules="all-linear")
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    small = {name: weight * (0.05 if "lora_B" in name else 1.0) for name, weight in weights.items()}
    save_file(small, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with serving(HubStub()) as hub:
        forms = [word for form in ("merged", "gguf", "hub") for word in ("--to", form)]
        ended = run_cli(
            "export", "--model", adapter, *forms, "--repo-id", "me/smol", "--name", "smol",
            "--output", tmp_path / "out", folder=tmp_path, timeout=1500, warm=False,
            env={**TOKEN, "HF_TOKEN": "hf_good", "HF_ENDPOINT": hub.url},
        )  # fmt: skip
        pushed = hub.models["me/smol"].files
    assert ended.code == 0, ended.text
    merged, gguf = json.loads((tmp_path / "out/export.json").read_text())
    assert (
        merged["trainingType"]["equalTokens"] + merged["trainingType"]["undecided"] / merged["tokens"] == 1.0
    )
    assert merged["equalTokens"] > 0.95
    assert gguf["equalTokens"] > 0.9
    assert gguf["sameTemplate"]
    assert pushed["smol-Q8_0.gguf"] == (tmp_path / "out/gguf/smol-Q8_0.gguf").read_bytes()
    assert "adapter/adapter_config.json" in pushed
    assert "hf_good" not in ended.text
    print(ended.text)
