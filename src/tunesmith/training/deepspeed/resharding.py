"""Resume a ZeRO run with another number of processes than wrote the checkpoint.

DeepSpeed itself loads only the shards of as many processes. Here each process puts together, from the shards
of all, what it would have saved itself, and gives that to DeepSpeed's own loader. DeepSpeed's other way, its
universal checkpoint, writes every state of every parameter to a file of its own first, which needs room on
the disk for the checkpoint three times over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.training.deepspeed.shards import (
    Fragment,
    Fragments,
    Layout,
    Shapes,
    even_layouts,
    parameter_layout,
)

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
State = dict[str, Any]
_OPTIMIZER, _SLICES = "optimizer_state_dict", "param_slice_mappings"
_PADDINGS, _STAGE = "group_paddings", "zero_stage"
# Keys of a process's state that describe its layout.
_OF_LAYOUT = (_PADDINGS, "param_alignment_paddings", "partition_count", _SLICES)


def shards_of(checkpoint: Path) -> list[Path]:
    """Return the files with the processes' shares, in the order of their ranks; none without ZeRO."""
    tag = checkpoint / "latest"
    if not tag.is_file():
        return []
    found = (checkpoint / tag.read_text("utf-8").strip()).glob("*zero_pp_rank_*_optim_states.pt")
    return sorted(found, key=lambda path: int(path.name.partition("_pp_rank_")[2].partition("_")[0]))


def load_checkpoint(engine: Any, checkpoint: Path, *, strict: bool) -> None:
    """Load a checkpoint into DeepSpeed's engine, whatever number of processes wrote it.

    `strict`: the checkpoint has all of the module's weights. Every rank takes part.
    """
    import torch.distributed as dist
    from transformers.integrations.deepspeed import deepspeed_load_checkpoint

    shards = shards_of(checkpoint)
    if len(shards) in (0, dist.get_world_size()):
        deepspeed_load_checkpoint(engine, str(checkpoint), load_module_strict=strict)
    else:
        _load_other(engine, shards)


def _load_other(engine: Any, shards: Sequence[Path]) -> None:
    """Load the shards of another number of processes."""
    import torch.distributed as dist

    optimizer, world = engine.optimizer, dist.get_world_size()
    weights_are_sharded = engine.zero_optimization_stage() == 3
    model = _load(next(shards[0].parent.glob("*model_states.pt")))
    if weights_are_sharded:
        optimizer.checkpoint_event_prologue()
    own = optimizer.state_dict()
    layout = _own_layout(own, engine)
    states = _SavedStates([_load(path)[_OPTIMIZER] for path in shards], model["param_shapes"])
    made = states.resharded(own, layout)
    optimizer.load_state_dict([made] * world, load_optimizer_states=True, load_from_fp32_weights=True)
    if weights_are_sharded:
        optimizer.checkpoint_event_epilogue()
    else:
        optimizer.update_lp_params()
    for counter in ("global_steps", "skipped_steps", "global_samples"):
        setattr(engine, counter, model[counter])
    log.info("Resharded the optimizer's state: %d processes wrote it, %d share it now.", len(shards), world)


def _load(path: Path) -> State:
    import torch

    loaded: State = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    return loaded


class _SavedStates:
    """The states that all processes saved, as their optimizers' `state_dict` returned them."""

    def __init__(self, states: Sequence[State], shapes: Shapes) -> None:
        self._states, world = states, len(states)
        if _SLICES in states[0]:
            self._fp32, self._base = "single_partition_of_fp32_groups", "base_optimizer_state"
            layouts = even_layouts([_slices(state) for state in states])
        else:
            self._fp32, self._base = "fp32_flat_groups", _OPTIMIZER
            layouts = [parameter_layout(shapes, rank, world) for rank in range(world)]
        self._fragments = Fragments(layouts)

    def resharded(self, own: State, layout: Layout) -> State:
        """Return the state with the saved values that a process has whose state and layout are now these."""
        first, base, flats = self._states[0], self._base, own[self._fp32]
        # At stages 1 and 2 the weights are saved without the padding that the moments have. What has no stage
        # is DeepSpeed's optimizer for bfloat16 with gradients in float32, which saves both alike.
        padded = _PADDINGS in own and _STAGE in own
        paddings = own[_PADDINGS] if padded else [0] * len(flats)
        sizes = [flat.numel() + padding for flat, padding in zip(flats, paddings, strict=True)]
        groups = list(zip(layout, sizes, strict=True))
        param_groups = zip(first[base]["param_groups"], own[base]["param_groups"], strict=True)
        moments = [self._moments(wanted, size) for wanted, size in groups] if first[base]["state"] else []
        return {
            **first,
            **{key: own[key] for key in _OF_LAYOUT if key in own},
            self._fp32: [self._weights(wanted, size) for wanted, size in groups],
            base: {
                "state": dict(enumerate(moments)),
                "param_groups": [{**old, "params": new["params"]} for old, new in param_groups],
            },
        }

    def _weights(self, wanted: Sequence[Fragment], size: int) -> torch.Tensor:
        return self._fragments.flat(wanted, size, lambda rank, group: self._states[rank][self._fp32][group])

    def _moments(self, wanted: Sequence[Fragment], size: int) -> State:
        """Return the optimizer's state of a group: its flat tensors put together, its step as it is."""
        states = [state[self._base]["state"] for state in self._states]

        def of(key: str, value: torch.Tensor) -> torch.Tensor:
            if value.ndim == 0:
                return value.clone()
            return self._fragments.flat(wanted, size, lambda rank, group: states[rank][group][key])

        return {key: of(key, value) for key, value in states[0][0].items()}


def _own_layout(own: State, engine: Any) -> Layout:
    """Return this rank's layout. Every rank takes part."""
    import torch.distributed as dist

    rank, world = dist.get_rank(), dist.get_world_size()
    if _SLICES not in own:
        return parameter_layout(engine._get_zero_param_shapes(), rank, world)
    everyone: list[Any] = [None] * world
    dist.all_gather_object(everyone, _slices(own))
    return even_layouts(everyone)[rank]


def _slices(state: State) -> list[dict[str, tuple[int, int]]]:
    return [
        {name: (address.start, address.numel) for name, address in group.items()} for group in state[_SLICES]
    ]
