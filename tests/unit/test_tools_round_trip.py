"""Sampled calls: prompts with tools, replies that call them, and training that learns these calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cases import each
from tests.fixtures.sampling_rows import row
from tests.fixtures.tokenizers import load_family, with_template
from tests.fixtures.tool_families import FAMILIES, load
from tests.support import write_jsonl
from tests.unit.test_tokens_calls import CALLS, SEVERAL, TOOLS, sampled

from tunesmith.api.datasets import DatasetSpec, PromptsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.contents import contents_of
from tunesmith.data.prompts.load import Prompts, prepare_prompts
from tunesmith.errors import DataError
from tunesmith.sampling.outputs import write_outputs
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Conversation, Message

pytestmark = pytest.mark.engine

ASKED = {"role": "user", "content": "Rain?"}
PAST = [
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
    {"role": "tool", "content": "wet"},
]
RECORDS: dict[str, dict[str, Any]] = {
    "question": {"messages": [ASKED]},
    "after a call": {"messages": PAST},
    "after an answer": {"messages": [*PAST, {"role": "assistant", "content": "Yes."}, ASKED]},
    "prompt": {"prompt": "Rain?"},
    "query": {"query": "Rain?", "answers": [{"name": "add", "arguments": {}}]},
}


def prompts_of(folder: Path, chat: ChatTokenizer, *records: dict[str, Any], **spec: Any) -> Prompts:
    data = write_jsonl(folder / "prompts.jsonl", records)
    made = PromptsSpec.model_validate({"uri": data.as_uri(), "chat": {}, **spec})
    return prepare_prompts(made, chat, StorageOptions(), folder / "prepared")


def learned(chat: ChatTokenizer, content: Any) -> list[tuple[list[int], list[float]]]:
    assert isinstance(content, Conversation)
    samples = chat.samples(content, train_on="lastAssistant", max_length=50_000)
    return [(each.ids, [1.0 if weight else 0.0 for weight in each.weights]) for each in samples]


@pytest.mark.parametrize("name", list(FAMILIES))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(list(RECORDS)))
def test_training_learns_the_calls_that_were_sampled(
    tmp_path: Path, name: str, data: st.DataObject, kind: str
) -> None:
    """By sampled_data.json and by preference.jsonl: the tokens and labels of the conversation itself."""
    chat = load(name)
    calls = data.draw(st.lists(CALLS, min_size=1, max_size=2 if name in SEVERAL else 1))
    reply = Message("assistant", "", calls=tuple(calls))
    with prompts_of(tmp_path, chat, {"id": "p", "tools": TOOLS, **RECORDS[kind]}) as prompts:
        (prompt,) = prompts
        found = [row("p", response=sampled(name, reply)), row("p", 1, "w", response="No.")]
        write_outputs(prompts, lambda _: found, tmp_path, num_samples=2)
    asked = Conversation((*prompt.messages, reply), tools=prompt.tools)
    wanted = learned(chat, asked)
    (kept,) = json.loads((tmp_path / "sampled_data.json").read_text("utf-8"))
    assert [call["function"]["name"] for call in kept["response_message"]["tool_calls"]] == [
        call.name for call in calls
    ]
    spec = DatasetSpec.model_validate({"uri": "file:///x", "sampled": {}})
    (again,) = contents_of(kept, spec)
    assert learned(chat, again) == wanted
    pairs = [json.loads(line) for line in (tmp_path / "preference.jsonl").read_text("utf-8").splitlines()]
    assert [pair["label"] for pair in pairs] == [True, False]
    (again,) = conversation_from_chat(pairs[0])
    assert learned(chat, again) == wanted
    assert pairs[1]["completion"] == [{"role": "assistant", "content": "No."}]


@each("kind", list(RECORDS))
@each("name", list(FAMILIES))
def test_the_prompt_is_the_templates_own_with_the_tools(tmp_path: Path, name: str, kind: str) -> None:
    chat = load(name)
    with prompts_of(tmp_path, chat, {"tools": TOOLS, **RECORDS[kind]}) as prompts:
        (prompt,) = prompts
    assert prompt.ids == chat.given(TOOLS).prompt_ids(prompt.messages)
    text = chat.decode(prompt.ids)
    assert "get_weather_now" in text
    assert ("wet" in text) == kind.startswith("after")


def test_a_template_without_tools_makes_bad_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leaves out the tools of this record"):
        prompts_of(tmp_path, load_family("chatml"), {"tools": TOOLS, **RECORDS["question"]})


def test_values_for_the_template_and_thoughts_reach_it(tmp_path: Path) -> None:
    template = (
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n{% if deep %}<think>\n{% endif %}{% endif %}"
    )
    chat = with_template("chatml", template)
    thinks = {"role": "assistant", "content": "Yes.", "reasoning_content": "It is wet."}
    record = {"messages": [ASKED, thinks, ASKED], "chat_template_kwargs": {"deep": True}}
    with prompts_of(tmp_path, chat, record) as prompts:
        (prompt,) = prompts
        write_outputs(prompts, lambda id_: [row(id_, response="So.")], tmp_path, num_samples=1)
    text = chat.decode(prompt.ids)
    assert "It is wet." in text
    assert text.endswith("<think>\n")
    (kept,) = json.loads((tmp_path / "sampled_data.json").read_text("utf-8"))
    (again,) = contents_of(kept, DatasetSpec.model_validate({"uri": "file:///x", "sampled": {}}))
    assert isinstance(again, Conversation)
    assert json.loads(again.arguments) == {"deep": True}
    assert again.messages[1].content == prompt.messages[1].content


@each(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": "", "tool_calls": "f(1)"}, "tool_calls is text that is not JSON"),
        ({"role": "tool", "content": "a <|im_end|> b"}, "contains '<|im_end|>', one of the model's control"),
    ],
)  # fmt: skip
def test_bad_records_are_named(tmp_path: Path, turn: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        prompts_of(tmp_path, load("hermes"), {"tools": TOOLS, "messages": [ASKED, turn, ASKED]})
    assert said in str(caught.value)
    assert "prompts.jsonl, line 1" in str(caught.value)
