"""What could not be exported, found before anything is computed: family, tokenizer, weights, disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunesmith.engines.files import ModelFiles
from tunesmith.engines.load import resolve_dtype, vocabulary_size
from tunesmith.errors import PermanentError
from tunesmith.export.gguf.families import architecture
from tunesmith.export.gguf.vocabulary import check_vocabulary
from tunesmith.export.merged import changed_names, refuse_quantised, refuse_tied_names
from tunesmith.export.weight_files import WeightFiles
from tunesmith.names import Reason

_GB = 1e9
_GGUF_BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0}
_FEW_BITS = 1.1
"""Bytes of a number: 8.5 bits in Q8_0, and less in the others."""


def refuse_family(files: ModelFiles) -> None:
    """Raise ModelError if a model cannot become GGUF; reads configuration and tokenizer only."""
    architecture(files.base)
    check_vocabulary(files.tokenizer, vocabulary_size(files.base))


def refuse_forms(files: ModelFiles, *, merged: bool, gguf: str | None, folder: Path) -> None:
    """Raise for what could not be exported. `folder` is where forms are made."""
    if gguf is not None:
        refuse_family(files)
    if not merged and gguf is None:
        return
    refuse_quantised(files.base)
    refuse_tied_names(files, {name for adapter in files.adapters for name in changed_names(adapter)})
    with WeightFiles(files.base) as weights:
        needed = scratch_bytes(files, weights, merged=merged, gguf=gguf)
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise PermanentError(
            f"The exports need up to {needed / _GB:.1f} GB of scratch space, and {free / _GB:.1f} GB are "
            f"free in {place}. Free space there, or have more: resources.scratch.size of a job, TMPDIR of "
            "`tunesmith export`.",
            reason=Reason.DISK_FULL,
        )


def scratch_bytes(files: ModelFiles, weights: WeightFiles, *, merged: bool, gguf: str | None) -> int:
    """Return what the forms take at most at once: whole weights, those in the type of training, the file."""
    numbers = sum(info.numbers for info in weights.tensors.values())
    proof = numbers * resolve_dtype(files.base, "auto").itemsize if merged else 0
    file = 0.0 if gguf is None else numbers * _GGUF_BYTES.get(gguf, _FEW_BITS)
    return int(weights.bytes + max(proof, file))
