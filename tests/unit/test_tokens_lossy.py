"""Random conversations through random templates: a sample holds everything, or the record is bad."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fixtures.lossy_templates import LETTERS, chat_with, templates
from tests.fixtures.tokenizers import label_runs

from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Message, Sample

pytestmark = pytest.mark.engine

THINK, END = "<think>", "</think>"


def squash(text: str) -> str:
    return "".join(text.split())


# A small alphabet, so that texts are equal, short, blank or parts of each other.
WORDS = st.text(st.sampled_from(LETTERS + " \n"), max_size=7)
TEXTS = st.one_of(
    WORDS,
    WORDS,
    st.builds(lambda a, b, c: f"{a}{THINK}{b}{END}{c}", st.sampled_from(["", "", "", "q"]), WORDS, WORDS),
    st.builds(lambda a, b: f"{a}{END}{b}", WORDS, WORDS),
    st.sampled_from(["", " ", "7", "77", THINK, "q" + THINK, f"{THINK}z{END}x{THINK}q{END}7"]),
)
ROLES = st.sampled_from(["system", "user", "user", "assistant", "assistant", "tool"])
TURNS = st.builds(Message, ROLES, TEXTS, st.sampled_from([1.0, 1.0, 1.0, 0.0]))


def shown(message: Message) -> str:
    """What prompts have to show of a message: an earlier reply's thought may go."""
    before, closed, after = message.content.partition(END)
    thought = before.partition(THINK)
    cut = message.role == "assistant" and closed and not (thought[1] and thought[0].strip())
    return after if cut else message.content


def missing(part: str, text: str) -> list[str]:
    part, text = squash(part), squash(text)
    return [] if part in text else [part]


def fewer(parts: list[str], text: str) -> list[str]:
    """Letters that the parts together have more often than the text."""
    return [c for c in LETTERS if sum(part.count(c) for part in parts) > text.count(c)]


def lost_in(chat: ChatTokenizer, messages: list[Message], samples: list[Sample]) -> list[str]:
    """Whatever of the messages is neither in a sample's context nor in its labels, by naive search."""
    runs = [(sample, *run) for sample in samples for run in label_runs(sample)]
    trained = [at for at, m in enumerate(messages) if m.role == "assistant" and m.weight > 0]
    assert len(runs) == len(trained)
    lost: list[str] = []
    cut = any(sample.cut_tokens for sample in samples)
    for (sample, start, end), at in zip(runs, trained, strict=True):
        context, reply = chat.decode(sample.ids[:start]), chat.decode(sample.ids[start:end])
        said = [] if cut else [shown(message) for message in messages[:at]]
        for part in said:
            lost += missing(part, context) and missing(json.dumps(part, ensure_ascii=False)[1:-1], context)
        lost += fewer(said, context)
        opened = THINK if squash(context).endswith(THINK) else ""
        own = messages[at].content
        if "[T]" in reply:
            own = own.replace(THINK, "[T]").replace(END, "[/T]")
        lost += missing(own, opened + reply) + fewer([own], reply)
    return lost


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    template=templates(),
    turns=st.lists(TURNS, max_size=5),
    last=TEXTS,
    opening=st.sampled_from(["system", "user", "user", None]),
    room=st.sampled_from([10_000, 10_000, 50]),
)
def test_a_sample_holds_everything_or_the_record_is_bad(template, turns, last, opening, room) -> None:
    turns = [*([Message(opening, "xq")] if opening else []), *turns]
    spoken = [m if m.content.strip() else replace(m, weight=0.0) for m in turns]
    messages = [*spoken, Message("assistant", last if last.strip() else last + "x")]
    chat = chat_with(template)
    try:
        samples = chat.samples(Conversation(tuple(messages)), train_on="allAssistant", max_length=room)
    except (RecordError, ModelError) as error:
        event(type(error).__name__ + " " + str(error).split("'")[0][:60])
        return
    event("accepted")
    assert lost_in(chat, messages, samples) == []
