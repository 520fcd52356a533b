"""`make dist-test`: install the files of build/dist as users do, in a fresh environment outside the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from release.dist import DIST, build_python, commit_date
from release.sums import digest
from release.version import ROOT, current

MANIFEST = ROOT / "examples/quickstart/finetune.yaml"


def run(words: list[str], folder: Path) -> str:
    """Run a command in a folder, without this tree on Python's path; return what it printed."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def the_file(dist: Path, pattern: str) -> Path:
    """Return the only file of the name. Raises SystemExit if there is none, or more than one."""
    found = list(dist.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{dist} has {len(found)} files {pattern}, not one: run `make dist`")
    return found[0]


def check_wheel(wheel: Path, scratch: Path) -> None:
    """Install the wheel with the locked versions, and use the command as the README does."""
    venv.create(scratch / "venv", with_pip=True)
    pip, python, tunesmith = (str(scratch / "venv/bin" / name) for name in ("pip", "python", "tunesmith"))
    constraints = str(ROOT / "locks/constraints.txt")
    run([pip, "install", "--quiet", "--constraint", constraints, f"{wheel}[operator]"], scratch)
    where = run([python, "-c", "import tunesmith; print(tunesmith.__file__)"], scratch)
    assert where.startswith(str(scratch)), where
    assert current() in run([tunesmith, "version"], scratch)
    assert "validate" in run([tunesmith, "--help"], scratch)
    assert "is valid" in run([tunesmith, "validate", "-f", str(MANIFEST)], scratch)
    assert "kind: PyTorchJob" in run([tunesmith, "render", "-f", str(MANIFEST)], scratch)
    run([tunesmith, "crds", "--output", str(scratch / "crds")], scratch)
    committed = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name: path.read_text() for path in (scratch / "crds").glob("*.yaml")} == committed
    run([python, "-c", "import tunesmith_operator.handlers"], scratch)


def check_source(archive: Path, wheel: Path, scratch: Path) -> None:
    """Check that the source archive builds the same wheel, byte for byte."""
    import tarfile

    with tarfile.open(archive) as opened:
        opened.extractall(scratch, filter="data")
    (scratch / "again").mkdir()
    built = build_python(scratch / "again", commit_date(), scratch / archive.name.removesuffix(".tar.gz"))
    assert digest(wheel) in map(digest, built), "the source archive builds another wheel"


def check_chart(archive: Path) -> None:
    """Check that Helm reads the package, and that it brings the CRDs."""
    import helm_python

    with helm_python.Chart.load(archive) as chart:
        assert chart.metadata["appVersion"] == chart.version == current()
        crds = [text for name, text in chart.render({}, name="tunesmith").items() if "/crds/" in name]
    assert len(crds) == 3, crds


def main() -> None:
    """Check the files of a folder, build/dist if none is given."""
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else DIST).resolve()
    wheel = the_file(dist, "*.whl")
    with tempfile.TemporaryDirectory() as scratch:
        check_source(the_file(dist, "*.tar.gz"), wheel, Path(scratch))
        check_wheel(wheel, Path(scratch))
    check_chart(the_file(dist, "*.tgz"))
    print(f"{dist}: wheel, source archive and chart install and work")


if __name__ == "__main__":
    main()
