"""Tools in dialogues: seeds with them, requests as servers and templates take them, calls that are kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cases import each
from tests.fixtures.tool_families import FAMILIES, load
from tests.support import write_jsonl
from tests.unit.dialogue_world import TEMPLATES, Rows, everyone, plan

from tunesmith.api.dialogue import OpenAIEndpoint, SeedsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.seeds import seed_from
from tunesmith.data.record import RecordProblem
from tunesmith.dialogue.answers import read
from tunesmith.dialogue.clients import EngineClient, completion_of
from tunesmith.dialogue.context import messages_for, recent
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.outputs import write_outputs
from tunesmith.dialogue.replies import Answer, ServerReply, Unusable
from tunesmith.dialogue.rounds import generate
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.state import Dialogue, PlannedSeed, Role
from tunesmith.dialogue.turns import CallRow, Completion
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.names import MESSAGES_KEY
from tunesmith.tokens.conversation import Message, ToolCall

TOOL = {"type": "function", "function": {"name": "rain", "description": "Is it wet"}}
CALL = {"id": "c00000001", "type": "function", "function": {"name": "rain", "arguments": {"at": 1}}}
STEPS = [
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "wet", "tool_call_id": "c00000001"},
]
HISTORY = {
    "id": "s-1",
    "tools": [TOOL],
    "rounds": [{"question": "Rain?", "answer": "Yes.", "correction": "Yes, it rains.", "steps": STEPS}],
}
CHAT = {
    "id": "s-1",
    "tools": [TOOL],
    "messages": [{"role": "user", "content": "Rain?"}, *STEPS, {"role": "assistant", "content": "Yes."}],
    "correction": "Yes, it rains.",
}
CALLS = (ToolCall("rain", '{"at": 2}'),)


def planned(record: dict[str, Any]) -> PlannedSeed:
    seed = seed_from(record)
    return PlannedSeed("s-1", "s-1", seed.rounds, tools=seed.tools)


def dialogue(record: dict[str, Any] = HISTORY, *said: str) -> Dialogue:
    made = Dialogue(planned(record), 2)
    for text in said:
        made.say(text)
    return made


def test_a_history_and_a_chat_are_the_same_seed() -> None:
    one, other = seed_from(HISTORY), seed_from(CHAT)
    assert one == other
    (round_,) = one.rounds
    assert [step.role for step in round_.steps] == ["assistant", "tool"]
    assert round_.steps[0].calls == (ToolCall("rain", '{"at": 1}', "c00000001"),)
    assert json.loads(one.tools) == [TOOL]


@each(
    ("messages", "said"),
    [
        ([{"role": "tool", "content": "wet"}, *CHAT["messages"]], "a seed is one question and one answer"),
        ([*CHAT["messages"], {"role": "tool", "content": "wet"}], "a seed is one question and one answer"),
    ],
)
def test_results_belong_between_question_and_answer(messages: list[Any], said: str) -> None:
    with pytest.raises(RecordProblem, match=said):
        seed_from({**CHAT, "messages": messages})


def test_a_step_is_a_call_or_a_result() -> None:
    wrong = {**HISTORY, "rounds": [{**HISTORY["rounds"][0], "steps": [{"role": "user", "content": "x"}]}]}
    with pytest.raises(RecordProblem, match="must be calls of tools and their results"):
        seed_from(wrong)


def test_seeds_on_the_disk_keep_them(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "seeds.jsonl", [HISTORY, {**CHAT, "id": "s-2"}])
    with prepare_seeds(SeedsSpec(uri=data.as_uri()), StorageOptions(), tmp_path / "seeds") as seeds:
        one, two = seeds
    assert (one.rounds, one.tools) == (planned(HISTORY).rounds, planned(HISTORY).tools)
    assert (two.rounds, two.tools) == (one.rounds, one.tools)


def test_the_answering_model_gets_calls_results_and_ids() -> None:
    asked = messages_for(dialogue(HISTORY, "And now?"), TEMPLATES, 16)
    _, question, call, result, answer, last = asked
    assert (question["content"], answer["content"], last["content"]) == (
        "Rain?",
        "Yes, it rains.",
        "And now?",
    )
    (made,) = call["tool_calls"]
    assert made == {
        "type": "function",
        "id": "c00000001",
        "function": {"name": "rain", "arguments": '{"at": 1}'},
    }
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "wet", "c00000001")
    assert plan().call_for(dialogue(HISTORY, "And now?")).tools == planned(HISTORY).tools


def test_others_see_them_in_the_transcript_and_are_offered_no_tools() -> None:
    for grown, inside in (
        (dialogue(), 'Assistant:\nrain({"at": 1})\n\nTool:\nwet\n\nAssistant:\nYes, it rains.'),
        (dialogue(HISTORY, "And now?", "No."), 'rain({"at": 1})\n\nTool:\nwet'),
    ):
        (message,) = messages_for(grown, TEMPLATES, 16)
        assert inside in message["content"]
        assert plan().call_for(grown).tools == ""


def test_a_correction_sees_how_its_answer_came_about() -> None:
    record = {**HISTORY, "rounds": [{"question": "Rain?", "answer": "Yes.", "steps": STEPS}]}
    (message,) = messages_for(dialogue(record), TEMPLATES, 16)
    assert 'Assistant:\nrain({"at": 1})\n\nTool:\nwet\n\nAssistant:\nYes.' in message["content"]
    grown = dialogue(HISTORY, "And now?")
    grown.say("", calls=CALLS)
    (message,) = messages_for(grown, TEMPLATES, 16)
    assert 'rain({"at": 2})' in message["content"]


def test_a_shortened_dialogue_begins_with_a_question() -> None:
    said = [*dialogue().messages(), Message("user", "And now?")]
    assert [message.role for message in said] == ["user", "assistant", "tool", "assistant", "user"]
    for most in range(1, 5):
        assert recent(said, most) == said[-1:]
    assert recent(said, 5) == said


def request_for(tools: str) -> Any:
    spec = OpenAIEndpoint.model_validate({"baseUrl": "https://x.invalid/v1", "model": "m"})
    asked = messages_for(dialogue(HISTORY, "And now?"), TEMPLATES, 16)
    return Endpoint("gemini", spec, None, timeout=1.0).request(asked, 0.5, 50, tools)


def test_a_request_holds_the_tools_and_counts_them() -> None:
    plain, offered = request_for(""), request_for(planned(HISTORY).tools)
    assert "tools" not in plain.body
    assert offered.body["tools"] == [TOOL]
    assert offered.prompt_tokens > plain.prompt_tokens
    assert offered.most_prompt_tokens > plain.most_prompt_tokens


def answered(finish: str, tools: str | None = None, **message: Any) -> Any:
    body = {"choices": [{"message": {"content": None, **message}, "finish_reason": finish}]}
    body |= {"usage": {"prompt_tokens": 12, "completion_tokens": 7}}
    reply = ServerReply(200, json.dumps(body), {}, 0.4)
    return read(reply, request_for(planned(HISTORY).tools if tools is None else tools), "gemini")


WIRE = {"id": "c7", "type": "function", "function": {"name": "rain", "arguments": '{"at": 2}'}}


@each(
    ("finish", "message", "text", "call"),
    [
        ("tool_calls", {"tool_calls": [WIRE]}, "", ToolCall("rain", '{"at": 2}', "c7")),
        (
            "stop",
            {"tool_calls": [WIRE], "content": "I look."},
            "I look.",
            ToolCall("rain", '{"at": 2}', "c7"),
        ),
        ("tool_use", {"tool_calls": [{"function": {"name": "rain"}}]}, "", ToolCall("rain")),
        ("function_call", {"function_call": WIRE["function"]}, "", ToolCall("rain", '{"at": 2}')),
    ],
)
def test_a_call_is_an_answer(finish: str, message: dict[str, Any], text: str, call: ToolCall) -> None:
    found = answered(finish, **message)
    assert isinstance(found, Answer)
    assert (found.text, found.calls) == (text, (call,))


@each(
    ("finish", "tools", "message", "fault"),
    [
        ("tool_calls", "", {"tool_calls": [WIRE]}, "interrupted"),
        ("tool_calls", None, {"content": "Yes."}, "interrupted"),
        ("abort", None, {"tool_calls": [WIRE]}, "interrupted"),
        ("tool_calls", None, {"tool_calls": [{"function": {"name": "rain", "arguments": '{"at'}}]}, "empty"),
        ("tool_calls", None, {"tool_calls": [{"function": {"name": "rain", "arguments": "[1]"}}]}, "empty"),
        ("tool_calls", None, {"tool_calls": [{"function": {"arguments": "{}"}}]}, "empty"),
        ("tool_calls", None, {"tool_calls": "rain"}, "empty"),
        ("stop", None, {}, "empty"),
    ],
)
def test_what_is_no_whole_call_is_not_kept(
    finish: str, tools: str | None, message: dict[str, Any], fault: str
) -> None:
    found = answered(finish, tools, **message)
    assert isinstance(found, Unusable)
    assert found.fault == fault


def test_a_row_of_the_journal_keeps_calls() -> None:
    outcome = answered("tool_calls", tool_calls=[WIRE])
    said = completion_of(outcome, ServerReply(200, "", {}, 0.1), request_for(""), 1, 0, 0.1)
    row = CallRow("s-1", 2, Role.ANSWER, said, 7)
    assert CallRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    plain = CallRow("s-1", 2, Role.ANSWER, Completion("Yes."), 7)
    assert "calls" not in plain.to_json()


class _Caller:
    """Calls a tool where it is offered one, else speaks."""

    async def call(self, call: Any, tries: Any) -> Completion:
        return Completion("", calls=CALLS) if call.tools else Completion(f"Text of {call.role}.")

    def stop(self, error: Any) -> None:
        pass


def test_a_call_is_kept_in_the_outputs_which_are_seeds_again(tmp_path: Path) -> None:
    seed, made, rows = planned(HISTORY), plan(2), Rows()
    asyncio.run(generate(made, [seed], everyone(_Caller()), rows, rows.get))
    write_outputs(made, [seed], rows.get, tmp_path)
    (history,) = [
        json.loads(line) for line in (tmp_path / "round2/round2_history.jsonl").read_text().splitlines()
    ]
    assert history["tools"] == [TOOL]
    last = history["rounds"][1]
    assert (last["answer"], last["correction"]) == ("", "Text of correction.")
    assert last["tool_calls"] == [{"type": "function", "function": {"name": "rain", "arguments": {"at": 2}}}]
    again = seed_from(history)
    assert again.rounds[0] == seed.rounds[0]
    assert again.rounds[1].calls == CALLS
    (whole,) = [json.loads(line) for line in (tmp_path / MESSAGES_KEY).read_text().splitlines()]
    (learned,) = conversation_from_chat(whole)
    assert json.loads(learned.tools) == [TOOL]
    assert [message.role for message in learned.messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    (single,) = [
        json.loads(line) for line in (tmp_path / "round2/round2_single_turn.jsonl").read_text().splitlines()
    ]
    assert seed_from(single).rounds[0].calls == CALLS


class _Engine:
    """Replies with one text."""

    at_once, longest = 8, 10_000

    def __init__(self, text: str) -> None:
        self.text, self.asked = text, list[GenerationRequest]()

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        self.asked.append(request)
        return GeneratedReply(self.text, 3, "stop")


@pytest.mark.engine
@each("name", list(FAMILIES))
def test_an_engine_in_the_pod_gets_them_by_its_template(name: str) -> None:
    from tests.unit.test_tokens_calls import sampled

    chat, tools = load(name), json.dumps([{**TOOL, "function": {**TOOL["function"], "name": "add"}}])
    reply = sampled(name, Message("assistant", "", calls=(ToolCall("add", '{"at": 2}'),)))
    engine, rows = _Engine(reply), Rows()
    seed = PlannedSeed("s-1", "s-1", planned(HISTORY).rounds, tools=tools)
    client = EngineClient(engine, chat)  # type: ignore[arg-type]
    asyncio.run(generate(plan(2), [seed], everyone(client), rows, rows.get))
    _, answer, _ = rows.values()
    assert (answer["text"], answer["calls"]) == ("", [["add", '{"at": 2}', ""]])
    shown = chat.decode(engine.asked[1].prompt)
    assert "wet" in shown
    assert "Is it wet" in shown


@pytest.mark.engine
def test_a_template_without_tools_ends_the_dialogue() -> None:
    from tests.fixtures.tokenizers import load_family

    client, rows = EngineClient(_Engine("Well."), load_family("chatml")), Rows()  # type: ignore[arg-type]
    asyncio.run(generate(plan(2), [planned(HISTORY)], everyone(client), rows, rows.get))
    *_, last = rows.values()
    assert last["reason"] == "not_shown"
    assert "leaves out the tools" in last["why"]
