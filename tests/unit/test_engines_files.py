"""From a model's address to its base and its adapters: what is fetched, and what cannot be used."""

import shutil

import pytest
from tests.fixtures.adapters import change_config, make_adapter

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines import load
from tunesmith.engines.files import fetch_files
from tunesmith.errors import ModelError, StoragePermanentError


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    """One without and one with a tokenizer."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("plain", "worded"):
        make_adapter(tiny_model, folder / name, base="s3://models/tiny")
    shutil.copy(tiny_model / "tokenizer.json", folder / "worded")
    return folder


@pytest.fixture
def bucket(adapters, tiny_model, tmp_path, monkeypatch):
    """Folders that stand for s3://models/…: tiny (whole), plain and worded (adapters on it)."""
    opened = open_store
    monkeypatch.setattr(
        load,
        "open_store",
        lambda uri, options: opened(f"file://{tmp_path}/{uri.removeprefix('s3://')}", options),
    )
    shutil.copytree(tiny_model, tmp_path / "models/tiny")
    return shutil.copytree(adapters, tmp_path / "models", dirs_exist_ok=True)


def fetch(place, source, **options):
    source = ModelSource.model_validate(source)
    return fetch_files(source, HubSpec(), StorageOptions(), place, **options)


def test_a_whole_model(bucket, tmp_path):
    files = fetch(tmp_path / "here", {"uri": "s3://models/tiny"})
    assert (files.base, files.adapters, files.tokenizer) == (tmp_path / "here/model", (), files.base)
    assert files.source.uri == "s3://models/tiny"


@pytest.mark.parametrize("tokenizer_only", [False, True])
def test_an_adapter_brings_its_base(bucket, tmp_path, tokenizer_only):
    files = fetch(tmp_path / "here", {"uri": "s3://models/worded"}, tokenizer_only=tokenizer_only)
    assert files.source == ModelSource(uri="s3://models/tiny")
    assert files.adapters == (tmp_path / "here/model",)
    assert (files.base / "config.json").is_file()
    assert (files.base / "model.safetensors").exists() is not tokenizer_only
    assert files.tokenizer == files.adapters[0]


def test_the_base_has_the_tokenizer_where_the_adapter_has_none(bucket, tmp_path):
    files = fetch(tmp_path / "here", {"uri": "s3://models/plain"})
    assert files.tokenizer == files.base


def test_an_adapter_on_top(bucket, tmp_path):
    files = fetch(tmp_path / "here", {"uri": "s3://models/tiny", "adapterUri": "s3://models/worded"})
    assert (files.base, files.adapters) == (tmp_path / "here/model", (tmp_path / "here/adapter",))
    assert files.tokenizer == files.adapters[0]


def test_an_adapter_on_an_adapter(bucket, tmp_path):
    files = fetch(tmp_path / "here", {"uri": "s3://models/worded", "adapterUri": "s3://models/plain"})
    assert files.base == tmp_path / "here/base"
    assert files.adapters == (tmp_path / "here/model", tmp_path / "here/adapter")
    assert files.tokenizer == files.adapters[0]
    shutil.copy(bucket / "worded/tokenizer.json", bucket / "plain")
    again = fetch(tmp_path / "here", {"uri": "s3://models/worded", "adapterUri": "s3://models/plain"})
    assert again.tokenizer == again.adapters[1]


def test_folders_of_this_machine_are_used_where_they_are(bucket, tiny_model, tmp_path):
    change_config(bucket / "plain", base_model_name_or_path=f"file://{tiny_model}")
    files = fetch(tmp_path / "here", {"uri": f"file://{bucket}/plain"})
    assert (files.base, files.adapters) == (tiny_model, (bucket / "plain",))
    assert not (tmp_path / "here").exists()


def test_the_base_on_the_hub_with_its_revision(bucket, tmp_path, tiny_model, monkeypatch):
    asked = []

    def download(name, **options):
        asked.append((name, options["revision"]))
        return str(tiny_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    change_config(bucket / "plain", base_model_name_or_path="org/m", revision="v3")
    assert fetch(tmp_path / "here", {"uri": "s3://models/plain"}).base == tiny_model
    assert asked == [("org/m", "v3")]


def refusal(place, source):
    with pytest.raises((ModelError, StoragePermanentError)) as caught:
        fetch(place, source)
    return caught.value.message


def test_the_base_is_not_there(bucket, tmp_path):
    change_config(bucket / "plain", base_model_name_or_path="file:///gone/m")
    assert refusal(tmp_path / "here", {"uri": "s3://models/plain"}) == (
        "model.uri s3://models/plain is an adapter; its base model file:///gone/m: there is no such folder. "
        "Set model.uri to the base model and model.adapterUri to the adapter."
    )
    change_config(bucket / "plain", base_model_name_or_path="s3://models/gone")
    found = refusal(tmp_path / "here", {"uri": "s3://models/plain"})
    assert found.startswith(
        "model.uri s3://models/plain is an adapter; its base model s3://models/gone: There is"
    )


def test_the_base_is_on_the_hub_but_no_hub_is_asked(bucket, tmp_path):
    change_config(bucket / "plain", base_model_name_or_path="org/m")
    source = ModelSource(uri="s3://models/plain")
    told = r"an adapter; its base model hf://org/m is not in the Hugging Face cache at .*hub\.offline is true"
    with pytest.raises(ModelError, match=told):
        fetch_files(source, HubSpec(offline=True), StorageOptions(), tmp_path / "here")
    on_top = ModelSource(uri="s3://models/tiny", adapter_uri="s3://models/plain")
    assert fetch_files(on_top, HubSpec(offline=True), StorageOptions(), tmp_path / "here").adapters


def test_the_base_is_an_adapter_itself(bucket, tmp_path):
    change_config(bucket / "plain", base_model_name_or_path="s3://models/worded")
    assert "s3://models/worded, is an adapter itself" in refusal(tmp_path / "h", {"uri": "s3://models/plain"})


def test_a_whole_model_is_no_adapter(bucket, tmp_path):
    source = {"uri": "s3://models/tiny", "adapterUri": "s3://models/tiny"}
    assert refusal(tmp_path / "here", source) == "model.adapterUri s3://models/tiny has no adapter."


@pytest.mark.parametrize("field", ["uri", "adapterUri"])
def test_an_adapter_that_is_not_plain_lora(bucket, tmp_path, field):
    change_config(bucket / "plain", use_dora=True)
    source = {"uri": "s3://models/tiny", field: "s3://models/plain"}
    assert "is not plain LoRA (use_dora)" in refusal(tmp_path / "here", source)


@pytest.mark.parametrize(
    ("named", "said"),
    [("s3://models/tiny", False), ("s3://models/other", True), (None, False), ("s3://models/worded", False)],
)
def test_another_base_than_the_adapter_names_is_told(bucket, tmp_path, caplog, named, said):
    change_config(bucket / "plain", base_model_name_or_path=named)
    fetch(tmp_path / "here", {"uri": "s3://models/worded", "adapterUri": "s3://models/plain"})
    assert ("was trained on s3://models/other; here its base is s3://models/tiny" in caplog.text) is said
