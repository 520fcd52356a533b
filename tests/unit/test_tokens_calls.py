"""Calls read back from replies: what a template writes for calls is read as these, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each
from tests.fixtures.tokenizers import load_family
from tests.fixtures.tool_families import FAMILIES, load

from tunesmith.engines.reply_text import Endings
from tunesmith.tokens.calls import CallForm, with_calls
from tunesmith.tokens.conversation import Conversation, Message, ToolCall

pytestmark = pytest.mark.engine

NAMES = ("get_weather", "get_weather_now", "add")
TOOLS = json.dumps([{"type": "function", "function": {"name": name, "description": "D"}} for name in NAMES])
SEVERAL = ("hermes", "text_arguments", "bracketed")
"""Families whose templates write several calls in one reply."""
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Co"), exclude_characters="<>[]|"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.builds(
    lambda name, given: ToolCall(name, json.dumps(given, ensure_ascii=False)),
    st.sampled_from(NAMES),
    st.dictionaries(TEXTS, VALUES, max_size=3),
)


def sampled(name: str, reply: Message) -> str:
    """The reply's text as an engine returns it, if the model samples just what the template writes."""
    chat = load(name)
    conversation = Conversation((Message("user", "Rain?"), reply), tools=TOOLS)
    (sample,) = chat.samples(conversation, train_on="allAssistant", max_length=50_000)
    ids = [id_ for id_, weight in zip(sample.ids, sample.weights, strict=True) if weight]
    found = Endings(chat, []).reply(ids, len(ids))
    assert found is not None
    return found.text


def values(message: Message) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in message.calls]


@pytest.mark.parametrize("name", list(FAMILIES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_the_template_writes_is_read_again(name: str, data: st.DataObject) -> None:
    most = 3 if name in SEVERAL else 1
    reply = Message("assistant", "", calls=tuple(data.draw(st.lists(CALLS, min_size=1, max_size=most))))
    found = load(name).reply_message(sampled(name, reply), TOOLS)
    assert values(found) == values(reply)
    assert found.content == ""


@each(
    "text", ["It rains.", "", '{"name": "get_weather"', '{"name": "other", "arguments": {}}', "get_weather"]
)
@each("name", list(FAMILIES))
def test_other_replies_are_text(name: str, text: str) -> None:
    assert load(name).reply_message(text, TOOLS) == Message("assistant", text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(list(FAMILIES)))
def test_no_text_is_lost(text: str, name: str) -> None:
    found = load(name).reply_message(text, TOOLS)
    assert found.calls or found == Message("assistant", text)


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ADD = (ToolCall("add", '{"a": 1}'),)


@each(
    ("text", "content", "calls"),
    [
        (CALL, "", ADD),
        (f"I add.\n{CALL}", "I add.", ADD),
        (f"<think>\nHm.\n</think>\n\n{CALL}", "<think>\nHm.\n</think>", ADD),
        (f"{CALL}\n{CALL}\n", "", ADD * 2),
        ('<tool_call>{"name":"add","arguments":{"a":1}}</tool_call>', "", ADD),
        ('{"name": "add", "arguments": {"a": 1}}', "", ADD),
        ('[{"name": "add", "parameters": {"a": 1}}]', "", ADD),
        (f"{CALL} and so on", None, ()),
        (f"<tool_call>broken</tool_call>\n{CALL}", None, ()),
        (CALL.replace("1", "NaN"), None, ()),
        (CALL.replace('{"a": 1}', "[1]"), None, ()),
        (CALL.replace("add", "subtract"), None, ()),
    ],
)
def test_replies_of_a_family(text: str, content: str | None, calls: tuple[ToolCall, ...]) -> None:
    assert load("hermes").reply_message(text, TOOLS) == Message(
        "assistant", text if content is None else content, calls=calls
    )


def test_a_template_without_tools_has_no_form() -> None:
    chat = load_family("chatml")
    assert chat.call_form is None
    assert chat.reply_message("Hi", "") == Message("assistant", "Hi")


@each(
    ("form", "text"),
    [
        (CallForm("<c>", "|", None, "</c>", name_first=False), '<c>{"a": 1}|add</c>'),
        (
            CallForm('{"f": "', '", "arguments": ', None, "}", as_text=True),
            '{"f": "add", "arguments": "{\\"a\\": 1}"}',
        ),
    ],
)
def test_rare_forms(form: CallForm, text: str) -> None:
    assert with_calls(text, TOOLS, form).calls == ADD
