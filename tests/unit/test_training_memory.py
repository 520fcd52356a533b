"""When activations are computed twice, and how near the estimate is to what PyTorch keeps."""

import pytest
from tests.cases import each

from tunesmith.training.memory import (
    GIB,
    activation_memory,
    needs_gradient_checkpointing,
    read_shape,
    static_memory,
)


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global get_peft_model, torch, LlamaConfig, LlamaForCausalLM, LoraConfig
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM


SMOLLM_135M = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_7B = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064,
}  # fmt: skip
QWEN_32B = {
    "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8,
    "intermediate_size": 27648, "vocab_size": 152064,
}  # fmt: skip
QWEN_30B_A3B = {
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
    "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936, "num_experts": 128,
    "num_experts_per_tok": 8, "moe_intermediate_size": 768,
}  # fmt: skip


@each(
    ("config", "tokens", "method", "free", "wanted"),
    [
        (SMOLLM_135M, 2048, "lora", 24, False),
        (SMOLLM_135M, 2048, "full", 24, False),
        (SMOLLM_135M, 32768, "lora", 24, True),
        (QWEN_7B, 2048, "lora", 80, False),
        (QWEN_7B, 8192, "lora", 80, True),
        (QWEN_7B, 8192, "lora", 141, False),
        (QWEN_7B, 2048, "lora", 24, True),
        (QWEN_7B, 512, "qlora", 24, False),
        (QWEN_7B, 512, "full", 80, True),
        (QWEN_32B, 2048, "lora", 80, True),
        (QWEN_32B, 2048, "qlora", 80, True),
        (QWEN_32B, 128, "qlora", 80, False),
        (QWEN_30B_A3B, 4096, "lora", 80, True),
    ],
)
def test_when_it_is_wanted(config, tokens, method, free, wanted):
    found, why = needs_gradient_checkpointing(
        config, tokens=tokens, dtype_bytes=2, method=method, free=free * GIB, gpu=True
    )
    assert found is wanted, why
    assert why.startswith(
        f"Gradient checkpointing is {'on' if wanted else 'off'}: activations of {tokens:,} "
    )
    assert why.endswith(f"of {free}.0 GiB.")


def test_more_of_anything_does_not_turn_it_off():
    """Up to some number of tokens it is off, and from there on it is on."""
    answers = [
        needs_gradient_checkpointing(
            QWEN_7B, tokens=t, dtype_bytes=2, method="lora", free=80 * GIB, gpu=True
        )[0]
        for t in range(256, 16384, 256)
    ]
    assert answers == sorted(answers)
    assert len(set(answers)) == 2


@pytest.mark.parametrize("config", [{}, {"hidden_size": 64}, {**QWEN_7B, "vocab_size": "many"}])
def test_a_model_of_unknown_size(config):
    wanted, why = needs_gradient_checkpointing(
        config, tokens=1, dtype_bytes=4, method="full", free=GIB, gpu=False
    )
    assert wanted
    assert "does not have the model's size" in why


@pytest.mark.parametrize(
    ("config", "billions"),
    [(SMOLLM_135M, 0.1345), (QWEN_7B, 7.61), (QWEN_32B, 32.8), (QWEN_30B_A3B, 30.5)],
)
def test_the_size_of_known_models(config, billions):
    assert read_shape(config).weights / 1e9 == pytest.approx(billions, rel=0.01)
    assert read_shape({"model_type": "x", "text_config": config}) == read_shape(config)


def test_what_stands_in_memory_whatever_the_batch():
    shape = read_shape(QWEN_7B)
    assert static_memory(shape, "lora", 2, 64) / GIB == pytest.approx(14.2 + 2.4, rel=0.02)
    assert static_memory(shape, "qlora", 2, 64) / GIB == pytest.approx(3.4 + 2.0 + 2.4, rel=0.02)
    assert static_memory(shape, "full", 2, 64) / GIB == pytest.approx(7.6 * 18 / 1.074, rel=0.02)


def kept(model, tokens, dtype):
    """Bytes of all that one forward pass keeps, the weights and their copies apart."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {weight.shape for weight in model.parameters()} | {
        weight.T.shape for weight in model.parameters()
    }
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape not in shapes:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept alive: addresses are not used again
        return tensor

    body = model.get_base_model().model if hasattr(model, "peft_config") else model.model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        body(input_ids=torch.arange(tokens)[None] % 50, use_cache=False)
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_estimate_is_near_what_is_kept(method, dtype):
    dtype = getattr(torch, dtype)
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if method == "lora":
        lora = LoraConfig(r=8, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model.to(dtype), lora)
    measured = kept(model.train(), 384, dtype)
    found = activation_memory(read_shape(config.to_dict()), method, dtype.itemsize, 384)
    assert found == pytest.approx(measured, rel=0.2)
