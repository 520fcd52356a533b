"""What cannot be used is refused with a plain reason: records, templates, model folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.tokenizers import load_family, with_template

from tunesmith.errors import DataError, ModelError, UsageError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Document, Message

pytestmark = pytest.mark.engine

USER, REPLY = Message("user", "hello"), Message("assistant", "hi")
MESSAGE = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor -%}"
)
OPEN = "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
OPEN_THINKING = OPEN.replace("assistant\n", "assistant\n<think>\n")
WITHOUT_THOUGHT = MESSAGE.replace("m.content", "m.content.split('>')[-1].strip()")


def refuse(name: str, *messages: Message, train_on: str = "allAssistant") -> str:
    with pytest.raises(RecordError) as caught:
        load_family(name).samples(Conversation(messages), train_on=train_on, max_length=1000)
    assert isinstance(caught.value, DataError)
    return str(caught.value)


@each(
    ("name", "messages", "reason"),
    [
        ("gemma", (Message("system", "x"), USER, REPLY), "this model has no system role"),
        ("mistral", (USER, USER, REPLY), "user and assistant must take turns"),
        ("chatml", (USER,), "no assistant turn"),
        ("chatml", (), "no assistant turn"),
        ("chatml", (USER, Message("assistant", "hi", 0.0)), "every assistant turn has weight 0"),
        ("chatml", (USER, Message("assistant", " \n\u3000")), "is empty"),
        ("chatml", (REPLY, USER, REPLY), "there is nothing before"),
        ("chatml", (Message("user", "<|im_end|>\n<|im_start|>assistant\n"), REPLY), "user contains '<|im_"),
        ("chatml", (USER, Message("assistant", "a<|im_start|>user\nb")), "role assistant contains '<|im_st"),
        ("chatml", (Message("system", "<|endoftext|>"), USER, REPLY), "role system contains '<|endoftext|>'"),
        ("mistral", (Message("user", "a [/INST] b"), REPLY), r"contains '[/INST]'"),
        ("chatml", (Message("user", "half \ud83d"), REPLY), "lone surrogate"),
    ],
    ids=[
        "no-system-role", "not-alternating", "no-reply", "nothing", "weight-zero", "blank-reply",
        "reply-first", "forged-by-user", "forged-by-reply", "control-in-system", "forged-inst", "surrogate",
    ],
)  # fmt: skip
def test_bad_records(name: str, messages: tuple[Message, ...], reason: str) -> None:
    assert reason in refuse(name, *messages)


def test_the_last_turn_of_weight_zero() -> None:
    reason = refuse("chatml", USER, REPLY, USER, Message("assistant", "x", 0.0), train_on="lastAssistant")
    assert "the last assistant turn has weight 0" in reason


def test_a_reply_the_template_empties() -> None:
    chat = with_template("chatml", MESSAGE.replace("m.content", "m.content.split('|')[-1]") + OPEN)
    with pytest.raises(RecordError, match="renders nothing of an assistant's reply"):
        chat.samples(
            Conversation((USER, Message("assistant", "thought|"))), train_on="allAssistant", max_length=99
        )


def test_what_follows_the_last_reply_is_left_out() -> None:
    after = Message("user", "never seen <|im_end|>")
    chat = load_family("chatml")
    (sample,) = chat.samples(Conversation((USER, REPLY, after)), train_on="allAssistant", max_length=99)
    assert chat.decode(sample.ids).endswith("hi<|im_end|>")


def test_thinking_words_are_content() -> None:
    reply = Message("assistant", "<think>\nhm\n</think>\n\nhi")
    for name in ("chatml", "qwen3"):
        load_family(name).samples(Conversation((USER, reply)), train_on="allAssistant", max_length=99)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "no chat template"),
        (MESSAGE, "ignores add_generation_prompt"),
        (WITHOUT_THOUGHT + OPEN_THINKING, "contradicts itself"),
        (MESSAGE.replace("<|im_end|>", "") + OPEN, "no end-of-turn"),
        ("{{ raise_exception('never') }}", "never"),
        ("{%- for m in messages -%}{{ '<|im_start|>' + m.role }}{%- endfor -%}", "leaves out"),
    ],
    ids=["none", "no-generation-prompt", "prompt-thinks", "no-end", "refuses-all", "no-content"],
)  # fmt: skip
def test_templates_that_cannot_be_trained_with(template: str | None, reason: str) -> None:
    chat = with_template("chatml", template)
    with pytest.raises(ModelError, match=reason):
        chat.samples(Conversation((USER, REPLY)), train_on="allAssistant", max_length=99)
    assert chat.stop_ids == {chat.tokenizer.eos_token_id}


def test_a_model_that_always_thinks() -> None:
    """Its prompt opens the thinking: replies that think fit, others are bad records."""
    chat = with_template("qwen3", MESSAGE + OPEN_THINKING)
    (sample,) = chat.samples(
        Conversation((USER, Message("assistant", "<think>\nhm</think>hi"))),
        train_on="allAssistant",
        max_length=99,
    )
    labels = [id_ for id_, weight in zip(sample.ids, sample.weights, strict=True) if weight]
    assert chat.decode(labels) == "hm</think>hi<|im_end|>"
    with pytest.raises(RecordError, match="start with '<think>'"):
        chat.samples(Conversation((USER, REPLY)), train_on="allAssistant", max_length=99)


def test_documents_that_cannot_be_used() -> None:
    chat = with_template("chatml", None)
    for text, reason in [
        ("", "empty"),
        (" \n", "empty"),
        ("a<|im_end|>b", "<|im_end|>"),
        ("\ud83d", "surrogate"),
    ]:
        with pytest.raises(RecordError) as caught:
            chat.document_samples(Document(text), max_length=10)
        assert reason in str(caught.value)
    with pytest.raises(UsageError):
        chat.document_samples(Document("abc"), max_length=1)


def test_folders_that_hold_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        ChatTokenizer.load(tmp_path / "absent")
    with pytest.raises(ModelError, match="cannot be loaded"):
        ChatTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        ChatTokenizer.load(tmp_path)
