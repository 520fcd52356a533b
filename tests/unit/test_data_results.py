"""Calls and results among the parts of turns, as Anthropic has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cases import each

from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.fields import fields_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message, ToolCall

ANSWERED = {"role": "assistant", "content": "Yes."}


def test_calls_and_results_as_anthropic_has_them():
    """Thoughts, text and a call in one turn; results and what the user says in another."""
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Two towns."},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "rain", "input": {"in": "Bern"}},
            {"type": "tool_use", "id": "toolu_2", "name": "rain", "input": {"in": "Chur"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "dry"},
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "wet"}]},
            {"type": "text", "text": "So?"},
        ]},
        {"role": "assistant", "content": "In Bern."},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
        {"role": "assistant", "content": "Good."},
    ]  # fmt: skip
    schema = {"type": "object", "properties": {"in": {"type": "string"}}}
    record = fields_of({"messages": turns, "tools": [{"name": "rain", "input_schema": schema}]})
    (found,) = conversation_from_chat(record)
    assert found.messages == (
        Message("user", "Rain?"),
        Message("assistant", "<think>\nTwo towns.\n</think>\n\nI look.", calls=(
            ToolCall("rain", '{"in": "Bern"}', "toolu_1"), ToolCall("rain", '{"in": "Chur"}', "toolu_2"),
        )),
        Message("tool", "dry", call_id="toolu_2"),
        Message("tool", "wet", call_id="toolu_1"),
        Message("user", "So?"),
        Message("assistant", "In Bern."),
        Message("tool", "", call_id="toolu_1"),
        Message("assistant", "Good."),
    )  # fmt: skip
    function = {"name": "rain", "parameters": schema}
    assert json.loads(found.tools) == [{"type": "function", "function": function}]
    assert list(record.unread()) == []


@each(
    ("parts", "said"),
    [
        ([{"type": "text", "text": "So?"}, {"type": "tool_result", "content": "wet"}],
         "messages[0].content[1] is a result after text"),
        ([{"type": "tool_result", "content": [{"type": "image"}]}],
         'messages[0].content[0].content[0] is of type "image"; only text can be used'),
        ([{"type": "tool_result", "content": "wet"}, {"type": "image"}],
         'messages[0].content[1] is of type "image"; only text can be used'),
    ],
)  # fmt: skip
def test_results_that_cannot_be_used_are_named(parts: list[Any], said: str):
    with pytest.raises(RecordProblem) as caught:
        conversation_from_chat({"messages": [{"role": "user", "content": parts}, ANSWERED]})
    assert said in str(caught.value)
