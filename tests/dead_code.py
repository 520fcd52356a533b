"""Finds code that nothing calls, with vulture. `python -m tests.dead_code`, which is part of `make lint`.

Tests are not searched for callers: what only they call is dead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import BaseModel
from vulture import Vulture

import tunesmith.api.manifest
import tunesmith.api.status  # noqa: F401 - its models count

PATHS = ["src", "operator"]
USED_BY_LIBRARIES = [
    *("on_*", "get_batch_samples", "get_total_train_batch_size", "floating_point_ops", "training_step"),
    *("_track_num_input_tokens", "num_items_in_batch", "_get_grad_norm", "evaluate"),  # transformers' Trainer
    *("should_training_stop", "should_evaluate", "use_cache", "support_avx512bf16_for_cpu"),
    *("inference_mode", "init_lora_weights", "task_type", "base_model_name_or_path"),  # peft
    *("progress_storage", "finalizer", "error_backoffs", "worker_limit", "disabled"),  # kopf
    *("server_timeout", "client_timeout", "inactivity_timeout", "request_timeout", "idle_timeout"),
    "disable_strict_ssl_verification",  # kubernetes' Configuration
    *("do_GET", "log_message", "daemon_threads", "readable", "readall"),  # http.server, io
    *("n_ctx", "n_parallel", "n_threads", "verbosity", "hostnames"),  # xllamacpp
    *("*_schema", "yaml_*", "ignore_aliases", "globals"),  # pydantic's schema generator, PyYAML, Jinja
]
READ_OTHERWISE = [
    "is_taken",  # by the order of tuples
    *("priority_classes", "node_selectors"),  # by the rules' names of them
    *("TRL", "LLAMA_FACTORY", "AXOLOTL"),  # by an option's value
]
DECORATORS = ["@kopf.*", "@model_validator"]


def main() -> int:
    """Print what is dead. Return 1 if there is any, 0 if there is none."""
    names = [*USED_BY_LIBRARIES, *READ_OTHERWISE, *_fields(BaseModel)]
    vulture = Vulture(ignore_names=names, ignore_decorators=DECORATORS)
    vulture.scavenge(PATHS)
    found = vulture.get_unused_code(min_confidence=60)
    for item in found:
        print(item.get_report())
    return int(bool(found))


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """Fields of all models below `model`: manifests and statuses are read and written as a whole."""
    for below in model.__subclasses__():
        if below.__module__.startswith("tunesmith."):
            yield from below.model_fields
        yield from _fields(below)


if __name__ == "__main__":
    sys.exit(main())
