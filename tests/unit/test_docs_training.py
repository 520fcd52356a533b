"""The manifests that docs/training.md shows are valid, and mean what it says."""

import re
from pathlib import Path

from tunesmith.api.checkpoints import checkpoint_problems, checkpoint_warnings, kept_steps
from tunesmith.api.manifest import parse_text
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text("utf-8")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_starting_from_a_checkpoint():
    text = section("Starting from a checkpoint")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    jobs, problems = parse_text(block, "docs/training.md")
    assert [str(problem) for problem in problems] == []
    assert checkpoint_problems(jobs) + checkpoint_warnings(jobs) == []
    first, second = jobs
    assert kept_steps(first.spec) == [100, 150, 200, 250, 300]
    uri = resolve(second, output_uris(jobs)).spec.model.uri
    assert f"model: {{uri: {uri}}}" in text
    assert uri in re.search(r"`tunesmith chat --model\s+(\S+)`", text)[1]
