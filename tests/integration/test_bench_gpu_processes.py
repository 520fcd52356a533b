"""What `make gpu` runs on several processes, on a CPU: each has a model and the samples of all its steps."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from place import Place
from small import Case
place = Place("cpu", Path(sys.argv[2]), Path(sys.argv[2]))
two = place.run(Case(steps=2, samples=2, tokens=80), processes=2)["losses"]
one = place.run(Case(steps=2, samples=4, tokens=80))["losses"]
assert len(one) == 2 and max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4, (one, two)
"""


@pytest.mark.soak
def test_two_processes_have_the_losses_of_one(tmp_path):
    folder = Path(__file__).parents[2] / "bench" / "gpu"
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
