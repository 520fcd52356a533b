"""What the files of an adapter say, which are refused, and putting one on a model."""

import json

import pytest
from tests.fixtures.adapters import change_config, load_base, logits, make_adapter

from tunesmith.engines.adapter import base_source, check_plain, is_adapter, load_adapter, read_weights
from tunesmith.errors import ModelError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file, save_file, torch, PeftModel
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file


@pytest.fixture
def adapter(tmp_path, tiny_model):
    return make_adapter(tiny_model, tmp_path / "adapter", lora_dropout=0.5)


def write_config(folder, **values):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def test_an_adapter_is_known_by_its_configuration(tmp_path):
    assert not is_adapter(tmp_path)
    assert is_adapter(write_config(tmp_path))


@pytest.mark.parametrize(
    ("named", "revision", "uri", "kept"),
    [
        ("org/m", None, "hf://org/m", None),
        ("org/m", "v2", "hf://org/m", "v2"),
        ("hf://org/m", "v2", "hf://org/m", "v2"),
        ("s3://models/m", None, "s3://models/m", None),
        ("s3://models/m", "main", "s3://models/m", None),
        ("file:///models/m", None, "file:///models/m", None),
        ("/models/a b", None, "/models/a b", None),
    ],
)
def test_where_the_base_is(tmp_path, named, revision, uri, kept):
    folder = write_config(tmp_path, base_model_name_or_path=named, revision=revision)
    found = base_source(folder)
    assert (found.uri, found.revision) == (uri, kept)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, "does not name its base model"),
        ("", "does not name its base model"),
        (7, "does not name its base model"),
        ("just-a-name", "names 'just-a-name' as its base model: is not a model on the hub"),
        ("./models/m", "is not a model on the hub"),
        ("gs://bucket/m", "is not an address"),
    ],
)
def test_no_usable_base(tmp_path, named, words):
    with pytest.raises(ModelError) as caught:
        base_source(write_config(tmp_path, base_model_name_or_path=named))
    assert words in caught.value.message
    assert caught.value.message.count(str(tmp_path)) == 1


NOT_PLAIN = {
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "peft_type PROMPT_TUNING"),
    "no kind": ({"peft_type": None}, "peft_type None"),
    "dora": ({"use_dora": True}, "use_dora"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "bias": ({"bias": "lora_only"}, "bias lora_only"),
    "bias of its own": ({"lora_bias": True}, "lora_bias"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4"),
    "two": ({"use_dora": True, "layer_replication": [[0, 2]]}, "use_dora, layer_replication"),
}


@pytest.mark.parametrize(("config", "words"), NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_lora_is_named(tmp_path, config, words):
    with pytest.raises(ModelError, match="is not plain LoRA") as caught:
        check_plain(write_config(tmp_path, **{"peft_type": "LORA", **config}))
    assert f"({words})" in caught.value.message


@pytest.mark.parametrize(
    "config", [{}, {"init_lora_weights": "gaussian"}, {"use_rslora": True}, {"bias": "none"}]
)
def test_plain_lora(tmp_path, config):
    check_plain(write_config(tmp_path, peft_type="LORA", **config))


def test_what_peft_itself_writes_is_plain(adapter):
    check_plain(adapter)
    assert len(read_weights(adapter)) == 8


def change_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def refusal(model, folder):
    with pytest.raises(ModelError) as caught:
        load_adapter(model, folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_weights_that_are_not_loras(tiny_model, adapter):
    change_weights(adapter, lambda state: state.update({"base_model.model.lm_head.weight": torch.ones(2)}))
    assert "is not plain LoRA: it has base_model.model.lm_head.weight" in refusal(
        load_base(tiny_model), adapter
    )


def test_weights_are_missing_or_damaged(tiny_model, adapter):
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    change_weights(adapter, lambda state: state.pop(name))
    words = refusal(load_base(tiny_model), adapter)
    assert "does not fit its base model: base_model.model.model.layers.1" in words
    assert "is missing (1 in all)" in words
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    assert "cannot be read" in refusal(load_base(tiny_model), adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in refusal(load_base(tiny_model), adapter)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 64}, "size mismatch for base_model.model.model.layers.0.self_attn.q_proj.lora_A"),
        ({"num_hidden_layers": 1}, "the model has no module for base_model.model.model.layers.1"),
        ({"num_hidden_layers": 3}, "is missing"),
    ],
    ids=["width", "fewer-layers", "more-layers"],
)
def test_made_for_another_model(tiny_model, adapter, change, words):
    from transformers import AutoConfig, AutoModelForCausalLM

    other = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model, **change))
    found = refusal(other, adapter)
    assert "does not fit its base model" in found
    assert words in found


def test_modules_that_the_model_does_not_have(tiny_model, adapter):
    change_config(adapter, target_modules=["query"])
    assert "does not fit its base model: Target modules" in refusal(load_base(tiny_model), adapter)


def test_it_says_what_peft_makes_it_say(tiny_model, adapter):
    model = load_adapter(load_base(tiny_model), adapter)
    plain = PeftModel.from_pretrained(load_base(tiny_model), adapter)
    assert torch.equal(logits(model), logits(plain))
    assert not torch.allclose(logits(model), logits(load_base(tiny_model)), atol=1e-2)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert torch.equal(
        model.train()(torch.tensor([[5, 6]])).logits, model.eval()(torch.tensor([[5, 6]])).logits
    )
