"""Thoughts of replies: under all their names, in a field or in the text, learned, context or left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each

from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.fields import fields_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message

ASKED = {"role": "user", "content": "Rain?"}


def reply_of(turn: dict[str, Any]) -> Message:
    (conversation,) = conversation_from_chat({"messages": [ASKED, {"role": "assistant", **turn}]})
    return conversation.messages[-1]


@each("field", ["reasoning_content", "reasoning", "thinking", "thought", "thoughts"])
def test_thoughts_under_all_their_names_become_one_thing(field: str):
    own = reply_of({"content": "Yes.", field: "It is wet."})
    assert own == reply_of({"content": "<think>\nIt is wet.\n</think>\n\nYes."})


@each(
    ("thoughts", "content", "learned"),
    [
        ("learn", "<think>\nIt is wet.\n</think>\n\nYes.", True),
        ("context", "<think>\nIt is wet.\n</think>\n\nYes.", False),
        ("drop", "Yes.", True),
    ],
)
def test_what_becomes_of_thoughts(thoughts: str, content: str, learned: bool):
    turn = {"role": "assistant", "content": "Yes.", "thinking": "It is wet."}
    (conversation,) = conversation_from_chat({"messages": [ASKED, turn]}, thoughts=thoughts)
    assert conversation.messages[-1].content == content
    assert conversation.learn_thoughts == learned


def test_thoughts_beside_a_reply_wherever_it_stands():
    wanted = (ASKED["content"], "<think>\nIt is wet.\n</think>\n\nYes.")
    for record in (
        {"prompt": "Rain?", "completion": "Yes."},
        {"conversation": [{"human": "Rain?", "assistant": "Yes."}]},
        {"conversation": [{"input": "Rain?", "output": "Yes."}]},
    ):
        (record.get("conversation") or [record])[0]["reasoning"] = "It is wet."
        fields = fields_of(record)
        (conversation,) = conversation_from_chat(fields)
        assert tuple(message.content for message in conversation.messages) == wanted
        assert list(fields.unread()) == []


@each(
    "part",
    [
        {"type": "reasoning", "value": "It is wet."},
        {"type": "thinking", "thinking": "It is wet."},
        {
            "type": "thinking",
            "thinking": [{"type": "text", "text": "It is "}, {"type": "text", "text": "wet."}],
        },
    ],
)
def test_thoughts_as_a_part_of_the_reply(part: dict[str, Any]):
    record = fields_of(
        {"messages": [ASKED, {"role": "assistant", "content": [part, {"type": "text", "text": "Yes."}]}]}
    )
    (conversation,) = conversation_from_chat(record)
    assert conversation.messages[-1].content == "<think>\nIt is wet.\n</think>\n\nYes."
    assert list(record.unread()) == []
    with pytest.raises(RecordProblem, match="only text can be used"):
        conversation_from_chat({"messages": [{"role": "user", "content": [part]}, ASKED]})


def test_a_part_with_thoughts_beside_others_in_the_text_is_bad():
    parts = [{"type": "reasoning", "value": "It is wet."}, {"type": "text", "value": "Yes.\n</think>"}]
    with pytest.raises(
        RecordProblem, match=r"a part of messages\[1\].content and the text both hold thoughts"
    ):
        reply_of({"content": parts})


def test_thoughts_that_are_told_twice_are_one():
    whole = "<think>\nIt is wet.\n</think>\n\nYes."
    assert reply_of({"content": whole, "thinking": " It is wet.\n"}).content == whole
    quoted = "Models write `<think>` and `</think>`."
    assert reply_of({"content": quoted, "thinking": "Hm."}).content.endswith(f"Hm.\n</think>\n\n{quoted}")


MORE_THOUGHTS = {
    "again": ("<think>a</think>So. <think>b</think>Yes.", "So. Yes."),
    "later": ("Well. <think>b</think>Yes.", "Well. Yes."),
    "in the prompt": ("a</think>So.<think>b</think>Yes.", "So.Yes."),
    "quoted": ("<think>a</think>It is `<think>`.", "It is `<think>`."),
    "only quoted": (" It is `<think>`.", " It is `<think>`."),
    "of another family": ("<|begin_of_thought|>\na\n<|end_of_thought|>\n\nYes.", "Yes."),
    "empty": ("<think>\n\n</think>\n\nYes.", "Yes."),
}


@each(("text", "answer"), MORE_THOUGHTS.values(), ids=MORE_THOUGHTS)
def test_thoughts_are_dropped_wherever_they_stand(text: str, answer: str):
    record = {"messages": [ASKED, {"role": "assistant", "content": text}]}
    (dropped,) = conversation_from_chat(record, thoughts="drop")
    assert dropped.messages[-1].content == answer
    assert reply_of({"content": text}).content == text
    if text.count("</think>") + text.startswith("Well") > 1 or "<|" in text:
        with pytest.raises(RecordProblem, match="the reply in message 2 has thoughts elsewhere than between"):
            conversation_from_chat(record, thoughts="context")
    else:
        (context,) = conversation_from_chat(record, thoughts="context")
        assert context.messages[-1].content == text


def test_a_thought_that_is_not_closed_is_bad():
    for text, modes in (
        ("<think>\nIt is", ("learn", "context", "drop")),
        ("Yes. <think>Or", ("context", "drop")),
        ("<think>a</think>Yes. <think>Or", ("context", "drop")),
    ):
        record = {"messages": [ASKED, {"role": "assistant", "content": text}]}
        for thoughts in modes:
            with pytest.raises(RecordProblem, match=r"reply in message 2 opens thoughts and does not close"):
                conversation_from_chat(record, thoughts=thoughts)
    context = {"role": "assistant", "content": "<think>\nIt is", "train": False}
    chat = {"messages": [ASKED, context, ASKED, {"role": "assistant", "content": "Yes."}]}
    assert conversation_from_chat(chat)[0].messages[1].content == "<think>\nIt is"
