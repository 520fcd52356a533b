"""What `tunesmith export` is asked for: the same as a manifest's `export`, or one clear sentence."""

import json

import pytest
from tests.cases import each

from tunesmith.api.common import ModelSource
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError, UsageError
from tunesmith.local.export import ExportOptions, addresses, fetched, refuse_apart, requested, source_of
from tunesmith.local.export_place import ExportPlace

pytestmark = pytest.mark.engine


@each(
    ("options", "words"),
    [
        ({"to": ["onnx"]}, "--to onnx: choose from merged, gguf, hub"),
        ({"to": []}, "--to .missing.: choose from"),
        ({"to": ["hub"]}, "--to hub and --repo-id"),
        ({"to": ["merged"], "repo_id": "a/b"}, "--to hub and --repo-id"),
        ({"to": ["merged"]}, "--output is missing"),
        ({"to": ["hub"], "repo_id": "a/b", "output": "o"}, "--to hub alone makes none"),
        (
            {"to": ["gguf"], "output": "o", "quantization": "Q9"},
            "--quantization: Input should be 'F32', 'F16'",
        ),
        ({"to": ["hub"], "repo_id": "model"}, "--repo-id: must be organisation/name"),
    ],
)
def test_arguments_that_do_not_fit_are_named(monkeypatch, options, words):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(UsageError, match=words):
        requested(ExportOptions(**{"model": "m", **options}))


def test_a_push_without_a_token_is_refused_before_anything_is_made(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        requested(ExportOptions("m", ["hub"], repo_id="a/b"))


def test_forms_may_be_one_text_and_a_quantisation_in_any_case(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    options = ExportOptions("m", ["merged, gguf", "hub"], quantization="q4_k_m", repo_id="a/b")
    found = requested(options)
    assert (found.merged is not None, found.gguf.quantization, found.hub.repo_id) == (True, "Q4_K_M", "a/b")


def test_the_base_of_an_adapter_on_this_machine_is_an_address_that_is_read(tmp_path):
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": "s3://models/base"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    alone = source_of(ExportOptions(str(tmp_path / "adapter"), ["merged"]))
    assert addresses(alone, "s3://served/x") == [
        str(tmp_path / "adapter"),
        "s3://served/x",
        "s3://models/base",
    ]
    config.clear()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    assert addresses(alone, None) == [str(tmp_path / "adapter")]


def test_errors_name_the_options(tmp_path):
    options = ExportOptions(str(tmp_path / "none"), ["merged"], output="o")
    with pytest.raises(ModelError) as caught:
        fetched(options, source_of(options), tmp_path / "files")
    assert caught.value.message == f"--model {tmp_path}/none: there is no such folder."
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": "/home/someone/base", "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    options = ExportOptions(str(adapter), ["merged"], output="o")
    with pytest.raises(ModelError) as caught:
        fetched(options, source_of(options), tmp_path / "files")
    assert caught.value.message.endswith("/home/someone/base: there is no such folder. Name it with --base.")
    options = ExportOptions(str(tmp_path / "none"), ["merged"], base=str(adapter), output="o")
    with pytest.raises(ModelError) as caught:
        fetched(options, source_of(options), tmp_path / "files")
    assert "model." not in caught.value.message


def test_a_jobs_output_is_told_from_its_model(tmp_path):
    (tmp_path / "out/final_model").mkdir(parents=True)
    options = ExportOptions(str(tmp_path / "out"), ["merged"], output="o")
    with pytest.raises(ModelError) as caught:
        fetched(options, source_of(options), tmp_path / "files")
    assert caught.value.message.endswith(
        "/out has no model: config.json is missing. It is the output of a job: add /final_model."
    )


def test_one_of_two_adapters_is_not_pushed_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    files = ModelFiles(tmp_path, (tmp_path / "a", tmp_path / "b"), ModelSource(uri="hf://org/m"))
    alone, both = (requested(ExportOptions("m", to, repo_id="a/b")) for to in (["hub"], ["hub", "merged"]))
    with pytest.raises(UsageError, match="two adapters over a base; add --to merged"):
        refuse_apart(alone, files)
    refuse_apart(both, files)


WHAT = {"model": "abc", "name": "m", "forms": ["merged"]}


@pytest.fixture
def place(tmp_path):
    return ExportPlace(open_store(f"file://{tmp_path / 'out'}", StorageOptions()))


def forms(tmp_path):
    (tmp_path / "export/merged").mkdir(parents=True)
    (tmp_path / "export/merged/model.safetensors").write_bytes(b"w")
    return tmp_path / "export"


def test_an_export_is_kept_once_and_known_again(place, tmp_path):
    place.refuse_other()
    assert not place.has(WHAT)
    place.keep(forms(tmp_path), WHAT)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert names == ["manifest.json", "model.safetensors"]
    place.refuse_other()
    assert place.has(WHAT)
    with pytest.raises(UsageError, match="has an export of another model or form"):
        place.has(WHAT | {"model": "def"})


def test_what_is_another_programs_or_jobs_is_not_written_into(place, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"is not empty: it has model.safetensors\. Choose another place"):
        place.refuse_other()
    (tmp_path / "job").mkdir()
    store = open_store(f"file://{tmp_path / 'job'}", StorageOptions())
    publish(store, "", forms(tmp_path), extra={"kind": "FineTuneJob"})
    with pytest.raises(UsageError, match="has the finished result of a FineTuneJob"):
        ExportPlace(store).refuse_other()


def test_what_came_there_meanwhile_is_left_alone(place, tmp_path):
    place.refuse_other()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not empty: it has notes\.txt"):
        place.keep(forms(tmp_path), WHAT)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_killed_export_looks_unfinished_and_the_next_one_leaves_nothing_of_it(place, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder = forms(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.local.export_place.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            place.keep(folder, WHAT)
    (tmp_path / "out/merged").mkdir()
    (tmp_path / "out/merged/model-00001-of-00002.safetensors").write_bytes(b"of the killed one")
    place.refuse_other()
    assert not place.has(WHAT)
    place.keep(folder, WHAT)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert names == ["manifest.json", "model.safetensors"]
