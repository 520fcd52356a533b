"""The manifests that docs/training.md shows are valid, and mean what it says."""

import json
import re
from pathlib import Path

import numpy as np
from admission import change_refusals
from good_manifests import FINE_TUNE
from tests.fixtures.steps import write_table
from tests.manifests import parse_text

from tunesmith.api.checkpoints import checkpoint_problems, checkpoint_warnings, kept_steps
from tunesmith.api.crd import crd
from tunesmith.names import Kind
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve
from tunesmith.tokens.conversation import Sample
from tunesmith.training import loss as loss_module
from tunesmith.training.weighting import denominator, token_weights

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


def test_the_examples_of_the_loss(tmp_path):
    """With the weights of messages, as the code counts them; the formulas are those of the code's file."""
    text = section("The loss")
    samples = [Sample([1, 2, 3, 4], [0, 0.5, 0.5, 1.0]), Sample([1, 5], [0, 1.0])]
    losses = [np.array([0, 1.0, 3.0, 2.0]), np.array([0, 4.0])]
    table = write_table(tmp_path / "table", samples)
    for reduction in ("tokenMean", "sampleMean"):
        weights = [token_weights(table.weights(number), reduction) for number in (0, 1)]
        summed = sum(float((each * loss).sum()) for each, loss in zip(weights, losses, strict=True))
        made = summed / denominator(table, np.array([0, 1]), reduction)
        assert re.search(rf"`{reduction}`\s[^`]* = {made:.3f}\b", text), (reduction, made)
    formulas = re.findall(r"^    (L = .*?)  +", text, re.MULTILINE)
    assert len(formulas) == 2
    assert all(formula in (loss_module.__doc__ or "") for formula in formulas)
    assert all("m_st" in formula.partition(" / Σ")[2] for formula in formulas)


def test_another_number_of_processes_on_a_cluster():
    """The API server takes both patches, one after the other, and not the second while the job runs."""
    found = re.findall(r"-p '(.*)'$", section("Another number of processes"), re.MULTILINE)
    first, second = (json.loads(text)["spec"] for text in found)
    runs = {**FINE_TUNE["spec"], "resources": {"nodes": 4}}
    stands = {**runs, "run": first["run"]}
    resumes = {**runs, "run": first["run"] | second["run"], "resources": second["resources"]}
    definition = crd(Kind.FINE_TUNE)
    assert change_refusals(definition, runs, stands) == []
    assert change_refusals(definition, stands, resumes) == []
    assert change_refusals(definition, runs, resumes) == [".resources"]
