"""A mixture whose experts are one tensor for a layer: what trains them, and what is left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.adapters import load_base, logits, make_adapter, shake
from tests.fixtures.steps import small_spec
from tests.fixtures.tiny_model import make_expert_model

from tunesmith.api.common import ModelSource
from tunesmith.engines.adapter import load_adapter
from tunesmith.engines.vllm.adapter import one_adapter
from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.training.adapters import load_trained, save_combined, save_for_resume
from tunesmith.training.export import save_final
from tunesmith.training.model import build_model

NAMES = ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
PREFIX = "base_model.model."


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, PeftModel, AutoModelForCausalLM
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return make_expert_model(tmp_path_factory.mktemp("experts"))


def spec(method="lora", **fields):
    given = small_spec({}, method={method: {"r": 4, "alpha": 8, "dropout": 0.0, **fields}})
    return given.model_copy(update={"model": given.model.model_copy(update={"dtype": "float32"})})


def trained(model, part=""):
    return {
        name: weight for name, weight in model.named_parameters() if weight.requires_grad and part in name
    }


def save(model, tiny_model, folder):
    tokenizer, base = ChatTokenizer.load(tiny_model), ModelSource(uri="hf://org/m")
    save_final(model, tokenizer, base, torch.float32, folder)
    return folder


def effective(base, weights, scale):
    """The base's weights with adapters added, as the formula has it: W + s B A, for each expert."""
    changed = {}
    for name, down in weights.items():
        if "lora_A" not in name:
            continue
        up = weights[name.replace("lora_A", "lora_B")]
        module = name.removeprefix(PREFIX).partition(".lora_A")[0]
        if "experts" not in module:
            key = f"{module}.weight"
            changed[key] = base[key] + scale * up @ down
            continue
        # peft nests one wrapper in the other: the inner one has the parameter that comes first.
        which = "gate_up_proj" if module.endswith(".base_layer") else "down_proj"
        key = f"{module.removesuffix('.base_layer')}.{which}"
        count = base[key].shape[0]
        a, b = down.reshape(count, -1, down.shape[1]), up.reshape(up.shape[0], -1, count)
        changed[key] = base[key] + scale * torch.einsum("ore,eri->eoi", b, a)
    return changed


@each(("fields", "scale"), [({}, 2.0), ({"useRslora": True}, 4.0)])
def test_loss_and_gradient_are_those_of_the_formula(experts, fields, scale):
    model = build_model(spec(**fields), experts).train()
    shake(model, 3)
    ids = torch.arange(5, 45).reshape(2, 20)
    ours = model(input_ids=ids, labels=ids).loss
    ours.backward()
    base = load_base(experts)
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in trained(model).items()}
    weights = effective(dict(base.named_parameters()), leaves, scale)
    theirs = torch.func.functional_call(base, weights, kwargs={"input_ids": ids, "labels": ids}).loss
    theirs.backward()
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    assert len(trained(model, "experts")) == 2 * 2 * 2
    for name, weight in trained(model).items():
        assert torch.allclose(weight.grad, leaves[name].grad, atol=1e-6, rtol=1e-4), name


@each(
    ("fields", "parameters", "modules"),
    [
        ({}, NAMES, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ({"targetParameters": []}, None, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ({"targetModules": ["q_proj", "v_proj"]}, None, {"q_proj", "v_proj"}),
        ({"targetModules": "q_proj, v_proj", "targetParameters": "mlp.experts.down_proj"}, NAMES[:1],
         {"q_proj", "v_proj"}),
        ({"targetModules": "q_proj", "targetParameters": ["gate_up_proj"]}, ["gate_up_proj"], {"q_proj"}),
    ],
)  # fmt: skip
def test_what_has_an_adapter(experts, fields, parameters, modules):
    model = build_model(spec(**fields), experts)
    config = model.peft_config["default"]
    assert set(config.target_parameters or ()) == set(parameters or ())
    plain = {name.split(".lora_")[0].rpartition(".")[2] for name in trained(model) if "experts" not in name}
    assert plain == modules
    assert bool(trained(model, "experts")) == bool(parameters)


def test_how_much_of_the_model_the_adapter_covers(experts):
    from tunesmith.training.trained import count_trained

    sizes = {name: weight.numel() for name, weight in load_base(experts).named_parameters()}
    linear = sum(size for name, size in sizes.items() if name.endswith("_proj.weight"))
    inside = sum(size for name, size in sizes.items() if ".experts." in name)
    for fields, covered in (({}, linear + inside), ({"targetParameters": []}, linear)):
        found = count_trained(build_model(spec(**fields), experts))
        assert (found.covered, found.own) == (covered, sum(sizes.values()))
        assert found.as_dict()["coveredShare"] == covered / sum(sizes.values())
    names = count_trained(build_model(spec(), experts)).names
    assert (names["gate_up_proj"], names["down_proj"]) == (2, 2)
    assert "base_layer" not in names


@each("fields", [{}, {"targetParameters": []}])
def test_dense_layers_beside_experts_that_are_left_out_are_named(tmp_path_factory, caplog, fields):
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        intermediate_size=16, mlp_only_layers=[1],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("shared")
    Qwen2MoeForCausalLM(config).save_pretrained(folder)
    caplog.clear()
    build_model(spec(**fields), folder)
    (said,) = [each.getMessage() for each in caplog.records if "no adapter, since peft" in each.getMessage()]
    for name in ("model.layers.*.mlp.shared_expert.gate_proj", "model.layers.*.mlp.down_proj"):
        assert name in said
    assert "experts.gate" not in said


def test_adapters_of_experts_are_trained_in_float32_over_any_base(experts):
    given = spec().model_copy(update={"model": spec().model.model_copy(update={"dtype": "bfloat16"})})
    model = build_model(given, experts)
    assert {weight.dtype for weight in trained(model).values()} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}


def test_experts_that_are_left_out_are_named(experts, caplog):
    build_model(spec(targetParameters=[]), experts)
    said = [record.getMessage() for record in caplog.records if "experts" in record.getMessage()]
    names = "model.layers.*.mlp.experts.gate_up_proj, model.layers.*.mlp.experts.down_proj"
    assert said == [
        f"The experts of this model are single tensors, not linear layers: {names}. They have no adapter "
        "(targetParameters: [])."
    ]


@each(
    ("method", "fields", "said"),
    [
        ("lora", {"dropout": 0.1}, "spec.method.lora.dropout must be 0 for this model"),
        (
            "lora",
            {"targetParameters": "mlp.experts.w1"},
            "no parameter of three dimensions is named mlp.experts.w1",
        ),
        ("qlora", {}, "would stay in 16 bits"),
        ("qlora", {"targetModules": "q_proj"}, "would stay in 16 bits"),
        ("lora", {"targetModules": "q_proj,up_proj"}, "up_proj cannot have an adapter in this model"),
    ],
)
def test_what_experts_cannot_have_is_refused(experts, method, fields, said):
    with pytest.raises(ModelError) as caught:
        build_model(spec(method, **fields), experts)
    assert said in caught.value.message


def test_a_model_without_experts_has_none_to_train(tiny_model):
    assert build_model(spec(), tiny_model).peft_config["default"].target_parameters is None
    with pytest.raises(ModelError, match="The model has none"):
        build_model(spec(targetParameters="mlp.experts.down_proj"), tiny_model)


def test_the_adapter_is_one_that_plain_peft_loads_and_merges(experts, tiny_model, tmp_path):
    model = build_model(spec(useRslora=True, initLoraWeights="gaussian"), experts)
    shake(model, 3)
    folder, wanted = save(model, tiny_model, tmp_path / "final"), logits(model)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["target_parameters"], config["use_rslora"]) == (NAMES, True)
    plain = PeftModel.from_pretrained(load_base(experts), folder)
    assert torch.allclose(logits(plain), wanted, atol=1e-6, rtol=0)
    assert torch.allclose(logits(load_adapter(load_base(experts), folder)), wanted, atol=1e-6, rtol=0)
    merged = plain.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(again), wanted, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="vLLM"):
        one_adapter([folder], tmp_path / "vllm")


@each("below", [{}, {"target_parameters": NAMES, "r": 2}], ids=["linear", "experts"])
def test_over_an_adapter_one_is_left_over_the_base(experts, tiny_model, tmp_path_factory, below):
    """Ranks of experts are put side by side expert by expert."""
    folder = tmp_path_factory.mktemp("over")
    first = make_adapter(experts, folder / "below", **below)
    model = build_model(spec(), experts, [first])
    shake(model, 3)
    final = save(model, tiny_model, folder / "final")
    plain = PeftModel.from_pretrained(load_base(experts), final)
    assert torch.allclose(logits(plain), logits(model), atol=1e-5, rtol=0)


def test_full_over_an_adapter_of_experts(experts, tmp_path):
    below = make_adapter(experts, tmp_path / "below", target_parameters=NAMES)
    given = small_spec({}, method={"full": {}})
    given = given.model_copy(update={"model": given.model.model_copy(update={"dtype": "float32"})})
    wanted = logits(PeftModel.from_pretrained(load_base(experts), below))
    assert torch.allclose(logits(build_model(given, experts, [below])), wanted, atol=1e-5, rtol=0)


def test_a_checkpoint_is_resumed(experts, tmp_path):
    model, other = (build_model(spec(), experts) for _ in range(2))
    shake(model, 3)
    save_combined(model, tmp_path)
    save_for_resume(model, tmp_path)
    load_trained(other, tmp_path)
    assert torch.equal(logits(other), logits(model))


@each(
    ("given", "kept"),
    [(["a", " b "], "a,b"), ("a, b", "a,b"), ([], ""), ("", ""), ("all-linear", "all-linear")],
)
def test_names_are_read_again_as_they_are_written(given, kept):
    """What is planned goes to the pod as JSON and is read there."""
    from tunesmith.api.finetune import LoraMethod

    method = LoraMethod.model_validate({"targetParameters": given, "dropout": 0.0})
    assert method.target_parameters == kept
    assert LoraMethod.model_validate(method.to_json()) == method


@each("given", [7, True, {"a": 1}, ["a", 7], ["a,b"], "a,,b", [""]])
def test_what_is_no_list_of_names(given):
    from tunesmith.api.finetune import LoraMethod

    with pytest.raises(ValueError, match=r"must (be a list of|hold) names"):
        LoraMethod.model_validate({"targetParameters": given, "dropout": 0.0})
