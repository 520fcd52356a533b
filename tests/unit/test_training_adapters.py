"""A new adapter over earlier ones: what is computed, what is trained, and what is left at the end."""

import json

import pytest
from tests.fixtures.adapters import load_base, logits, make_adapter, shake

from tunesmith.api.finetune import LoraMethod
from tunesmith.engines.adapter import load_adapter
from tunesmith.errors import ModelError
from tunesmith.training.adapters import (
    add_trained,
    has_adapters,
    load_trained,
    merge_all,
    save_combined,
    save_trained,
)


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file, torch, AutoModelForCausalLM, BitsAndBytesConfig, PeftModel
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig


# Earlier adapters that differ in everything plain LoRA has.
KINDS = {
    "alike": {"target_modules": "all-linear"},
    "other-targets": {"target_modules": ["o_proj", "gate_proj"], "r": 3, "lora_alpha": 5},
    "rank-stabilised": {"use_rslora": True, "r": 9, "lora_alpha": 4},
    "patterns": {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}},
    "one-layer": {"layers_to_transform": [1]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "expression": {"target_modules": r".*layers\.0\.self_attn\.(q|k)_proj"},
    "no-layer-in-common": {"target_modules": ["down_proj"], "r": 1},
}


def method(**fields):
    return LoraMethod.model_validate({"r": 4, "alpha": 8, "dropout": 0.0, **fields})


def trained_over(model, *earlier, seed=7, **fields):
    """The model after a training that left random values in the new adapter."""
    adapted = add_trained(model, method(**fields), earlier)
    shake(adapted, seed)
    return adapted


@pytest.fixture(scope="module")
def earlier(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    return {name: make_adapter(tiny_model, folder / name, **config) for name, config in KINDS.items()}


def exported(model, folder, tiny_model):
    folder.mkdir()
    save_combined(model, folder)
    return PeftModel.from_pretrained(load_base(tiny_model), folder)


@pytest.mark.parametrize("targets", ["all-linear", "q_proj, down_proj"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_is_what_was_trained(earlier, tiny_model, tmp_path, kind, targets):
    model = trained_over(load_base(tiny_model), earlier[kind], targetModules=targets)
    plain = exported(model, tmp_path / "out", tiny_model)
    assert torch.allclose(logits(plain), logits(model), atol=1e-5, rtol=0)
    below = logits(load_adapter(load_base(tiny_model), earlier[kind]))
    assert not torch.allclose(logits(plain), below, atol=1e-2)
    readable_by_every_engine(tmp_path / "out")


def readable_by_every_engine(folder):
    """One rank for all modules, and nothing special."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    odd = ("rank_pattern", "alpha_pattern", "use_rslora", "layers_to_transform", "modules_to_save")
    assert not any(config[name] for name in odd)
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        assert tensor.shape[0 if "A" in name.rpartition("lora_")[2] else 1] == config["r"], name


def test_short_names_of_modules_where_they_mean_no_others(earlier, tiny_model, tmp_path):
    def targets(kind, fields):
        exported(trained_over(load_base(tiny_model), earlier[kind], **fields), tmp_path / kind, tiny_model)
        return json.loads((tmp_path / kind / "adapter_config.json").read_text())["target_modules"]

    assert sorted(targets("other-targets", {"targetModules": "q_proj"})) == ["gate_proj", "o_proj", "q_proj"]
    assert sorted(targets("one-layer", {"targetModules": "k_proj"})) == [
        f"model.layers.{layer}.self_attn.{name}"
        for layer, name in [(0, "k_proj"), (1, "k_proj"), (1, "q_proj"), (1, "v_proj")]
    ]


def test_several_earlier_ones_add_up(earlier, tiny_model, tmp_path):
    below = [earlier["alike"], earlier["rank-stabilised"], earlier["embedding"]]
    model = trained_over(load_base(tiny_model), *below)
    plain = exported(model, tmp_path / "out", tiny_model)
    assert torch.allclose(logits(plain), logits(model), atol=1e-5, rtol=0)
    again = trained_over(load_base(tiny_model), tmp_path / "out", seed=8)
    third = exported(again, tmp_path / "third", tiny_model)
    assert torch.allclose(logits(third), logits(again), atol=1e-5, rtol=0)


def test_alone_it_is_saved_as_peft_does(tiny_model, tmp_path):
    model = trained_over(load_base(tiny_model), dropout=0.1)
    exported(model, tmp_path / "combined", tiny_model)
    save_trained(model, tmp_path / "trained")
    assert {path.name for path in (tmp_path / "combined").iterdir()} == {
        path.name for path in (tmp_path / "trained").iterdir()
    }
    config = json.loads((tmp_path / "combined/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)


# --- What is trained --------------------------------------------------------------------------------------


def gradients(model):
    """By name, of one forward and backward pass in training mode."""
    torch.manual_seed(0)
    ids = torch.arange(5, 45).reshape(2, 20)
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_only_the_new_one_is_trained(earlier, tiny_model):
    model = trained_over(load_base(tiny_model), earlier["alike"])
    wanted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert wanted == {name for name, _ in model.named_parameters() if ".default" in name}
    assert gradients(model).keys() == wanted
    assert all(weight.dtype == torch.float32 for name, weight in model.named_parameters() if name in wanted)


def test_earlier_ones_have_no_dropout(tiny_model, tmp_path):
    folder = make_adapter(tiny_model, tmp_path / "dropped", lora_dropout=0.5)
    model = trained_over(load_base(tiny_model), folder).train()
    ids = torch.arange(5, 45).reshape(2, 20)
    first, second = (model(input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second)


def test_the_beginning_does_not_depend_on_what_lies_beneath(earlier, tiny_model):
    def fresh(*below):
        torch.manual_seed(3)
        model = add_trained(load_base(tiny_model), method(targetModules="all-linear"), below)
        return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    alone, above = fresh(), fresh(earlier["alike"])
    assert alone.keys() == above.keys()
    assert all(torch.equal(alone[name], above[name]) for name in alone)


def four_bits(tiny_model):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, quantization_config=config)


@pytest.mark.parametrize("base", [load_base, four_bits], ids=["whole", "4-bit"])
def test_gradients_are_those_of_one_adapter_and_of_checkpointing(base, earlier, tiny_model, tmp_path):
    """Half of the exported adapter's gradient is the new one's; with activations computed twice, too."""
    model = trained_over(base(tiny_model), earlier["alike"], r=4, alpha=4)
    found = gradients(model)
    (tmp_path / "out").mkdir()
    save_combined(model, tmp_path / "out")
    joined = gradients(PeftModel.from_pretrained(base(tiny_model), tmp_path / "out", is_trainable=True))
    assert found.keys() == joined.keys()
    for name, gradient in found.items():
        part = joined[name][4:] if "lora_A" in name else joined[name][:, 4:]
        assert torch.allclose(gradient, part, atol=1e-6), name
    again = base(tiny_model)
    again.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradients(trained_over(again, earlier["alike"], r=4, alpha=4))
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_checkpoints_hold_the_new_one_only(earlier, tiny_model, tmp_path):
    model = trained_over(load_base(tiny_model), earlier["alike"])
    save_trained(model, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    other = trained_over(load_base(tiny_model), earlier["alike"], seed=9)
    assert not torch.allclose(logits(other), logits(model), atol=1e-2)
    load_trained(other, tmp_path)
    assert torch.equal(logits(other), logits(model))
    wanted = [name for name, weight in other.named_parameters() if weight.requires_grad]
    assert wanted == [name for name, weight in model.named_parameters() if weight.requires_grad]


# --- Trained whole ----------------------------------------------------------------------------------------


def test_merged_for_full_fine_tuning(earlier, tiny_model):
    below = [earlier["alike"], earlier["rank-stabilised"]]
    merged = merge_all(load_base(tiny_model), below)
    assert not has_adapters(merged)
    assert all(weight.requires_grad for weight in merged.parameters())
    plain = load_base(tiny_model)
    for folder in below:
        plain = PeftModel.from_pretrained(plain, folder).merge_and_unload()
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(logits(merged), logits(plain))


def test_tied_embeddings_cannot_be_merged(earlier, tiny_model):
    with pytest.raises(ModelError, match="changes an embedding that this model ties"):
        merge_all(load_base(tiny_model), [earlier["embedding"]])
