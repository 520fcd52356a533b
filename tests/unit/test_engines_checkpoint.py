"""A model's address that is a checkpoint: which are used, what is fetched, and what is said of the others."""

import pytest

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines import load
from tunesmith.engines.checkpoint import split_checkpoint
from tunesmith.errors import ModelError
from tunesmith.names import FINGERPRINT_KEY

ADAPTER = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"template",
    "additional_chat_templates/tools.jinja": b"another",
    "README.md": b"card",
}
RESUME = {
    "optimizer.pt": b"large",
    "rng_state.pth": b"random",
    "metrics.jsonl": b"{}",
    "trainer_state.json": b"{}",
    "window.json": b"{}",
    "health.json": b"{}",
    "latest": b"global_step6",
    "zero_to_fp32.py": b"",
    "trained/adapter_model.safetensors": b"upper",
    "global_step6/zero_pp_rank_0_mp_rank_00_model_states.pt": b"shard",
}


@pytest.fixture
def output(tmp_path, monkeypatch):
    """The output of a FineTuneJob: checkpoints 2 and 6 published, 8 begun; also as s3://bucket/out."""
    opened = open_store
    monkeypatch.setattr(
        load,
        "open_store",
        lambda uri, options: opened(uri.replace("s3://bucket", f"file://{tmp_path}"), options),
    )
    store = open_store(f"file://{tmp_path}/out")
    store.put(FINGERPRINT_KEY, b"{}")
    for step in (2, 6):
        made(tmp_path, store, step, ADAPTER | RESUME)
    store.put("checkpoint-8/adapter_config.json", b"{}")
    return store


def made(tmp_path, store, step, files):
    folder = tmp_path / f"made-{step}"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    publish(store, f"checkpoint-{step}", folder, extra={"step": step, "world": 1})


def fetch(uri, folder, **options):
    return load.fetch_model(ModelSource(uri=uri), HubSpec(), StorageOptions(), folder, **options)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_model_of_a_checkpoint_is_fetched_and_nothing_of_a_resume(output, tmp_path):
    found = fetch("s3://bucket/out/checkpoint-6", tmp_path / "here")
    assert found == tmp_path / "here"
    assert names(found) == set(ADAPTER)
    small = fetch("s3://bucket/out/checkpoint-6/", tmp_path / "small", tokenizer_only=True)
    assert names(small) == set(ADAPTER) - {"adapter_model.safetensors", "README.md"}


def test_a_checkpoint_of_this_machine_is_used_where_it_is(output, tmp_path):
    folder = tmp_path / "out/checkpoint-6"
    assert fetch(f"file://{folder}", tmp_path / "here") == folder
    assert not (tmp_path / "here").exists()


def test_what_cannot_be_used_is_one_sentence_with_the_address(output, tmp_path):
    made(tmp_path, output, 10, ADAPTER)
    output.put("checkpoint-10/adapter_model.safetensors", b"changed")
    made(tmp_path, output, 12, ADAPTER)
    output.delete(["checkpoint-12/adapter_model.safetensors"])
    made(tmp_path, output, 14, ADAPTER)
    output.put("checkpoint-14/manifest.json", b"half of")
    made(tmp_path, output, 16, {"config.json": b"{}", "model.safetensors": b"weights"})
    made(tmp_path, output, 18, {"global_step18/shard.pt": b"shard", "latest": b"global_step18"})
    there = "holds checkpoint-2, checkpoint-6, checkpoint-10, checkpoint-12, checkpoint-14, checkpoint-16, "
    expected = {
        4: f"does not exist: that step was not saved, or training.saveTotalLimit deleted it. *{there}",
        8: f"is not finished: it has no manifest.json. *{there}",
        10: "is damaged: *adapter_model.safetensors *Start from another checkpoint.",
        12: "is damaged: *adapter_model.safetensors is missing*Start from another checkpoint.",
        14: "is damaged: *manifest.json is not a manifest*Start from another checkpoint.",
        16: "has no tokenizer: an earlier version of Tunesmith wrote it. Start from",
        18: "has no weights but DeepSpeed's shards: an earlier version of Tunesmith wrote it. Start from",
    }
    wrong = []
    for step, words in expected.items():
        for uri in (f"s3://bucket/out/checkpoint-{step}", f"file://{tmp_path}/out/checkpoint-{step}"):
            with pytest.raises(ModelError) as caught:
                fetch(uri, tmp_path / "here", named="model.uri")
            message, at = caught.value.message, 0
            for part in [f"model.uri {uri} ", *words.split("*")]:
                at = message.find(part, at) if at >= 0 else at
            if at < 0:
                wrong.append((uri, message))
    assert wrong == []


def test_no_checkpoint_at_all(output, tmp_path):
    output.delete([entry.key for entry in output.list("checkpoint-")])
    with pytest.raises(ModelError, match=r"does not exist.*out holds no finished checkpoint\.$"):
        fetch("s3://bucket/out/checkpoint-6", tmp_path / "here")


def test_folders_of_other_programs_are_taken_as_they_are(output, tmp_path):
    """They have no manifest, and no output of ours above them; all of them is fetched."""
    other = open_store(f"file://{tmp_path}/other")
    for name, content in ADAPTER.items():
        other.put(f"checkpoint-500/{name}", content)
    found = fetch("s3://bucket/other/checkpoint-500", tmp_path / "here")
    assert names(found) == set(ADAPTER)
    local = tmp_path / "other/checkpoint-500"
    assert fetch(str(local), tmp_path / "there") == local


def test_which_addresses_are_checkpoints():
    wanted = {
        "s3://b/out/checkpoint-3": ("s3://b/out", 3),
        "file:///out/checkpoint-12/": ("file:///out", 12),
        "/out/checkpoint-12": ("/out", 12),
        "s3://b/checkpoint-3/final_model": None,
        "s3://b/out/checkpoint-x": None,
        "s3://b/out/checkpoint-": None,
        "s3://b/out/my-checkpoint-3": None,
        "s3://checkpoint-3": None,
    }
    assert {uri: split_checkpoint(uri) for uri in wanted} == wanted
