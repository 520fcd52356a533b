"""Prevent libraries from importing others that a process will not use.

transformers, accelerate and peft import whatever is installed, which is two seconds and 140 MiB of a process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast


def skip_imports(*packages: str) -> None:
    """Make these packages look as if they were not installed; those already imported are not affected.

    Call this before the first import of transformers' models, peft or accelerate's parts for DeepSpeed.
    """
    modules = cast(dict[str, Any], sys.modules)
    for name in packages:
        modules.setdefault(name, None)  # means "there is no such module" to the import system


def unneeded_packages(
    base: Mapping[str, Any], *, quantised: bool = False, deepspeed: bool = False
) -> list[str]:
    """Return the packages that a process does not need if its model's config is `base`.

    `quantised`: it quantises weights or optimizer states itself; `deepspeed`: it trains with DeepSpeed.
    """
    wanted = {
        "bitsandbytes": quantised or bool(base.get("quantization_config")),
        "deepspeed": deepspeed,
        "datasets": False,
    }
    return [name for name, needed in wanted.items() if not needed]
