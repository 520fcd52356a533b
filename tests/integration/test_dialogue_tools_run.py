"""A DialogueGenJob whose seeds have tools, as its pod does it, against a real HTTP server that calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_dialogue_job import job_in
from tests.standin.openai_rules import Response, Settings
from tests.standin.openai_stub import Stub
from tests.support import write_jsonl

TOOL = {"type": "function", "function": {"name": "rain", "description": "Is it wet"}}
CALL = {"id": "c00000001", "type": "function", "function": {"name": "rain", "arguments": {"at": 1}}}
SEED = {
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c00000001", "content": "wet"},
        {"role": "assistant", "content": "Yes."},
    ],
    "correction": "Yes, it rains.",
}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(Settings()) as server:
        yield server


def test_a_server_gets_tools_and_its_calls_are_kept(stub: Stub, tmp_path: Path) -> None:
    asked: list[Any] = []
    made = {"id": "c9", "type": "function", "function": {"name": "rain", "arguments": '{"at": 2}'}}

    def script(request: Any, before: int) -> Response | None:
        if "tools" not in request:
            return None
        asked.append(request)
        message = {"role": "assistant", "content": None, "tool_calls": [made]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
        return Response(200, {"model": "m", "choices": [choice], "usage": usage})

    stub.script(script)
    job = job_in(tmp_path, stub.url, rounds=2)
    write_jsonl(tmp_path / "seeds.jsonl", [{"id": f"s{at}", **SEED} for at in range(3)])
    job.finish()
    assert len(asked) == 3
    _, question, call, result, *_ = asked[0]["messages"]
    assert (question["content"], result["role"], result["content"]) == ("Rain?", "tool", "wet")
    assert call["tool_calls"][0]["function"]["arguments"] == '{"at": 1}'
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert asked[0]["tools"] == [TOOL]
    history = [json.loads(line) for line in job.store.read("round2/round2_history.jsonl").splitlines()]
    assert [record["rounds"][1]["answer"] for record in history] == [""] * 3
    (kept,) = history[0]["rounds"][1]["tool_calls"]
    assert (kept["id"], kept["function"]) == ("c9", {"name": "rain", "arguments": {"at": 2}})
    statistics = json.loads(job.store.read("stats.json"))
    assert (statistics["dialogues"]["finished"], statistics["dialogues"]["failed"]) == (3, 0)
    whole = json.loads(job.store.read("messages.jsonl").splitlines()[0])
    assert [turn["role"] for turn in whole["messages"]] == [
        "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
