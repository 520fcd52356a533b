"""How much memory a process may use."""

import pytest

from tunesmith.jobs.memory import main_memory

MEMINFO = "MemTotal: 16000000 kB\nMemFree:  1000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:  0\n"
KIB = 1024


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max\n", "123\n", 8_000_000 * KIB),
        (f"{4_000_000 * KIB}\n", f"{1_000_000 * KIB}\n", 3_000_000 * KIB),
        (f"{400_000_000 * KIB}", "0", 8_000_000 * KIB),
        ("1000", "2000", 0),
    ],
    ids=["no limit", "a limit", "a limit above the machine", "over the limit"],
)
def test_main_memory(limit, used, free):
    assert main_memory(MEMINFO, limit, used) == free
