import pytest
from tests.cases import each

from tunesmith.data.files.records import RecordProblem
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.instruction import conversation_from_instruction
from tunesmith.data.formats.text import document_from_text
from tunesmith.tokens.conversation import Conversation, Document, Message


def talk(*turns):
    """Turns as "role: text" or (role, text, weight)."""
    return Conversation(tuple(Message(*(t.split(": ", 1) if isinstance(t, str) else t)) for t in turns))


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


PLAIN = talk("user: hi", "assistant: yo")

FORMS = {
    "openai": (messages(("user", "hi"), ("assistant", "yo")), PLAIN),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
        PLAIN,
    ),
    "conversation": (
        {"conversation": [{"from": "user", "value": "hi"}, {"from": "bot", "value": "yo"}]},
        PLAIN,
    ),
    "conversations-with-role": (
        {"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
        PLAIN,
    ),
    "pairs": ({"conversation": [{"human": "hi", "assistant": "yo"}]}, PLAIN),
    "pairs-user": ({"messages": [{"user": "hi", "assistant": "yo"}]}, PLAIN),
    "pairs-two": (
        {"system": "S", "conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]},
        talk("system: S", "user: a", "assistant: b", "user: c", "assistant: d"),
    ),
    "mixed-case-and-space": (messages(("User", "hi"), (" ASSISTANT ", "yo")), PLAIN),
    "text-parts": (
        messages(
            ("user", [{"type": "text", "text": "h"}, {"type": "text", "value": "i"}]),
            ("assistant", [{"text": "y"}, {"text": "o"}]),
        ),
        PLAIN,
    ),
    "parts-without-type": (messages(("user", [{"text": "hi"}]), ("assistant", [{"value": "yo"}])), PLAIN),
    "tools": (
        {
            "conversations": [
                {"from": "sys", "value": "S"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "{}"},
                {"from": "observation", "value": "r"},
                {"from": "model", "value": "a"},
            ],
            "tools": [],
        },
        talk("system: S", "user: q", "assistant: {}", "tool: r", "assistant: a"),
    ),
    "same-role-twice": (
        messages(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d")),
        talk("user: a", "user: b", "assistant: c", "assistant: d"),
    ),
    "empty-question": (messages(("user", ""), ("assistant", "yo")), talk("user: ", "assistant: yo")),
    "white-space-kept": (
        messages(("user", " hi\n"), ("assistant", "\tyo ")),
        talk("user:  hi\n", "assistant: \tyo "),
    ),
    "ends-with-question": (
        messages(("user", "a"), ("assistant", "b"), ("user", "c")),
        talk("user: a", "assistant: b", "user: c"),
    ),
    "system-empty": ({"system": "", **messages(("user", "hi"), ("assistant", "yo"))}, PLAIN),
    "system-twice-the-same": (
        {"system": "S", **messages(("system", "S"), ("user", "hi"), ("assistant", "yo"))},
        talk("system: S", "user: hi", "assistant: yo"),
    ),
    "messages-null": ({"messages": None, "conversations": [{"human": "hi", "assistant": "yo"}]}, PLAIN),
}


@each(("value", "expected"), FORMS.values(), ids=FORMS)
def test_forms(value, expected):
    assert conversation_from_chat(value) == [expected]


ROLES = {
    "user": ["user", "human", "prompter"],
    "assistant": ["assistant", "gpt", "bot", "chatgpt", "model"],
    "system": ["system", "sys", "developer"],
    "tool": ["tool", "observation", "function"],
}


@each(("role", "name"), [(role, name) for role, names in ROLES.items() for name in names])
def test_roles(role, name):
    turns = [{"from": name, "value": "x"}, {"from": "gpt", "value": "y"}]
    assert conversation_from_chat({"conversations": turns})[0].messages[0] == Message(role, "x")


WEIGHTS = {
    "none": ({}, 1.0),
    "train": ({"train": True}, 1.0),
    "train-false": ({"train": False}, 0.0),
    "train-false-wins": ({"train": False, "loss_weight": 2}, 0.0),
    "loss-weight": ({"loss_weight": 0.25}, 0.25),
    "loss-weight-0": ({"loss_weight": 0}, 0.0),
    "loss-weight-above-1": ({"loss_weight": 3}, 3.0),
    "openai-weight": ({"weight": 0}, 0.0),
    "null": ({"loss_weight": None, "train": None}, 1.0),
}


@pytest.mark.parametrize(("extra", "weight"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(extra, weight):
    turns = [
        {"role": "user", "content": "a", "loss_weight": 0},
        {"role": "assistant", "content": "b", **extra},
        {"role": "assistant", "content": "c"},
    ]
    expected = talk("user: a", ("assistant", "b", weight), "assistant: c")
    assert conversation_from_chat({"messages": turns}) == [expected]
    pairs = [{"human": "a", "assistant": "b", **extra}, {"human": "c", "assistant": "d"}]
    assert conversation_from_chat({"conversation": pairs})[0].messages[1].weight == weight


def test_an_untrained_reply_may_be_empty():
    turns = [{"role": "assistant", "content": "", "train": False}, {"role": "assistant", "content": "x"}]
    assert conversation_from_chat({"messages": turns}) == [talk(("assistant", "", 0.0), "assistant: x")]


@pytest.mark.parametrize(
    ("given", "first"),
    [(("user", "hi"), "system: P"), (("system", "own"), "system: own")],
    ids=["without", "with-own"],
)
def test_system_prompt_comes_first_where_there_is_none(given, first):
    value = messages(given, ("assistant", "yo"))
    found = conversation_from_chat(value, system_prompt="P")[0].messages
    assert found[0] == talk(first).messages[0]
    assert [m.role for m in found].count("system") == 1


A = ("assistant", "yo")
BAD_CHAT = {
    "empty": ({}, "no conversation was found: the record is empty; one of messages, conversations"),
    "other-fields": ({"q": 1, "a": 2}, "no conversation was found: the record has q, a"),
    "instruction": ({"instruction": "x", "output": "y"}, "use the format instruction: {}"),
    "preference": ({"chosen": [], "rejected": []}, "this is a preference record (chosen, rejected)"),
    "no-list": ({"messages": "hi"}, "messages is a string, not a list"),
    "empty-list": ({"messages": []}, "messages is empty"),
    "turn-no-object": ({"conversations": ["hi", 1]}, "conversations[0] is a string, not an object"),
    "no-role": ({"messages": [{"content": "x"}]}, "messages[0].role is missing"),
    "role-number": ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role is a number, not text"),
    "role-unknown": (messages(("narrator", "x")), 'messages[0].role is "narrator"; valid are user'),
    "from-unknown": ({"conversations": [{"from": "x", "value": "y"}]}, 'conversations[0].from is "x"'),
    "no-content": ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
    "null-content": (messages(("user", None), A), "messages[0].content is missing"),
    "no-value": ({"conversations": [{"from": "human"}]}, "conversations[0].value is missing"),
    "content-number": (messages(("user", 3), A), "messages[0].content is a number, not text"),
    "content-object": (messages(("user", {"text": "x"}), A), "messages[0].content is an object, not text"),
    "image": (
        messages(("user", [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]), A),
        'messages[0].content[1] is of type "image_url"; only text can be used',
    ),
    "part-number": (messages(("user", [1]), A), "messages[0].content[0] is a number, not a text part"),
    "part-no-text": (messages(("user", [{"type": "text"}]), A), "messages[0].content[0].value is missing"),
    "no-reply": (messages(("user", "x")), "there is no assistant reply"),
    "only-system": (messages(("system", "x")), "there is no assistant reply"),
    "all-weights-0": (
        {"messages": [{"role": "assistant", "content": "x", "loss_weight": 0}]},
        "no assistant reply has a weight above 0",
    ),
    "empty-reply": (messages(("user", "x"), ("assistant", " \n")), "messages[1].content is empty"),
    "empty-pair": ({"conversation": [{"human": "x", "assistant": ""}]}, "conversation[0].assistant is empty"),
    "pair-null": (
        {"conversation": [{"human": "x", "assistant": None}]},
        "conversation[0].assistant is missing",
    ),
    "half-pair": ({"conversation": [{"human": "x"}]}, "conversation[0].role is missing"),
    "weight-negative": (
        {"messages": [{"role": "assistant", "content": "x", "loss_weight": -1}]},
        "loss_weight is -1",
    ),
    "weight-text": (
        {"messages": [{"role": "user", "content": "x", "loss_weight": "1"}]},
        "loss_weight is '1'",
    ),
    "weight-true": (
        {"messages": [{"role": "user", "content": "x", "loss_weight": True}]},
        "loss_weight is True",
    ),
    "weight-inf": (
        {"messages": [{"role": "user", "content": "x", "loss_weight": float("inf")}]},
        "messages[0].loss_weight is inf",
    ),
    "train-text": (
        {"messages": [{"role": "assistant", "content": "x", "train": "no"}]},
        "messages[0].train is a string; it must be true or false",
    ),
    "system-number": ({**messages(("user", "x"), A), "system": 3}, "system is a number, not text"),
    "two-systems": (
        {**messages(("system", "x"), A), "system": "y"},
        "system and messages are both a system message",
    ),
}


@each(("value", "reason"), BAD_CHAT.values(), ids=BAD_CHAT)
def test_bad_chat_records(value, reason):
    with pytest.raises(RecordProblem) as caught:
        conversation_from_chat(value)
    assert reason in caught.value.message


def node(role, text, *replies, **extra):
    return {"role": role, "text": text, "replies": list(replies), **extra}


def ask(text, *replies, **extra):
    return node("prompter", text, *replies, **extra)


def say(text, *replies, **extra):
    return node("assistant", text, *replies, **extra)


TREES = {
    "one": (ask("q", say("a")), ["q a"]),
    "best-rank": (ask("q", say("a", rank=1), say("b", rank=0), say("c", rank=2)), ["q b"]),
    "no-rank": (ask("q", say("a"), say("b", rank=None)), ["q a", "q b"]),
    "some-ranked": (ask("q", say("a"), say("b", rank=3), say("c", rank=5)), ["q b"]),
    "same-rank": (ask("q", say("a", rank=0), say("b", rank=0)), ["q a", "q b"]),
    "best-is-deleted": (ask("q", say("a", rank=0, deleted=True), say("b", rank=1)), ["q b"]),
    "best-failed-review": (ask("q", say("a", rank=0, review_result=False), say("b", rank=1)), ["q b"]),
    "not-reviewed": (ask("q", say("a", review_result=None)), ["q a"]),
    "every-question": (
        ask("q", say("a", ask("r", say("b"), rank=1), ask("s", say("c"), rank=0))),
        ["q a r b", "q a s c"],
    ),
    "open-question-dropped": (ask("q", say("a", ask("r"), ask("s", say("c")))), ["q a s c"]),
    "only-open-questions": (ask("q", say("a", ask("r"), ask("s"))), ["q a"]),
    "below-deleted": (ask("q", say("a", ask("r", say("b"), deleted=True))), ["q a"]),
    "no-replies-field": (
        {"role": "prompter", "text": "q", "replies": [{"role": "assistant", "text": "a"}]},
        ["q a"],
    ),
}


@each(("tree", "expected"), TREES.values(), ids=TREES)
def test_message_trees(tree, expected):
    found = conversation_from_chat({"message_tree_id": "x", "prompt": tree})
    assert [" ".join(m.content for m in c.messages) for c in found] == expected
    for path in found:
        assert [m.role for m in path.messages] == ["user", "assistant"] * (len(path.messages) // 2)


def test_message_trees_take_the_system_prompt():
    found = conversation_from_chat({"prompt": ask("q", say("a"), say("b"))}, system_prompt="P")
    assert found == [
        talk("system: P", "user: q", "assistant: a"),
        talk("system: P", "user: q", "assistant: b"),
    ]


BAD_TREES = {
    "no-reply": (ask("q"), "the tree has no assistant reply"),
    "all-deleted": (ask("q", say("a", deleted=True)), "the tree has no assistant reply"),
    "root-deleted": (ask("q", say("a"), deleted=True), "the tree has no assistant reply"),
    "no-text": (ask("q", {"role": "assistant"}), "prompt.replies[0].text is missing"),
    "no-role": (ask("q", say("a", {"text": "r"})), "prompt.replies[0].replies[0].role is missing"),
    "role": (ask("q", node("bot", "a")), 'prompt.replies[0].role is "bot"'),
    "empty": (ask("q", say(" ")), "prompt.replies[0].text is empty"),
    "rank": (ask("q", say("a", rank="0")), "prompt.replies[0].rank is '0'"),
    "replies": ({"role": "prompter", "text": "q", "replies": {}, "x": 1}, "the tree has no assistant reply"),
    "replies-text": ({"role": "prompter", "text": "q", "replies": "x"}, "prompt.replies is not a list"),
    "reply-text": (ask("q", "x"), "a message of the tree is not an object"),
}


@pytest.mark.parametrize(("tree", "reason"), BAD_TREES.values(), ids=BAD_TREES)
def test_bad_message_trees(tree, reason):
    with pytest.raises(RecordProblem) as caught:
        conversation_from_chat({"prompt": tree})
    assert reason in caught.value.message


INSTRUCTIONS = {
    "plain": ({"instruction": "q", "output": "a"}, talk("user: q", "assistant: a")),
    "input": ({"instruction": "q", "input": "i", "output": "a"}, talk("user: q\ni", "assistant: a")),
    "input-empty": ({"instruction": "q", "input": "", "output": "a"}, talk("user: q", "assistant: a")),
    "input-null": ({"instruction": "q", "input": None, "output": "a"}, talk("user: q", "assistant: a")),
    "only-input": ({"instruction": "", "input": "i", "output": "a"}, talk("user: i", "assistant: a")),
    "response": ({"instruction": "q", "response": "a"}, talk("user: q", "assistant: a")),
    "output-null": ({"instruction": "q", "output": None, "response": "a"}, talk("user: q", "assistant: a")),
    "system": (
        {"instruction": "q", "output": "a", "system": "S"},
        talk("system: S", "user: q", "assistant: a"),
    ),
    "system-empty": (
        {"instruction": "q", "output": "a", "system": ""},
        talk("system: P", "user: q", "assistant: a"),
    ),
    "history": (
        {"instruction": "q", "output": "a", "history": [["x", "y"]]},
        talk("user: x", "assistant: y", "user: q", "assistant: a"),
    ),
    "history-csv": (
        {"instruction": "q", "output": "a", "history": '[["x", "y"]]'},
        talk("user: x", "assistant: y", "user: q", "assistant: a"),
    ),
    "history-csv-empty": (
        {"instruction": "q", "output": "a", "history": ""},
        talk("user: q", "assistant: a"),
    ),
}


@each(("value", "expected"), INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_instructions(value, expected):
    prompt = "P" if expected.messages[0].content == "P" else None
    assert conversation_from_instruction(value, system_prompt=prompt) == expected


BAD_INSTRUCTIONS = {
    "chat": ({"messages": []}, "use the format chat: {}"),
    "preference": ({"chosen": "a", "rejected": "b"}, "this is a preference record"),
    "other": ({"question": "q"}, "instruction is missing: the record has question"),
    "null": ({"instruction": None, "output": "a"}, "instruction is missing"),
    "empty": ({"instruction": " ", "output": "a"}, "instruction is empty"),
    "list": ({"instruction": ["q"], "output": "a"}, "instruction is a list, not text"),
    "no-output": ({"instruction": "q"}, "output is missing"),
    "empty-output": ({"instruction": "q", "output": "\n"}, "output is empty"),
    "empty-response": ({"instruction": "q", "response": ""}, "response is empty"),
    "number": ({"instruction": "q", "output": 3}, "output is a number, not text"),
    "history-text": (
        {"instruction": "q", "output": "a", "history": "x"},
        "history is text, but not a JSON list",
    ),
    "history-object": (
        {"instruction": "q", "output": "a", "history": {"x": 1}},
        "history is an object, not a list",
    ),
    "history-triple": (
        {"instruction": "q", "output": "a", "history": [["x", "y", "z"]]},
        "history[0] is not a pair",
    ),
    "history-null": (
        {"instruction": "q", "output": "a", "history": [["x", "y"], ["x", None]]},
        "history[1] is not a",
    ),
}


@each(("value", "reason"), BAD_INSTRUCTIONS.values(), ids=BAD_INSTRUCTIONS)
def test_bad_instructions(value, reason):
    with pytest.raises(RecordProblem) as caught:
        conversation_from_instruction(value)
    assert reason in caught.value.message


def test_text_is_kept_as_it_is():
    assert document_from_text({"text": " a\n", "id": 3}) == Document(" a\n")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "text is missing: the record is empty"),
        ({"content": "x"}, "text is missing: the record has content"),
        ({"text": None}, "text is missing"),
        ({"text": "  "}, "text is empty"),
        ({"text": ["x"]}, "text is a list, not text"),
    ],
    ids=["empty", "other", "null", "blank", "list"],
)
def test_bad_texts(value, reason):
    with pytest.raises(RecordProblem) as caught:
        document_from_text(value)
    assert reason in caught.value.message
