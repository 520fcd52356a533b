"""What a job sets for the libraries of all its processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.jobs.libraries import set_up_libraries


def test_no_code_from_pickles_and_huge_pages_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    for before, after in ((None, "1"), ("0", "0")):
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", before or "")
        if before is None:
            monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
        set_up_libraries()
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == after
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


@pytest.mark.engine
def test_torch_takes_huge_pages_then() -> None:
    """In a process of its own, as torch reads the variable once; where the system has them at all."""
    offered = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not offered.is_file() or "[never]" in offered.read_text():
        pytest.skip("this system has no transparent huge pages")
    program = (
        "from tunesmith.jobs.libraries import set_up_libraries; set_up_libraries(); import torch; "
        "x = torch.ones(1 << 24); print(open('/proc/self/smaps_rollup').read())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    (huge,) = [line.split()[1] for line in said.splitlines() if line.startswith("AnonHugePages")]
    assert int(huge) >= 60 << 10
