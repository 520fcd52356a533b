"""The chart as a package, by Helm's own engine: the same bytes for the same content, date and registry."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from release.version import ROOT

CHART = ROOT / "charts/tunesmith"
# What `docker pull` takes before an image's name.
REGISTRY = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def package(folder: Path, date: int, registry: str = "") -> Path:
    """Write tunesmith-VERSION.tgz into a folder; return its path.

    `date` is what all files in it are dated, in seconds since 1970. `registry` is where the images are
    published; it becomes the chart's default. Raises ValueError if that is no registry.
    """
    import helm_python

    if registry and not REGISTRY.fullmatch(registry):
        raise ValueError(
            f"{registry!r} is no registry: write registry.example/team, without https:// and tag"
        )
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(CHART, Path(scratch) / CHART.name))
        values = copy / "values.yaml"
        values.write_text(
            values.read_text("utf-8").replace('\nregistry: ""\n', f'\nregistry: "{registry}"\n'), "utf-8"
        )
        for path in copy.rglob("*"):
            os.utime(path, (date, date))
        return Path(helm_python.package(copy, destination=folder))
