"""`helm` as far as README and docs use it, by Helm's own engine, for machines without the program.

`python -m tests.cluster.helm_command upgrade …`. What the pages do not use is refused.
"""

import argparse
import os
from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands and options that the pages use."""
    found = argparse.ArgumentParser(prog="helm", allow_abbrev=False)
    commands = found.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("upgrade", allow_abbrev=False)
    upgrade.add_argument("--install", action="store_true")
    upgrade.add_argument("--create-namespace", action="store_true")
    upgrade.add_argument("--reuse-values", action="store_true")
    upgrade.add_argument("--set", action="append", default=[])
    uninstall = commands.add_parser("uninstall", allow_abbrev=False)
    for command in (upgrade, uninstall):
        command.add_argument("name")
        command.add_argument("-n", "--namespace", default="default")
    upgrade.add_argument("chart")
    return found


def run(words: Sequence[str]) -> str:
    """Do what the words say; return what Helm prints at the end."""
    import helm_python

    asked = parser().parse_args(words)
    with helm_python.Config(namespace=asked.namespace, kubeconfig_path=os.environ["KUBECONFIG"]) as config:
        if asked.command == "uninstall":
            config.uninstall(asked.name)
            return f'release "{asked.name}" uninstalled'
        values = helm_python.parse_set_string(",".join(asked.set))
        there = [one for one in config.list(all_states=True) if one["name"] == asked.name]
        if there or not asked.install:
            done = config.upgrade(asked.chart, asked.name, values, reuse_values=asked.reuse_values)
        else:
            done = config.install(asked.chart, asked.name, values, create_namespace=asked.create_namespace)
        return f"{done['name']}: {done['status']}\n{done.get('notes', '')}"


if __name__ == "__main__":
    import sys

    print(run(sys.argv[1:]))
