"""CPU time (user + system) of light commands, each a process of its own: `python bench/cli/cpu_time.py`."""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = "import sys; from tunesmith.cli import main; sys.argv[0] = 'tunesmith'; main()"
REPEATS = 7
COMMANDS = [
    "version",
    "--help",
    "validate -f examples/quickstart/finetune.yaml",
    "validate -f examples",
    "render -f examples/quickstart/finetune.yaml",
    "crds -o FOLDER",
]


def used() -> float:
    """CPU seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(arguments: list[str]) -> list[float]:
    """CPU seconds of each of some calls; the first, which may have to compile, is left out."""
    times = []
    for _ in range(REPEATS + 1):
        before = used()
        subprocess.run(
            [sys.executable, "-c", CODE, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
        )
        times.append(used() - before)
    return times[1:]


def main() -> None:
    """Print a table for the README beside this file."""
    print("| command | CPU seconds, median | least | most |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            times = measure(command.replace("FOLDER", folder).split())
            middle = statistics.median(times)
            print(f"| `tunesmith {command}` | {middle:.2f} | {min(times):.2f} | {max(times):.2f} |")


if __name__ == "__main__":
    main()
