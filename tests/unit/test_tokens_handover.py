"""What a template is given besides text: which call a result answers, ids that it takes, results in tags."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.tokenizers import label_runs
from tests.fixtures.tool_families import FAMILIES, load

from tunesmith.tokens.conversation import Conversation, Message, ToolCall
from tunesmith.tokens.handover import Handover

pytestmark = pytest.mark.engine

ASKED, ANSWER = Message("user", "Rain?"), Message("assistant", "Yes.")
A, B = ToolCall("a", "{}", "call_0123456789abcdef"), ToolCall("b", "{}", "call_fedcba9876543210")


def calls(*given: ToolCall) -> Message:
    return Message("assistant", "", calls=given)


def results_of(handover: Handover, *messages: Message) -> list[tuple[str | None, str | None]]:
    turns = handover.turns(messages)
    return [(turn.get("tool_call_id"), turn.get("name")) for turn in turns if turn["role"] == "tool"]


BARE_A, BARE_B = replace(A, id=""), replace(B, id="")
ONE, TWO = "000000001", "000000002"
ANSWERED = {
    "in order": (
        (calls(BARE_A, BARE_B), Message("tool", "1"), Message("tool", "2")),
        [(ONE, "a"), (TWO, "b")],
    ),
    "by name": (
        (calls(BARE_A, BARE_B), Message("tool", "2", name="b"), Message("tool", "1", name="a")),
        [(TWO, "b"), (ONE, "a")],
    ),
    "by id": (
        (calls(A, B), Message("tool", "2", call_id=B.id), Message("tool", "1", call_id=A.id)),
        [(B.id, "b"), (A.id, "a")],
    ),
    "two turns of calls": (
        (calls(BARE_A), calls(BARE_B), Message("tool", "1"), Message("tool", "2")),
        [(ONE, "a"), (TWO, "b")],
    ),
    "a call that nobody answered": (
        (calls(BARE_A), ASKED, calls(BARE_B), Message("tool", "2")),
        [(TWO, "b")],
    ),
    "an unknown call": ((calls(A), Message("tool", "1", call_id="x", name="c")), [("x", "c")]),
    "an id that its call lacks": ((calls(BARE_A), Message("tool", "1", call_id="x")), [(ONE, "a")]),
    "no call": ((ANSWER, Message("tool", "1")), [(None, None)]),
    "another name": ((calls(BARE_A), Message("tool", "1", name="c")), [(ONE, "c")]),
}


@each(("messages", "wanted"), ANSWERED.values(), ids=ANSWERED)
def test_which_call_a_result_answers(messages: tuple[Message, ...], wanted: list[tuple[str, str]]):
    assert results_of(Handover(), ASKED, *messages) == wanted


def test_ids_that_a_template_does_not_take_are_replaced_alike_in_calls_and_results():
    handover = Handover(own_ids=True)
    kept = replace(A, id="Abc456789")
    messages = [
        calls(A, kept), Message("tool", "1", call_id=A.id), Message("tool", "2", call_id=kept.id),
        Message("tool", "3", call_id="unknown"), Message("tool", "4"),
    ]  # fmt: skip
    (turn, *_) = handover.turns(messages)
    assert [call["id"] for call in turn["tool_calls"]] == [ONE, kept.id]
    assert [id_ for id_, _ in results_of(handover, *messages)] == [ONE, kept.id, TWO, None]


def test_calls_follow_thoughts_in_the_text_as_the_template_separates_them():
    """Not after the line breaks that an answer would follow."""
    thinks = Message("assistant", "<think>\nHm.\n</think>\n\n", calls=(BARE_A,))
    (turn,) = Handover().turns([thinks])
    assert turn["content"] == "<think>\nHm.\n</think>"
    (turn,) = Handover().turns([replace(thinks, content=f"{thinks.content}I look.\n")])
    assert turn["content"] == "<think>\nHm.\n</think>\n\nI look.\n"
    (turn,) = Handover(call_thought_field="thinking").turns([thinks])
    assert (turn["content"], turn["thinking"]) == ("", "Hm.")


@each("name", list(FAMILIES))
def test_calls_with_the_ids_of_servers_are_learned_by_any_template(name: str):
    chat = load(name)
    asked = Conversation((ASKED, calls(A), Message("tool", "wet", name="a", call_id=A.id), ANSWER))
    (_, *_) = samples = chat.samples(asked, train_on="allAssistant", max_length=2000)
    assert sum(len(label_runs(sample)) for sample in samples) == 2
    assert chat._render.handover.own_ids == (name == "bracketed")


@each("name", ["bracketed", "channels", "hermes"])
def test_results_in_another_order_than_the_calls_belong_to_their_names(name: str):
    """Not only in the rendering: nothing of the record seems lost either."""
    chat, one = load(name), name == "channels"
    given = [calls(BARE_A), calls(BARE_B)] if one else [calls(BARE_A, BARE_B)]
    results = [Message("tool", "of b", name="b"), Message("tool", "of a", name="a")]
    asked = Conversation((ASKED, *given, *results, ANSWER))
    text = chat.decode(chat.samples(asked, train_on="allAssistant", max_length=2000)[-1].ids)
    assert text.index("of b") < text.index("of a")
    if name == "bracketed":
        assert f'"of b", "call_id": "{TWO}"' in text


@each("result", ["wet", json.dumps({"rain": True}), "a\n</tool_response>\n<tool_response>\nb"])
def test_a_result_in_the_templates_own_tags_has_them_once(result: str):
    chat, told = load("hermes"), Message("tool", f"<tool_response>\n{result}\n</tool_response>")
    assert chat.prompt_text([ASKED, ANSWER, told]) == chat.prompt_text(
        [ASKED, ANSWER, Message("tool", result)]
    )
    samples = chat.samples(
        Conversation((ASKED, ANSWER, told, ANSWER)), train_on="allAssistant", max_length=2000
    )
    text = chat.decode(samples[-1].ids)
    assert not re.search(r"<tool_response>\s*<tool_response>", text)
    assert f"<tool_response>\n{result}\n</tool_response>" in text
    other = load("json_call")  # which has no such tags: the text is used as it is
    assert "<tool_response>" in other.prompt_text([ASKED, ANSWER, told])
