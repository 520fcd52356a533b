"""Prompt and completion, as TRL has them, and the preferences that a RejectionSampleJob writes."""

import io
import json

import pytest
from tests.cases import each
from tests.fixtures.tokenizers import load_family

from tunesmith.api.datasets import DatasetSpec, PromptsSpec
from tunesmith.artifacts.store import Entry
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.detect_format import shape_of
from tunesmith.data.formats.fields import Fields
from tunesmith.data.formats.pairs import TO_AVOID
from tunesmith.data.formats.text import document_from_text
from tunesmith.data.keys import learned_key
from tunesmith.data.prompts.formats import prompts_from
from tunesmith.data.read import Reader
from tunesmith.data.record import BadRecord, RecordProblem, RecordSkipped, Skipped
from tunesmith.tokens.conversation import Document, Message
from tunesmith.tokens.encode import RecordError


def user(text):
    return {"role": "user", "content": text}


def reply(text, **extra):
    return {"role": "assistant", "content": text, **extra}


USER, REPLY = Message("user", "q"), Message("assistant", "a")
PAIRS = {
    "texts": ({"prompt": "q", "completion": "a"}, [USER, REPLY]),
    "messages": ({"prompt": [user("q")], "completion": [reply("a")]}, [USER, REPLY]),
    "messages and text": ({"prompt": [user("q")], "completion": "a"}, [USER, REPLY]),
    "replies in the prompt are context": (
        {"prompt": [user("x"), reply("y"), user("q")], "completion": [reply("a")]},
        [Message("user", "x"), Message("assistant", "y", 0.0), USER, REPLY],
    ),
    "several turns": (
        {"prompt": "q", "completion": [reply("a"), user("x"), reply("y", weight=0.5)]},
        [USER, REPLY, Message("user", "x"), Message("assistant", "y", 0.5)],
    ),
    "a system message": (
        {"prompt": "q", "completion": "a", "system": "s"},
        [Message("system", "s"), USER, REPLY],
    ),
    "a good one": ({"prompt": "q", "completion": "a", "label": True}, [USER, REPLY]),
}


@each(("record", "messages"), PAIRS.values(), ids=PAIRS)
def test_only_the_completion_is_learned(record, messages):
    fields = Fields(record)
    (made,) = conversation_from_chat(fields)
    assert list(made.messages) == messages
    assert list(fields.unread()) == []


def test_messages_beside_a_prompt_are_the_conversation():
    record = {"prompt": "q", "completion": "no", "messages": [user("q"), reply("a")]}
    fields = Fields(record)
    (made,) = conversation_from_chat(fields)
    assert made.messages == (USER, REPLY)
    assert sorted(fields.unread()) == ["completion", "prompt"]


BAD = {
    "completion empty": ({"prompt": "q", "completion": " "}, "completion is empty"),
    "no reply": ({"prompt": "q", "completion": [user("x")]}, "there is no assistant reply"),
    "prompt a number": ({"prompt": 7, "completion": "a"}, "prompt is a number, not a list"),
    "completion an object": ({"prompt": "q", "completion": {}}, "completion is an object, not a list"),
    "label a text": (
        {"prompt": "q", "completion": "a", "label": "good"},
        "label is a string; beside",
    ),
    "tools": ({"prompt": "q", "completion": "a", "images": ["x"]}, "images cannot be used"),
    "no completion": ({"prompt": "q"}, "or prompt and completion is required"),
}


@each(("record", "words"), BAD.values(), ids=BAD)
def test_bad_pairs(record, words):
    with pytest.raises(RecordProblem) as caught:
        conversation_from_chat(record)
    assert words in caught.value.message


@each("fmt", ["chat", "text"])
def test_of_preferences_the_good_ones_are_learned_and_the_others_counted(fmt):
    rows = [
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": "q", "completion": "b", "label": False},
        {"prompt": "r", "completion": "c", "label": 1.5},
    ]
    data = "\n".join(map(json.dumps, rows)).encode()

    class Memory:
        def open(self, key):
            return io.BytesIO(data)

    spec = DatasetSpec.model_validate({"uri": "file:///preference.jsonl", fmt: {}})
    good, avoided, bad = Reader(Memory(), [Entry("preference.jsonl", 0)], spec).items()
    assert good.kind == fmt
    assert avoided == Skipped(avoided.place, TO_AVOID)
    assert isinstance(bad, BadRecord)


def test_a_text_after_its_prompt():
    fields = Fields({"prompt": "One, two,", "completion": " three", "label": True})
    assert document_from_text(fields) == Document(" three", "One, two,")
    assert list(fields.unread()) == []
    assert document_from_text({"text": "x", "prompt": "y", "completion": "z"}) == Document("x")
    assert learned_key(Document("x", "y")) != learned_key(Document("x")) != learned_key(Document("x", "z"))
    with pytest.raises(RecordSkipped, match="one to avoid"):
        document_from_text({"prompt": "a", "completion": "b", "label": False})
    with pytest.raises(RecordProblem, match="use the format chat"):
        document_from_text({"prompt": [user("a")], "completion": [reply("b")]})
    with pytest.raises(RecordProblem, match="completion is empty"):
        document_from_text({"prompt": "a", "completion": ""})


@pytest.mark.engine
@each("family", ["chatml", "llama3", "mistral"])
def test_a_plain_completion_has_the_ids_of_inference_and_its_labels_alone(family):
    tokenizer = load_family(family)
    document = Document(" three, four", "One, two,")
    (sample,) = tokenizer.document_samples(document, max_length=64)
    ids = tokenizer.tokenizer("One, two,", add_special_tokens=False)["input_ids"]
    context, labels = (
        sample.weights.count(0.0),
        [i for i, w in zip(sample.ids, sample.weights, strict=True) if w],
    )
    assert sample.ids[1:context] == ids
    assert tokenizer.decode(labels[:-1]) == " three, four"
    assert labels[-1] == tokenizer.tokenizer.eos_token_id
    assert sample.weights == [0.0] * context + [1.0] * len(labels)

    (cut,) = tokenizer.document_samples(document, max_length=len(sample.ids) - 2)
    assert cut.ids == [sample.ids[0], *sample.ids[3:]]
    assert cut.cut_tokens == 2
    with pytest.raises(RecordError, match="truncatePrompt is false"):
        list(tokenizer.document_samples(document, max_length=len(sample.ids) - 1, truncate_prompt=False))
    short = len(labels) + 1
    with pytest.raises(RecordError, match="the completion alone has"):
        list(tokenizer.document_samples(document, max_length=short))
    (lost,) = tokenizer.document_samples(document, max_length=short, truncate_reply=True)
    assert lost.ids == [sample.ids[0], ids[-1], *labels[: short - 2]]
    with pytest.raises(RecordError, match="the prompt contains"):
        list(tokenizer.document_samples(Document("x", tokenizer.tokenizer.eos_token), max_length=64))


PROMPTS = {
    "a text": ({"prompt": "q"}, None),
    "a text and its completion": ({"prompt": "q", "completion": "a"}, "a"),
    "messages and their completion": ({"prompt": [user("q")], "completion": [reply("a")]}, "a"),
}


@each(("record", "reference"), PROMPTS.values(), ids=PROMPTS)
def test_prompts_to_sample_for(record, reference):
    spec = PromptsSpec.model_validate({"uri": "file:///x", "chat": {}})
    (made,) = prompts_from(record, spec, {})
    assert made.messages == (USER,)
    assert made.record.get("reference") == reference


def test_the_shape_has_a_name():
    assert shape_of({"prompt": "q", "completion": "a"}) == ("chat", "prompts and completions")
    assert shape_of({"conversations": ["q", "a"]}) == ("chat", "lists of texts")
    calls = {"query": "q", "answers": "[]", "tools": "[]"}
    assert shape_of(calls) == ("chat", "questions and the calls that answer them")


def test_lists_of_texts_and_of_inputs_and_outputs():
    (lima,) = conversation_from_chat({"conversations": ["q", "a", "x"]})
    assert lima.messages == (USER, REPLY, Message("user", "x"))
    (capybara,) = conversation_from_chat({"conversation": [{"input": "q", "output": "a", "weight": 0.5}]})
    assert capybara.messages == (USER, Message("assistant", "a", 0.5))
    with pytest.raises(RecordProblem, match=r"conversations\[1\] is empty"):
        conversation_from_chat({"conversations": ["q", " "]})
