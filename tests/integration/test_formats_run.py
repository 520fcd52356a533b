"""One job that mixes user simulation, a character and sampled replies, by the real command."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.support import Ended, call_cli, finetune, logs_of, run_job, write_jsonl

from tunesmith.data.prompts.presets import read_presets
from tunesmith.data.table import Table
from tunesmith.tokens.chat import ChatTokenizer

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
USERS = EXAMPLES / "user-simulation" / "users.jsonl"
SETTINGS = EXAMPLES / "character" / "settings.jsonl"
CASES = {
    "What is 2 + 2?": ["4", "It is four."],
    "What is 2 + 3?": ["5"],
    "What is 3 + 3?": ["6", "Six!", "VI"],
}
EOT = "<|im_end|>"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def said_by(user: dict[str, Any]) -> list[str]:
    """All that the user answers, the continuations among it."""
    (collection,) = user["task"]["task_behavior_collections"]
    said = []
    for item in collection["data"]:
        said += [turn["content"] for turn in item["context"] if turn["source"] == "user"]
        said.append(item["continuation"])
    return said


ANSWERS = [said_by(user) for user in lines(USERS)]
WEIGHTS = (
    {reply: 1.0 for said in ANSWERS for reply in said}
    | {record["text"]: 1.0 for record in lines(SETTINGS)}
    | {reply: 1 / len(replies) for replies in CASES.values() for reply in replies}
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def document(home: Path, tiny_model: Path) -> dict[str, Any]:
    sampled = [
        {
            "id": f"case-{number}",
            "sample_index": index,
            "prompt": [{"role": "user", "content": question}],
            "response": reply,
            "num_correct_for_this_sample": len(replies),
        }
        for number, (question, replies) in enumerate(CASES.items())
        for index, reply in enumerate(replies)
    ]
    users = {"expand": True, "ablationConfig": "profile_and_history_and_context"}
    character = {"name": "Tamsin Oake", "backgroundKeys": ["Profile"]}
    return finetune(
        "mixed",
        model=tiny_model,
        data=USERS,
        output=home / "out",
        datasets=[
            {"uri": f"file://{USERS}", "userSimulation": users},
            {"uri": f"file://{SETTINGS}", "character": character, "repeat": 1.5},
            {"uri": f"file://{write_jsonl(home / 'sampled.jsonl', sampled)}", "sampled": {}},
        ],
        validation={"ratio": 0.25},
        training={"maxSteps": 4, "packing": "none", "maxLength": 512},
    )


@pytest.fixture(scope="module")
def done(home: Path, document: dict[str, Any]) -> Ended:
    ended = run_job(home, document)
    assert ended.code == 0, ended.text + logs_of(home)
    return ended


def cached(home: Path) -> Path:
    """The one folder of prepared samples."""
    (report,) = (home / ".tunesmith/cache").glob("*/report.json")
    return report.parent


def texts(table: Table, tokenizer: ChatTokenizer) -> list[tuple[str, list[tuple[str, float]]]]:
    """Each sample as text, with its labels: runs of equal weight and what they say."""
    found = []
    for index in range(len(table)):
        sample = table.sample(index)
        pairs = zip(sample.weights, sample.ids, strict=True)
        runs = [(weight, [id_ for _, id_ in run]) for weight, run in groupby(pairs, lambda pair: pair[0])]
        labels = [(tokenizer.tokenizer.decode(ids), weight) for weight, ids in runs if weight]
        found.append((tokenizer.tokenizer.decode(sample.ids), labels))
    return found


@pytest.fixture(scope="module")
def sides(home: Path, done: Ended, tiny_model: Path) -> dict[str, Any]:
    """Texts and labels of what is learned and of what is judged."""
    tokenizer = ChatTokenizer.load(tiny_model)
    return {name: texts(Table(cached(home) / name), tokenizer) for name in ("train", "validation")}


def test_the_report_counts_each_dataset(home: Path, done: Ended) -> None:
    result = json.loads((home / "out/result.json").read_text("utf-8"))
    users, character, _ = result["datasets"]
    assert [(each["records"], each["samples"], each["bad"]) for each in result["datasets"]] == [
        (8, sum(map(len, ANSWERS)), 0),
        (9, 9, 0),
        (6, 6, 0),
    ]
    assert (users["users"], character["users"]) == (8, 0)
    held_out = [each["validation_samples"] for each in result["datasets"]]
    assert 0 < sum(held_out) < sum(each["samples"] for each in result["datasets"])
    trained = character["samples"] - character["validation_samples"]
    assert character["seen_samples"] == trained + round(trained / 2)
    assert users["seen_samples"] == users["samples"] - users["validation_samples"]
    assert sum(each["share"] for each in result["datasets"]) == pytest.approx(1)
    assert result["steps"] == 4


def test_labels_are_the_replies_only(sides: dict[str, Any]) -> None:
    seen = []
    for _, labels in sides["train"] + sides["validation"]:
        ((text, weight),) = labels  # every reply is a sample of its own
        assert text.endswith(EOT)
        reply = text.removesuffix(EOT)
        assert weight == pytest.approx(WEIGHTS[reply])
        seen.append(reply)
    replies = [reply for said in ANSWERS for reply in said]
    replies += [record["text"] for record in lines(SETTINGS)]
    assert sorted(seen) == sorted(replies + [reply for said in CASES.values() for reply in said])


def test_a_user_and_a_case_are_on_one_side(sides: dict[str, Any]) -> None:
    learned, judged = (
        {labels[0][0].removesuffix(EOT) for _, labels in sides[side]} for side in ("train", "validation")
    )
    for together in [*ANSWERS, *CASES.values()]:
        assert set(together) <= learned or set(together) <= judged
    assert any(set(said) <= judged for said in ANSWERS)


def test_no_prompt_gives_away_what_is_judged(sides: dict[str, Any]) -> None:
    shown = "\n".join(text for text, _ in sides["train"])
    assert "[History]" in shown
    for text, ((label, _),) in sides["validation"]:
        reply = label.removesuffix(EOT)
        assert f"\n{reply}\n" not in shown
        history = re.search(r"\[History\]\n(.*?)<\|im_end\|>", text, re.DOTALL)
        assert history is None or reply not in history[1].splitlines()


def test_the_first_samples_are_published(home: Path, done: Ended) -> None:
    text = (home / "out/training_samples_preview.txt").read_text("utf-8")
    shown = re.findall(
        r"^--- sample \d: (\w+)\.jsonl, .*, weight (?:1/)?(\d), (once|2 times)", text, re.MULTILINE
    )
    assert [file for file, _, _ in shown] == ["users"] * 3 + ["settings"] * (len(shown) - 6) + ["sampled"] * 3
    marked = re.findall(r"«(.*?)»", text, re.DOTALL)
    assert [1 / int(n) for _, n, _ in shown] == [WEIGHTS[each.removesuffix(EOT)] for each in marked]
    page = (home / "out/report.html").read_text("utf-8")
    for kind in ("user simulation", "background", "settings question", "sampled"):
        (heading,) = re.findall(
            rf"^=== (.*, {kind}: the first 3 of \d+ samples|.*, {kind}: \d samples?)", text, re.MULTILINE
        )
        assert heading in page


def test_how_the_model_was_asked_is_published(home: Path, done: Ended) -> None:
    names = [preset.name for preset in read_presets(home / "out/final_model")]
    assert sorted(names) == ["background", "imitation-without-scene", "settings", "user"]
    card = (home / "out/final_model/README.md").read_text("utf-8")
    assert "### settings\n\nTamsin Oake: answers a question" in card
    assert "arning" not in done.text
    ended = call_cli("chat", "--model", home / "out/final_model", folder=home)
    assert ended.code == 2
    assert all(f"  --as {name}: " in ended.text for name in [*names, "none"])


def test_a_second_job_over_the_same_data_prepares_nothing(
    home: Path, document: dict[str, Any], done: Ended
) -> None:
    folder = cached(home)
    made = {path: path.stat().st_mtime_ns for path in (folder / "train").iterdir()}
    again = json.loads(json.dumps(document))
    again["metadata"]["name"] = "mixed-again"
    again["spec"]["output"]["uri"] = f"file://{home / 'out2'}"
    again["spec"]["training"] |= {"maxSteps": 1, "learningRate": 1e-4}
    ended = run_job(home, again)
    assert ended.code == 0, ended.text + logs_of(home)
    assert cached(home) == folder
    assert {path: path.stat().st_mtime_ns for path in made} == made
    first, second = (
        json.loads((home / name / "result.json").read_text("utf-8"))["datasets"] for name in ("out", "out2")
    )
    assert first == second
