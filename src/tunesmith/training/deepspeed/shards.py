"""Optimizer states that ZeRO has sharded for one number of processes, put together for another. Pure.

ZeRO lays the parameters of a group end to end in one flat tensor, and each process has a part of it: at
stages 1 and 2 an equal part of the whole, at stage 3 an equal part of every parameter. Where a process has
which elements of which parameter is its layout; every flat tensor (the float32 weights, each moment of Adam)
follows it. Reading needs no more of the old tensors than the new part consists of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Shapes = Sequence[Mapping[str, Sequence[int]]]
"""The shape of each parameter by name, in order, for each group."""
Slices = Sequence[Sequence[Mapping[str, tuple[int, int]]]]
"""Start and number of elements in the flat tensor of each parameter by name, for each process and group."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """`numel` elements of a parameter, from element `start` on, that are at `offset` of a flat tensor."""

    name: str
    start: int
    numel: int
    offset: int


Layout = list[list[Fragment]]
"""The fragments of one process, for each group."""


def even_layouts(slices: Slices) -> list[Layout]:
    """Return each process's layout at stages 1 and 2: a parameter continues in the next process's part."""
    known: dict[str, int] = {}
    layouts: list[Layout] = []
    for process in slices:
        layouts.append([])
        for group in process:
            layouts[-1].append([])
            for name, (offset, numel) in group.items():
                start = known.get(name, 0)
                layouts[-1][-1].append(Fragment(name, start, numel, offset))
                known[name] = start + numel
    return layouts


def parameter_layout(shapes: Shapes, rank: int, world: int) -> Layout:
    """Return one process's layout at stage 3: as many elements of each parameter, filled up at the end."""
    layout: Layout = []
    for group in shapes:
        layout.append([])
        offset = 0
        for name, shape in group.items():
            share = -(-math.prod(shape) // world)
            start = rank * share
            layout[-1].append(Fragment(name, start, max(0, min(share, math.prod(shape) - start)), offset))
            offset += share
    return layout


class Fragments:
    """Where each element of each parameter is, among the processes that saved them."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._of: dict[str, list[tuple[int, int, Fragment]]] = {}
        for rank, layout in enumerate(layouts):
            for group, fragments in enumerate(layout):
                for one in fragments:
                    self._of.setdefault(one.name, []).append((rank, group, one))

    def flat(
        self, wanted: Sequence[Fragment], size: int, read: Callable[[int, int], torch.Tensor]
    ) -> torch.Tensor:
        """Return a flat tensor of `size` elements with the `wanted` fragments, zero elsewhere.

        `read` returns the flat tensor of a rank and group. Raises KeyError for a parameter that nobody saved,
        ValueError if some of its elements were not saved.
        """
        import torch

        made = torch.zeros(size, dtype=read(0, 0).dtype)
        for target in wanted:
            left = target.numel
            for rank, group, source in self._of[target.name]:
                begin = max(target.start, source.start)
                numel = min(target.start + target.numel, source.start + source.numel) - begin
                if numel > 0:
                    saved = read(rank, group)[source.offset + begin - source.start :][:numel]
                    made[target.offset + begin - target.start :][:numel] = saved
                    left -= numel
            if left:
                raise ValueError(f"{left} elements of {target.name} were not saved.")
        return made
