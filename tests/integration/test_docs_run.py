"""README and docs, word for word, in their order and in one folder: every block that needs no cluster.

The folder holds what somebody has who read that far: examples, `.venv`, what `make demo` leaves (three steps
of the tiny model in place of SmolLM2), the files that a page says to write, and data of the reader's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs_blocks import PAGES, blocks, files
from tests.support import (
    CODE,
    call_cli,
    chat_records,
    environment,
    logs_of,
    run_cli,
    with_positions,
    write_jsonl,
)

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUN = [block for page in PAGES for block in blocks(page) if block.here]
TREE = [
    {"message_id": "m", "parent_id": None, "role": "prompter", "text": "Rain?", "replies": []},
    {"message_id": "n", "parent_id": "m", "role": "assistant", "text": "Soon.", "replies": []},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A checkout as far as the pages need it."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    quickstart = folder / "examples/quickstart/finetune.yaml"
    quickstart.write_text(re.sub(r"Steps: (8|24)$", "Steps: 3", quickstart.read_text(), flags=re.MULTILINE))
    with_positions(tiny_model, folder / ".demo/model", 2048)
    shutil.copytree(folder / ".demo/model", folder / "my-model")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "bin").mkdir()
    (folder / "bin/tunesmith").write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(CODE)} "$@"\n')
    (folder / "bin/tunesmith").chmod(0o755)
    for page in PAGES:
        for name, text in files(page).items():
            (folder / name).write_text(text, "utf-8")
    own_data(folder)
    return folder


def own_data(folder: Path) -> None:
    """Write the reader's own data and configurations, as the pages name them."""
    write_jsonl(folder / "data/train.jsonl", chat_records(20))
    write_jsonl(folder / "train.jsonl", chat_records(4))
    lines = [{"source_title": "Act 1", "speaker": "Paimon", "text": f"Line {n}."} for n in range(3)]
    write_jsonl(folder / "lines/one.jsonl", lines)
    shutil.copy(ROOT / "examples/user-simulation/users.jsonl", folder / "users.jsonl")
    (folder / "novel.txt").write_bytes("今天下雨。\n\n街上没有人。\n".encode("gb18030"))
    (folder / "alpaca.json").write_text(json.dumps([{"instruction": "Say rain.", "output": "Rain."}]))
    tree = TREE[0] | {"replies": [TREE[1]]}
    write_jsonl(folder / "trees.jsonl", [{"message_tree_id": "m", "prompt": tree}])
    axolotl = (
        "base_model: ./my-model\ndatasets:\n  - path: ./train.jsonl\n    type: chat_template\nadapter: lora\n"
    )
    (folder / "axolotl.yml").write_text(axolotl + "output_dir: ./out\n")
    trl = (
        "trl sft --model_name_or_path ./my-model --dataset_name ./train.jsonl --use_peft --output_dir ./out\n"
    )
    (folder / "train.sh").write_text(trl)


def lines(text: str) -> list[str]:
    """Return the commands of a block, those on several lines as one."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def play(line: str, folder: Path) -> tuple[int, str]:
    """Give a line to a shell; what is a call of the command alone is called without one, which is faster."""
    words = shlex.split(line, comments=True)
    if words[0] != "tunesmith" or set(words) & {">", "|"}:
        path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=folder, env=environment(path), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
    call = run_cli if words[1] in ("run", "chat") else call_cli
    ended = call(*words[1:], folder=folder)
    return ended.code, ended.text


def demo() -> str:
    """Return the command of `make demo`."""
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    return recipe.split("\n", 1)[1].strip().replace("$(BIN)/", "")


def test_every_block_works_in_order(folder: Path) -> None:
    said = {}
    for text in [demo(), *(block.text for block in RUN)]:
        for line in lines(text):
            code, said[line] = play(line, folder)
            assert code == 0, f"{line}\n{said[line]}{logs_of(folder)}"
    assert len(RUN) >= 7
    trained = [text for line, text in said.items() if line.startswith("tunesmith run")]
    assert ["succeeded" in text for text in trained] == [True, True, False, False]
    assert ["already finished" in text for text in trained] == [False, False, True, True]
    previews = [text for line, text in said.items() if line.startswith("tunesmith preview")]
    assert ["256 records → 256 samples" in text for text in previews] == [True, False]
    assert ["To run this: tunesmith run" in text for text in previews] == [True, True]
    assert all(name in "".join(said.values()) for name in ("queue-name: research", "schemas/manifest.json"))


def test_what_a_command_prints_is_as_shown(tmp_path: Path) -> None:
    (block,) = [block for page in PAGES for block in blocks(page, "console") if not block.reason]
    command, *shown = block.text.splitlines()
    manifest = blocks("README.md", "yaml")[0].text.replace("name: quickstart", "name: demo")
    manifest = re.sub(r"method: .*", "method: full", manifest)
    manifest = re.sub(r"training: .*", "training: {max_epochs: 3}", manifest)
    (tmp_path / "job.yaml").write_text(manifest, "utf-8")
    ended = call_cli(*shlex.split(command.removeprefix("$ "))[1:], folder=tmp_path)
    assert ended.code == 2
    assert ended.text.splitlines() == shown
