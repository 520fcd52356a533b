"""The number of parameters by config.json against the model that transformers builds of it."""

import pytest
from tests.cases import each

from tunesmith.engines.model_shape import KNOWN, read_shape

QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
}  # fmt: skip
QWEN_30B_A3B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "vocab_size": 129280,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, AutoModelForCausalLM, CONFIG_MAPPING
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING


@each(
    "config, total, active",
    [
        (QWEN_7B, 7.62, 7.62),
        (QWEN_30B_A3B, 30.5, 3.35),
        (DEEPSEEK_V3, 671.0, 37.6),  # as they are called: 7.6B, 30B-A3B, 671B with 37B active
    ],
)
def test_the_size_of_published_models(config, total, active):
    shape = read_shape(config)
    assert shape.parameters / 1e9 == pytest.approx(total, rel=0.005)
    assert shape.active_parameters / 1e9 == pytest.approx(active, rel=0.01)
    assert shape.known


def test_the_text_model_of_a_model_that_sees():
    assert read_shape({"model_type": "x", "text_config": QWEN_7B}) == read_shape(QWEN_7B)


@each(
    "config", [{}, {"hidden_size": 64}, {**QWEN_7B, "vocab_size": "many"}, {**QWEN_7B, "hidden_size": True}]
)
def test_a_model_of_unknown_size(config):
    assert read_shape(config) is None


def built(family):
    """A model of the family's default sizes with six layers, on torch's device without data."""
    config = CONFIG_MAPPING[family]()
    config.num_hidden_layers = 6
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:6]
    with torch.device("meta"):
        return config, AutoModelForCausalLM.from_config(config)


@each("family", sorted(KNOWN))
def test_the_parameters_of_known_families(family):
    config, model = built(family)
    weights = {id(weight): weight.numel() for weight in model.parameters()}
    assert read_shape(config.to_dict()).parameters == pytest.approx(sum(weights.values()), rel=0.001)
