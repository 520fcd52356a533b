"""Where a step's time goes: `python bench/training/operations.py MODEL DATA`; `workload.py` makes DATA.

Processor seconds of one thread for each of torch's operations, in the second of two equal steps. They change
less with what else the machine does than the seconds that pass.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from ours import trainer_of
from torch.utils._python_dispatch import TorchDispatchMode

SHOWN = 12


class Clock(TorchDispatchMode):
    """Adds up the processor seconds of each operation, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note its time."""
        began = time.thread_time()
        result = func(*args, **(kwargs or {}))
        self.seconds[str(func)] += time.thread_time() - began
        return result


def main(model: str, data: str) -> None:
    """Prints one line an operation, the slowest first."""
    torch.set_num_threads(1)
    trainer = trainer_of(model, json.loads(Path(data).read_text()), "tree", "float32")
    trainer.check_tree("auto")
    trainer.model_wrapped = trainer.model
    step = trainer.steps[0]
    trainer.training_step(trainer.model, step)
    began = time.thread_time()
    with Clock() as clock:
        trainer.training_step(trainer.model, step)
    total = time.thread_time() - began
    print(f"{total:8.2f}  100 %  {step.tokens} tokens, {step.computed} computed")
    for name, seconds in clock.seconds.most_common(SHOWN):
        print(f"{seconds:8.2f}  {seconds / total:4.0%}  {name}")
    rest = total - sum(clock.seconds.values())
    print(f"{rest:8.2f}  {rest / total:4.0%}  Python and autograd")


if __name__ == "__main__":
    main(*sys.argv[1:])
