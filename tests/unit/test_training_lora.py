"""LoRA as one step against peft's own way."""

import copy

import pytest
from tests.fixtures.steps import load


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global fuse_lora, get_peft_model, torch, LoraConfig, IDS
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith.training.lora import fuse_lora

    IDS = torch.arange(3, 43).view(2, 20)


def adapted(model, dropout=0.0, **options):
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_alpha=6, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM", **options
    )
    made = get_peft_model(model, config).train()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return made


def gradient(model):
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    (logits.float() ** 2).mean().backward()
    return logits.detach(), [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_output_and_gradient_are_those_of_peft(tiny_model, checkpointing):
    model = adapted(load(tiny_model))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wanted = gradient(model)
    assert fuse_lora(model) > 0
    made = gradient(model)
    torch.testing.assert_close(made[0], wanted[0], rtol=1e-5, atol=1e-5)
    for one, other in zip(made[1], wanted[1], strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_gradient_through_dropout(tiny_model):
    """Against differences: the same random numbers each time."""
    layer = torch.nn.Sequential(torch.nn.Linear(6, 5)).double()
    layer = get_peft_model(layer, LoraConfig(r=2, lora_dropout=0.4, target_modules=["0"])).train().double()
    torch.nn.init.normal_(layer.base_model.model[0].lora_B["default"].weight)
    assert fuse_lora(layer) == 1
    a, b = (getattr(layer.base_model.model[0], f"lora_{name}")["default"].weight for name in "AB")
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)

    def run(x, a, b):
        torch.manual_seed(3)
        return layer(x)

    assert torch.autograd.gradcheck(run, (x, a, b))


def test_dropout_keeps_the_mean_and_is_off_in_evaluation(tiny_model):
    model = adapted(load(tiny_model), dropout=0.5)
    plain = copy.deepcopy(model).eval()
    fuse_lora(model)
    with torch.no_grad():
        assert torch.allclose(model.eval()(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-5)
        layer = model.base_model.model.model.layers[0].mlp.up_proj
        x = torch.randn(4, layer.in_features)
        model.train()
        mean = sum(layer(x) for _ in range(4000)) / 4000
        assert not torch.allclose(layer(x), layer(x))
        assert torch.allclose(mean, plain.base_model.model.model.layers[0].mlp.up_proj(x), atol=0.05)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}], ids=["dora", "bias"])
def test_what_is_more_than_a_product_is_left_to_peft(tiny_model, options):
    assert fuse_lora(adapted(load(tiny_model), **options)) == 0


def test_several_adapters_and_none(tiny_model):
    model = adapted(load(tiny_model))
    fuse_lora(model)
    with torch.no_grad(), model.disable_adapter():
        base = load(tiny_model)(input_ids=IDS).logits
        assert torch.equal(model.eval()(input_ids=IDS).logits, base)
    several = adapted(load(tiny_model))
    several.add_adapter("other", LoraConfig(r=2, target_modules="all-linear"))
    several.base_model.set_adapter(["default", "other"])
    assert fuse_lora(several) == 0
