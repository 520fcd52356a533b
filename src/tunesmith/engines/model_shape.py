"""The sizes of a decoder and its number of parameters, from config.json alone: no weights, no torch.

A model is taken to be built as Llama is, with what distinguishes the families below. `KNOWN` are those whose
number of parameters a test compares with the model that transformers builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KNOWN = frozenset((
    "deepseek_v2", "deepseek_v3", "gemma2", "gemma3_text", "glm4", "gpt_neox", "granite", "llama", "mistral",
    "mixtral", "olmo2", "olmoe", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3",
    "starcoder2",
))  # fmt: skip
_HEAD_NORMS = ("gemma3", "gemma3_text", "olmo2", "olmoe", "qwen3", "qwen3_moe")  # of queries and keys
_FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text", "glm4")
_FLOAT_NORMS = ("gemma", "gemma2", "gemma3", "gemma3_text")  # which multiply by their weight in float32
_TIED = ("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "smollm3", "starcoder2")  # unless told otherwise
_UNGATED = ("gpt2", "gpt_neox", "opt", "phi", "starcoder2")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder.

    `queries`, `keys` and `values` are the widths of the projections, over all heads, `attended` that of what
    attention returns. `inner` is the width of a dense MLP, `expert_inner` that of one expert, `shared_inner`
    that of the experts that every token uses.
    """

    family: str
    layers: int
    hidden: int
    queries: int
    keys: int
    values: int
    attended: int
    inner: int
    vocabulary: int
    tied: bool
    attention_weights: int
    """The weights of the attention of one layer."""
    experts: int = 0
    active: int = 0
    """Experts that a token uses, besides the shared ones."""
    expert_inner: int = 0
    shared_inner: int = 0
    expert_layers: int = 0
    """Layers with experts; the others have a dense MLP."""

    @property
    def known(self) -> bool:
        """Whether the family's number of parameters is verified."""
        return self.family in KNOWN

    @property
    def matrices(self) -> int:
        """The matrices of an MLP: three with a gate, else two."""
        return 2 if self.family in _UNGATED else 3

    @property
    def norms(self) -> int:
        """The norms of a layer over the hidden width."""
        return 4 if self.family in _FOUR_NORMS else 2

    @property
    def normed(self) -> int:
        """The width of the queries and keys that are normed too; 0 if they are not."""
        return self.queries + self.keys if self.family in _HEAD_NORMS else 0

    @property
    def float_norms(self) -> bool:
        """Whether norms multiply by their weight in float32."""
        return self.family in _FLOAT_NORMS

    @property
    def experts_of_layer(self) -> int:
        """The weights of the experts of one layer that are single tensors, without the shared ones."""
        return 3 * self.hidden * self.expert_inner * self.experts

    @property
    def linear(self) -> int:
        """The weights of all linear layers, except those of the experts and the output layer."""
        dense = (self.layers - self.expert_layers) * self.matrices * self.hidden * self.inner
        beside = self.expert_layers * self.hidden * (3 * self.shared_inner + self.experts)  # with the router
        return self.layers * self.attention_weights + dense + beside

    @property
    def embedding(self) -> int:
        """The weights of the input embedding. The output layer has as many, or is the same matrix."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters of the model, except biases and other vectors than norms."""
        norms = (self.layers * self.norms + 1) * self.hidden
        experts = self.expert_layers * self.experts_of_layer
        return self.embedding * (1 if self.tied else 2) + self.linear + experts + norms

    @property
    def active_parameters(self) -> int:
        """The parameters that one token uses: of the experts only those it is sent to."""
        idle = 3 * self.hidden * self.expert_inner * (self.experts - self.active)
        return self.parameters - self.expert_layers * idle


class _Sizes:
    """The numbers of a config.json, by any of the names that models use for them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        nested = config.get("text_config")
        self.values: Mapping[str, Any] = {**config, **nested} if isinstance(nested, Mapping) else config

    def number(self, *names: str) -> int:
        """Return the first of these that is a positive number; 0 if there is none."""
        found = (self.values.get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), 0)


def read_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the sizes in a config.json, by the names that models use; None if they are missing."""
    sizes = _Sizes(config)
    hidden, layers = (
        sizes.number("hidden_size", "n_embd", "d_model"),
        sizes.number("num_hidden_layers", "n_layer"),
    )
    heads, vocabulary = sizes.number("num_attention_heads", "n_head"), sizes.number("vocab_size")
    if not (hidden and layers and heads and vocabulary):
        return None
    family = str(sizes.values.get("model_type") or "")
    head = sizes.number("head_dim") or hidden // heads
    keys = (sizes.number("num_key_value_heads") or heads) * head
    plain = (heads * head, keys, keys, heads * head, hidden * (2 * heads * head + 2 * keys))
    queries, keys, values, attended, attention = _latent(sizes, hidden, heads) or plain
    return ModelShape(
        family=family,
        layers=layers,
        hidden=hidden,
        queries=queries,
        keys=keys,
        values=values,
        attended=attended,
        inner=sizes.number("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden,
        vocabulary=vocabulary,
        tied=bool(sizes.values.get("tie_word_embeddings", family in _TIED)),
        attention_weights=attention,
        **_experts(sizes, layers),
    )


def _latent(sizes: _Sizes, hidden: int, heads: int) -> tuple[int, int, int, int, int] | None:
    """Return the widths and the weights of attention with compressed keys and values (arXiv:2405.04434)."""
    compressed, rope = sizes.number("kv_lora_rank"), sizes.number("qk_rope_head_dim")
    if not compressed:
        return None
    plain, value = sizes.number("qk_nope_head_dim"), sizes.number("v_head_dim")
    queries, values = heads * (plain + rope), heads * value
    rank = sizes.number("q_lora_rank")
    weights = rank * (hidden + queries) if rank else hidden * queries
    weights += hidden * (compressed + rope) + compressed * heads * (plain + value) + values * hidden
    return queries, queries, values, values, weights


def _experts(sizes: _Sizes, layers: int) -> dict[str, int]:
    """Return the fields of a mixture of experts; none for a dense model."""
    experts = sizes.number("num_experts", "num_local_experts", "n_routed_experts")
    if not experts:
        return {}
    own = sizes.number("moe_intermediate_size") or sizes.number("intermediate_size")
    shared = sizes.number("shared_expert_intermediate_size") or sizes.number("n_shared_experts") * own
    every, listed = sizes.number("decoder_sparse_step") or 1, sizes.values.get("mlp_only_layers")
    dense = set(listed) if isinstance(listed, list) else set()
    first = sizes.number("first_k_dense_replace")
    sparse = [n for n in range(first, layers) if n not in dense and (n + 1) % every == 0]
    return {
        "experts": experts,
        "active": sizes.number("num_experts_per_tok") or 1,
        "expert_inner": own,
        "shared_inner": shared,
        "expert_layers": len(sparse),
    }
