"""Quantise rows of numbers with ggml's own kernels, and choose each tensor's type as llama.cpp does.

The kernels are those in the library of the package `xllamacpp`. A name such as `Q4_K_M` stands for a mixture:
most matrices get one type, and those that errors hurt most a larger one.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

_DIRECT = ("F32", "F16", "BF16", "Q8_0")
"""Types that the package `gguf` makes with numpy."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The types of a quantisation: of most matrices, of the output layer, and of the hurt ones."""

    most: str
    output: str = ""
    values: str = ""
    """Type of attention's value projections in the layers that get more bits, and of `ffn_down` there."""


MIXTURES: Mapping[str, Mixture] = {
    **{name: Mixture(name) for name in _DIRECT},
    "Q6_K": Mixture("Q6_K"),
    "Q5_K_M": Mixture("Q5_K", "Q6_K", "Q6_K"),
    "Q4_K_M": Mixture("Q4_K", "Q6_K", "Q6_K"),
    "Q4_0": Mixture("Q4_0", "Q6_K"),
}
# What stands in where a row is no whole number of a type's blocks.
_STEPS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_LAYER = re.compile(r"blk\.(\d+)\.")


def type_name(quantization: str, name: str, width: int, layers: int, *, tied: bool) -> str:
    """Return the type of a matrix by its name in the file, whose rows have `width` numbers."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    mixture = MIXTURES[quantization]
    found = mixture.most
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        found = mixture.output or found
    elif name.endswith(("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight")) and mixture.values:
        found = mixture.values if _more_bits(name, layers) else found
    for _ in range(2):
        block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[found]]
        if width % block == 0:
            return found
        found = _STEPS.get(found, "F16")
    return "F16"


def _more_bits(name: str, layers: int) -> bool:
    """Return whether a layer is among the first or last eighth, or every third between."""
    match = _LAYER.match(name)
    at = int(match[1]) if match else 0
    return at < layers // 8 or at >= 7 * layers // 8 or (at - layers // 8) % 3 == 2


def quantise(rows: np.ndarray[Any, Any], type_: str) -> np.ndarray[Any, Any]:
    """Return float32 rows in a type; for packed types as bytes: [rows, bytes of a row]."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

    kind = GGMLQuantizationType[type_]
    if type_ in _DIRECT:
        return np.asarray(quants.quantize(rows, kind))
    block, size = GGML_QUANT_SIZES[kind]
    flat = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]), np.float32)
    made = np.zeros((flat.shape[0], flat.shape[1] // block * size), np.uint8)
    written = _kernel()(int(kind), flat.ctypes.data, made.ctypes.data, 0, flat.shape[0], flat.shape[1], None)
    if written != made.nbytes:
        raise ModelError(f"ggml wrote {written} bytes of {type_} where {made.nbytes} were due.")
    return made.reshape(*rows.shape[:-1], -1)


@cache
def _kernel() -> Any:
    """Return ggml's function that quantises rows: type, from, to, start, rows, width, importance → bytes."""
    import xllamacpp.xllamacpp as library

    try:
        kernel = ctypes.CDLL(library.__file__).ggml_quantize_chunk
    except AttributeError:
        raise ModelError(
            "This version of xllamacpp does not give access to ggml's kernels. Use Q8_0, BF16 or F16, or "
            "another version."
        ) from None
    number = ctypes.c_int64
    kernel.restype = ctypes.c_size_t
    kernel.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, number, number, number, ctypes.c_void_p,
    ]  # fmt: skip
    return kernel
