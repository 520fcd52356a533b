"""`tunesmith preview`: what training would learn from, shown without training, and without torch."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from tests.support import chat_records, finetune, run_cli, write_jsonl, write_manifest

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import parse_document
from tunesmith.local.manifests import load_jobs
from tunesmith.local.preview.jobs import preview_jobs

SHARED = Path(__file__).parents[3] / "shared/data"
EXAMPLES = Path(__file__).parents[2] / "examples"


def jobs_of(*documents: dict[str, Any]) -> list[Any]:
    return [parse_document(document, "m.yaml", number) for number, document in enumerate(documents, 1)]


def previewed(folder: Path, *documents: dict[str, Any], count: int = 2, **options: Any) -> tuple[int, str]:
    """Exit code and text of a preview in this process."""
    console = Console(file=io.StringIO(), width=100, highlight=False, **options)
    code = preview_jobs(jobs_of(*documents), count, folder / "work", console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", chat_records(10))


def document(tiny_model: Path, data: Path | str, name: str = "look", **spec: Any) -> dict[str, Any]:
    return finetune(name, model=tiny_model, data=data, output="file:///nowhere/out", **spec)


def test_messages_tokens_labels_and_lengths(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    code, text = previewed(tmp_path, document(tiny_model, data))
    assert code == 0
    assert "Sample 1: data.jsonl, line 1, " in text
    assert "Sample 2: data.jsonl, line 2, " in text
    assert "Sample 3" not in text
    assert "       user  What is river number 0?\n" in "\n".join(line.rstrip() for line in text.splitlines())
    assert "labels between « and »" in text
    assert "«river is 0 <|im_end|>»" in text
    assert "10 records → 10 samples\n" in text
    assert "Samples by number of tokens\n" in text
    assert sum(int(line.split()[-1]) for line in text.splitlines() if "█" in line or "▏" in line) == 10
    # What is zero is not worth a word.
    assert not any(word in text for word in ("skipped", "bad", "cut"))


def test_a_model_that_cannot_be_exported_is_named(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    export = {"gguf": {"quantization": "Q8_0"}}
    code, text = previewed(tmp_path, document(tiny_model, data, export=export))
    assert code == 0, text
    other = shutil.copytree(tiny_model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"architectures": ["GemmaForCausalLM"]}
    (other / "config.json").write_text(json.dumps(config))
    code, text = previewed(tmp_path, document(other, data, export=export))
    assert code == 2
    assert "export.gguf cannot convert a GemmaForCausalLM" in " ".join(text.split())


def test_on_a_terminal_labels_are_green(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    _, text = previewed(tmp_path, document(tiny_model, data), force_terminal=True, color_system="standard")
    assert "labels in green" in text
    assert "\x1b[1;32mriver is 0" in text
    assert "«" not in text


def test_data_does_not_steer_the_terminal(tmp_path: Path, tiny_model: Path) -> None:
    hostile = "\x1b[2J\x07[/red] \x9b31m"
    records = [
        {"messages": [{"role": "user", "content": hostile}, {"role": "assistant", "content": hostile}]}
    ]
    data = write_jsonl(tmp_path / "h.jsonl", records)
    for terminal in (False, True):
        code, text = previewed(tmp_path, document(tiny_model, data), force_terminal=terminal)
        assert code == 0, text
        assert not any(bad in text for bad in ("\x1b[2J", "\x07", "\x9b"))
        assert "␛" in text
        assert "[/red]" in text


def test_bad_records_are_named_by_file_and_line(tmp_path: Path, tiny_model: Path) -> None:
    good = chat_records(3)
    data = write_jsonl(tmp_path / "bad.jsonl", [good[0], "{", good[1], '{"messages": []}', good[2]])
    code, text = previewed(tmp_path, document(tiny_model, data))
    assert code == 2
    assert "2 bad records, 0 allowed by maxBadRecords:" in text
    assert "bad.jsonl, line 2" in text
    assert "bad.jsonl, line 4" in text
    allowed = document(tiny_model, data)
    allowed["spec"]["datasets"][0]["maxBadRecords"] = 2
    code, text = previewed(tmp_path, allowed)
    assert code == 0
    assert "2 bad, which maxBadRecords allows:" in text
    assert "bad.jsonl, line 4" in text


def test_fields_that_no_reader_reads_are_named(tmp_path: Path, tiny_model: Path) -> None:
    records = [{**record, "source": "web"} for record in chat_records(3)]
    records[0]["messages"][-1]["mood"] = "calm"
    data = write_jsonl(tmp_path / "odd.jsonl", records)
    code, text = previewed(tmp_path, document(tiny_model, data))
    assert code == 0, text
    assert re.search(r"not read: (id \(3\), )?source \(3\), messages\[\]\.mood \(1\)", text), text


def test_context_that_was_cut_is_counted(tmp_path: Path, tiny_model: Path) -> None:
    turns = [("user", "a long question " * 20), ("assistant", "Yes."), ("user", "Why?"), ("assistant", "So.")]
    record = {"messages": [{"role": role, "content": content} for role, content in turns]}
    data = write_jsonl(tmp_path / "long.jsonl", [record])
    made = document(tiny_model, data, training={"maxLength": 40})
    made["spec"]["datasets"][0]["chat"] = {"trainOn": "lastAssistant"}
    code, text = previewed(tmp_path, made)
    assert code == 0, text
    assert "1 sample with context truncated to fit maxLength" in text


def test_one_bad_job_does_not_hide_the_others(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    missing = document(tiny_model, tmp_path / "gone.jsonl", "gone")
    code, text = previewed(tmp_path, missing, document(tiny_model, data, "there"))
    assert code == 2
    assert "gone.jsonl" in text
    assert "10 records" in text


def test_a_job_that_waits_for_another(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    waits = document(tiny_model, data, "waits")
    waits["spec"]["model"] = {"fromJob": {"kind": "FineTuneJob", "name": "first"}}
    code, text = previewed(tmp_path, waits)
    assert code == 2
    assert "spec.model.fromJob: FineTuneJob first is not among the manifests given" in text
    first = document(tiny_model, data, "first")
    first["spec"]["output"]["uri"] = "s3://models/first"
    code, text = previewed(tmp_path, first, waits)
    assert code == 2
    assert "There is nothing at s3://models/first/final_model" in text
    assert "It reads the output of FineTuneJob first, which must have run before." in text
    assert "AWS_ENDPOINT_URL" not in os.environ


def with_data() -> dict[str, dict[str, str]]:
    """Examples whose data lies beside them: each dataset's field and its path."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(EXAMPLES.glob("*/finetune.yaml")):
        jobs = load_jobs([path])
        if len(jobs) > 1:
            continue  # the second starts from what the first makes
        spec = cast(FineTuneSpec, jobs[0].spec)
        uris = {f"datasets[{at}].uri": each.uri for at, each in enumerate(spec.datasets)}
        if spec.validation.uri:
            uris["validation.uri"] = spec.validation.uri
        beside = f"s3://datasets/{path.parent.name}/"
        found[path.parent.name] = {
            field: str(path.parent / str(uri).removeprefix(beside)) for field, uri in uris.items()
        }
    return found


@pytest.mark.parametrize("example", with_data())
def test_every_example_with_data_is_previewed(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], example: str
) -> None:
    fields = with_data()[example]
    assert all(Path(path).exists() for path in fields.values())
    overrides = [f"{field}={path}" for field, path in {"model.uri": str(tiny_model), **fields}.items()]
    jobs = load_jobs([EXAMPLES / example / "finetune.yaml"], overrides)
    console, page = Console(file=io.StringIO(), width=100, highlight=False), tmp_path / "page.html"
    assert preview_jobs(jobs, 50, tmp_path / "work", console, page) == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "«" in text
    assert not re.search(r"\d bad|truncated to fit", text), text
    assert f"{jobs[0].name}: what it trains on" in page.read_text("utf-8")
    assert SAID[example] in text


SAID = {
    "character": "4 left out: another speaker",
    "quickstart": "256 records → 256 samples",
    "sampled": "12 records → 12 samples",
    "user-simulation": "8 users, 5 to 6 samples each",
}


REAL = [
    ("chat-fastchat/dummy_conversation.json", "chat"),
    ("chat-llamafactory/alpaca_zh_demo.json", "instruction"),
    ("chat-llamafactory/identity.json", "instruction"),
    ("chat-llamafactory/v1_sft_demo.jsonl", "chat"),
    ("chat-ms-swift/alpaca.jsonl", "instruction"),
    ("chat-ms-swift/chatml.jsonl", "chat"),
    ("chat-ms-swift/conversations.jsonl", "chat"),
    ("chat-ms-swift/sharegpt.jsonl", "chat"),
    ("chat-oasst/en_100_tree.jsonl", "chat"),
    ("chat-torchtune/alpaca_tiny.json", "instruction"),
    ("chat-torchtune/chat_tiny.json", "chat"),
]


def test_real_data(tmp_path: Path, tiny_model: Path) -> None:
    """A job for each file users bring: each ends with samples or with its bad records named."""
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    documents = []
    for number, (name, fmt) in enumerate(REAL):
        made = document(tiny_model, SHARED / name, f"real-{number}", training={"maxLength": 4096})
        dataset = made["spec"]["datasets"][0]
        del dataset["chat"]
        dataset |= {fmt: {}, "limit": 40, "maxBadRecords": 40}
        documents.append(made)
    code, text = previewed(tmp_path, *documents, count=1)
    parts = text.split("FineTuneJob real-")[1:]
    assert len(parts) == len(REAL)
    for (name, _), part in zip(REAL, parts, strict=True):
        assert re.search(r"→ [1-9][\d,]* samples?\n", part), name + part
        assert "«" in part, name
    assert code == 0


def test_without_torch(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """As where only tunesmith[data] is installed: torch cannot be imported, nor is it found."""
    (tmp_path / "site").mkdir()
    blocked = "import sys\nfor name in ('torch', 'peft', 'accelerate'):\n    sys.modules[name] = None\n"
    (tmp_path / "site/sitecustomize.py").write_text(blocked)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    path = write_manifest(tmp_path, document(tiny_model, data))
    ended = run_cli("preview", "-f", path.name, folder=tmp_path, env=env, warm=False)
    assert ended.code == 0, ended.text
    assert "10 records → 10 samples" in ended.text
    assert ended.text.splitlines()[-1] == "To run this: tunesmith run -f look.yaml"
    refused = run_cli("run", "-f", path.name, folder=tmp_path, env=env, warm=False)
    assert refused.code == 2
    assert refused.text == "tunesmith: `tunesmith run` needs more packages: pip install 'tunesmith[local]'\n"
