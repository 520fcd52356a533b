"""A chat template that the manifest chooses: ready ones, one's own, and values that it always gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cases import each
from tests.fixtures.tokenizers import BY_NAME, build_backend, label_runs, template_of

from tunesmith.api.common import ChatTemplate, ModelSource
from tunesmith.artifacts.store import FROM_ENVIRONMENT
from tunesmith.engines.chat_template import with_chosen_template
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.chosen_template import literal, with_arguments
from tunesmith.tokens.conversation import Conversation, Message, ToolCall
from tunesmith.tokens.template_worker import environment

pytestmark = pytest.mark.engine

ASKED, REPLY = Message("user", "Hi"), Message("assistant", "Hello.")
TOOLS = json.dumps([{"type": "function", "function": {"name": "look", "description": "out of the window"}}])


def choose(folder: Path, name: str, template: dict[str, Any], *, own: str | None = None) -> ChatTokenizer:
    """The tokenizer of a family, with the template `own` beside it, as a job with this choice loads it."""
    tokenizer = build_backend(BY_NAME[name])
    tokenizer.chat_template = own
    tokenizer.save_pretrained(folder / "base")
    source = ModelSource.model_validate({"uri": "file:///base", "chatTemplate": template})
    return ChatTokenizer.load(
        with_chosen_template(source, folder / "base", FROM_ENVIRONMENT, folder / "chosen")
    )


def label_of(chat: ChatTokenizer, *messages: Message, **fields: str) -> str:
    (sample,) = chat.samples(Conversation(messages, **fields), train_on="allAssistant", max_length=1000)
    ((start, end),) = label_runs(sample)
    return chat.decode(sample.ids[start:end])


@each(
    ("template", "family", "prompt", "label"),
    [
        ("chatml", "chatml", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello.<|im_end|>"),
        ("chatml", "between", "<|im_start|>user\nHi<|endoftext|>\n<|im_start|>assistant\n",
         "Hello.<|endoftext|>"),
        ("llama3", "llama3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n", "Hello.<|eot_id|>"),
        ("mistral", "mistral", "<s>[INST] Hi [/INST]", " Hello.</s>"),
    ],
)  # fmt: skip
def test_a_base_model_gets_a_template_by_name_and_learns_to_stop(
    tmp_path: Path, template: str, family: str, prompt: str, label: str
):
    chat = choose(tmp_path, family, {"name": template})
    assert chat.prompt_text([ASKED]) == prompt
    assert label_of(chat, ASKED, REPLY) == label
    assert chat.shape.eot_id in chat.stop_ids


@each("template", ["chatml", "llama3", "mistral"])
def test_ready_templates_show_a_system_message_and_more_turns(tmp_path: Path, template: str):
    chat = choose(tmp_path, template, {"name": template})  # each has a family of its name
    messages = (Message("system", "Be brief."), ASKED, REPLY, ASKED, REPLY)
    samples = chat.samples(Conversation(messages), train_on="allAssistant", max_length=1000)
    assert sum(len(label_runs(sample)) for sample in samples) == 2
    assert "Be brief." in chat.decode(samples[-1].ids)


def test_chatml_shows_tools_and_calls(tmp_path: Path):
    chat = choose(tmp_path, "chatml", {"name": "chatml"})
    call = Message("assistant", "", calls=(ToolCall("look", '{"at": "noon"}'),))
    wanted = '<tool_call>\n{"name": "look", "arguments": {"at": "noon"}}\n</tool_call><|im_end|>'
    assert label_of(chat, Message("system", "S"), ASKED, call, tools=TOOLS) == wanted


@each("template", ["chatml", "llama3", "mistral"])
def test_a_ready_template_serves_messages_as_clients_send_them(tmp_path: Path, template: str):
    """Where the saved template is used elsewhere: no content beside calls, arguments as JSON text."""
    chat = choose(tmp_path, template, {"name": template})
    call = {"type": "function", "id": "c1", "function": {"name": "look", "arguments": '{"at": "noon"}'}}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = chat.tokenizer.apply_chat_template(turns, tokenize=False)
    assert "None" not in text
    assert template != "chatml" or '{"name": "look", "arguments": {"at": "noon"}}' in text


def test_a_template_of_ones_own_by_text_and_by_address(tmp_path: Path):
    text = "{%- for m in messages -%}{{ m.role + ': ' + m.content + eos_token }}{%- endfor -%}" + (
        "{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"
    )
    (tmp_path / "own.jinja").write_text(text)
    for template in ({"text": text}, {"uri": f"file://{tmp_path}/own.jinja"}):
        chat = choose(tmp_path, "chatml", template, own=template_of(BY_NAME["chatml"]))
        assert chat.prompt_text([ASKED]) == "user: Hi<|im_end|>assistant: "
        assert (tmp_path / "base/chat_template.jinja").read_text() == template_of(BY_NAME["chatml"])


THINKING = (
    "{%- for m in messages -%}{{ m.content }}{%- endfor -%}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}{{ '<quick>' }}{%- endif -%}"
)


def test_arguments_hold_for_whoever_loads_the_saved_tokenizer(tmp_path: Path):
    from transformers import AutoTokenizer

    chat = choose(tmp_path, "chatml", {"arguments": {"enable_thinking": False}}, own=THINKING)
    assert chat.prompt_text([ASKED]) == "Hi<quick>"
    chat.tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    turns = [{"role": "user", "content": "Hi"}]
    assert saved.apply_chat_template(turns, tokenize=False) == "Hi<quick>"
    assert saved.apply_chat_template(turns, tokenize=False, enable_thinking=True) == "Hi"
    assert chat.given("", '{"enable_thinking": true}').prompt_text([ASKED]) == "Hi"


@each(
    ("template", "own", "said"),
    [
        ({"arguments": {"enable_thinking": False}}, None, "the model's tokenizer has none"),
        ({"arguments": {"enable_thinkin": False}}, THINKING, "does not use this name"),
        ({"arguments": {"a b": 1}}, THINKING, "is no name of a value"),
        ({"arguments": {"messages": []}}, THINKING, "is no name of a value"),
        ({"uri": "file:///nowhere.jinja"}, None, "nowhere.jinja"),
    ],
)
def test_what_cannot_be_chosen_is_said(tmp_path: Path, template: dict, own: str | None, said: str):
    with pytest.raises(TunesmithError) as caught:
        choose(tmp_path, "chatml", template, own=own)
    assert said in str(caught.value)


def test_without_a_template_the_error_says_how_to_give_one(tmp_path: Path):
    chat = choose(tmp_path, "chatml", {"text": "{{ messages }}"})
    chat.tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"model\.chatTemplate: \{name: chatml\}, \{name: llama3\} or"):
        chat.prompt_text([ASKED])


def test_at_most_one_template_is_chosen():
    with pytest.raises(ValueError, match="at most one of name, uri and text"):
        ChatTemplate.model_validate({"name": "chatml", "text": "{{ messages }}"})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)  # fmt: skip


@settings(deadline=None)
@given(value=_JSON)
def test_a_value_in_a_template_is_the_value_that_was_given(value: Any):
    jinja = environment()
    assert json.loads(jinja.from_string(f"{{{{ {literal(value)} | tojson }}}}").render()) == value
    source = "\n  text {{ x | tojson }}\n"
    assert jinja.from_string(with_arguments(source, {"x": value})).render() == jinja.from_string(
        source
    ).render(x=value)
