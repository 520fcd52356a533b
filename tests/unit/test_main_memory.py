"""How much main memory is free, under the control groups that nodes have."""

import pytest

from tunesmith.engines.main_memory import free_main_memory, within_limits

KIB = 1024
OF_THE_MACHINE = 8_000_000 * KIB
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
    assert within_limits(OF_THE_MACHINE, folder(tmp_path, version(limit, used, files))) == free


@pytest.mark.parametrize("files", [version_2("max", 123), {}], ids=["max", "no-control-groups"])
def test_without_a_limit(tmp_path, files):
    assert within_limits(OF_THE_MACHINE, folder(tmp_path, files)) == OF_THE_MACHINE


def test_this_machine():
    assert free_main_memory() > 2**20


def folder(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path
