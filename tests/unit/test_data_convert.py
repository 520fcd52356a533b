"""Conversations as records of other formats: read again they are the same, or they are refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.convert import TARGETS, record_of, records_of
from tunesmith.data.formats.instruction import conversation_from_instruction
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Block, Conversation, Message, SystemText

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SAID = TEXT.filter(str.strip)
WEIGHT = st.sampled_from([1.0, 0.0, 0.5, 1 / 3, 2.0]) | st.floats(1e-6, 1e6)


ONE = st.just(1.0)


def reply(text=SAID, weight=ONE):
    return st.builds(Message, st.just("assistant"), text, weight)


def turn(*roles):
    return st.builds(Message, st.sampled_from(roles), TEXT)


def learns(messages):
    return any(m.role == "assistant" and m.weight > 0 for m in messages)


def turns(*kinds):
    return st.lists(st.one_of(*kinds), min_size=1, max_size=6).filter(learns)


def read_back(record, target):
    record = json.loads(json.dumps(record))
    if target == "alpaca":
        return conversation_from_instruction(record)
    (read,) = conversation_from_chat(record)
    return read


# What each format can hold: nothing of this may be refused.
OPENAI = turns(turn("system", "user", "tool"), reply(weight=WEIGHT), reply(TEXT, st.just(0.0)))
SHAREGPT = st.builds(
    lambda system, rest: system + rest,
    st.lists(turn("system"), max_size=1),
    turns(turn("user", "tool"), reply()),
)
ALPACA = st.builds(
    lambda system, history, asked, said: [*system, *(m for pair in history for m in pair), asked, said],
    st.lists(st.builds(Message, st.just("system"), TEXT.filter(len)), max_size=1),
    st.lists(st.tuples(turn("user"), reply()), max_size=3),
    st.builds(Message, st.just("user"), SAID),
    reply(),
)
HELD = {"openai": OPENAI, "sharegpt": SHAREGPT, "alpaca": ALPACA}


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_a_format_can_hold_comes_back_the_same(target, data):
    messages = tuple(data.draw(HELD[target]))
    assert read_back(record_of(messages, target), target) == Conversation(messages)


ANY = st.lists(
    turn("system", "user", "tool") | reply(TEXT, WEIGHT | st.sampled_from([-1.0, 1e-9, float("inf")])),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200, deadline=None)
@given(messages=ANY)
def test_anything_is_refused_or_comes_back_the_same(target, messages):
    try:
        record = record_of(messages, target)
    except RecordProblem:
        return
    assert read_back(record, target) == Conversation(tuple(messages))


def say(*pairs):
    return [Message(*pair) for pair in pairs]


ASKED = say(("user", "q"), ("assistant", "a"))
WRITTEN = {
    "openai": (
        "openai",
        say(("system", "s"), ("user", "q"), ("assistant", "a", 0.0), ("tool", "t"), ("assistant", "b", 0.25)),
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "weight": 0},
                {"role": "tool", "content": "t"},
                {"role": "assistant", "content": "b", "loss_weight": 0.25},
            ]
        },
    ),
    "sharegpt": (
        "sharegpt",
        say(("system", "s"), ("user", "q"), ("assistant", "a"), ("tool", "t"), ("assistant", "b")),
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
                {"from": "observation", "value": "t"},
                {"from": "gpt", "value": "b"},
            ]
        },
    ),
    "alpaca": (
        "alpaca",
        say(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")),
        {"instruction": "r", "input": "", "output": "b", "system": "s", "history": [["q", "a"]]},
    ),
    "alpaca-short": ("alpaca", ASKED, {"instruction": "q", "input": "", "output": "a"}),
}


@pytest.mark.parametrize(("target", "messages", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_written(target, messages, expected):
    assert record_of(messages, target) == expected


REFUSED = {
    "no-reply": ("openai", say(("user", "q")), "there is no assistant reply to train on"),
    "nothing-learned": (
        "openai",
        say(("user", "q"), ("assistant", "a", 0.0)),
        "no assistant reply to train on",
    ),
    "empty-reply": ("openai", say(("user", "q"), ("assistant", " ")), "turn 2 (assistant) is an empty reply"),
    "role": ("openai", say(("critic", "q"), ("assistant", "a")), 'turn 1 has the role "critic"'),
    "weight-too-large": ("openai", say(("assistant", "a", 1e9)), "turn 1 (assistant) has the weight"),
    "sharegpt-weight": (
        "sharegpt",
        say(("assistant", "a", 0.5)),
        "has the weight 0.5; ShareGPT has no field",
    ),
    "sharegpt-untrained": (
        "sharegpt",
        [Message("assistant", "a", 0.0), *ASKED],
        "turn 1 (assistant) is not trained (train: false); ShareGPT has no field",
    ),
    "sharegpt-system": ("sharegpt", [*ASKED, *say(("system", "s"))], "turn 3 (system) is not the first"),
    "alpaca-weight": (
        "alpaca",
        say(("user", "q"), ("assistant", "a", 2.0)),
        "turn 2 (assistant) has the weight 2",
    ),
    "alpaca-untrained": (
        "alpaca",
        [*say(("user", "q"), ("assistant", "a", 0.0)), *ASKED],
        "turn 2 (assistant) is not trained",
    ),
    "alpaca-tool": (
        "alpaca",
        [*ASKED, *say(("tool", "t"), ("assistant", "b"))],
        "turn 3 (tool) is where Alpaca has",
    ),
    "alpaca-system": (
        "alpaca",
        [*ASKED, *say(("system", "s")), *ASKED],
        "turn 3 (system) is where Alpaca has",
    ),
    "alpaca-assistant-first": ("alpaca", say(("assistant", "a")), "turn 1 (assistant) is where Alpaca has"),
    "alpaca-two-questions": ("alpaca", [*say(("user", "p")), *ASKED], "turn 2 (user) is where Alpaca has"),
    "alpaca-no-last-reply": ("alpaca", [*ASKED, *say(("user", "r"))], "turn 3 (user) has no reply"),
    "alpaca-empty-question": ("alpaca", say(("user", " "), ("assistant", "a")), "turn 1 (user) is empty"),
    "alpaca-empty-system": ("alpaca", [*say(("system", "")), *ASKED], "the system message is empty"),
}


@each(("target", "messages", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(target, messages, reason):
    with pytest.raises(RecordProblem) as caught:
        record_of(messages, target)
    assert reason in caught.value.message


def test_samples_that_must_stay_apart_become_records_of_their_own():
    messages = tuple(say(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")))
    apart = Conversation(messages, merge=False, opening="Begin.")
    first, second = records_of(apart, "openai")
    assert first == {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert [turn.get("weight", 1) for turn in second["messages"]] == [1, 0, 1, 1]
    assert len(records_of(Conversation(messages), "openai")) == 1


def test_one_sample_is_one_record_with_its_whole_system_message():
    system = SystemText((Block("[History]", ("old", "new"), cut=1),))
    messages = (Message("system", system.text()), *ASKED)
    (record,) = records_of(Conversation(messages, system, merge=False), "alpaca")
    assert record["system"] == "[History]\nold\nnew"
