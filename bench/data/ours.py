"""Tunesmith's side of `bench.py`: FORMAT FILE MODEL [--no-cache]. Prints its figures as JSON in the end."""

import json
import os
import resource
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare
from tunesmith.tokens.bpe_cache import BpeCache
from tunesmith.tokens.chat import ChatTokenizer

if "--no-cache" in sys.argv:
    BpeCache.of = lambda tokenizer: None  # in helpers, too, which import this module

FORMATS = {"chat": {"chat": {}}, "users": {"userSimulation": {"expand": True}}}


def memory(pid: int) -> int:
    """Peak MiB of a process that still runs."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def children() -> int:
    """Peak MiB of all processes below this one, added up."""
    found, known = [], {str(os.getpid())}
    for _ in range(3):
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[1] in known and path.parent.name not in known:
                known.add(path.parent.name)
                found.append(int(path.parent.name))
    return sum(memory(pid) for pid in found)


def main() -> None:
    name, path, model = sys.argv[1:4]
    most, calls = [0], [0]

    def watch(dataset: str, records: int) -> None:
        calls[0] += 1
        if calls[0] % 100 == 0:
            most[0] = max(most[0], children())

    tokenizer = ChatTokenizer.load(Path(model))
    dataset = {"uri": Path(path).as_uri(), **FORMATS[name]}
    spec = FineTuneSpec.model_validate(
        {
            "model": {"uri": Path(model).absolute().as_uri()},
            "datasets": [dataset],
            "method": {"lora": {}},
            "output": {"uri": "file:///nowhere"},
        }
    )
    with tempfile.TemporaryDirectory() as temp:
        done = prepare(spec, tokenizer, StorageOptions(), Path(temp) / "out", watch)
        report = done.reports[0]
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        figures = {"samples": report.samples, "tokens": report.tokens}
        figures |= {"main_mib": own, "helpers_mib": most[0]}
        forkserver._forkserver._stop()  # waited for, so that the helpers' processor time counts
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
