"""Cutting to length: context first, oldest first; every reply whole and labelled exactly once."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from sample_checks import check_sample
from tests.fixtures.tokenizers import (
    BY_NAME,
    TEXTS,
    Family,
    expected_reply,
    inference_ids,
    label_runs,
    load_family,
    random_conversation,
)

from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Document, Message, Sample

pytestmark = pytest.mark.engine

LONG = 1_000_000
BYTE_LEVEL = [name for name, family in BY_NAME.items() if not family.metaspace]


def longest_context(
    chat: ChatTokenizer, family: Family, messages: tuple[Message, ...], at: int, max_length: int
) -> list[int] | None:
    """The ids of the longest prompt of whole messages that leaves room for the reply, by trying all."""
    head = 1 if messages[0].role == "system" else 0
    reply = len(
        chat.tokenizer(expected_reply(family, messages[at].content), add_special_tokens=False)["input_ids"]
    )
    starts = [head] + [start for start in range(head + 1, at) if messages[start].role == "user"]
    for start in starts:
        ids = inference_ids(chat, (*messages[:head], *messages[start:at]))
        if len(ids) + reply <= max_length:
            return ids
    return None


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_random_conversations_cut(name: str) -> None:
    chat, family = load_family(name), BY_NAME[name]
    random_ = random.Random(99)
    cut = whole_messages = refused = handled = 0
    for _ in range(150):
        messages = tuple(replace(m, weight=1.0) for m in random_conversation(random_, family, most=12))
        max_length = random_.randint(40, 160)
        try:
            samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=max_length)
        except RecordError as error:
            refused += "too long" in str(error) or "no room" in str(error)
            continue
        handled += 1
        runs = [(sample, *run) for sample in samples for run in label_runs(sample)]
        trained = [at for at, message in enumerate(messages) if message.role == "assistant"]
        assert len(runs) == len(trained)
        for (sample, start, end), at in zip(runs, trained, strict=True):
            assert len(sample.ids) <= max_length
            assert chat.decode(sample.ids[start:end]) == expected_reply(family, messages[at].content)
            best = longest_context(chat, family, messages, at, max_length)
            if best is not None:
                assert sample.ids[:start] == best
                whole_messages += 1
            check_sample(sample, chat, "chat")
            cut += sample.cut_tokens > 0
    assert cut > 20
    assert whole_messages > 50
    assert handled + refused == 150
    assert refused < 100


def test_oldest_go_first_and_the_system_message_stays() -> None:
    chat = load_family("chatml")
    turns = [Message("user" if at % 2 == 0 else "assistant", f"{at} hello there") for at in range(20)]
    messages = (Message("system", "Be nice."), *turns)
    full = len(inference_ids(chat, messages[:-1]))
    samples = chat.samples(Conversation(messages), train_on="lastAssistant", max_length=full // 2)
    assert len(samples) == 1
    text = chat.decode(samples[0].ids)
    assert text.startswith("<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user\n")
    assert "18 hello" in text
    assert "\n2 hello" not in text
    assert samples[0].cut_tokens == full - len(samples[0].ids) + sum(w > 0 for w in samples[0].weights)


def test_a_long_conversation_becomes_windows() -> None:
    chat = load_family("llama3")
    messages = tuple(
        Message("user" if at % 2 == 0 else "assistant", f"turn {at} " + TEXTS[at % 3]) for at in range(60)
    )
    samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=200)
    replies = [chat.decode(s.ids[a:b]) for s in samples for a, b in label_runs(s)]
    assert replies == [message.content + "<|eot_id|>" for message in messages[1::2]]
    assert samples[0].cut_tokens == 0
    assert len(label_runs(samples[0])) > 1
    assert all(sample.cut_tokens > 0 for sample in samples[1:])
    assert all(120 < len(sample.ids) <= 200 for sample in samples)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_the_only_message_loses_its_beginning(name: str) -> None:
    chat = load_family(name)
    question = "今天天气很好😀 " * 40 + "and the end?"
    conversation = Conversation((Message("user", question), Message("assistant", "hi")))
    for max_length in range(40, 60):
        (sample,) = chat.samples(conversation, train_on="allAssistant", max_length=max_length)
        assert max_length - 4 <= len(sample.ids) <= max_length
        text = chat.decode(sample.ids)
        assert "\ufffd" not in text
        assert "and the end?" in text
        assert sample.cut_tokens > 100


def test_a_long_tool_result_is_cut_once_the_question_is_gone() -> None:
    chat = load_family("chatml")
    messages = (Message("user", "look it up"), Message("tool", "result " * 200), Message("assistant", "done"))
    (sample,) = chat.samples(Conversation(messages), train_on="allAssistant", max_length=60)
    assert chat.decode(sample.ids).startswith("<|im_start|>tool\n")
    assert len(sample.ids) == 60


def test_a_long_question_before_a_short_tool_result_is_cut_not_dropped() -> None:
    chat = load_family("chatml")
    messages = (Message("user", "look up " * 100), Message("tool", "found"), Message("assistant", "done"))
    (sample,) = chat.samples(Conversation(messages), train_on="allAssistant", max_length=60)
    text = chat.decode(sample.ids)
    assert text.startswith("<|im_start|>user\n")
    assert "look up <|im_end|>\n<|im_start|>tool\nfound" in text


def test_a_reply_is_never_cut_unless_told() -> None:
    chat = load_family("chatml")
    messages = (
        Message("system", "Be nice."),
        Message("user", "hello"),
        Message("assistant", "the old town " * 40),
    )
    with pytest.raises(RecordError, match=r"reply alone is too long: \d+ tokens .* maxLength is 90"):
        chat.samples(Conversation(messages), train_on="allAssistant", max_length=90)
    (sample,) = chat.samples(
        Conversation(messages), train_on="allAssistant", max_length=90, truncate_reply=True
    )
    prompt = inference_ids(chat, messages[:2])
    reply = chat.tokenizer("the old town " * 40)["input_ids"]
    assert sample.ids == prompt + reply[: 90 - len(prompt)]
    assert sample.weights == [0.0] * len(prompt) + [1.0] * (90 - len(prompt))
    check_sample(sample, chat, "chat", truncate_reply=True)


def test_a_prompt_that_must_stay_whole() -> None:
    chat = load_family("chatml")
    fits = (Message("user", "hello"), Message("assistant", "hi"))
    long = (Message("user", "Only one word. " + "why " * 100), Message("assistant", "hi"))
    turns = (*long, Message("user", "what"), Message("assistant", "that"))

    def samples(messages: tuple[Message, ...], **options: Any) -> list[Sample]:
        conversation = Conversation(messages, **options.pop("conversation", {}))
        return chat.samples(
            conversation, train_on="lastAssistant", max_length=60, truncate_prompt=False, **options
        )

    assert len(samples(fits)) == 1
    for messages in (long, turns):
        with pytest.raises(
            RecordError, match=r"prompt of \d+ tokens and its reply of \d+ .*truncatePrompt: true"
        ):
            samples(messages)
        with pytest.raises(RecordError, match="truncatePrompt"):
            samples(messages, truncate_reply=True)
    # User simulation leaves out whole turns, and cuts into none.
    (sample,) = samples(turns, conversation={"merge": False})
    assert sample.cut_tokens > 0
    assert chat.decode(sample.ids).count("why") == 0
    with pytest.raises(RecordError, match="truncatePrompt"):
        samples(long, conversation={"merge": False})


def test_a_reply_is_cut_where_the_prompt_must_stay_whole() -> None:
    chat = load_family("chatml")
    messages = (Message("user", "why " * 5), Message("assistant", "the old town " * 40))
    limits: dict[str, Any] = {"train_on": "allAssistant", "max_length": 60, "truncate_prompt": False}
    with pytest.raises(RecordError, match="reply alone is too long"):
        chat.samples(Conversation(messages), **limits)
    (sample,) = chat.samples(Conversation(messages), **limits, truncate_reply=True)
    prompt = inference_ids(chat, messages[:1])
    assert (sample.ids[: len(prompt)], len(sample.ids)) == (prompt, 60)
    longer = (Message("user", "why " * 50), messages[1])
    with pytest.raises(RecordError, match="the prompt of"):
        chat.samples(Conversation(longer), **limits, truncate_reply=True)


def test_a_cut_reply_leaves_the_question_half_the_room() -> None:
    chat = load_family("chatml")
    messages = (Message("user", "why " * 100), Message("assistant", "the old town " * 40))
    (sample,) = chat.samples(
        Conversation(messages), train_on="allAssistant", max_length=80, truncate_reply=True
    )
    assert len(sample.ids) == 80
    assert sum(sample.weights) == pytest.approx(40, abs=2)


def test_truncating_is_allowed_but_not_needed() -> None:
    chat = load_family("chatml")
    conversation = Conversation((Message("user", "why " * 100), Message("assistant", "hello " * 10)))
    kept = chat.samples(conversation, train_on="allAssistant", max_length=100)
    assert kept == chat.samples(conversation, train_on="allAssistant", max_length=100, truncate_reply=True)
    assert chat.decode(kept[0].ids).endswith("<|im_end|>")


def test_a_long_system_prompt_is_named() -> None:
    chat = load_family("chatml")
    messages = (Message("system", "rule " * 100), Message("user", "hello"), Message("assistant", "hi"))
    with pytest.raises(RecordError, match=r"system prompt is too long: \d+ tokens"):
        chat.samples(Conversation(messages), train_on="allAssistant", max_length=60)


def test_sentencepiece_like_tokenizers_are_cut_too() -> None:
    chat = load_family("metaspace-always")
    messages = (Message("user", "hello there " * 20), Message("assistant", "hi")) * 4
    samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=90)
    assert sum(len(label_runs(sample)) for sample in samples) == 4
    assert all(len(sample.ids) <= 90 for sample in samples)


@pytest.mark.parametrize("name", ["chatml", "llama3", "metaspace-first", "metaspace-always"])
@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80).filter(str.strip),
    max_length=st.integers(3, 40),
)
def test_every_token_of_a_text_is_a_label_once(name: str, text: str, max_length: int) -> None:
    chat = load_family(name)
    samples = list(chat.document_samples(Document(text), max_length=max_length))
    labels = [id_ for s in samples for id_, weight in zip(s.ids, s.weights, strict=True) if weight]
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert labels == [*ids, chat.tokenizer.eos_token_id]
    bos = chat.tokenizer.bos_token_id
    before: list[int] = []
    for sample in samples:
        assert len(sample.ids) <= max_length
        assert sample.weights[0] == 0
        if bos is not None:
            assert sample.ids[0] == bos
            assert bos not in sample.ids[1:]
        if before:
            assert sample.ids[sample.weights.index(1.0) - 1] == before[-1]
        before = sample.ids
        check_sample(sample, chat, "text")


def test_a_long_text_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "It rained.",
        "",
        "  indented",
        "你好，世界。",
        "\u3000\u3000第一章",
        '"Quoted," he said.',
        "a b " * 9,
    ]
    texts = {
        "plain": "\n".join(random.Random(1).choices([*lines[:1], *lines[3:4], *lines[5:]], k=300)),
        "indented": "\n\n".join("\u3000\u3000第一章，他说：好。" for _ in range(100)),
        "no lines": "the old town " * 300,
        "mixed": "\r\n".join(random.Random(2).choices(lines, k=300)),
    }
    wrong = []
    for name in ("chatml", "llama3", "metaspace-first", "metaspace-always"):
        chat = load_family(name)
        for kind, text in texts.items():
            monkeypatch.setattr("tunesmith.tokens.encode.PIECE_CHARACTERS", 1 << 30)
            whole = list(chat.document_samples(Document(text), max_length=50))
            monkeypatch.setattr("tunesmith.tokens.encode.PIECE_CHARACTERS", 40)
            pieces = list(chat.document_samples(Document(text), max_length=50))
            same = pieces == whole if kind == "plain" else _labels(chat, pieces) == _labels(chat, whole)
            wrong += [] if same else [(name, kind)]
    assert wrong == []


def test_a_long_text_is_never_encoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = load_family("chatml")
    monkeypatch.setattr("tunesmith.tokens.encode.PIECE_CHARACTERS", 100)
    encoder, sizes = chat._encoder, []
    monkeypatch.setattr(encoder, "ids", lambda text, ids=encoder.ids: sizes.append(len(text)) or ids(text))
    assert list(chat.document_samples(Document("It rained.\n" * 200), max_length=50))
    assert max(sizes) < 300


def _labels(chat: ChatTokenizer, samples: list[Sample]) -> str:
    return chat.decode([id_ for s in samples for id_, w in zip(s.ids, s.weights, strict=True) if w])
