"""Write a whole model's folder as one GGUF file, one tensor in memory at a time.

Names of tensors come from llama.cpp's own table, in the package `gguf`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.export.gguf.families import Architecture, architecture, rope_factors, write_facts
from tunesmith.export.gguf.quantiser import quantise, type_name
from tunesmith.export.gguf.vocabulary import write_vocabulary
from tunesmith.export.weight_files import WeightFiles

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFWriter

_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(\w+\.weight)")
_ROPE_FACTORS = "rope_freqs.weight"
Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file: the names of its parts in the model (several are stacked), and its shape."""

    name: str
    parts: tuple[str, ...]
    shape: tuple[int, ...]


def convert(folder: Path, path: Path, quantization: str, name: str, beat: Beat = lambda: None) -> None:
    """Write the model in `folder` to `path` with a quantisation (of `MIXTURES`). Raises ModelError."""
    from gguf import GGUFWriter

    model = architecture(folder)
    with WeightFiles(folder) as weights:
        tensors = _tensors(model, weights)
        writer = GGUFWriter(path, model.family.arch)
        try:
            _write_general(writer, name, quantization)
            write_facts(writer, model)
            write_vocabulary(writer, folder, model.config.vocab_size)
            _write_tensors(writer, model, weights, tensors, quantization, beat)
        finally:
            writer.close()


def _write_general(writer: GGUFWriter, name: str, quantization: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_type("model")
    writer.add_name(name)
    kind = "ALL_F32" if quantization == "F32" else f"MOSTLY_{quantization}"
    writer.add_file_type(LlamaFileType[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _tensors(model: Architecture, weights: WeightFiles) -> list[Tensor]:
    """Return the file's tensors. Raises ModelError for one that llama.cpp has no name for."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    arch = next(arch for arch in MODEL_ARCH if _arch_name(arch) == model.family.arch)
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    tied, found = bool(model.config.tie_word_embeddings), list[Tensor]()
    for key, parts in _stacked(weights).items():
        if key.endswith(".rotary_emb.inv_freq") or (tied and key == "lm_head.weight"):
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"export.gguf: llama.cpp's {model.family.arch} has no tensor for {key}.")
        own = weights.tensors[parts[0]].shape
        found.append(Tensor(name, parts, (len(parts), *own) if len(parts) > 1 else own))
    return found


def _arch_name(arch: Any) -> str:
    from gguf import MODEL_ARCH_NAMES

    return str(MODEL_ARCH_NAMES[arch])


def _stacked(weights: WeightFiles) -> dict[str, tuple[str, ...]]:
    """Return the parts of each tensor: one, or one for each expert in their order."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for key in weights.tensors:
        match = _EXPERT.fullmatch(key)
        if match is None:
            found[key][0] = key
        else:
            found[f"{match[1]}.{match[3]}"][int(match[2])] = key
    return {key: tuple(parts[number] for number in sorted(parts)) for key, parts in found.items()}


def _write_tensors(
    writer: GGUFWriter,
    model: Architecture,
    weights: WeightFiles,
    tensors: Sequence[Tensor],
    quantization: str,
    beat: Beat,
) -> None:
    """Announce all tensors, as the format wants it, and then write one after the other."""
    import numpy as np

    types = {tensor.name: _type_of(model, tensor, quantization) for tensor in tensors}
    factors = rope_factors(model)
    if factors is not None:
        writer.add_tensor_info(_ROPE_FACTORS, (len(factors),), np.dtype(np.float32), 4 * len(factors))
    for tensor in tensors:
        _announce(writer, tensor, types[tensor.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(np.array(factors, np.float32))
    for tensor in tensors:
        parts = [quantise(part, types[tensor.name]) for part in _values(model, weights, tensor, beat)]
        writer.write_tensor_data(np.stack(parts) if len(parts) > 1 else parts[0])


def _announce(writer: GGUFWriter, tensor: Tensor, type_: str) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    kind, plain = GGMLQuantizationType[type_], {"F32": np.float32, "F16": np.float16}.get(type_)
    if plain is not None:
        size = int(np.prod(tensor.shape)) * np.dtype(plain).itemsize
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(plain), size)
        return
    shape = quants.quant_shape_to_byte_shape(tensor.shape, kind)
    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), kind)


def _type_of(model: Architecture, tensor: Tensor, quantization: str) -> str:
    """Return a tensor's type: float32 for vectors and for what chooses experts, as llama.cpp wants them."""
    if len(tensor.shape) == 1 or tensor.name.endswith("ffn_gate_inp.weight"):
        return "F32"
    config = model.config
    tied = bool(config.tie_word_embeddings)
    return type_name(quantization, tensor.name, tensor.shape[-1], config.num_hidden_layers, tied=tied)


def _values(
    model: Architecture, weights: WeightFiles, tensor: Tensor, beat: Beat
) -> Iterator[np.ndarray[Any, Any]]:
    """Yield a tensor's parts in float32, with rotary pairs as llama.cpp has them."""
    config = model.config
    for part in tensor.parts:
        beat()
        value = weights.read(part).float()
        if model.family.interleaved and part.endswith((".q_proj.weight", ".q_proj.bias")):
            value = _interleaved(value, config.num_attention_heads)
        if model.family.interleaved and part.endswith((".k_proj.weight", ".k_proj.bias")):
            value = _interleaved(value, config.num_key_value_heads)
        yield value.contiguous().numpy()


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of each head from two halves to pairs of neighbours."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
