"""Prompts are the same whether one process makes them or several, whatever is in their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.tokenizers import build_backend, template_of
from tests.fixtures.tool_families import FAMILIES
from tests.support import write_jsonl

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data import tokenizer_pool
from tunesmith.data.prompts import encode
from tunesmith.data.prompts.load import Prompts, prepare_prompts
from tunesmith.tokens.chat import ChatTokenizer

pytestmark = pytest.mark.engine

TOOLS = [{"name": "rain", "description": "Is it wet"}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "rain", "arguments": {"at": 1}}]}


def record(number: int) -> dict[str, Any] | str:
    asked = {"role": "user", "content": f"What is {number}? " * (1 + number % 7)}
    match number % 10:
        case 3:
            return {"messages": [asked, CALL, {"role": "tool", "content": "wet"}], "tools": TOOLS}
        case 5:
            return {"messages": [{"role": "user", "content": f"{number} <|im_end|>"}]}
        case 6:
            return "{"
        case 7:
            return {"messages": [{"role": "user", "content": "Equal?"}]}
        case 8:
            return {"messages": [{"role": "assistant", "content": "No question."}]}
    return {"id": f"r{number}", "messages": [asked]}


def made(folder: Path, name: str, tokenizer: ChatTokenizer, workers: int) -> Prompts:
    spec = PromptsSpec.model_validate(
        {"uri": (folder / "prompts.jsonl").as_uri(), "chat": {}, "maxBadRecords": 1000}
    )
    return prepare_prompts(spec, tokenizer, StorageOptions(), folder / name, workers=workers)


def test_two_workers_write_the_same_prompts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_backend(FAMILIES["hermes"])
    tokenizer.chat_template = template_of(FAMILIES["hermes"])
    tokenizer.save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", [record(number) for number in range(300)])
    chat = ChatTokenizer.load(tmp_path / "model")
    one = made(tmp_path, "one", chat, 1)
    monkeypatch.setattr(tokenizer_pool, "WORTH_HELP", 0)
    monkeypatch.setattr(encode, "BATCH", 2_000)
    helped = []
    pool = tokenizer_pool.TokenizerPool
    submit = pool._submit
    monkeypatch.setattr(pool, "_helped", lambda self: self._starting.join() is None)
    monkeypatch.setattr(pool, "_submit", lambda self, *work: (helped.append(1), submit(self, *work))[1])
    two = made(tmp_path, "two", chat, 2)
    assert len(helped) > 3
    assert one.digest == two.digest
    assert one.facts == two.facts
    assert (one.facts["bad"], one.facts["equal"], len(one)) == (90, 29, 210)
    assert [(each.ids, each.messages, each.tools) for each in one] == [
        (each.ids, each.messages, each.tools) for each in two
    ]
    assert json.loads(one[3].tools)[0]["function"]["name"] == "rain"
