"""Names of `targetModules` against what a model has, and how much of it is trained then."""

import pytest
from tests.cases import each
from tests.fixtures.adapters import load_base
from tests.fixtures.steps import small_spec

from tunesmith.api.finetune import LoraMethod, QloraMethod
from tunesmith.errors import ModelError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch
    import torch


def method(targets, kind=LoraMethod):
    return kind.model_validate({"r": 4, "alpha": 8, "targetModules": targets})


def refusal(model, targets, kind=LoraMethod):
    from tunesmith.training.adapters import add_trained

    with pytest.raises(ModelError) as caught:
        add_trained(model, method(targets, kind))
    return caught.value.message


NAMES = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"
LINEAR = f"Its linear modules are {NAMES}; all-linear means"


@each(
    "targets, words",
    [
        ("q_proj,query_key_value", "the model has no module named query_key_value. " + LINEAR),
        ("q_proj, v_proj, w1, c_attn", "the model has no module named w1 or c_attn. " + LINEAR),
        ("all-linear, q_proj", "the model has no module named all-linear. " + LINEAR),
        ("proj,q_proj", "the model has no module named proj. "),
        (r".*q_proj", r"the model has no module named .*q_proj. "),
    ],
)
def test_a_name_that_fits_nothing(tiny_model, targets, words):
    said = refusal(load_base(tiny_model), targets)
    assert said.startswith("spec.method.lora.targetModules: ")
    assert words in said
    assert refusal(load_base(tiny_model), targets, QloraMethod).startswith(
        "spec.method.qlora.targetModules: "
    )


@each(
    "targets, number",
    [("q_proj", 2), ("self_attn.q_proj,v_proj", 4), ("model.layers.1.mlp.up_proj,k_proj", 3)],
)
def test_names_that_fit(tiny_model, targets, number):
    from tunesmith.training.adapters import add_trained
    from tunesmith.training.trained import count_trained

    assert count_trained(add_trained(load_base(tiny_model), method(targets))).modules == number


def test_one_of_two_tied_embeddings(tiny_model):
    """Merged by plain peft, an adapter on one would change both."""
    for name in ("lm_head", "embed_tokens", "model.embed_tokens"):
        said = refusal(load_base(tiny_model), f"q_proj,{name}")
        assert said.startswith(f"spec.method.lora.targetModules: {name} cannot have an adapter, since ")
        assert "since model.embed_tokens and lm_head of this model are one matrix" in said
        assert "Leave it out, or use method.full" in said


def test_embeddings_that_are_not_tied_may_have_one(tiny_model):
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunesmith.training.adapters import add_trained

    config = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=False)
    assert isinstance(add_trained(LlamaForCausalLM(config), method("lm_head,embed_tokens")), PeftModel)


def test_experts_that_are_one_tensor():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8, mlp_only_layers=[0],
        intermediate_size=32,
    )  # fmt: skip
    for names in ("gate_proj", "up_proj, down_proj"):
        said = refusal(Qwen3MoeForCausalLM(config), f"q_proj,{names}")
        assert f"{names} cannot have an adapter in this model, since its experts are single tensors" in said


def trained(tiny_model, kind, adapters=(), **settings):
    from tunesmith.training.model import build_model
    from tunesmith.training.trained import count_trained

    return count_trained(build_model(small_spec({}, method={kind: settings}), tiny_model, adapters))


def test_how_much_is_trained(tiny_model, tmp_path):
    from tests.fixtures.adapters import make_adapter

    base = load_base(tiny_model)
    whole = sum(weight.numel() for weight in base.parameters())
    full = trained(tiny_model, "full")
    assert (full.parameters, full.total, full.share, full.names) == (whole, whole, 1.0, {})
    assert full.modules == sum(bool(list(m.parameters(recurse=False))) for m in base.modules())
    added = 2 * (4 * (32 + 32) + 4 * (32 + 16))  # two layers, q from 32 to 32 and v from 32 to 16
    settings = {"r": 4, "targetModules": "q_proj,v_proj"}
    for kind in ("lora", "qlora"):
        found = trained(tiny_model, kind, **settings)
        assert (found.modules, found.parameters, found.total) == (4, added, whole + added), kind
        assert found.names == {"q_proj": 2, "v_proj": 2}
    below = make_adapter(tiny_model, tmp_path / "below", r=2)
    over = trained(tiny_model, "lora", [below], **settings)
    assert (over.modules, over.parameters, over.total) == (4, added, whole + added + added // 2)
    share = f"{100 * added / (whole + added):.3g}"
    wanted = f"{added:,} of {whole + added:,} parameters ({share}%) in 4 modules: q_proj 2, v_proj 2"
    covered = 2 * (32 * 32 + 32 * 16)
    for kind, adapters in (("lora", []), ("qlora", []), ("lora", [below])):
        found = trained(tiny_model, kind, adapters, **settings)
        assert (found.covered, found.own) == (covered, whole), kind
    wanted += f"; the adapter covers {100 * covered / whole:.3g}% of the model's weights"
    assert trained(tiny_model, "lora", **settings).sentence() == wanted


def test_shares_of_deepspeed_count_whole():
    from tunesmith.training.trained import count_trained

    layer = torch.nn.Linear(3, 5)
    layer.weight.data, layer.weight.ds_numel = torch.empty(0), 15
    assert (count_trained(layer).parameters, count_trained(layer).total) == (20, 20)
