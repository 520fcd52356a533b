"""The chart's README and what Artifact Hub reads."""

import re
from pathlib import Path

import yaml
from docs.generate_chart_readme import CHART, PAGE, Value, page, row, values

from tunesmith.api.manifest import parse_document
from tunesmith.names import API_VERSION, GROUP, PLURALS, Kind

EXAMPLE = """
# Whether.
# - like: this
on: true  # said above
group:
  # First
  # and second.
  a: {b: "|"}
  c: []

# All of it.
other:
  d: <x>
"""


def test_the_readme_is_as_generated():
    assert PAGE.read_text() == page(), "`make generate` writes it anew"


def test_values_are_read_with_their_comments():
    assert list(values(yaml.compose(EXAMPLE), EXAMPLE.splitlines())) == [
        Value("on", "true", "Whether."),
        Value("group.a", '{"b": "|"}', "First and second."),
        Value("group.c", "[]", ""),
        Value("other", None, "All of it."),
        Value("other.d", '"<x>"', ""),
    ]
    assert row(Value("a", '"|<"', "b")) == '| `a` | `"\\|&lt;"` | b |\n'


def test_every_value_has_a_row():
    def paths(node, prefix=""):
        for key, child in node.items():
            yield from (
                paths(child, f"{prefix}{key}.") if isinstance(child, dict) and child else [prefix + key]
            )

    rows = re.findall(r"^\| `([\w.]+)` \|", page(), re.MULTILINE)
    assert len(set(rows)) == len(rows)
    for path in paths(yaml.safe_load((CHART / "values.yaml").read_text())):
        assert any(path == one or path.startswith(f"{one}.") for one in rows), path


def annotations():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    found = {key.removeprefix("artifacthub.io/"): text for key, text in chart["annotations"].items()}
    return chart, found


def test_artifact_hub_gets_the_kinds_and_an_example_of_each():
    chart, found = annotations()
    said = {(one["kind"], one["name"], one["version"]) for one in yaml.safe_load(found["crds"])}
    assert said == {(str(kind), f"{PLURALS[kind]}.{GROUP}", API_VERSION.split("/")[1]) for kind in Kind}
    examples = yaml.safe_load(found["crdsExamples"])
    assert [parse_document(one, "Chart.yaml", 0).kind for one in examples] == list(Kind)
    for image in yaml.safe_load(found["images"]):
        assert image["image"] == f"{image['name']}:{chart['appVersion']}"


def test_the_repository_file_is_for_whoever_publishes():
    repository = Path(CHART).parent / "artifacthub-repo.yml"
    assert set(yaml.safe_load(repository.read_text())) <= {"repositoryID", "owners", "ignore"}
