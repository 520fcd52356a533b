"""The families of models that are converted, and what GGUF says of each.

Only what llama.cpp computes as transformers does is accepted: a setting that it does not know would change
replies in silence, so it is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.engines.load import model_config
from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True, slots=True)
class Family:
    """`arch` is llama.cpp's name. `interleaved`: rotary pairs are neighbours there, not halves as here.

    `square`: llama.cpp takes the heads to be as wide together as the model.
    """

    arch: str
    interleaved: bool = False
    experts: bool = False
    square: bool = False


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama", interleaved=True),
    "MistralForCausalLM": Family("llama", interleaved=True),
    "Qwen2ForCausalLM": Family("qwen2", square=True),
    "Qwen3ForCausalLM": Family("qwen3"),
    "Qwen3MoeForCausalLM": Family("qwen3moe", experts=True),
}
_ROPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's family and its configuration, as transformers reads it."""

    name: str
    family: Family
    config: Any

    @property
    def head_size(self) -> int:
        """Return the width of one attention head."""
        own = getattr(self.config, "head_dim", None)
        return int(own or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def rope(self) -> Mapping[str, Any]:
        """Return the settings of rotary positions."""
        return dict(self.config.rope_parameters or {})


def architecture(folder: Path) -> Architecture:
    """Return what a folder's model is. Raises ModelError if llama.cpp could not run it as it is."""
    from transformers import AutoConfig

    names = model_config(folder).get("architectures") or ["(none named)"]
    if names[0] not in FAMILIES:
        raise ModelError(
            f"export.gguf cannot convert a {names[0]}; it converts {', '.join(FAMILIES)}. Export merged "
            "weights, and convert those with llama.cpp's own tools if it knows the family."
        )
    found = Architecture(
        names[0], FAMILIES[names[0]], AutoConfig.from_pretrained(folder, local_files_only=True)
    )
    refused = "; ".join(_refused(found))
    if refused:
        raise ModelError(f"export.gguf cannot convert this {names[0]} exactly: {refused}.")
    return found


def _refused(model: Architecture) -> Iterator[str]:
    config, kind = model.config, model.rope.get("rope_type", "default")
    if kind not in _ROPES:
        yield f"rope_type {kind} is not among {', '.join(_ROPES)}"
    if model.rope.get("partial_rotary_factor", 1.0) != 1.0:
        yield "partial_rotary_factor is not 1"
    if config.hidden_act != "silu":
        yield f"hidden_act is {config.hidden_act}, not silu"
    yield from _other_yarn(model.rope)
    if model.family.square and model.head_size * config.num_attention_heads != config.hidden_size:
        yield "head_dim is not hidden_size / num_attention_heads"
    if getattr(config, "use_sliding_window", False):
        yield "use_sliding_window is true"
    if model.family.experts:
        if not config.norm_topk_prob:
            yield "norm_topk_prob is false"
        if config.mlp_only_layers or config.decoder_sparse_step != 1:
            yield "some layers have no experts"


def _other_yarn(rope: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings of `yarn` that GGUF has no place for, if they are not what llama.cpp takes anyway."""
    if rope.get("rope_type") != "yarn":
        return
    own = 0.1 * math.log(float(rope["factor"])) + 1.0
    known = {"beta_fast": 32, "beta_slow": 1, "attention_factor": own, "truncate": True}
    for name, usual in known.items():
        value = rope.get(name)
        if value is not None and not math.isclose(value, usual, rel_tol=1e-6):
            yield f"{name} of rope_type yarn is {value}"
    yield from (f"rope_type yarn has {name}" for name in ("mscale", "mscale_all_dim") if rope.get(name))


def context_length(config: Any) -> int:
    """Return up to which length llama.cpp computes what transformers does.

    Its `llama` has no sliding window: within one window the two are equal, beyond it they would not be.
    """
    positions, window = config.max_position_embeddings, getattr(config, "sliding_window", None)
    return int(min(positions, window) if window else positions)


def write_facts(writer: GGUFWriter, model: Architecture) -> None:
    """Write sizes, positions and experts of a model."""
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    writer.add_key_length(model.head_size)
    writer.add_value_length(model.head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(model.head_size)
    _write_rope(writer, model.rope)
    if model.family.experts:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _write_rope(writer: GGUFWriter, rope: Mapping[str, Any]) -> None:
    from gguf import RopeScalingType

    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    match rope.get("rope_type", "default"):
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))
        case "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(rope["factor"]))
            writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        case _:  # the default needs none, and llama3 has its factors as a tensor
            return


def rope_factors(model: Architecture) -> list[float] | None:
    """Return by what llama.cpp divides each frequency, for `llama3`; None for other kinds of positions.

    Source: the schedule of Llama 3.1's positions, as in transformers' `rope_utils`.
    """
    rope = model.rope
    if rope.get("rope_type") != "llama3":
        return None
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained, size = int(rope["original_max_position_embeddings"]), model.head_size
    factors = []
    for at in range(0, size, 2):
        wave = 2 * math.pi * float(rope.get("rope_theta", 10000.0)) ** (at / size)
        share = (trained / wave - low) / (high - low)
        if share >= 1:
            factors.append(1.0)
        elif share <= 0:
            factors.append(factor)
        else:
            factors.append(1 / ((1 - share) / factor + share))
    return factors
