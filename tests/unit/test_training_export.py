"""What a checkpoint holds of the model: what others load, and what a resume finds."""

import json
from types import SimpleNamespace

import pytest
from tests.fixtures.steps import small_spec

from tunesmith.api.common import ModelSource

BASE = ModelSource(uri="hf://org/m", revision="v2")


def build(method, tiny_model, adapters=()):
    from tunesmith.training.model import build_model

    settings = {"r": 4, "alpha": 6} if method != "full" else {}
    return build_model(small_spec({}, method={method: settings}), tiny_model, adapters)


def saved(model, folder, dtype="bfloat16", state=None, as_trained=True):
    import torch

    from tunesmith.training.export import describe_weights, save_checkpoint

    kind = getattr(torch, dtype)
    save_checkpoint(model, folder, state, None if as_trained else kind)
    describe_weights(folder, BASE, kind)
    return folder


@pytest.mark.parametrize("as_trained", [True, False], ids=["alone", "deepspeed"])
def test_over_an_adapter_others_load_both_and_a_resume_finds_its_own(tiny_model, tmp_path, as_trained):
    """The scale is no power of two, so that what is trained cannot be had back from the sum."""
    import torch
    from peft import PeftModel
    from tests.fixtures.adapters import load_base, logits, make_adapter, shake

    from tunesmith.training.adapters import load_trained

    below = make_adapter(tiny_model, tmp_path / "below")
    model = build("lora", tiny_model, [below])
    shake(model, 3)
    folder = saved(model, tmp_path / "checkpoint-1", as_trained=as_trained)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("org/m", "v2", 8)
    plain = PeftModel.from_pretrained(load_base(tiny_model), folder)
    assert torch.allclose(logits(plain), logits(model), atol=1e-5, rtol=0)
    if not as_trained:  # DeepSpeed has what it resumes from elsewhere
        assert not (folder / "trained").exists()
        return
    again = build("lora", tiny_model, [below])
    load_trained(again, folder)
    found = dict(again.named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in model.named_parameters())


def test_one_adapter_is_there_once(tiny_model, tmp_path):
    import torch
    from tests.fixtures.adapters import shake

    from tunesmith.training.adapters import load_trained

    model, again = build("lora", tiny_model), build("lora", tiny_model)
    shake(model, 3)
    folder = saved(model, tmp_path / "checkpoint-1")
    assert [path.name for path in folder.rglob("*.safetensors")] == ["adapter_model.safetensors"]
    load_trained(again, folder)
    found = dict(again.named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in model.named_parameters())


def test_whole_weights_are_kept_in_float32_and_loaded_in_the_models_type(tiny_model, tmp_path):
    """A resume needs them as they are; who starts from them gets what final_model would be."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from tunesmith.training.export import save_final

    model = build("full", tiny_model)
    folder = saved(model, tmp_path / "checkpoint-1")
    kept = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.float32}
    assert model.config.use_cache is False  # training goes on
    from tunesmith.tokens.chat import ChatTokenizer

    save_final(model, ChatTokenizer.load(tiny_model), BASE, torch.bfloat16, tmp_path / "final")
    found, wanted = (
        AutoModelForCausalLM.from_pretrained(place, dtype="auto") for place in (folder, tmp_path / "final")
    )
    assert found.dtype == torch.bfloat16
    assert found.config.use_cache
    pairs = zip(found.parameters(), wanted.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_whole_weights_of_shards_are_the_gathered_ones(tiny_model, tmp_path):
    import torch
    from safetensors.torch import load_file

    model = build("full", tiny_model)
    gathered = {name: torch.full_like(weight, 2.0) for name, weight in model.state_dict().items()}
    folder = saved(model, tmp_path / "checkpoint-1", state=gathered, as_trained=False)
    kept = load_file(folder / "model.safetensors")
    assert all(weight.dtype == torch.bfloat16 and bool((weight == 2).all()) for weight in kept.values())


@pytest.mark.engine
def test_a_rank_that_is_not_the_writer_writes_nothing(tmp_path):
    """Some versions of transformers ask every rank to save, into the same folder."""
    from tunesmith.training.trainer import StepTrainer

    rank = SimpleNamespace(args=SimpleNamespace(should_save=False, output_dir=str(tmp_path)))
    StepTrainer._save(rank, str(tmp_path / "checkpoint-1"), {})
    assert list(tmp_path.iterdir()) == []
