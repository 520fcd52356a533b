"""Write charts/tunesmith/README.md, the chart's values, from values.yaml: `make generate` calls it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "tunesmith"
PAGE = CHART / "README.md"
HEAD = """<!-- Generated from Chart.yaml and values.yaml by `make generate`; do not edit. -->
# The chart {name}

{description} Version {version}, for Kubernetes {kubeVersion}.

Install it with `helm upgrade --install tunesmith charts/tunesmith -n tunesmith-system
--create-namespace`, and check it with `helm test tunesmith -n tunesmith-system`. In the repository,
docs/install.md has prerequisites, CRDs, rights, upgrades and removal; docs/security.md and
docs/multitenancy.md what `allowed` does.

## Values

The schema in values.schema.json rejects unknown names and invalid types. values.yaml has examples.

| value | default | meaning |
|---|---|---|
"""
# Where a comment's prose ends and its example begins.
EXAMPLE = re.compile(r"- |\w+:$| {2,}")


class Value(NamedTuple):
    """One value: path, default as YAML (None for a group of values), and the comment above it."""

    path: str
    default: str | None
    meaning: str


def comment_above(lines: list[str], number: int) -> str:
    """Return the prose of the comment that ends just above a line."""
    first = number
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    prose = []
    for line in lines[first:number]:
        text = line.lstrip().removeprefix("#").removeprefix(" ")
        if EXAMPLE.match(text):
            break
        prose.append(text.strip())
    return " ".join(prose)


def values(node: yaml.MappingNode, lines: list[str], prefix: str = "") -> Iterator[Value]:
    """Yield each value below a node, in the file's order; a group with a comment before its values."""
    for key, child in node.value:
        path, meaning = f"{prefix}{key.value}", comment_above(lines, key.start_mark.line)
        if isinstance(child, yaml.MappingNode) and not child.flow_style:
            if meaning:
                yield Value(path, None, meaning)
            yield from values(child, lines, f"{path}.")
        else:
            yield Value(path, json.dumps(yaml.safe_load(yaml.serialize(child)), ensure_ascii=False), meaning)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def row(value: Value) -> str:
    """Return a row of the table, in which no cell ends it or begins a tag."""
    default = "" if value.default is None else f"`{value.default}`"
    cells = (f"`{value.path}`", default, value.meaning)
    return f"| {' | '.join(map(_plain, cells))} |\n"


def page() -> str:
    """Return the page."""
    chart: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (CHART / "values.yaml").read_text()
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return HEAD.format(**chart) + "".join(map(row, values(node, text.splitlines())))


if __name__ == "__main__":
    PAGE.write_text(page())
