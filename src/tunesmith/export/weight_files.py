"""The tensors of a model's safetensors files, read one at a time, and written in shards of bounded size.

Does not depend on what a tensor means; a model of any size needs the memory of one shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tunesmith.engines.adapter import ADAPTER_WEIGHTS
from tunesmith.errors import ModelError

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5_000_000_000
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's shape and its type as safetensors names it (`BF16`)."""

    shape: tuple[int, ...]
    type: str

    @property
    def numbers(self) -> int:
        """Return how many numbers it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Return its size in the file."""
        return self.numbers * _BYTES.get(self.type, 1)


class WeightFiles:
    """The weights of a model's folder. Use as a context manager. Raises ModelError for damaged files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._files: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}

    def __enter__(self) -> Self:
        from safetensors import SafetensorError, safe_open

        paths = _weight_paths(self._folder)
        if not paths:
            raise ModelError(f"{self._folder} has no weights: there is no *.safetensors file.")
        for path in paths:
            try:
                file = self._stack.enter_context(safe_open(path, "pt"))
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read: {error}.") from error
            for name in file.keys():  # noqa: SIM118 - not a mapping
                self._files[name] = file
                part = file.get_slice(name)
                self.tensors[name] = TensorInfo(tuple(part.get_shape()), part.get_dtype())
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, on the CPU."""
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    @property
    def bytes(self) -> int:
        """Return the size of all tensors."""
        return sum(info.bytes for info in self.tensors.values())


def _weight_paths(folder: Path) -> list[Path]:
    """Return the files of weights that transformers would load: one whole file, else those of the index.

    Without both, all that are not an adapter. Other files beside them (`consolidated.safetensors`, a second
    precision) hold the same weights once more.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    if index.is_file():
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is not an index of weights; the model's files are damaged.") from error
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise ModelError(f"{folder} is incomplete: {missing[0]} is missing.")
        return sorted(folder / name for name in named)
    return sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)


def write_shards(
    folder: Path,
    sizes: Mapping[str, int],
    tensor_of: Callable[[str], torch.Tensor],
    limit: int = SHARD_BYTES,
) -> None:
    """Write tensors as `model.safetensors`, or as shards with an index if they are larger than `limit` bytes.

    `sizes` are their bytes by name, in the order of the files; `tensor_of` makes each when it is written.
    """
    from safetensors.torch import save_file

    shards = list(_shards(sizes, limit))
    names = [WHOLE]
    if len(shards) > 1:
        names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        tensors = {name: tensor_of(name).contiguous() for name in shard}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[Sequence[str]]:
    shard, filled = list[str](), 0
    for name, size in sizes.items():
        if shard and filled + size > limit:
            yield shard
            shard, filled = [], 0
        shard.append(name)
        filled += size
    if shard:
        yield shard
