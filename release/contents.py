"""Lists of contents (SBOM, SPDX 2.3 as JSON) of the wheel with what it installs, and of images, by Syft."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from release.version import ROOT, current

NAMESPACE = "https://tunesmith.dev/spdx"
SUFFIX = ".spdx.json"


def syft() -> str:
    """Return the path of Syft. Raises FileNotFoundError that says how to install it."""
    found = shutil.which("syft", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        raise FileNotFoundError("syft is not installed: pip install 'tunesmith[release]'")
    return found


def scan(source: str, name: str, output: Path, date: int) -> None:
    """Write what a source of Syft holds, such as dir:FOLDER or oci-archive:FILE.

    The time and the address in it are made from the name and `date`, so that the same content is the same
    file.
    """
    environment = os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_FILE_METADATA_SELECTION": "none"}
    words = [syft(), "scan", source, "--quiet", "--source-name", name, "--source-version", current()]
    done = subprocess.run([*words, "-o", "spdx-json"], env=environment, capture_output=True, check=True)
    found = json.loads(done.stdout)
    found["creationInfo"]["created"] = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found["documentNamespace"] = f"{NAMESPACE}/{output.name.removesuffix(SUFFIX)}/{date}"
    output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


def scan_wheel(wheel: Path, date: int) -> Path:
    """List the wheel and what `pip install tunesmith` installs with it, in the locked versions."""
    output = wheel.with_name(f"tunesmith-{current()}{SUFFIX}")
    with tempfile.TemporaryDirectory() as folder:
        where = ["--target", folder, "--constraint", str(ROOT / "locks/constraints.txt")]
        quietly = ["--quiet", "--no-compile", "--no-warn-conflicts"]
        subprocess.run([sys.executable, "-m", "pip", "install", *quietly, *where, str(wheel)], check=True)
        forget_place(Path(folder))
        scan(f"dir:{folder}", "tunesmith", output, date)
    return output


def forget_place(installed: Path) -> None:
    """Remove what names this machine from what pip installed into a folder.

    Those are commands, whose first line is this Python's path, and the address of the wheel; the RECORD of
    each package has their check sums, on which Syft's ids of packages depend.
    """
    shutil.rmtree(installed / "bin", ignore_errors=True)
    for address in installed.glob("*.dist-info/direct_url.json"):
        address.unlink()
    for record in installed.glob("*.dist-info/RECORD"):
        lines = record.read_text("utf-8").splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not _of_place(line.split(",")[0])), "utf-8")


def _of_place(path: str) -> bool:
    return path.startswith("../../bin/") or path.endswith(".dist-info/direct_url.json")
