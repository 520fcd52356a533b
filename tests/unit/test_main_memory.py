"""How much main memory is free, under the control groups that nodes have."""

import pytest

from tunesmith.engines.main_memory import free_main_memory

KIB = 1024
MEMINFO = "MemTotal: 16000000 kB\nMemFree:  1000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:  0\n"
VERSION_1_WITHOUT_LIMIT = 9223372036854771712


def version_2(limit, used, files=0):
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 5\ninactive_file {files}\n",
    }


def version_1(limit, used, files=0):
    statistics = f"cache 3\ninactive_file 7\ntotal_inactive_file {files}\n"
    return {
        "memory/memory.limit_in_bytes": f"{limit}\n",
        "memory/memory.usage_in_bytes": f"{used}\n",
        "memory/memory.stat": statistics,
    }


@pytest.mark.parametrize("version", [version_1, version_2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    ("limit", "used", "files", "free"),
    [
        (4_000_000 * KIB, 1_000_000 * KIB, 0, 3_000_000 * KIB),
        (4_000_000 * KIB, 3_500_000 * KIB, 1_500_000 * KIB, 2_000_000 * KIB),
        (VERSION_1_WITHOUT_LIMIT, 1000, 0, 8_000_000 * KIB),
        (1000, 2000, 0, 0),
    ],
    ids=["a-limit", "files-can-be-read-again", "a-limit-above-the-machine", "over-the-limit"],
)
def test_what_a_limit_leaves(tmp_path, version, limit, used, files, free):
    assert free_main_memory(machine(tmp_path, version(limit, used, files))) == free


@pytest.mark.parametrize("files", [version_2("max", 123), {}], ids=["max", "no-control-groups"])
def test_without_a_limit(tmp_path, files):
    assert free_main_memory(machine(tmp_path, files)) == 8_000_000 * KIB


def test_this_machine():
    assert free_main_memory() > 2**20


def machine(root, files):
    """A folder that looks like the root of one with these files of control groups."""
    for name, text in {
        "proc/meminfo": MEMINFO,
        **{f"sys/fs/cgroup/{k}": v for k, v in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
