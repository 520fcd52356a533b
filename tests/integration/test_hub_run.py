"""Data sets of a hub on this machine, from manifest to model: the example's five, and one in a job."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.standin.hub import HubStub, serving
from tests.support import chat_records, finetune, logs_of, run_job, write_jsonl

from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.hub.client import ask_only
from tunesmith.artifacts.hub.dataset import _resolved
from tunesmith.local.preview.jobs import preview_jobs

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT / "tests/fixtures/public"
EXAMPLE = yaml.safe_load((ROOT / "examples/08-hub-datasets.yaml").read_text("utf-8"))
TOOLS = yaml.safe_load((ROOT / "examples/09-tools-and-thoughts.yaml").read_text("utf-8"))
CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/train_sft-*
  - split: test_sft
    path: data/test_sft-*
---
"""


def shape(name: str) -> bytes:
    return (PUBLIC / f"{name}.jsonl").read_bytes()


def parquet(name: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in shape(name).splitlines()]), buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStub]:
    """A hub that has the example's data sets, laid out as the public ones are."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("TUNESMITH_SECRET_HUGGINGFACE_TOKEN", "hf_good")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    stub = HubStub()
    stub.put("LDJnr/Capybara", {"CapybaraPure_Decontaminated.jsonl": shape("capybara"), "README.md": b"# C"})
    held = {"messages": chat_records(1, 70)[0]["messages"]}
    stub.put(
        "HuggingFaceH4/ultrachat_200k",
        {
            "README.md": CARD,
            "data/train_sft-00000-of-00001-a1.parquet": parquet("ultrachat"),
            "data/test_sft-00000-of-00001-b2.jsonl": json.dumps(held).encode(),
        },
    )
    listed = [json.loads(line) for line in shape("openhermes").splitlines()]
    stub.put("teknium/OpenHermes-2.5", {"openhermes2_5.json": json.dumps(listed).encode()})
    lima = {"lima.py": b"raise SystemExit", "train.jsonl": shape("lima"), "test.jsonl": b"{}"}
    stub.put("GAIR/lima", lima, gated=True)
    stub.put("databricks/databricks-dolly-15k", {"databricks-dolly-15k.jsonl": shape("dolly")})
    configured = b"---\nconfigs:\n- config_name: %s\n  data_files: %s.jsonl\n---\n"
    for name, file, config in (
        ("NousResearch/hermes-function-calling-v1", "hermes_function_calling", b"func_calling"),
        ("Salesforce/xlam-function-calling-60k", "xlam", b"default"),
        ("Team-ACE/ToolACE", "toolace", b"default"),
        ("HuggingFaceH4/Multilingual-Thinking", "multilingual_thinking", b"default"),
        ("open-r1/OpenR1-Math-220k", "openr1", b"default"),
    ):
        files = {"README.md": configured % (config, file.encode()), f"{file}.jsonl": shape(file)}
        stub.put(name, files)
    _resolved.cache_clear()
    with serving(stub):
        yield stub
    _resolved.cache_clear()
    ask_only.cache_clear()


def previewed(folder: Path, document: dict[str, Any]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    code = preview_jobs([parse_document(document, "m.yaml", 1)], 3, folder / "work", console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def example(hub: HubStub, tiny_model: Path, manifest: dict[str, Any] = EXAMPLE) -> dict[str, Any]:
    document = json.loads(json.dumps(manifest))
    document["spec"]["model"] = {"uri": f"file://{tiny_model}"}
    document["spec"]["hub"]["endpoint"] = hub.url
    document["spec"]["datasets"][1].pop("subset", None)  # one record is all there is here
    return document


LEARNED = {
    "LDJnr/Capybara": [
        "Rivers carry salt, and the sun takes the water only.",
        "No: lakes without an outflow turn salty too.",
        "23.",
    ],
    "HuggingFaceH4/ultrachat_200k": ["Seven minutes in boiling water.", "Four minutes."],
    "teknium/OpenHermes-2.5": ["42.", "C, a, t."],
    "GAIR/lima": ["Some do, while the brain grows.", "To all who came by boat!", "To the boats!"],
    "databricks/databricks-dolly-15k": ["In 1901.", "The Elbe and the Aare."],
}


def test_the_examples_data_sets_are_previewed_right(tmp_path: Path, hub: HubStub, tiny_model: Path) -> None:
    code, text = previewed(tmp_path, example(hub, tiny_model))
    assert code == 0, text
    parts = re.split(r"datasets\[\d\] hf://datasets/", text)
    for name, replies in LEARNED.items():
        shown = "".join(part for part in parts if part.startswith(name))
        shown = shown.replace("labels between « and »", "")
        labels = re.findall("«(.*?)»", re.sub(r"\s*\n\s*", " ", shown))
        assert [label.replace("<|im_end|>", "").strip() for label in labels] == replies, (name, shown)
        assert re.search("commit [0-9a-f]{40}", shown), name
    assert "not read: category (2)" in text
    assert "hf_good" not in text
    assert "Bearer hf_good" in hub.tokens


CALLS = {
    "NousResearch/hermes-function-calling-v1": [
        '<tool_call> {"name": "get_tide", "arguments": {"harbour": "Husum"}} </tool_call>',
        "It stands at 1.7 metres.",
    ],
    "Salesforce/xlam-function-calling-60k": [
        '<tool_call> {"name": "convert", "arguments": {"value": 5, "unit": "mi"}} </tool_call> '
        '<tool_call> {"name": "convert", "arguments": {"value": 3, "unit": "lb"}} </tool_call>'
    ],
    "Team-ACE/ToolACE": ['[book_ferry(day="Monday")]', "Booked: seat 12 on Monday."],
    "HuggingFaceH4/Multilingual-Thinking": [
        "<think> Gefragt ist die größte Tiefe; sie liegt bei 251 Metern. </think> "
        "An der tiefsten Stelle sind es 251 Meter."
    ],
    "open-r1/OpenR1-Math-220k": [r"The sum is $\boxed{25}$."],
}


def test_data_sets_with_tools_and_thoughts_are_previewed_right(
    tmp_path: Path, hub: HubStub, tiny_model: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")  # whose words are short, so that texts are long
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    document = example(hub, model, TOOLS)
    document["spec"]["model"]["chatTemplate"] = {"name": "chatml"}
    document["spec"]["training"]["maxLength"] = 4096
    code, text = previewed(tmp_path, document)
    assert code == 0, text
    parts = re.split(r"datasets\[\d\] hf://datasets/", text)
    for name, replies in CALLS.items():
        shown = "".join(part for part in parts if part.startswith(name))
        shown = shown.replace("labels between « and »", "")
        labels = re.findall("«(.*?)»", re.sub(r"\s*\n\s*", " ", shown))
        assert [label.replace("<|im_end|>", "").strip() for label in labels] == replies, (name, shown)
    assert "Convert a value to SI" in text
    assert "<tool_response>" in text
    assert not re.search(r"<tool_response>\s*<tool_response>", text)  # that of the text is the template's


def test_a_set_that_a_program_loads_is_one_error(tmp_path: Path, hub: HubStub, tiny_model: Path) -> None:
    document = example(hub, tiny_model)
    del document["spec"]["datasets"][3]["dataFiles"]
    code, text = previewed(tmp_path, document)
    assert code == 2
    assert "hf://datasets/GAIR/lima is loaded by a program of its own, lima.py" in text
    assert "hf://datasets/GAIR/lima@refs/convert/parquet" in text


@pytest.mark.slow
def test_a_job_learns_from_the_hub_and_notes_the_commit(
    tmp_path: Path, hub: HubStub, tiny_model: Path
) -> None:
    uri = "hf://datasets/org/talks"
    rows = write_jsonl(tmp_path / "rows.jsonl", chat_records(8)).read_bytes()
    commit = hub.put("org/talks", {"data/train-00000-of-00001.jsonl": rows, "README.md": b"# Talks"})
    document = finetune(
        "from-hub", model=tiny_model, data="file:///none", output=tmp_path / "out", training={"maxSteps": 2}
    )
    document["spec"]["datasets"] = [{"uri": uri, "chat": {}}]
    document["spec"]["hub"] = {"endpoint": hub.url}
    environment = {"HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "HF_HUB_OFFLINE": "0"}
    ended = run_job(tmp_path, document, env=environment)
    assert ended.code == 0, ended.text + logs_of(tmp_path)
    out = tmp_path / "out"
    fingerprint = json.loads((out / "fingerprint.json").read_text("utf-8"))
    assert fingerprint["commits"] == {uri: commit}
    (dataset,) = json.loads((out / "result.json").read_text("utf-8"))["datasets"]
    assert (dataset["name"], dataset["records"], dataset["commit"]) == (f"datasets[0] {uri}", 8, commit)
    assert commit in (out / "report.html").read_text("utf-8")

    hub.put("org/talks", {"other.jsonl": b"{}"})
    ended = run_job(tmp_path, document, env=environment)
    assert ended.code == 0, ended.text
    assert "already finished" in ended.text
