"""Tools, calls and thoughts of records, under the names of the public formats."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each

from tunesmith.data.formats.chat import conversation_from_chat, turns_from_chat
from tunesmith.data.formats.convert import records_of
from tunesmith.data.formats.fields import fields_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message, ToolCall

ARGUMENTS = {"city": "Zürich", "days": 3}
TEXT = json.dumps(ARGUMENTS, ensure_ascii=False)
CALL = ToolCall("get_weather", TEXT)
ASKED = {"role": "user", "content": "Rain?"}
TOOL = {"name": "get_weather", "description": "Weather", "parameters": {"type": "object"}}
WRAPPED = {"type": "function", "function": TOOL}


def chat_of(turn: dict[str, Any], **record: Any) -> Any:
    (conversation,) = conversation_from_chat({"messages": [ASKED, turn], **record})
    return conversation


def reply_of(turn: dict[str, Any]) -> Message:
    return chat_of({"role": "assistant", **turn}).messages[-1]


@each(
    "turn",
    [
        {"tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]},
        {"tool_calls": [{"function": {"name": "get_weather", "arguments": TEXT}}], "content": None},
        {"tool_calls": json.dumps([{"name": "get_weather", "arguments": ARGUMENTS}]), "content": ""},
        {"tool_calls": [{"name": "get_weather", "parameters": ARGUMENTS}]},
        {"function_call": {"name": "get_weather", "arguments": TEXT}, "content": None},
        {"role": "function_call", "content": json.dumps({"name": "get_weather", "arguments": ARGUMENTS})},
        {"role": "tool_call", "content": json.dumps([{"name": "get_weather", "arguments": ARGUMENTS}])},
        {"tool_calls": [json.dumps({"name": "get_weather", "arguments": ARGUMENTS})]},
        {
            "role": "function_call",
            "content": [
                {"type": "text", "text": json.dumps({"name": "get_weather", "arguments": ARGUMENTS})}
            ],
        },
        {
            "content": [
                {"type": "tool_call", "value": json.dumps({"name": "get_weather", "arguments": ARGUMENTS})}
            ]
        },
        {"content": [{"type": "tool_use", "name": "get_weather", "input": ARGUMENTS}]},
    ],
)
def test_calls_in_all_their_forms(turn: dict[str, Any]):
    assert reply_of(turn) == Message("assistant", "", calls=(CALL,))


@each("nothing", [None, "", " ", "null", "{}", {}, [], "[]"])
def test_a_call_without_arguments(nothing: Any):
    assert reply_of({"tool_calls": [{"name": "f", "arguments": nothing}]}).calls == (ToolCall("f"),)


def test_thoughts_before_the_call_of_a_turn_that_is_a_call():
    """As LLaMA-Factory has them: the thoughts in the text, the call after them."""
    call = json.dumps({"name": "get_weather", "arguments": ARGUMENTS})
    for text in (f"<think>\nIs it wet?\n</think>\n\n{call}", f"<think>Is it wet?</think>{call}"):
        found = reply_of({"role": "function_call", "content": text})
        assert found == reply_of(
            {"tool_calls": [json.loads(call)], "thinking": "Is it wet?", "content": None}
        )


@each(
    ("content", "text"),
    [
        ({"rain": True, "where": "Zürich"}, '{"rain": true, "where": "Zürich"}'),
        ([{"type": "house", "price": 7}], '[{"type": "house", "price": 7}]'),
        ([{"value": 3}], '[{"value": 3}]'),
        (["wet", "cold"], '["wet", "cold"]'),
        ([], "[]"),
        (7, "7"),
        (False, "false"),
        ("", ""),
        ([{"type": "text", "text": "wet"}], "wet"),
        ([{"text": "wet, "}, {"type": "text", "text": "cold"}], "wet, cold"),
    ],
)
def test_a_result_that_is_not_text_becomes_json_text(content: Any, text: str):
    for role in ("tool", "ipython"):
        turns = [ASKED, {"role": role, "content": content}, {"role": "assistant", "content": "Yes."}]
        record = fields_of({"messages": turns})
        (conversation,) = conversation_from_chat(record)
        assert conversation.messages[1] == Message("tool", text)
        assert list(record.unread()) == []


@each("part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "image"}, {"type": "input_audio"}])
def test_a_result_with_an_image_is_bad(part: dict[str, Any]):
    with pytest.raises(RecordProblem, match="only text can be used"):
        conversation_from_chat({"messages": [ASKED, {"role": "tool", "content": [part]}, ASKED]})


def test_turns_may_be_json_text():
    turns = [ASKED, {"role": "assistant", "content": "Yes.", "ts": 1}]
    record = fields_of({"messages": json.dumps(turns)})
    assert conversation_from_chat(record) == conversation_from_chat({"messages": turns})
    assert list(record.unread()) == ["messages[].ts"]
    for text, said in (("[{", "messages is text that is not JSON"), ("Rain?", "messages is a string, not a")):
        with pytest.raises(RecordProblem, match=said):
            conversation_from_chat({"messages": text})


def test_ids_and_names_tell_which_call_a_result_answers():
    call = {"id": "c1", "function": {"name": "get_weather", "arguments": {}}}
    result = {"role": "tool", "content": "wet", "tool_call_id": "c1", "name": "get_weather"}
    last = {"role": "assistant", "content": "Yes."}
    turns = [ASKED, {"role": "assistant", "content": "I look.", "tool_calls": [call]}, result, last]
    record = fields_of({"messages": turns, "tools": [WRAPPED]})
    (conversation,) = conversation_from_chat(record)
    assert conversation.messages[1] == Message(
        "assistant", "I look.", calls=(ToolCall("get_weather", "{}", "c1"),)
    )
    assert conversation.messages[2] == Message("tool", "wet", name="get_weather", call_id="c1")
    assert list(record.unread()) == []


@each(
    "tools",
    [[WRAPPED], [TOOL], json.dumps([TOOL]), json.dumps([WRAPPED]), [json.dumps(TOOL)]],
)
def test_tools_in_all_their_forms(tools: Any):
    found = chat_of({"role": "assistant", "content": "Yes."}, tools=tools).tools
    assert json.loads(found) == [WRAPPED]


@each("tools", [None, [], "[]", ""])
def test_no_tools(tools: Any):
    assert chat_of({"role": "assistant", "content": "Yes."}, tools=tools).tools == ""


@each(
    ("system", "shown"),
    [
        ('<tools>[{"name": "get_weather", "description": "Weather"}]</tools>', False),
        ("[{'name': 'get_weather'}]", False),
        ("Use get_weather where it helps.", True),  # a word is no description
        ("Be brief.", True),
        ('Answer so: {"name": "get_weather", "arguments": {"city": "Bern"}}', True),  # nor is an example
    ],
)
def test_tools_that_the_system_message_describes_are_not_shown_twice(system: str, shown: bool):
    turns = [{"role": "system", "content": system}, ASKED, {"role": "assistant", "content": "Yes."}]
    (conversation,) = conversation_from_chat({"messages": turns, "tools": [TOOL]})
    assert bool(conversation.tools) == shown


@each(
    ("record", "wanted"),
    [
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        ({"chat_template_kwargs": '{"enable_thinking": false, "x": 1}'}, {"enable_thinking": False, "x": 1}),
        ({"enable_thinking": True}, {"enable_thinking": True}),
        ({"template_kwargs": {"x": None}}, None),
    ],
)
def test_arguments_for_the_template(record: dict[str, Any], wanted: Any):
    found = chat_of({"role": "assistant", "content": "Yes."}, **record).arguments
    assert (json.loads(found) if found else None) == wanted


def test_a_question_with_the_calls_that_answer_it():
    answers = json.dumps([{"name": "get_weather", "arguments": ARGUMENTS}])
    record = fields_of({"id": 7, "query": "Rain?", "tools": json.dumps([TOOL]), "answers": answers})
    (conversation,) = conversation_from_chat(record)
    assert conversation.messages == (Message("user", "Rain?"), Message("assistant", "", calls=(CALL,)))
    assert json.loads(conversation.tools) == [WRAPPED]


@each(
    ("turn", "said"),
    [
        ({"tool_calls": [{"arguments": {}}]}, "messages[1].tool_calls[0].name is missing"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
         "messages[1].tool_calls[0].function.arguments is a list, not an object"),
        ({"tool_calls": [{"name": "f", "arguments": "{broken"}]}, "arguments is text that is not JSON"),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]}, "a key is repeated in one object"),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": 1e400}'}]}, "has a number that is too large"),
        ({"tool_calls": "no JSON"}, "messages[1].tool_calls is text that is not JSON"),
        ({"tool_calls": [7]}, "messages[1].tool_calls[0] is a number"),
        ({"content": [{"type": "tool_call"}]}, "messages[1].content[0] is null, not a call"),
        ({"content": [{"type": "tool_call", "value": '{"name": "f"}'}, {"type": "text", "text": "a"}]},
         "messages[1].content[1] is text after a call"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}]},
         "messages[1].content[1] is a thought after the reply has begun"),
        ({"content": [{"type": "reasoning"}]}, "messages[1].content[0].value is missing"),
        ({"content": [{"type": "tool_call", "value": '{"name": "f"}'}], "tool_calls": [{"name": "g"}]},
         "messages[1].content and its tool_calls both are calls"),
        ({"tool_calls": [{"name": "f"}], "function_call": {"name": "g"}}, "keep one of them"),
        ({"role": "function_call", "content": "f(1)"}, "messages[1].content is text that is not JSON"),
        ({"content": "<think>a</think>b", "thinking": "c"}, "both hold thoughts"),
        ({"thinking": "c"}, "messages[1].content is missing"),
        ({"content": "b", "thinking": ["c"]}, "messages[1].thinking is a list, not text"),
        ({"content": "b", "thinking": "c", "reasoning": "d"}, "differ; keep one of them"),
        ({"content": "b", "reasoning_details": [1]}, "reasoning_details cannot be used"),
        ({"content": "b", "tools": [TOOL]}, "messages[1].tools cannot be used: put them into the record"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(turn: dict[str, Any], said: str):
    with pytest.raises(RecordProblem) as caught:
        reply_of(turn)
    assert said in str(caught.value)


@each(
    ("record", "said"),
    [
        ({"tools": {"name": "f"}}, "tools is an object, not a list of tools"),
        ({"tools": [{"description": "no name"}]}, "tools[0].name is missing"),
        ({"tools": [TOOL], "functions": [{"name": "g"}]}, "tools and functions differ"),
        ({"tools": "[{"}, "tools is text that is not JSON"),
        ({"tools": "[" * 100_000}, "nested too deeply"),
        ({"chat_template_kwargs": {"messages": []}}, "messages cannot be set"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs is a list"),
        ({"enable_thinking": "yes"}, "must be true or false"),
        ({"documents": ["d"]}, "documents cannot be used"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(record: dict[str, Any], said: str):
    with pytest.raises(RecordProblem) as caught:
        chat_of({"role": "assistant", "content": "Yes."}, **record)
    assert said in str(caught.value)


def test_prompts_have_room_for_them_too():
    turns = [{"tool_calls": [{"name": "f"}]}, {"content": "b", "thinking": "c"}]
    record = {"messages": [ASKED, *({"role": "assistant", **turn} for turn in turns), ASKED]}
    ((_, calls, thinks, _),) = turns_from_chat(record)
    assert calls.calls == (ToolCall("f"),)
    assert thinks.content == "<think>\nc\n</think>\n\nb"


def test_what_is_converted_is_read_again_as_the_same():
    turns = [
        ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "name": "f", "arguments": ARGUMENTS}],
        },
        {"role": "tool", "content": "wet", "name": "f", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Yes.", "thinking": "It is wet.", "weight": 0},
        ASKED,
        {"role": "assistant", "content": "Yes."},
    ]
    record = {"messages": turns, "tools": [TOOL], "enable_thinking": False}
    (conversation,) = conversation_from_chat(record)
    (written,) = records_of(conversation, "openai")
    assert conversation_from_chat(written) == [conversation]
    for target in ("sharegpt", "alpaca"):
        with pytest.raises(RecordProblem, match="no place"):
            records_of(conversation, target)
