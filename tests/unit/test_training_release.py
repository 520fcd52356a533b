"""What training held is there for others, not only free within this process."""

import platform
import subprocess
import sys

import pytest

# Blocks of a megabyte, which glibc takes from its heap once it has seen larger ones freed; the last one
# stays, so that the heap cannot shrink by itself.
CODE = """
import torch
from tunesmith.training.free_memory import trim_main_memory

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("RssAnon"))

torch.ones(4 << 20)
blocks = [torch.ones(1 << 18) for _ in range(400)]
blocks = blocks[-1:]
before = resident()
trim_main_memory()
print(before - resident())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="Only glibc keeps freed memory, and can be asked."
)
def test_freed_memory_is_given_back():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300, "MiB"
