"""When activations are computed twice."""

from tests.cases import each
from tests.fixtures.steps import small_spec

from tunesmith.engines.model_shape import read_shape
from tunesmith.training.estimate.from_spec import Batch, memory_setup
from tunesmith.training.memory import needs_gradient_checkpointing

GIB = 1 << 30

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


def asked(config, tokens, method, free):
    spec = small_spec({}, method={method: {}} | ({} if method == "full" else {method: {"r": 64}}))
    batch = Batch(tokens, tokens, tokens, several=True)
    setup = memory_setup(spec, read_shape(config), batch, dtype_bytes=2, world=1, gpu_memory=free * GIB)
    return needs_gradient_checkpointing(setup, free * GIB)


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
    found, why = asked(config, tokens, method, free)
    assert found is wanted, why
    assert why.startswith(
        f"Gradient checkpointing is {'on' if wanted else 'off'}: activations of {tokens:,} "
    )
    assert why.endswith(f"of {free}.0 GiB.")


def test_more_of_anything_does_not_turn_it_off():
    """Up to some number of tokens it is off, and from there on it is on."""
    answers = [asked(QWEN_7B, tokens, "lora", 80)[0] for tokens in range(256, 16384, 256)]
    assert answers == sorted(answers)
    assert len(set(answers)) == 2
