"""Chat templates as models publish them: what they make of tools, calls and thoughts."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import files
from itertools import chain
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.tokenizers import Family, build_backend, label_runs

from tunesmith.engines.reply_text import Endings
from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.chosen_template import with_arguments
from tunesmith.tokens.conversation import Conversation, Message, ToolCall
from tunesmith.tokens.thoughts import with_thought

pytestmark = pytest.mark.engine

CALL = '{"name": "get_weather", "arguments": {"city": "Bern"}}'
PARAMETERS = CALL.replace("arguments", "parameters")

TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "its name"}},
                    "required": ["city"],
                },
            },
        }
    ]
)
ASKED, RESULT = Message("user", "Rain in Bern?"), Message("tool", '{"rain": true}')
CALLS = Message("assistant", "", calls=(ToolCall("get_weather", '{"city": "Bern"}'),))
TALK = (ASKED, CALLS, RESULT, Message("assistant", "Yes."))
THINKS = (ASKED, Message("assistant", with_thought("It is wet.", "Yes.")))

GEMMA = ("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
         "<tool_response|>", "<|channel>", "<channel|>", "<|think|>", '<|"|>')  # fmt: skip
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
LLAMA4 = ("<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_start|>", "<|python_end|>")
MISTRAL = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
           "[/TOOL_RESULTS]", "</s>")  # fmt: skip
EXAONE = ("[|system|]", "[|user|]", "[|assistant|]", "[|tool|]", "[|endofturn|]")
CASES = {
    "qwen_25": (("<|im_start|>", "<|im_end|>"), {}),
    "llama3_2_vision": (HEADERS, {}),
    "llama4": (LLAMA4, {}),
    "mistral_v3_tekken": (MISTRAL, {}),
    "jamba": (("<|bom|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|eom|>"), {}),
    "exaone4": (EXAONE, {"enable_thinking": True, "skip_think": False}),
    "gemma4": (GEMMA, {"enable_thinking": True}),
    "deepseek_v3": (("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"), {}),
}
ENDS = {"gemma4": "<turn|>"}


def load(name: str) -> ChatTokenizer:
    """A small tokenizer with the model's template and control tokens."""
    special, arguments = CASES[name]
    end = ENDS.get(name, special[-1])
    end = next((token for token in special if token in ("<|eot_id|>", "<|eot|>", "<|im_end|>")), end)
    tokenizer = build_backend(
        Family(name, ("<bos>", *special), eos=end, eot=end, bos="<bos>", template="chatml")
    )
    (path,) = [each for each in files("axolotl") or () if each.name == f"{name}.jinja"]
    tokenizer.chat_template = with_arguments(path.read_text(), arguments)
    return ChatTokenizer(tokenizer)


def labels_of(chat: ChatTokenizer, messages: tuple[Message, ...], tools: str = "") -> list[str]:
    samples = chat.samples(Conversation(messages, tools=tools), train_on="allAssistant", max_length=9000)
    if tools:
        assert "its name" in chat.decode(samples[-1].ids)
    return [chat.decode(s.ids[start:end]) for s in samples for start, end in label_runs(s)]


@each(
    ("name", "call", "answer"),
    [
        ("qwen_25", f"<tool_call>\n{CALL}\n</tool_call><|im_end|>", "Yes.<|im_end|>"),
        ("llama3_2_vision", f"{PARAMETERS}<|eot_id|>", "Yes.<|eot_id|>"),
        ("llama4", f"<|python_start|><|python_end|>{PARAMETERS}<|eot|>", "Yes.<|eot|>"),
        ("mistral_v3_tekken", f'[TOOL_CALLS][{CALL[:-1]}, "id": "000000001"}}]</s>', "Yes.</s>"),
        ("jamba", f" <tool_calls>[\n    {CALL}\n]</tool_calls><|eom|>", " Yes.<|eom|>"),
        ("exaone4", f"\n</think>\n\n<tool_call>{CALL}</tool_call>[|endofturn|]",
         "\n</think>\n\nYes.[|endofturn|]"),
        ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Bern<|"|>}<tool_call|><|tool_response>',
         "Yes.<turn|>"),
    ],
)  # fmt: skip
def test_calls_are_learned_as_the_model_writes_them(name: str, call: str, answer: str):
    assert labels_of(load(name), TALK, TOOLS) == [call, answer]


@each(
    ("name", "label"),
    [
        ("qwen_25", "<think>\nIt is wet.\n</think>\n\nYes.<|im_end|>"),
        ("exaone4", "It is wet.\n</think>\n\nYes.[|endofturn|]"),
    ],
)
def test_thoughts_are_learned_as_the_model_writes_them(name: str, label: str):
    assert labels_of(load(name), THINKS) == [label]


def test_thoughts_of_a_call_that_only_a_field_shows():
    turn = Message("assistant", with_thought("I must look.", ""), calls=CALLS.calls)
    (label,) = labels_of(load("gemma4"), (ASKED, turn), TOOLS)
    assert label.startswith("<|channel>thought\nI must look.\n<channel|><|tool_call>call:get_weather")


@each(
    ("messages", "tools", "said"),
    [(TALK, TOOLS, "leaves out the tools"), (THINKS, "", "cuts '<think>")],
)
def test_what_a_model_cannot_show_is_bad(messages: tuple[Message, ...], tools: str, said: str):
    with pytest.raises(RecordError, match=said):
        labels_of(load("deepseek_v3"), messages, tools)


@each("name", ["qwen_25", "llama3_2_vision", "llama4", "mistral_v3_tekken", "jamba", "exaone4"])
def test_calls_are_read_back_from_what_engines_return(name: str):
    chat = load(name)
    (sample,) = chat.samples(
        Conversation((ASKED, CALLS), tools=TOOLS), train_on="allAssistant", max_length=9000
    )
    (span,) = label_runs(sample)
    ids = sample.ids[slice(*span)]
    found = Endings(chat, []).reply(ids, len(ids))
    assert found is not None
    message = chat.reply_message(found.text, TOOLS)
    assert message.calls == CALLS.calls, found.text


def test_a_form_that_is_not_json_is_not_guessed():
    assert load("gemma4").call_form is None


CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜\s]{1,40}｜>|</?[a-z]{1,10}_of_[a-z]{1,10}>|\[/?[A-Z_]{3,30}\]"
)
SAID = {
    "a call": (TALK, TOOLS, ["get_weather", '"city"', "Bern", "Yes."]),
    "a call with an id": (
        (
            ASKED,
            Message(
                "assistant", "", calls=(ToolCall("get_weather", '{"city": "Bern"}', "call_0123456789ab"),)
            ),
            Message("tool", "wet", name="get_weather", call_id="call_0123456789ab"),
            TALK[-1],
        ),
        TOOLS,
        ["get_weather", "Bern", "Yes."],
    ),
    "a call as text": (
        (ASKED, Message("assistant", "[get_weather()]"), RESULT, TALK[-1]),
        "",
        ["[get_weather()]"],
    ),
    "thoughts": (THINKS, "", ["It is wet.", "Yes."]),
    "thoughts and a call": (
        (ASKED, Message("assistant", with_thought("I look.", ""), calls=CALLS.calls)),
        TOOLS,
        ["I look.", "get_weather", "Bern"],
    ),
}


def packaged() -> dict[str, str]:
    paths = chain.from_iterable(files(package) or () for package in ("axolotl", "trl"))
    return {str(path): path.read_text() for path in paths if path.suffix == ".jinja"}


def with_template(source: str) -> ChatTokenizer:
    """A small tokenizer with a template and the control tokens that it names."""
    special = dict.fromkeys(["<bos>", *CONTROL.findall(source), "</s>"])
    family = Family("any", tuple(special), eos="</s>", eot="</s>", bos="<bos>", template="chatml")
    tokenizer = build_backend(family)
    tokenizer.chat_template = source
    return ChatTokenizer(tokenizer)


def test_no_template_that_a_package_has_loses_anything_in_silence():
    """Each shows all of a conversation where inference would, or the record or the template is bad."""
    learned = 0
    for name, source in packaged().items():
        chat = with_template(source)
        for what, (messages, tools, texts) in SAID.items():
            try:
                labels = "".join(labels_of(chat, messages, tools))
            except (RecordError, ModelError):
                continue
            learned += 1
            assert [text for text in texts if text.strip('"') not in labels] == [], (name, what, labels)
    assert learned > 200


@each(
    ("name", "label"),
    [
        ("qwen3", f"<think>\nI look.\n</think>\n\n<tool_call>\n{CALL}\n</tool_call><|im_end|>"),
        ("qwen3_6", "I look.\n</think>\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nBern\n"
         "</parameter>\n</function>\n</tool_call><|im_end|>"),
        ("gptoss", "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant to=functions.get_weather"
         '<|channel|>commentary json<|message|>{"city": "Bern"}<|call|>'),
        ("lfm2_v2", "<think>\nI look.\n</think><|tool_call_start|>[get_weather(city='Bern')]<|tool_call_end|>"
         "<|im_end|>"),
    ],
)  # fmt: skip
def test_a_thought_and_its_call_are_learned_in_one(name: str, label: str):
    chat = with_template(packaged()[f"trl/chat_templates/{name}.jinja"])
    messages, tools, _ = SAID["thoughts and a call"]
    assert labels_of(chat, messages, tools) == [label]
