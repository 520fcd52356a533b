"""Checks of samples, and how they are shown."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from hostile import STEERING
from sample_checks import check_sample
from tests.fixtures.tokenizers import load_family

from tunesmith.errors import LabelError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Conversation, Document, Message, Sample
from tunesmith.tokens.show import as_plain, as_text, spans

pytestmark = pytest.mark.engine


def sample_of(chat: ChatTokenizer, *contents: str) -> Sample:
    messages = tuple(
        Message("user" if at % 2 == 0 else "assistant", text) for at, text in enumerate(contents)
    )
    (sample,) = chat.samples(Conversation(messages), train_on="allAssistant", max_length=1000)
    return sample


def test_a_good_sample_passes() -> None:
    chat = load_family("chatml")
    check_sample(sample_of(chat, "hello", "hi", "and?", "bye"), chat, "chat")


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "qwen3"])
def test_wrong_labels_are_found(name: str) -> None:
    chat = load_family(name)
    good = sample_of(chat, "hello", "hi")
    start = good.weights.index(1.0)
    wrong = [
        (replace(good, weights=[0.0] * len(good.ids)), "no labels"),
        (replace(good, weights=[1.0] * len(good.ids)), "first token"),
        (replace(good, weights=[0.0] + [1.0] * (len(good.ids) - 1)), "role token"),
        (Sample(good.ids[:-1], good.weights[:-1]), "no end-of-turn"),
        (replace(good, weights=[*good.weights[:-1], 0.0]), "no end-of-turn"),
        (replace(good, weights=[*good.weights[:start], -1.0, *good.weights[start + 1 :]]), "negative"),
        (replace(good, weights=good.weights[:-1]), "weights"),
        (replace(good, ids=[*good.ids[:-1], 10**6]), "outside the vocabulary"),
        (replace(good, ids=[*good.ids[:-1], -1]), "outside the vocabulary"),
    ]
    for sample, reason in wrong:
        with pytest.raises(LabelError, match=reason):
            check_sample(sample, chat, "chat")


def test_an_earlier_reply_without_end_is_found() -> None:
    chat = load_family("chatml")
    good = sample_of(chat, "hello", "hi", "and?", "bye")
    eot = good.ids.index(next(iter(chat.eot_ids)), good.weights.index(1.0))
    weights = [0.0 if at == eot else weight for at, weight in enumerate(good.weights)]
    with pytest.raises(LabelError, match="no end-of-turn"):
        check_sample(replace(good, weights=weights), chat, "chat", truncate_reply=True)


def test_the_models_vocabulary_may_be_smaller() -> None:
    chat = load_family("qwen3")
    sample = sample_of(chat, "hello", "<think>\nhm\n</think>\n\nhi")
    with pytest.raises(LabelError, match="outside the vocabulary of 300"):
        check_sample(sample, chat, "chat", vocab_size=300)


@pytest.mark.parametrize("name", ["chatml", "metaspace-always"])
def test_spans_join_to_the_text(name: str) -> None:
    chat = load_family(name)
    sample = sample_of(chat, "你好 👨‍👩‍👧", "今天 😀", "and \ufffd?", "bye \ufffd")
    runs = spans(sample, chat)
    assert "".join(text for text, _ in runs) == chat.decode(sample.ids)
    replies = [text for text, is_label in runs if is_label]
    assert [text.strip().removesuffix("<|im_end|>").removesuffix("</s>") for text in replies] == [
        "今天 😀",
        "bye \ufffd",
    ]


def test_a_character_across_a_boundary_belongs_to_the_later_run() -> None:
    chat = load_family("chatml")
    text = "a龘b"
    runs = [
        run for s in list(chat.document_samples(Document(text), max_length=3))[1:] for run in spans(s, chat)
    ]
    assert any("\ufffd" in run for run, _ in runs)
    ids = chat.tokenizer(text)["input_ids"]
    assert len(ids) == 5
    for boundary in (2, 3):
        sample = Sample(ids, [0.0] * boundary + [1.0] * (5 - boundary))
        assert spans(sample, chat) == [("a", False), ("龘b", True)]


def test_renderings() -> None:
    chat = load_family("chatml")
    sample = sample_of(chat, f"<b>{STEERING}\x1b[31m", "a & b")
    assert as_plain(sample, chat).endswith("<|im_start|>assistant\n«a & b<|im_end|>»")
    text = as_text(sample, chat)
    assert not set(STEERING) & set(text.plain)
    assert "␛[31m" in text.plain
    assert [str(span.style) for span in text.spans] == ["dim", "bold green"]
