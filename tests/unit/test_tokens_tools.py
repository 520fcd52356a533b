"""Tools, calls and thoughts: the template's own rendering, calls as labels, nothing lost in silence."""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.tokenizers import FAMILIES, label_runs, load_family, unbounded, with_template
from tests.fixtures.tool_families import FAMILIES as TOOL_FAMILIES
from tests.fixtures.tool_families import load

from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Message, Sample, ToolCall
from tunesmith.tokens.thoughts import with_thought

pytestmark = pytest.mark.engine

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TOOLS = json.dumps([WEATHER])
ASKED, RESULT = Message("user", "Rain?"), Message("tool", "wet")
CALL = ToolCall("get_weather", '{"city": "Bern"}')
CALLS = Message("assistant", "", calls=(CALL,))
THINKS = Message("assistant", with_thought("It is wet.", "Yes, rain."))


def samples_of(chat: ChatTokenizer, *messages: Message, **fields) -> list[Sample]:
    conversation = Conversation(messages, **{"tools": TOOLS, **fields})
    return chat.samples(conversation, train_on="allAssistant", max_length=20_000)


def labels(chat: ChatTokenizer, samples: list[Sample]) -> list[str]:
    return [chat.decode(s.ids[start:end]) for s in samples for start, end in label_runs(s)]


@each(
    ("name", "wanted"),
    [
        ("hermes", ['<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
                    "<|im_end|>",
                    "<think>\nIt is wet.\n</think>\n\nYes, rain.<|im_end|>"]),
        ("json_call", ['{"name": "get_weather", "parameters": {"city": "Bern"}}<|eot_id|>',
                       "<think>\nIt is wet.\n</think>\n\nYes, rain.<|eot_id|>"]),
        ("text_arguments", ['<Call>get_weather\n{"city": "Bern"}</Call></s>',
                            "<think>\nIt is wet.\n</think>\n\nYes, rain.</s>"]),
        ("channels", [" to=functions.get_weather<|channel|>commentary json<|message|>"
                      '{"city": "Bern"}<|call|>',
                      "<|channel|>analysis<|message|>It is wet.<|end|><|start|>assistant<|channel|>final"
                      "<|message|>Yes, rain.<|return|>"]),
        ("bracketed", ['[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Bern"}, '
                       '"id": "000000001"}]</s>',
                       "<think>\nIt is wet.\n</think>\n\nYes, rain.</s>"]),
    ],
    ids=list(TOOL_FAMILIES),
)  # fmt: skip
def test_calls_and_thoughts_are_labels_as_the_template_writes_them(name: str, wanted: list[str]):
    chat = load(name)
    samples = samples_of(chat, ASKED, CALLS, RESULT, THINKS)
    assert labels(chat, samples) == wanted
    text = chat.decode(samples[-1].ids)
    assert "Weather of a city" in text
    assert "wet" in text


@each("name", list(TOOL_FAMILIES))
def test_the_prompt_is_that_of_inference(name: str):
    chat = load(name)
    (first, *_) = samples_of(chat, ASKED, CALLS)
    start, _ = label_runs(first)[0]
    with unbounded():
        told = chat.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Rain?"}], tools=[WEATHER], add_generation_prompt=True
        )["input_ids"]
    assert first.ids[:start] == list(told)


@each(
    ("name", "thinks"),
    [
        ("hermes", "Yes, rain.<|im_end|>"),
        ("channels", "Yes, rain.<|return|>"),
        ("bracketed", "Yes, rain.</s>"),
    ],
)
def test_thoughts_as_context_are_seen_and_not_learned(name: str, thinks: str):
    chat = load(name)
    (learned,) = samples_of(chat, ASKED, THINKS)
    (context,) = samples_of(chat, ASKED, THINKS, learn_thoughts=False)
    assert context.ids == learned.ids
    assert labels(chat, [context]) == [thinks]


def test_a_turn_that_thinks_and_calls_may_have_its_thoughts_as_context():
    chat = load("hermes")
    turn = replace(CALLS, content=with_thought("I must look.", ""))
    (sample,) = samples_of(chat, ASKED, turn, learn_thoughts=False)
    (label,) = labels(chat, [sample])
    assert label.startswith("<tool_call>")
    assert "I must look." in chat.decode(sample.ids)


@each(
    ("fields", "ends"),
    [
        ({"arguments": '{"enable_thinking": false}'}, "assistant\n<think>\n\n</think>\n\n"),
        ({"arguments": '{"enable_thinking": true}'}, "assistant\n"),
        ({"arguments": '{"a_name_of_no_template": 1}'}, "assistant\n"),
    ],
)
def test_a_records_arguments_count_where_the_template_knows_them(fields: dict, ends: str):
    chat = load("hermes")
    prompt = chat.given("", fields["arguments"]).prompt_text([ASKED])
    assert prompt.endswith(ends)


def test_no_context_is_cut_to_one_without_the_tools():
    """A template that shows them before the question shows none once the question is cut off."""
    chat, long = load("bracketed"), Message("tool", "wet and cold " * 60)
    talk = (ASKED, CALLS, long, CALLS, RESULT, THINKS)
    (whole, *_) = samples_of(chat, *talk)
    for length in range(100, len(whole.ids), 40):
        conversation = Conversation(talk, tools=TOOLS)
        try:
            samples = chat.samples(conversation, train_on="lastAssistant", max_length=length)
        except RecordError:
            continue
        assert all("Weather of a city" in chat.decode(sample.ids) for sample in samples)


@each("name", [family.name for family in FAMILIES])
def test_a_template_that_shows_no_tools_makes_bad_records(name: str):
    chat = load_family(name)
    for fields in ({}, {"tools": ""}):
        with pytest.raises(RecordError) as caught:
            samples_of(chat, ASKED, CALLS, **fields)
        assert any(word in str(caught.value) for word in ("tools", "get_weather", "nothing of an assistant"))


@each(
    ("messages", "said"),
    [
        ((ASKED, replace(CALLS, calls=(CALL, CALL))), "one call at a time"),
        ((ASKED, replace(CALLS, content="I look.")), "cuts"),
        ((ASKED, replace(CALLS, calls=(ToolCall("<|eot_id|>"),))), "control tokens"),
    ],
)
def test_what_a_template_cannot_show_is_named(messages: tuple[Message, ...], said: str):
    with pytest.raises(RecordError, match=said):
        samples_of(load("json_call"), *messages)


# --- Any conversation: all of it is in the samples, or the record is bad ------------------------------------

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co", "Cc"]), min_size=1, max_size=12)
_VALUE = st.recursive(
    _TEXT | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=2)
)
_CALL = st.builds(
    ToolCall, st.sampled_from(["get_weather", "book"]),
    st.dictionaries(_TEXT, _VALUE, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False)),
)  # fmt: skip
_REPLY = st.builds(
    lambda thought, answer, calls: Message("assistant", with_thought(thought, answer), calls=tuple(calls)),
    st.just("") | _TEXT, st.just("") | _TEXT, st.lists(_CALL, max_size=2),
)  # fmt: skip
_TURNS = st.lists(st.tuples(_TEXT, _REPLY, _TEXT), min_size=1, max_size=3)


def _leaves(value: object) -> list[str]:
    match value:
        case dict():
            return [*value, *(leaf for inner in value.values() for leaf in _leaves(inner))]
        case list():
            return [leaf for inner in value for leaf in _leaves(inner)]
        case str():
            return [value]
    return []


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).split())  # as some tokenizers have it


def _is_in(text: str, whole: str) -> bool:
    forms = (text, json.dumps(text, ensure_ascii=False)[1:-1])
    return any(_squeezed(form) in _squeezed(whole) for form in forms)


_LOADS = dict.fromkeys(TOOL_FAMILIES, load) | {family.name: load_family for family in FAMILIES}


@settings(max_examples=150, deadline=None)
@given(turns=_TURNS, name=st.sampled_from(list(_LOADS)), tools=st.sampled_from(["", TOOLS]))
def test_all_of_a_conversation_is_in_its_samples_or_it_is_bad(turns, name: str, tools: str):
    """With thoughts, calls and tools, in every family: those that show no tools have bad records only."""
    messages: list[Message] = []
    for asked, reply, result in turns:
        messages += [Message("user", asked), reply]
        messages += [Message("tool", result) for _ in reply.calls]
    chat = _LOADS[name](name)
    try:
        samples = samples_of(chat, *messages, tools=tools)
    except RecordError:
        return
    assert name in TOOL_FAMILIES or not (tools or any(message.calls for message in messages))
    learned, seen = "".join(labels(chat, samples)), chat.decode(samples[-1].ids)
    replies = [message for message in messages if message.role == "assistant"]
    assert sum(len(label_runs(sample)) for sample in samples) == len(replies)
    for reply in replies:
        for text in reply.content.replace("<think>", "</think>").split("</think>"):
            assert _is_in(text.strip(), learned)
        for call in reply.calls:
            assert all(_is_in(text, learned) for text in [call.name, *_leaves(json.loads(call.arguments))])
    last = max(at for at, message in enumerate(messages) if message.role == "assistant")
    assert all(_is_in(m.content.strip(), seen) for m in messages[:last] if m.role in ("user", "tool"))
    assert not tools or "Weather of a city" in seen


_ID = st.sampled_from(["", "x", "abcdefghi", "call_0123456789abcdef"])
_RESULT = _TEXT | _TEXT.map(lambda text: f"<tool_response>\n{text}\n</tool_response>")


@settings(max_examples=100, deadline=None)
@given(data=st.data(), turns=_TURNS, name=st.sampled_from(list(_LOADS)), tools=st.sampled_from(["", TOOLS]))
def test_ids_and_names_in_any_order_lose_nothing_and_context_changes_no_token(data, turns, name, tools):
    messages: list[Message] = []
    for asked, reply, _ in turns:
        calls = tuple(replace(call, id=data.draw(_ID)) for call in reply.calls)
        messages += [Message("user", asked), replace(reply, calls=calls)]
        for call in data.draw(st.permutations(calls)):
            named = data.draw(st.sampled_from(["", call.name])), data.draw(st.sampled_from(["", call.id]))
            messages.append(Message("tool", data.draw(_RESULT), 1.0, (), *named))
    chat = _LOADS[name](name)
    try:
        learned = samples_of(chat, *messages, tools=tools)
        context = samples_of(chat, *messages, tools=tools, learn_thoughts=False)
    except RecordError as error:
        if "cannot be traced" in error.message:  # not for ids or names, which are no texts
            raise
        return
    assert [sample.ids for sample in learned] == [sample.ids for sample in context]
    pairs = zip(learned, context, strict=True)
    assert all(less in (0, more) for a, b in pairs for more, less in zip(a.weights, b.weights, strict=True))


def test_many_tools_are_no_more_than_a_template_may_take():
    """What a rendering may take grows with the tools as it does with the messages."""
    many = [
        {"type": "function", "function": {"name": f"f{n}", "description": "x" * 2000}} for n in range(3000)
    ]
    assert len(load("hermes").given(json.dumps(many)).prompt_text([ASKED])) > 6_000_000


def test_a_token_that_begins_the_answer_is_learned():
    """Where a token holds the end of the thoughts too, as in a template that puts a space between them."""
    chat = with_template("llama3", "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' }}"
        "{{ m.content | replace('</think>\n\n', '</think> ') }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")  # fmt: skip
    thinks = Message("assistant", with_thought("It is wet.", "the weather"))  # " the" is one token
    (sample,) = samples_of(chat, ASKED, thinks, tools="", learn_thoughts=False)
    assert labels(chat, [sample]) == [" the weather<|eot_id|>"]
