"""`helm` as far as README and docs use it, by Helm's own engine, for machines without the program.

`python -m tests.cluster.helm_command upgrade …`. What the pages do not use is refused. A chart of a registry
is made here, as `make dist` makes it for that registry, so that none is needed.
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

REAL = "TUNESMITH_REAL_HELM"
"""The path of the program, if there is one: it then does the work."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands and options that the pages use."""
    found = argparse.ArgumentParser(prog="helm", allow_abbrev=False)
    commands = found.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("upgrade", allow_abbrev=False)
    upgrade.add_argument("--install", action="store_true")
    upgrade.add_argument("--create-namespace", action="store_true")
    upgrade.add_argument("--reuse-values", action="store_true")
    upgrade.add_argument("--reset-then-reuse-values", action="store_true")
    upgrade.add_argument("--version")
    upgrade.add_argument("--set", action="append", default=[])
    uninstall = commands.add_parser("uninstall", allow_abbrev=False)
    for command in (upgrade, uninstall):
        command.add_argument("name")
        command.add_argument("-n", "--namespace", default="default")
    upgrade.add_argument("chart")
    return found


def published(chart: str, version: str | None, folder: Path) -> str:
    """Return the path of a chart; one of a registry is packaged into the folder first."""
    from release import version as released
    from release.chart import package

    if not chart.startswith("oci://"):
        return chart
    registry, place, name = chart.removeprefix("oci://").rpartition("/charts/")
    if not place or name != "tunesmith" or version != released.current():
        raise SystemExit(f"helm: {chart} {version} is not what a release publishes")
    return str(package(folder, 1_700_000_000, registry))


def run(words: Sequence[str]) -> str:
    """Do what the words say; return what Helm prints at the end."""
    import helm_python

    asked = parser().parse_args(words)
    with (
        helm_python.Config(namespace=asked.namespace, kubeconfig_path=os.environ["KUBECONFIG"]) as config,
        tempfile.TemporaryDirectory() as folder,
    ):
        if asked.command == "uninstall":
            config.uninstall(asked.name)
            return f'release "{asked.name}" uninstalled'
        chart = published(asked.chart, asked.version, Path(folder))
        values = helm_python.parse_set_string(",".join(asked.set))
        there = [one for one in config.list(all_states=True) if one["name"] == asked.name]
        if asked.reset_then_reuse_values:
            values = config.get_values(asked.name) | values
        if there or not asked.install:
            done = config.upgrade(chart, asked.name, values, reuse_values=asked.reuse_values)
        else:
            done = config.install(chart, asked.name, values, create_namespace=asked.create_namespace)
        return f"{done['name']}: {done['status']}\n{done.get('notes', '')}"


def run_real(helm: str, words: Sequence[str]) -> int:
    """Have the program do it, with the chart of a registry made here; return its exit code."""
    asked = parser().parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        if asked.command == "upgrade":
            chart = published(asked.chart, asked.version, Path(folder))
            words = [chart if word == asked.chart else word for word in words]
        return subprocess.run([helm, *words]).returncode


if __name__ == "__main__":
    import sys

    if real := os.environ.get(REAL):
        sys.exit(run_real(real, sys.argv[1:]))
    print(run(sys.argv[1:]))
