"""docs/evaluation.md says what is there: valid manifests, sets that are read as shown, every label."""

import json
import re
from pathlib import Path

import yaml
from tests.manifests import parse_text

from tunesmith.api.datasets import PromptsSpec
from tunesmith.api.finetune import EvaluationSpec
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.legal import LABELS
from tunesmith.data.prompts.sets import find_sets

PAGE = (Path(__file__).resolve().parents[2] / "docs/evaluation.md").read_text()
AFTER_TRAINING, ALONE = [block.partition("```")[0] for block in PAGE.split("```yaml\n")[1:]]


def test_the_evaluation_is_valid():
    (given,) = yaml.safe_load(AFTER_TRAINING)["evaluation"]
    assert EvaluationSpec.model_validate(given).sampling.num_samples == 1


def test_the_manifest_without_training_is_valid():
    jobs, problems = parse_text(ALONE, "docs/evaluation.md")
    assert [str(problem) for problem in problems] == []
    assert jobs[0].spec.method.none is not None


def test_the_folder_of_sets_is_read_as_it_is_shown(tmp_path):
    """The lines of the page with each file's content, where it has one."""
    layout = next(block for block in PAGE.split("```")[1::2] if block.strip().startswith("lawshift/"))
    folder = tmp_path
    for line in layout.strip().splitlines():
        name, _, content = line.strip().partition(" ")
        if name.endswith("/"):
            folder = folder / name
            folder.mkdir()
        else:
            shown = content.strip()
            (folder / name).write_text(shown if name == "label.json" else json.dumps([{}]))
    legal = {
        "articlesUri": f"file://{tmp_path}/lawshift/articles_original.json",
        "changedArticlesUri": f"file://{tmp_path}/lawshift/articles_poisoned.json",
    }
    asked = PromptsSpec.model_validate({"uri": f"file://{tmp_path}/lawshift", "legalJudgement": legal})
    found = find_sets(*find_files(asked.uri, StorageOptions()), asked)
    assert [(each.name, each.label, len(each.entries)) for each in found.sets] == [("term_up", "TU", 1)]
    assert found.left_out == ()


def test_every_label_has_its_line():
    assert tuple(re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)) == LABELS
