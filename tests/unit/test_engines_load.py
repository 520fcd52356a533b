"""From a model's address to a folder, and what a folder says of itself. Loading is tested with chat."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines import load
from tunesmith.engines.load import fetch_model, local_path, read_config, vocabulary_size
from tunesmith.engines.skip_imports import unneeded_packages
from tunesmith.errors import ModelError, StoragePermanentError, TemporaryError


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/models/m", "/models/m"),
        ("/models/a%20b", "/models/a%20b"),
        ("file:///models/a%20b", "/models/a b"),
        ("file:///models/训练", "/models/训练"),
        ("s3://models/m", None),
        ("hf://org/m", None),
    ],
)
def test_folders_of_this_machine(uri, path):
    assert local_path(uri) == (None if path is None else type(local_path("/"))(path))


def fetch(uri, folder, **options):
    return fetch_model(ModelSource(uri=uri), HubSpec(), StorageOptions(), folder, **options)


def test_a_folder_is_used_where_it_is(tmp_path):
    (tmp_path / "m").mkdir()
    assert fetch(f"file://{tmp_path}/m", tmp_path / "copy") == tmp_path / "m"
    assert not (tmp_path / "copy").exists()
    with pytest.raises(ModelError, match=r"^--base /gone: there is no such folder\.$"):
        fetch("/gone", tmp_path / "copy", named="--base")


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Folders that stand for s3:// addresses: both stores follow the same rules."""
    opened = open_store
    monkeypatch.setattr(
        load,
        "open_store",
        lambda uri, options: opened(f"file://{tmp_path}/{uri.removeprefix('s3://')}", options),
    )
    folder = tmp_path / "bucket/m"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "merges.txt"):
        (folder / name).write_text("{}")
    for name in ("model-00001.safetensors", "pytorch_model.bin", "onnx/model.onnx", "m.gguf"):
        (folder / name).write_text("heavy")
    return folder


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_tokenizer_comes_without_weights(remote, tmp_path):
    found = fetch("s3://bucket/m", tmp_path / "copy", tokenizer_only=True)
    assert names(found) == {"config.json", "tokenizer.json", "chat_template.jinja", "merges.txt"}


def test_a_model_comes_whole_and_replaces_what_was_there(remote, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/old.safetensors").touch()
    found = fetch("s3://bucket/m/", tmp_path / "copy")
    assert "model-00001.safetensors" in names(found)
    assert "old.safetensors" not in names(found)


@pytest.mark.parametrize("tokenizer_only", [False, True])
def test_nothing_at_the_address(remote, tmp_path, tokenizer_only):
    with pytest.raises(StoragePermanentError, match=r"^model\.uri s3://bucket/gone: There is nothing at "):
        fetch("s3://bucket/gone", tmp_path / "copy", tokenizer_only=tokenizer_only)


def _answer(status):
    from httpx import Request, Response

    return Response(status, request=Request("GET", "https://hub.example"))


def hub_errors():
    from huggingface_hub import errors

    forbidden, absent = _answer(403), _answer(404)
    return {
        "gated": (errors.GatedRepoError("x", response=forbidden), ModelError, "set hub.tokenSecretRef"),
        "missing": (errors.RepositoryNotFoundError("x", response=absent), ModelError, "does not exist on"),
        "revision": (errors.RevisionNotFoundError("x", response=absent), ModelError, "model.revision v9"),
        "name": (errors.HFValidationError("no such name"), ModelError, "no such name"),
        "network": (OSError("\n  no route\nessay"), TemporaryError, "from the hub: no route. Is the hub"),
        "empty": (OSError(""), TemporaryError, "from the hub: OSError. Is the hub"),
    }


@pytest.mark.parametrize("case", ["gated", "missing", "revision", "name", "network", "empty"])
def test_what_the_hub_says(case, tmp_path, monkeypatch):
    error, kind, words = hub_errors()[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    source = ModelSource(uri="hf://org/m", revision="v9")
    with pytest.raises(kind) as caught:
        fetch_model(source, HubSpec(), StorageOptions(), tmp_path)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "hf://org/m" in caught.value.message


@pytest.mark.parametrize("tokenizer_only", [False, True])
def test_what_is_asked_of_the_hub(tmp_path, monkeypatch, tokenizer_only):
    asked = SimpleNamespace()

    def download(name, **options):
        asked.name, asked.options = name, options
        for file in ("config.json", "model.safetensors"):
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = ModelSource(uri="hf://org/m", revision="v9")
    hub = HubSpec(endpoint="https://mirror.example", offline=True)
    fetch_model(source, hub, StorageOptions(), tmp_path, "secret", tokenizer_only=tokenizer_only)
    assert asked.name == "org/m"
    patterns = asked.options.pop("allow_patterns")
    assert ("*.safetensors" in patterns) is not tokenizer_only
    assert "*.bin" not in patterns
    assert asked.options == {
        "revision": "v9", "endpoint": "https://mirror.example", "local_files_only": True, "token": "secret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (None, None), ({}, None), ({"vocab_size": 7}, 7), ({"text_config": {"vocab_size": 8}}, 8),
        ({"text_config": None}, None), ({"text_config": [1]}, None), ({"vocab_size": "7"}, None),
    ],
)  # fmt: skip
def test_the_size_of_the_vocabulary(config, size, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert vocabulary_size(tmp_path) == size


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100000])
def test_a_damaged_configuration(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json is not a JSON object"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("base", "wanted", "left_out"),
    [
        ({}, {}, ["bitsandbytes", "deepspeed", "datasets"]),
        ({}, {"quantised": True}, ["deepspeed", "datasets"]),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, {}, ["deepspeed", "datasets"]),
        ({}, {"deepspeed": True}, ["bitsandbytes", "datasets"]),
    ],
    ids=["plain", "quantises", "quantised-base", "deepspeed"],
)
def test_what_a_process_does_without(base, wanted, left_out):
    assert unneeded_packages(base, **wanted) == left_out


def test_what_is_left_out_is_not_imported_by_others():
    program = (
        "import sys; from tunesmith.engines.skip_imports import skip_imports\n"
        "skip_imports('bitsandbytes', 'deepspeed', 'datasets', 'os')\n"
        "import transformers.trainer, peft, os.path\n"
        "assert not [name for name in sys.modules if name.startswith(('bitsandbytes.', 'deepspeed.'))]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
