"""Every field of a record is read, refused or counted by name."""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.api.datasets import DatasetSpec
from tunesmith.data.formats.chat import conversation_from_chat
from tunesmith.data.formats.contents import contents_of
from tunesmith.data.formats.fields import OTHERS, Fields, Unread, is_empty, unread_text
from tunesmith.data.formats.instruction import conversation_from_instruction
from tunesmith.data.formats.legal import case_from
from tunesmith.data.formats.seeds import seed_from
from tunesmith.data.formats.users import dialogues_of
from tunesmith.data.record import RecordProblem, SourceLocation

DOCS = Path(__file__).parents[2] / "docs/data.md"


def spec(fmt):
    return DatasetSpec.model_validate({"uri": "file:///x", **fmt})


def read(name, record):
    """What a record becomes and how often each of its fields was not read."""
    fields = Fields(record)
    match name:
        case "userSimulation":
            made = dialogues_of(SourceLocation("f", "line 1"), fields)
        case "legalJudgement":
            made = case_from(fields)
        case "seeds":
            made = seed_from(fields)
        case "character":
            made = contents_of(fields, spec({"character": {"name": "Ann"}}))
        case _:
            made = contents_of(fields, spec({name: {}}))
    unread = Unread()
    unread.add(fields.unread())
    return made, dict(unread)


def talk(**extra):
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **extra}]}


def refused(record, reader=conversation_from_chat):
    with pytest.raises(RecordProblem) as caught:
        reader(record)
    return caught.value.message


# --- weights and flags --------------------------------------------------------------------------------------

WEIGHTS = {
    "loss_weight": ({"loss_weight": 0.5}, 0.5),
    "weight": ({"weight": 0}, 0.0),
    "loss_scale": ({"loss_scale": 0.0}, 0.0),
    "train": ({"train": False}, 0.0),
    "training": ({"training": False}, 0.0),
    "loss": ({"loss": False}, 0.0),
    "two-alike": ({"loss_weight": 2, "loss_scale": 2.0}, 2.0),
    "flag-and-weight": ({"train": True, "weight": 0.5}, 0.5),
    "flags-alike": ({"train": False, "loss": False}, 0.0),
    "false-decides": ({"loss": False, "loss_scale": 1.0}, 0.0),
    "nulls": ({"loss_scale": None, "training": None}, 1.0),
}


@each(("extra", "weight"), WEIGHTS.values(), ids=WEIGHTS)
def test_a_turns_weight_under_all_its_names(extra, weight):
    record = talk(**extra)
    record["messages"] += talk()["messages"]
    made, unread = read("chat", record)
    assert (made[0].messages[1].weight, unread) == (weight, {})
    pairs = {"conversation": [{"human": "q", "assistant": "a", **extra}, {"human": "q", "assistant": "a"}]}
    assert conversation_from_chat(pairs)[0].messages[1].weight == weight
    replies = [
        {
            "role": "assistant",
            "text": "a",
            **extra,
            "replies": [{"role": "prompter", "text": "r", "replies": [{"role": "assistant", "text": "b"}]}],
        }
    ]
    (tree,), unread = read("chat", {"prompt": {"role": "prompter", "text": "q", "replies": replies}})
    assert (tree.messages[1].weight, unread) == (weight, {})


DIFFER = {
    "numbers": ({"loss_weight": 1, "weight": 0}, "messages[1].loss_weight and messages[1].weight differ"),
    "scale": ({"weight": 1, "loss_scale": 0.5}, "messages[1].weight and messages[1].loss_scale differ"),
    "flags": ({"train": True, "loss": False}, "messages[1].train and messages[1].loss differ"),
    "flag-and-0": ({"train": True, "weight": 0}, "messages[1].train is true and messages[1].weight is 0"),
    "texts": ({"value": "b"}, "messages[1].content and messages[1].value differ"),
    "roles": ({"from": "human"}, "messages[1].role and messages[1].from differ"),
    "scale-text": ({"loss_scale": "0"}, "messages[1].loss_scale is '0'; it must be a number"),
    "flag-number": ({"training": 1}, "messages[1].training is a number; it must be true or false"),
    "details": (
        {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
        "messages[1].train_detail cannot be used",
    ),
}


@each(("extra", "reason"), DIFFER.values(), ids=DIFFER)
def test_names_of_one_thing_that_differ_are_bad(extra, reason):
    assert reason in refused(talk(**extra))


@each("extra", [{"train": True}, {"weight": 1}, {"loss_scale": 0.5}, {"loss": True}])
def test_only_the_assistants_turns_can_be_learned(extra):
    for role in ("user", "system", "tool"):
        turn = {"role": role, "content": "x", **extra}
        assert f"messages[0] has a weight, but its role is {role}" in refused(
            {"messages": [turn, *talk()["messages"]]}
        )


@each(
    "extra", [{"loss_weight": 0.5}, {"loss_scale": 0}, {"train": False}, {"train_detail": [{"train": True}]}]
)
def test_a_weight_of_a_whole_record_is_refused(extra):
    (name,) = extra
    for record, reader in (
        (talk(), conversation_from_chat),
        ({"instruction": "q", "output": "a"}, conversation_from_instruction),
    ):
        why = f"{name} cannot be used" if "detail" in name else f"{name} is set on the record"
        assert why in refused({**record, **extra}, reader)
        reader({**record, name: True if name == "train" else [] if "detail" in name else 1})


# --- the system message, and texts --------------------------------------------------------------------------

NAMES = ("system", "system_prompt", "system_message")


@each("name", NAMES)
def test_a_system_message_under_each_of_its_names(name):
    tree = {"prompt": {"role": "prompter", "text": "q", "replies": [{"role": "assistant", "text": "a"}]}}
    pair = {"conversation": [{"human": "q", "assistant": "a", name: "S"}]}
    for record in ({**talk(), name: "S"}, {**tree, name: "S"}, pair):
        made, unread = read("chat", record)
        assert ([m.content for m in made[0].messages], unread) == (["S", "q", "a"], {})
    made, unread = read("instruction", {"instruction": "q", "output": "a", name: "S"})
    assert ([m.content for m in made[0].messages], unread) == (["S", "q", "a"], {})


def test_system_messages_that_are_the_same_are_one():
    record = {**talk(), "system": "S", "system_prompt": "", "system_message": "S"}
    assert [m.content for m in conversation_from_chat(record)[0].messages] == ["S", "q", "a"]
    record["messages"].insert(0, {"role": "system", "content": "S"})
    assert [m.content for m in conversation_from_chat(record)[0].messages] == ["S", "q", "a"]


def test_system_messages_that_differ_are_bad():
    record = {"system": "S", "system_message": "T"}
    assert "system and system_message differ; keep one of them" in refused({**talk(), **record})
    alpaca = {"instruction": "q", "output": "a"}
    assert "system and system_message differ" in refused({**alpaca, **record}, conversation_from_instruction)
    own = {"messages": [{"role": "system", "content": "T"}, *talk()["messages"]], "system_prompt": "S"}
    assert "system_prompt and messages are both a system message" in refused(own)


def test_a_list_where_one_text_is_needed_is_not_joined():
    for texts in (["Not today.", "No."], ["Not today."], ["a", {"type": "text", "text": "b"}]):
        assert "messages[1].content is a list of texts, but must be one text" in refused(talk(content=texts))
    for name in ("instruction", "input", "output", "system"):
        record = {"instruction": "q", "output": "a", name: ["x", "y"]}
        assert f"{name} is a list, not text" in refused(record, conversation_from_instruction)


def test_the_parts_of_one_text_follow_one_another():
    parts = [{"type": "text", "text": "Not "}, {"type": "text", "text": "today.", "cache_control": {"a": 1}}]
    made, unread = read("chat", talk(content=parts))
    assert made[0].messages[1].content == "Not today."
    assert unread == {"messages[].content[].cache_control": 1}
    assert "messages[1].content[0].text and messages[1].content[0].value differ" in refused(
        talk(content=[{"type": "text", "text": "a", "value": "b"}])
    )


# --- what is refused ----------------------------------------------------------------------------------------

OF_RECORDS = {
    "rejected_response": "No.",
    "rejected": [{"role": "assistant", "content": "No."}],
    "chosen": [{"role": "assistant", "content": "No."}],
    "kto_tag": False,
    "label": False,
    "chat_template": "{{ messages }}",
    "documents": ["d"],
    "images": ["a.png"],
    "audio": "a.wav",
    "assistant_masks": [0, 1],
}
OF_TURNS = {"reasoning_details": [{"text": "Look out first."}], "refusal": "No.", "images": ["a.png"]}


@each("name", OF_RECORDS)
def test_what_changes_what_is_learned_is_refused(name):
    extra = {name: OF_RECORDS[name]}
    assert refused({**talk(), **extra}).startswith(name)
    alpaca = {"instruction": "q", "output": "a"}
    assert refused({**alpaca, **extra}, conversation_from_instruction).startswith(name)


@each("name", OF_TURNS)
def test_what_would_be_lost_of_a_turn_is_refused(name):
    assert refused(talk(**{name: OF_TURNS[name]})).startswith(f"messages[1].{name} cannot be used")


def test_json_as_text_that_holds_nothing_is_not_refused():
    for nothing in ("[]", "{}", "null"):
        for record in ({**talk(), "tools": nothing}, {**talk(), "images": nothing}, talk(tool_calls=nothing)):
            assert read("chat", record)[1] == {}
    assert refused({**talk(), "images": '["a.png"]'}).startswith("images cannot be used")


def test_fields_of_a_pair_that_are_null_are_as_good_as_absent():
    """As rows have them that were written with the fields of all."""
    nulls = dict.fromkeys(
        ("human", "assistant", "input", "output", "from", "value", "tool_calls", "thinking")
    )
    made, unread = read("chat", {"messages": [{**nulls, **turn} for turn in talk()["messages"]]})
    assert ([m.content for m in made[0].messages], unread) == (["q", "a"], {})
    pair = {"conversation": [{**nulls, "role": None, "human": "q", "assistant": "a"}]}
    assert [m.content for m in read("chat", pair)[0][0].messages] == ["q", "a"]


def test_a_text_that_is_null_hides_no_prompt_and_completion():
    made, unread = read("text", {"text": None, "prompt": "q", "completion": "a"})
    assert ((made[0].prompt, made[0].text), unread) == (("q", "a"), {})


def test_an_empty_list_of_turns_is_as_good_as_absent():
    for record in ({"conversations": talk()["messages"]}, {"prompt": "q", "completion": "a"}):
        made, unread = read("chat", {"messages": [], **record, "conversation": []})
        assert ([m.content for m in made[0].messages], unread) == (["q", "a"], {})
    assert refused({"messages": [], "source": "x"}) == "messages is empty"


def test_nothing_is_refused_or_counted_that_holds_nothing():
    empty = (None, "", [], {})
    for name, nothing in (
        (name, nothing) for name in (*OF_RECORDS, *OF_TURNS, "source") for nothing in empty
    ):
        assert read("chat", {**talk(), name: nothing})[1] == {}
        assert read("chat", talk(**{name: nothing}))[1] == {}


# --- what is counted ----------------------------------------------------------------------------------------

TOOL = {"name": "f", "description": "does it"}
ANSWERS = [{"role": "assistant", "text": "a", "lang": "en", "replies": []}]
BASES = {
    ("chat", "record"): ({**talk(), "other": 0}, ()),
    ("chat", "turn"): (talk(), ("messages", 1)),
    ("chat", "tool's turn"): (
        {"messages": [*talk()["messages"], {"role": "tool", "content": "r"}]},
        ("messages", 2),
    ),
    ("chat", "question with calls"): (
        {"query": "q", "tools": [TOOL], "answers": [{"name": "f", "arguments": {}}]},
        (),
    ),
    ("chat", "pair"): ({"conversation": [{"human": "q", "assistant": "a"}]}, ("conversation", 0)),
    ("chat", "text part"): (
        talk(content=[{"type": "text", "text": "a"}]),
        ("messages", 1, "content", 0),
    ),
    ("chat", "result part"): (
        {
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": "r"}]},
                *talk()["messages"],
            ]
        },
        ("messages", 0, "content", 0),
    ),
    ("chat", "tree"): ({"prompt": {"role": "prompter", "text": "q", "replies": ANSWERS}}, ()),
    ("chat", "tree's message"): (
        {"prompt": {"role": "prompter", "text": "q", "replies": ANSWERS}},
        ("prompt", "replies", 0),
    ),
    ("instruction", "record"): ({"instruction": "q", "output": "a"}, ()),
    ("text", "record"): ({"text": "t"}, ()),
    ("character", "record"): ({"speaker": "Ann", "text": "t"}, ()),
    ("sampled", "record"): (
        {
            "prompt": [{"role": "user", "content": "q"}],
            "response": "a",
            "num_correct_for_this_sample": 1,
        },
        (),
    ),
    ("seeds", "record"): ({"question": "q", "answer": "a", "correction": "b"}, ()),
    ("seeds", "round"): ({"rounds": [{"question": "q", "answer": "a", "correction": "b"}]}, ("rounds", 0)),
    ("legalJudgement", "record"): ({"fact": "f", "relevant_articles": ["1"]}, ()),
    ("legalJudgement", "meta"): (
        {"fact": "f", "meta": {"relevant_articles": [1], "accusation": ["c"]}},
        ("meta",),
    ),
    ("userSimulation", "extracted"): (
        {"context": [{"role": "user", "content": "q"}], "next_question": "n"},
        (),
    ),
}
ITEM = {"context": [{"source": "them", "content": "q"}], "continuation": "a"}
USER = {
    "user_hash": "u",
    "user": {"profile": {"name": "Ann"}, "personality": {"structured": {"x": 1}}},
    "task": {"description": "d", "task_behavior_collections": [{"type": "", "data": [ITEM]}]},
}
COLLECTION = ("task", "task_behavior_collections", 0)
INSIDE = {
    "record": (),
    "user": ("user",),
    "task": ("task",),
    "collection": COLLECTION,
    "item": (*COLLECTION, "data", 0),
    "turn": (*COLLECTION, "data", 0, "context", 0),
}
PAIR = {"prompt": "q", "completion": "a"}
BASES |= {(fmt, "prompt and completion"): (PAIR, ()) for fmt in ("chat", "text")}
BASES[("chat", "input and output")] = ({"conversation": [{"input": "q", "output": "a"}]}, ("conversation", 0))
BASES |= {("userSimulation", where): (USER, path) for where, path in INSIDE.items()}
EARLIER = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
BASES[("sampled", "turn")] = (
    {**BASES[("sampled", "record")][0], "prompt": [*EARLIER, EARLIER[0]]},
    ("prompt", 1),
)
IN_CHAT = partial(dict.fromkeys, ("chat", "sampled", "seeds"))
VALUES = {
    "tools": IN_CHAT([TOOL]),
    "functions": IN_CHAT([TOOL]),
    "tool_calls": IN_CHAT([{"name": "f", "arguments": {}}]),
    "function_call": IN_CHAT({"name": "f", "arguments": {}}),
    "chat_template_kwargs": IN_CHAT({"enable_thinking": True}),
    "template_kwargs": IN_CHAT({"enable_thinking": True}),
    "steps": {
        "seeds": [{"role": "assistant", "tool_calls": [{"name": "f"}]}, {"role": "tool", "content": "r"}]
    },
    "response_message": {"role": "assistant", "content": "b"},
    "enable_thinking": True,
    "label": {"sampled": "V", "legalJudgement": "V", "chat": True, "text": True},
    "loss_weight": 0.5,
    "weight": 0.5,
    "loss_scale": 0.5,
    "train": False,
    "training": False,
    "loss": False,
    "messages": talk()["messages"],
    "conversations": talk()["messages"],
    "conversation": talk()["messages"],
    "sample_index": 1,
    "timestamp": 3,
    "history": {"instruction": [["x", "y"]], "userSimulation": ["h"]},
    "user": {"userSimulation": {"profile": {"name": "Bo"}}, "chat": "q"},
    "task": {"description": "e"},
    "truncated": ["answer"],
    "prison_time": 3,
    "rank": 0,
    "review_result": True,
    "deleted": False,
    "input": "i",
    "correction": "c",
    "meta": {"legalJudgement": {"relevant_articles": [1]}},
    "term_of_imprisonment": {"imprisonment": 3, "death_penalty": False},
    "relevant_articles": ["1"],
    "user_profile": {"name": "Bo"},
    "replies": [],
    "system": "S",
}


def value_of(name, fmt):
    value = VALUES.get(name, "x")
    return value.get(fmt, "x") if isinstance(value, dict) and fmt in ("chat", *value) else value


def with_field(base, name, value, *, keep):
    """A base with the field in its place; what stands there already stays if `keep`."""
    record, path = base
    record = copy.deepcopy(record)
    inner = record
    for step in path:
        inner = inner[step]
    if not (keep and name in inner):
        inner[name] = value
    return record


def rows():
    table = DOCS.read_text().partition("## Every field")[2].partition("\n## ")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[2].startswith("`"):
            fmt, where, names, told = cells
            for name in re.findall(r"`(\w+)`", names):
                yield fmt, where, name, re.match(r"\w+", told).group()


@each(("fmt", "where", "name", "told"), rows())
def test_the_table_of_fields_is_true(fmt, where, name, told):
    base = BASES[(fmt, where)]
    if (fmt, where, name) == ("chat", "record", "conversations"):  # read in place of messages
        base = ({}, ())
    if (fmt, where, name) == ("chat", "record", "conversation"):
        base = ({}, ())
    if name == "response" and fmt == "instruction":
        base = ({"instruction": "q"}, ())
    if name in ("human", "value", "from") or (name == "user" and where == "pair"):
        value = {"human": "q", "value": "a", "from": "assistant", "user": "q"}[name]
    else:
        value = value_of(name, fmt)
    if name == "user" and where == "pair":
        base = ({"conversation": [{"assistant": "a"}]}, ("conversation", 0))
    if name in ("loss_weight", "weight", "loss_scale", "train", "training", "loss") and told == "read":
        value = 0.5 if name in ("loss_weight", "weight", "loss_scale") else True
    if name == "value" and where == "text part":
        base = (talk(content=[{"type": "text"}]), ("messages", 1, "content", 0))
    if name == "user_profile" and where == "record":
        base = ({key: USER[key] for key in ("user_hash", "task")}, ())
    record = with_field(base, name, value, keep=told != "counted")
    if told == "refused":
        with pytest.raises(RecordProblem, match=name):
            read(fmt, record)
        return
    counted = {key.rpartition(".")[2] for key in read(fmt, record)[1]}
    assert (name in counted) == (told == "counted"), counted


NESTED = {
    "turns": (
        "chat",
        {
            "messages": [
                {"role": "user", "content": "q", "ts": 0},
                {"role": "assistant", "content": "a", "ts": 1},
            ],
            "source": "s",
        },
        {"messages[].ts": 2, "source": 1},
    ),
    "second-list": (
        "chat",
        {**talk(), "conversations": [{"from": "human", "value": "q"}]},
        {"conversations": 1},
    ),
    "prompt-text": ("chat", {**talk(), "prompt": "q"}, {"prompt": 1}),
    "tree": (
        "chat",
        {
            "message_tree_id": "t",
            "prompt": {
                "role": "prompter",
                "text": "q",
                "lang": "en",
                "replies": [
                    {
                        "role": "assistant",
                        "text": "a",
                        "rank": 0,
                        "lang": "en",
                        "replies": [
                            {
                                "role": "prompter",
                                "text": "r",
                                "lang": "en",
                                "replies": [{"role": "assistant", "text": "b", "lang": "en"}],
                            }
                        ],
                    },
                    {"role": "assistant", "text": "c", "rank": 1, "lang": "en"},
                ],
            },
        },
        {"message_tree_id": 1, "prompt.lang": 1, "prompt.replies[].lang": 3},
    ),
    "two-replies": ("instruction", {"instruction": "q", "output": "a", "response": "b"}, {"response": 1}),
    "alpaca-text": ("instruction", {"instruction": "q", "output": "a", "text": "q a"}, {"text": 1}),
    "scene": (
        "character",
        {"speaker": "Ann", "text": "t", "input": "i", "source_title": "s"},
        {"source_title": 1},
    ),
    "converted": ("character", {"instruction": "q", "output": "a", "text": "t"}, {"text": 1}),
    "two-profiles": ("userSimulation", {**USER, "user_profile": {"name": "Bo"}}, {"user_profile": 1}),
    "personality": (
        "userSimulation",
        {**USER, "user": {"personality": {"notes": "n"}}},
        {"user.personality.notes": 1},
    ),
    "user-turn": (
        "userSimulation",
        with_field((USER, INSIDE["turn"]), "mood", "m", keep=False),
        {"task.task_behavior_collections[].data[].context[].mood": 1},
    ),
    "extracted-history": (
        "userSimulation",
        {"next_question": "n", "history": [{"content": "h", "at": 3}]},
        {"history[].at": 1},
    ),
    "cail": (
        "legalJudgement",
        {
            "fact": "f",
            "charge": "c",
            "meta": {
                "relevant_articles": [1],
                "criminals": ["x"],
                "term_of_imprisonment": {"death_penalty": True, "imprisonment": 0, "note": 1},
            },
        },
        {"charge": 1, "meta.criminals": 1, "meta.term_of_imprisonment.note": 1},
    ),
    "seed-chat": (
        "seeds",
        {**talk(ts=1), "correction": "c", "source": "s"},
        {"messages[].ts": 1, "source": 1},
    ),
}


@each(("fmt", "record", "unread"), NESTED.values(), ids=NESTED)
def test_unread_fields_are_counted_by_name(fmt, record, unread):
    assert read(fmt, record)[1] == unread


def test_names_without_end_are_counted_together():
    unread = Unread()
    unread.add(f"field {n}" for n in range(3000))
    unread.add(["field 0"])
    assert (len(unread), unread["field 0"], unread[OTHERS]) == (501, 2, 2500)
    assert unread_text(unread).endswith("and 481 more")
    assert unread_text({"score": 12, "source": 1000}) == "source (1,000), score (12)"
    assert unread_text({}) == ""


# --- never neither ------------------------------------------------------------------------------------------

KNOWN = sorted({name for _, _, name, _ in rows()} | {"note"})
REFUSED = {name for _, _, name, told in rows() if told == "refused"}
SOME = st.one_of(
    st.sampled_from(["words", "0", False, True, 0, 0.5, 2, None, "", [], {}]),
    st.sampled_from([["a", "b"], [{"role": "assistant", "content": "b"}], {"a": {"b": 1}}]),
)


@given(st.sampled_from(sorted(BASES)), st.sampled_from(KNOWN), SOME)
@settings(max_examples=1500, deadline=None)
def test_a_field_changes_the_sample_or_is_refused_or_counted(where, name, value):
    """Whatever a field is called and holds: it is never left out without a word."""
    fmt = where[0]
    record, path = BASES[where]
    before, _ = read(fmt, copy.deepcopy(record))
    inner = record
    for step in path:
        inner = inner[step]
    if name in inner:
        return
    try:
        after, unread = read(fmt, with_field((record, path), name, value, keep=False))
    except RecordProblem:
        return
    if is_empty(value) or after != before or any(key.rpartition(".")[2] == name for key in unread):
        return
    assert without_effect(fmt, where[1], name, value), (fmt, where, name, value, unread)


def without_effect(fmt, where, name, value):
    """What may be read and change nothing: it says what holds anyway, or decides about the whole record."""
    if value is False and name in REFUSED:  # images: false
        return True
    if name in ("loss_weight", "weight", "loss_scale", "train", "training", "loss"):
        return value in (True, 1) or (where == "tool's turn" and value in (False, 0))
    if fmt == "chat" and where == "tree's message":
        return name in ("rank", "deleted", "review_result")
    if fmt == "sampled" and where == "record":
        return name in (
            "id",
            "sample_index",
            "finish_reason",
            "fact",
            "relevant_articles",
            "charge",
            "prison_time",
            "label",
        )
    if fmt == "legalJudgement" and where == "record":
        return name in ("id",)
    if fmt == "legalJudgement":
        return name == "term_of_imprisonment"
    if fmt == "userSimulation":
        return name in ("user_hash", "user", "user_profile", "personality", "timestamp", "task")
    return False
