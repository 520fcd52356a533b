"""What every example becomes on a cluster. `python -m tests.golden.update` rewrites this folder's files."""

from __future__ import annotations

from pathlib import Path

from tunesmith.local.manifests import load_jobs
from tunesmith.plan.build import build, output_uris
from tunesmith.plan.show import as_yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HEADER = "# Written by `python -m tests.golden.update`; do not edit.\n"


def examples() -> dict[str, Path]:
    """Every manifest file of examples/ by the name of its golden file."""
    found = sorted((ROOT / "examples").rglob("*.yaml"))
    return {"-".join(path.relative_to(ROOT / "examples").parts): path for path in found}


def rendered(path: Path) -> str:
    """The file's ConfigMaps and PyTorchJobs, as `tunesmith render` prints them.

    An example may name a job of another one, as on a cluster where that has been applied before.
    """
    every = load_jobs(sorted(path.parent.glob("*.yaml")))
    plans = [build(job, output_uris(every)) for job in load_jobs([path])]
    return HEADER + as_yaml([item for plan in plans for item in (plan.config_map, plan.child)])


def main() -> None:
    """Rewrite all, remove what no example stands for."""
    wanted = examples()
    for old in HERE.glob("*.yaml"):
        if old.name not in wanted:
            old.unlink()
    for name, path in wanted.items():
        (HERE / name).write_text(rendered(path), "utf-8")


if __name__ == "__main__":
    main()
