"""The model as each method trains it, and the files it leaves."""

import json

import pytest
from tests.fixtures.adapters import load_base, logits, make_adapter, shake
from tests.fixtures.steps import small_spec

from tunesmith.api.common import ModelSource
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.training.export import save_final
from tunesmith.training.model import build_model
from tunesmith.training.moe import fused_experts
from tunesmith.training.training_args import optimizer


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, AutoModelForCausalLM, Linear4bit, PeftModel
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import PeftModel
    from transformers import AutoModelForCausalLM


METHODS = ("full", "lora", "qlora")
SMALL = {"r": 4, "alpha": 8}


def spec(method, dtype="auto", **fields):
    settings = {} if method == "full" else SMALL | fields
    given = small_spec({}, method={method: settings})
    return given.model_copy(update={"model": given.model.model_copy(update={"dtype": dtype})})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_types_of_weights(tiny_model, method, dtype):
    """What is trained is float32, whatever is computed in; the embedding is not made larger for 4 bits."""
    model = build_model(spec(method, dtype), tiny_model)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    embedding = model.get_input_embeddings().weight
    assert embedding.dtype == (torch.float32 if method == "full" else getattr(torch, dtype))
    norms = [weight for name, weight in model.named_parameters() if "norm" in name]
    assert {norm.dtype for norm in norms} == {embedding.dtype}


@pytest.mark.parametrize(
    ("fields", "kind", "nested"),
    [({}, "nf4", True), ({"quantType": "fp4"}, "fp4", True), ({"doubleQuant": False}, "nf4", False)],
)
def test_four_bits(tiny_model, monkeypatch, fields, kind, nested):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = build_model(spec("qlora", "bfloat16", **fields), tiny_model)
    found = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(found) == 2 * 7
    assert isinstance(model.get_output_embeddings(), torch.nn.Linear)
    assert not isinstance(model.get_output_embeddings(), Linear4bit)
    for module in found:
        state = module.weight.quant_state
        assert (module.weight.dtype, state.quant_type, state.nested) == (torch.uint8, kind, nested)
        assert module.compute_dtype == torch.bfloat16
        # On a CPU with AVX512-BF16 the weights would lose their gradient in evaluation mode.
        assert not module.support_avx512bf16_for_cpu


def test_four_bits_say_nearly_the_same(tiny_model):
    whole, small = (logits(build_model(spec(method, "float32"), tiny_model)) for method in ("lora", "qlora"))
    assert not torch.equal(whole, small)
    assert (whole - small).norm() / whole.norm() < 0.2


def loss(model):
    ids = torch.arange(5, 45).reshape(2, 20)
    return model(input_ids=ids, labels=ids).loss


@pytest.mark.parametrize("method", METHODS)
def test_looking_at_it_in_between_does_not_change_training(tiny_model, method):
    """Previews and validation put the model into evaluation mode and back."""
    first, second = (build_model(spec(method, dropout=0.0), tiny_model).train() for _ in range(2))
    logits(second)
    second.train()
    for model in (first, second):
        loss(model).backward()
    gradients = [[w.grad for w in model.parameters() if w.requires_grad] for model in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_computing_activations_twice(tiny_model):
    model = build_model(spec("lora"), tiny_model, gradient_checkpointing=True)
    assert model.get_base_model().is_gradient_checkpointing
    assert not build_model(spec("lora"), tiny_model).get_base_model().is_gradient_checkpointing


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_over_an_adapter_one_is_left_over_the_base(tiny_model, tmp_path, method):
    below = make_adapter(tiny_model, tmp_path / "below")
    model = build_model(spec(method, "float32"), tiny_model, [below])
    shake(model, 3)
    base = ModelSource(uri="hf://org/m", revision="v2")
    save_final(model, ChatTokenizer.load(tiny_model), base, torch.float32, tmp_path / "final")
    config = json.loads((tmp_path / "final/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("org/m", "v2", 8)
    bare = (
        build_model(spec(method, "float32"), tiny_model).unload()
        if method == "qlora"
        else load_base(tiny_model)
    )
    plain = PeftModel.from_pretrained(bare, tmp_path / "final")
    assert torch.allclose(logits(plain), logits(model), atol=1e-5, rtol=0)
    assert (tmp_path / "final/chat_template.jinja").is_file()


def test_full_over_an_adapter_is_a_whole_model(tiny_model, tmp_path):
    below = make_adapter(tiny_model, tmp_path / "below")
    model = build_model(spec("full", "float32"), tiny_model, [below])
    assert all(weight.requires_grad for weight in model.parameters())
    folder = tmp_path / "final"
    save_final(model, ChatTokenizer.load(tiny_model), ModelSource(uri="hf://org/m"), torch.float32, folder)
    assert not (folder / "adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(folder)
    wanted = PeftModel.from_pretrained(load_base(tiny_model), below)
    assert torch.allclose(logits(plain), logits(wanted), atol=1e-5, rtol=0)


def test_a_model_without_experts(tiny_model):
    assert fused_experts(load_base(tiny_model)) == []


@pytest.mark.parametrize(
    ("method", "asked", "gpu", "chosen"),
    [
        ("qlora", "auto", True, "paged_adamw_32bit"),
        ("qlora", "auto", False, "adamw_torch_fused"),
        ("lora", "auto", True, "adamw_torch_fused"),
        ("full", "auto", True, "adamw_torch_fused"),
        ("qlora", "adamw_torch", True, "adamw_torch"),
    ],
)
def test_the_optimizer(method, asked, gpu, chosen):
    given = small_spec({"optimizer": asked}, method={method: {}})
    assert optimizer(given, gpu=gpu) == chosen
    if asked == "auto":
        shared = small_spec({}, method={method: {}}, deepspeed={"zeroStage": 2})
        assert optimizer(shared, gpu=gpu) == "adamw_torch_fused"
