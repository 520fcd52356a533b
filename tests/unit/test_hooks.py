"""The hooks of .pre-commit-config.yaml do what the Makefile does."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
MAY_WRITE = {"ruff check --fix": "ruff check", "ruff format": "ruff format --check"}


ENTRIES = [hook["entry"] for hook in HOOKS]


def recipe(target):
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    return [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in lines[1].splitlines()]


def test_the_hooks_run_what_lint_runs():
    tools = [
        hook["entry"].removeprefix(".venv/bin/") for hook in HOOKS if not hook["entry"].startswith("make ")
    ]
    assert [MAY_WRITE.get(tool, tool) for tool in tools] == recipe("lint")


def test_the_other_hooks_are_targets():
    targets = [entry.removeprefix("make ") for entry in ENTRIES if entry.startswith("make ")]
    assert targets == ["generate"]
    assert recipe("generate")


def test_nothing_is_fetched_for_a_hook():
    assert {hook["language"] for hook in HOOKS} == {"system"}
