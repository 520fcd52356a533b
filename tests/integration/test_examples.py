"""The commands of the examples' READMEs, run as written, with the tiny model in place of the demo's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.support import Ended, call_cli, logs_of, run_cli, with_positions

pytestmark = pytest.mark.slow
OUTPUTS = ".tunesmith/jobs/*/*/output/final_model"
EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = {"validate", "render", "data", "preview", "run"}
GENERATED = ("legal", "dialogue")


def commands(readme: Path) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("tunesmith ")]


def called(words: list[str], folder: Path, warm: bool = True) -> Ended:
    """Jobs by the command itself; whatever else there is in this process, which is much faster."""
    return run_cli(*words, folder=folder, warm=warm) if words[0] == "run" else call_cli(*words, folder=folder)


TRAINED = [readme for readme in sorted(EXAMPLES.glob("*/README.md")) if readme.parent.name not in GENERATED]


@pytest.mark.parametrize("readme", TRAINED, ids=lambda path: path.parent.name)
def test_the_commands_work(tmp_path: Path, tiny_model: Path, readme: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    shutil.copytree(tiny_model, tmp_path / ".demo/model")
    found = commands(readme)
    order = [words[0] for words in found]
    assert set(order) == COMMANDS
    said = {}
    for words in found:
        ended = called(words, tmp_path)
        assert ended.code == 0, shlex.join(words) + ended.text + logs_of(tmp_path)
        said[words[0]] = ended.text
    assert "is valid" in said["validate"]
    jobs = said["render"].count("kind: PyTorchJob")
    assert said["run"].count("succeeded") == jobs
    # Whatever a job starts from, an adapter is one over the original base.
    configs = [
        json.loads(path.read_text("utf-8")) for path in tmp_path.glob(f"{OUTPUTS}/adapter_config.json")
    ]
    assert [config["base_model_name_or_path"] for config in configs] == [f"{tmp_path}/.demo/model"] * jobs
    pages = [page.read_text("utf-8") for page in tmp_path.glob("page*.html")]
    assert ["what it trains on" in page for page in pages] == [True] * jobs
    # `run` has its data from S3. `preview` before it has files, which it prepares by itself.
    prepared = jobs if order.index("preview") > order.index("run") else 1 + jobs
    assert len(list((tmp_path / ".tunesmith/cache").glob("*/report.json"))) == prepared


def test_the_legal_pipeline_up_to_where_a_model_has_to_know_something(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The tiny model gets no judgement right, so the third job has nothing to learn from, and says so."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    shutil.copytree(tiny_model, tmp_path / ".demo/model")
    found = {words[0]: words for words in commands(EXAMPLES / "legal/README.md")}
    assert set(found) == COMMANDS
    for name in ("validate", "render", "data"):
        ended = called(found[name], tmp_path)
        assert ended.code == 0, ended.text
    ended = called(found["run"], tmp_path)
    assert ended.code == 2, ended.text + logs_of(tmp_path)
    assert "FineTuneJob legal-warm-up succeeded" in ended.text
    assert re.search(r"^0 of \d+ accepted \(\d+ \w+", ended.text, re.M)
    assert "FineTuneJob legal-judge failed: BadData: sampled_data.json: RejectionSampleJob legal-sample " in (
        ended.text
    )
    # Which of the two it is, the cap or a wrong judgement, is chance.
    assert re.search(r"accepted none of \d+ replies \(\d+ \w+.*\); \w+", ended.text)
    report = next(tmp_path.glob(".tunesmith/jobs/*/legal-sample-rsj/output/report.html"))
    assert re.search(r"truncated|rejected", report.read_text("utf-8"))


def test_dialogues_without_a_key(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    # It never comes to an end, so its replies are as long as they may be, and dialogues longer than its 512.
    with_positions(tiny_model, tmp_path / ".demo/model", 4096)
    said = []
    for words in commands(EXAMPLES / "dialogue/README.md"):
        ended = called(words, tmp_path, warm=False)
        assert ended.code == 0, shlex.join(words) + ended.text + logs_of(tmp_path)
        said.append(ended.text)
    assert "Dry run: nothing was sent" in said[1]
    assert "of 8 dialogues" in said[2]
    output = tmp_path / ".tunesmith/jobs/default/small-talk-dgj/output"
    assert len((output / "round1/round1_single_turn.jsonl").read_text("utf-8").splitlines()) == 8
    assert (output / "report.html").exists()
