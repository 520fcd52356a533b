"""`make dist`: wheel, source archive, chart, list of contents and check sums in build/dist.

Wheel, source archive and chart have the same bytes whenever and wherever they are made from the same commit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from release.chart import package
from release.contents import scan_wheel
from release.sums import digest, write_sums
from release.version import ROOT, current

DIST = ROOT / "build/dist"


def commit_date() -> int:
    """Return SOURCE_DATE_EPOCH, or when the last commit was made, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    log = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def build_python(folder: Path, date: int, source: Path = ROOT) -> list[Path]:
    """Build source archive and wheel from a source tree; return their paths."""
    before = set(folder.glob("*"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder.resolve())],
        cwd=source, env=os.environ | {"SOURCE_DATE_EPOCH": str(date)}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return sorted(set(folder.glob("*")) - before)


def main() -> None:
    """Make everything but the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default="", help="where the images are published; the chart's default")
    parser.add_argument("--output", type=Path, default=DIST)
    asked = parser.parse_args()
    shutil.rmtree(asked.output, ignore_errors=True)
    asked.output.mkdir(parents=True)
    date = commit_date()
    made = [*build_python(asked.output, date), package(asked.output, date, asked.registry)]
    scan_wheel(next(path for path in made if path.suffix == ".whl"), date)
    write_sums(asked.output)
    print(f"Tunesmith {current()} of {date}:", *(f"{digest(path)}  {path}" for path in made), sep="\n")


if __name__ == "__main__":
    main()
