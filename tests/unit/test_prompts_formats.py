"""What one record asks, in the three formats."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.api.datasets import PromptsSpec
from tunesmith.data.formats.legal import case_from, prompt_messages
from tunesmith.data.prompts.formats import articles_of, is_reply, prompt_fields, prompts_from
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message

ARTICLES = {"264": "盗窃公私财物的。", "354-0-0": "容留他人吸毒的。", "133": "交通肇事的。"}
REPLY = {"response": "yes", "num_correct_for_this_sample": 2, "sample_index": 3, "finish_reason": "stop"}


def spec(fmt, **fields):
    settings = {"articlesUri": "file:///articles.json", **fields.pop(fmt, {})} if fmt[0] == "l" else {}
    return PromptsSpec.model_validate({"uri": "file:///data.json", fmt: settings, **fields})


def asked(value, fmt="chat", **fields):
    return prompts_from(value, spec(fmt, **fields), ARTICLES)


def one(value, fmt="chat", **fields):
    (only,) = asked(value, fmt, **fields)
    return only


def talk(*turns):
    return tuple(Message(*turn.split(": ", 1)) for turn in turns)


def chat(*turns):
    return {"messages": [message.as_dict() for message in talk(*turns)]}


# Chat: given turns, what is asked, and the reference.
CHATS = {
    "question-only": (["user: q"], ["user: q"], None),
    "with-reply": (["user: q", "assistant: a"], ["user: q"], "a"),
    "ends-with-question": (
        ["user: q", "assistant: a", "user: r"],
        ["user: q", "assistant: a", "user: r"],
        None,
    ),
    "several-turns": (
        ["system: s", "user: q", "assistant: a", "user: r", "assistant: b"],
        ["system: s", "user: q", "assistant: a", "user: r"],
        "b",
    ),
    "tool-turn": (
        ["user: q", "assistant: call", "tool: 7", "assistant: a"],
        ["user: q", "assistant: call", "tool: 7"],
        "a",
    ),
    "tool-says-nothing": (["user: q", "assistant: c", "tool: "], ["user: q", "assistant: c", "tool: "], None),
    "two-replies": (["user: q", "assistant: a", "assistant: b"], ["user: q"], "b"),
    "system-at-the-end": (["user: q", "system: s"], ["user: q"], None),
}


@pytest.mark.parametrize(("turns", "question", "reference"), CHATS.values(), ids=CHATS)
def test_chat(turns, question, reference):
    found = one(chat(*turns))
    assert found.messages == talk(*question)
    assert found.record == chat(*turns) | ({} if reference is None else {"reference": reference})
    assert found.label is None


def test_weights_of_replies_do_not_matter_to_a_prompt():
    value = chat("user: q", "assistant: a", "user: r", "assistant: b")
    for turn in value["messages"]:
        turn["train"] = False
    assert one(value).messages == talk("user: q", "assistant: a", "user: r")
    assert one(value).record["reference"] == "b"


def test_a_reference_has_no_thoughts():
    """Verifiers compare it with what a reply says after its own."""
    turns = ("user: q", "assistant: <think>\nHm.\n</think>\n\na")
    assert one(chat(*turns)).record["reference"] == "a"
    assert one({"prompt": "q", "completion": "a", "thinking": "Hm."}).record["reference"] == "a"


def test_an_own_reference_is_kept():
    assert one(chat("user: q", "assistant: a") | {"reference": 7}).record["reference"] == 7
    assert one(chat("user: q", "assistant: a") | {"reference": None}).record["reference"] is None


def test_other_forms_of_chat():
    sharegpt = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert one(sharegpt).messages == talk("user: q")
    pairs = {"conversation": [{"human": "q", "assistant": "a"}, {"human": "r", "assistant": "b"}]}
    assert one(pairs).messages == talk("user: q", "assistant: a", "user: r")
    prompt = {"prompt": [{"role": "user", "content": "q"}], "answer": "7"}
    assert one(prompt).messages == talk("user: q")
    assert one(prompt).record == prompt


BAD = {
    "no-user": (chat("system: s", "assistant: a"), "chat", "there is no user message"),
    "tool-only": (chat("assistant: a", "tool: t"), "chat", "there is no user message"),
    "blank-question": (chat("user: q", "assistant: a", "user:  "), "chat", "the last user message is"),
    "no-list": ({"text": "q"}, "chat", "no conversation was found: the record has text"),
    "prompt-is-number": ({"prompt": 7}, "chat", "no conversation was found"),
    "empty-list": ({"messages": []}, "chat", "messages is empty"),
    "prompt-empty": ({"prompt": []}, "chat", "prompt is empty"),
    "not-text": ({"messages": [{"role": "user", "content": 1}]}, "chat", r"messages\[0\].content is a numb"),
    "tree-of-nothing": ({"prompt": {"role": "prompter", "text": "q"}}, "chat", "the tree has no assistant"),
    "no-instruction": ({"input": "x"}, "instruction", "instruction is missing: the record has input"),
    "blank-instruction": ({"instruction": " "}, "instruction", "instruction is empty"),
    "history": ({"instruction": "q", "history": [["a"]]}, "instruction", r"history\[0\] is not a pair"),
    "no-fact": ({"charge": "x"}, "legalJudgement", "fact is missing"),
    "no-articles": ({"fact": "x"}, "legalJudgement", "relevant_articles is missing"),
    "unknown-article": (
        {"fact": "x", "relevant_articles": ["9"]},
        "legalJudgement",
        "relevant_articles names 9, which is not in the file of articles",
    ),
    "label": (
        {"fact": "x", "relevant_articles": [], "label": "up"},
        "legalJudgement",
        'label is "up"; valid are',
    ),
}


@each(("value", "fmt", "message"), BAD.values(), ids=BAD)
def test_bad_records(value, fmt, message):
    with pytest.raises(RecordProblem, match=message):
        asked(value, fmt)


def node(role, text, *replies, **fields):
    return {"role": role, "text": text, "replies": list(replies), **fields}


def test_a_tree_gives_its_distinct_prompts():
    tree = {
        "message_tree_id": "t",
        "prompt": node(
            "prompter",
            "q",
            node(
                "assistant",
                "a",
                node("prompter", "r", node("assistant", "b"), node("assistant", "b2")),
                node("prompter", "s", node("assistant", "c")),
            ),
        ),
    }
    found = asked(tree)
    assert [each.messages for each in found] == [
        talk("user: q", "assistant: a", "user: r"),
        talk("user: q", "assistant: a", "user: s"),
    ]
    assert [each.record for each in found] == [
        {"message_tree_id": "t", "reference": "b"},
        {"message_tree_id": "t", "reference": "c"},
    ]


# Instruction: a record and what is asked.
INSTRUCTIONS = {
    "plain": ({"instruction": "q", "output": "a"}, ["user: q"]),
    "no-output": ({"instruction": "q"}, ["user: q"]),
    "blank-output": ({"instruction": "q", "output": ""}, ["user: q"]),
    "input": ({"instruction": "q", "input": "x", "response": "a"}, ["user: q\nx"]),
    "system": ({"instruction": "q", "system": "s"}, ["system: s", "user: q"]),
    "history": (
        {"instruction": "q", "history": [["a", "b"]]},
        ["user: a", "assistant: b", "user: q"],
    ),
}


@pytest.mark.parametrize(("value", "question"), INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_instruction(value, question):
    found = one(value, "instruction")
    assert found.messages == talk(*question)
    assert found.record == value


@pytest.mark.parametrize("fmt", ["chat", "instruction", "legalJudgement"])
def test_system_prompt_where_there_is_none(fmt):
    value = {"instruction": "q", **chat("user: q"), "fact": "f", "relevant_articles": []}
    first, *others = one(value, fmt, systemPrompt="S").messages
    assert first == Message("system", "S")
    assert others == list(one(value, fmt).messages)


def test_an_own_system_message_stays():
    value = chat("system: own", "user: q")
    assert one(value, systemPrompt="S").messages == talk("system: own", "user: q")


CASE = {"fact": "甲盗窃。", "relevant_articles": [264, " 264"], "charge": "盗窃罪", "prison_time": 9}


def test_a_case():
    found = one(CASE | {"id": 5, "source": "x"}, "legalJudgement")
    assert found.record == CASE | {"relevant_articles": ["264"], "id": 5, "source": "x"}
    assert found.messages == prompt_messages(case_from(CASE), ARTICLES)
    assert "264：盗窃公私财物的。" in found.messages[0].content


def test_a_case_without_charge_or_term():
    found = one({"fact": "f", "relevant_articles": []}, "legalJudgement")
    assert found.record == {"fact": "f", "relevant_articles": [], "charge": "", "prison_time": None}


@pytest.mark.parametrize(
    ("own", "file", "expected"),
    [(None, None, None), (None, "TU", "TU"), ("", "TU", "TU"), ("NV", "TU", "NV"), ("NV", None, "NV")],
)
def test_labels(own, file, expected):
    value = CASE if own is None else CASE | {"label": own}
    found = one(value, "legalJudgement", legalJudgement={"label": file} if file else {})
    assert found.label == expected
    assert found.record.get("label") == own  # the file's is no field of the record


def cail(**meta):
    term = {"imprisonment": 9, "death_penalty": False, "life_imprisonment": False}
    meta = {"relevant_articles": [264], "accusation": ["盗窃"], "term_of_imprisonment": term} | meta
    return {"fact": "甲盗窃。", "meta": meta}


CAIL = {
    "one-charge": (cail(accusation=["[盗窃]"]), {"charge": "盗窃", "prison_time": 9}),
    "none": (cail(accusation=[]), {"charge": "", "prison_time": 9}),
    "several": (
        cail(accusation=["盗窃", "抢劫", "盗窃"], relevant_articles=[264, 133]),
        {"charge": ["抢劫", "盗窃"], "relevant_articles": ["264", "133"]},
    ),
    "life": (cail(term_of_imprisonment={"life_imprisonment": True}), {"prison_time": "XT"}),
    "no-term": (cail(term_of_imprisonment=None), {"prison_time": None}),
}


@pytest.mark.parametrize(("value", "expected"), CAIL.values(), ids=CAIL)
def test_cail_rows_become_cases(value, expected):
    found = one(value | {"source": "x"}, "legalJudgement")
    assert found.record.keys() == {"fact", "relevant_articles", "charge", "prison_time", "source"}
    assert found.record | expected == found.record
    assert case_from(found.record) == case_from(value)


charges_ = st.lists(st.sampled_from(["盗窃", "[抢劫]", "生产、销售伪劣产品罪", "不违规", ""]), max_size=3)
months_ = st.one_of(st.none(), st.integers(0, 400), st.just(10000), st.just("XT"), st.just("无期徒刑"))
terms_ = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "imprisonment": st.one_of(st.none(), st.integers(0, 400)),
            "death_penalty": st.booleans(),
            "life_imprisonment": st.booleans(),
        },
    ),
)
articles_ = st.lists(st.sampled_from([264, "264", "354-0-0", 133]), max_size=3)
label_ = st.one_of(st.none(), st.sampled_from(["", "NV", "original"]))
lawshift_ = st.fixed_dictionaries(
    {"fact": st.text(min_size=1).filter(str.strip), "relevant_articles": articles_, "label": label_},
    optional={"charge": charges_, "prison_time": months_},
)
cail_ = st.builds(
    lambda fact, articles, charges, term, label: {
        "fact": fact,
        "label": label,
        "meta": {"relevant_articles": articles, "accusation": charges, "term_of_imprisonment": term},
    },
    st.text(min_size=1).filter(str.strip),
    articles_,
    charges_,
    terms_,
    label_,
)


@given(st.one_of(lawshift_, cail_))
def test_the_record_is_the_same_case(value):
    found = one(value, "legalJudgement")
    assert case_from(found.record) == case_from(value)
    assert json.loads(json.dumps(found.record)) == found.record
    again = one(found.record, "legalJudgement")
    assert again == found  # and it is read again as what it is


# What an earlier job wrote: the record of its prompt comes back.
@pytest.mark.parametrize("fmt", ["chat", "instruction", "legalJudgement"])
def test_a_reply_of_an_earlier_job(fmt):
    own = {"id": "x", "instruction": "q", **chat("user: q", "assistant: a"), **CASE}
    written = own | REPLY | {"prompt": [{"role": "user", "content": "other"}]}
    assert is_reply(written)
    assert one(written, fmt) == one(own, fmt)


def test_a_rejected_reply_of_an_earlier_job():
    own = chat("user: q") | {"id": "x"}
    rejected = own | {"response": "", "sample_index": 0, "reason": "truncated", "details": {}, "tokens": 5}
    assert one(rejected).record == own
    accepted = own | REPLY | {"reason": "why", "tokens": 5}
    assert one(accepted).record == own | {"reason": "why", "tokens": 5}


def test_names_an_output_had_moved_come_back():
    written = {"id": "x", "instruction": "q", "record_response": "own", "record_kept": 1} | REPLY
    assert prompt_fields(written) == {"id": "x", "instruction": "q", "response": "own", "record_kept": 1}


def test_a_reply_with_nothing_but_its_prompt():
    written = {"id": "x.1", "prompt": [{"role": "user", "content": "q"}], **REPLY}
    assert one(written).messages == talk("user: q")
    assert one(written).record == {"id": "x.1"}


@pytest.mark.parametrize(
    "value", [{"response": "a"}, {"sample_index": 1}, {"num_correct_for_this_sample": 1}]
)
def test_other_records_are_no_replies(value):
    assert not is_reply(value)
    assert prompt_fields(value) == value


ARTICLE_FILES = {
    "object": ([{"264": "a", "133": "b"}], {"264": "a", "133": "b"}),
    "list": ([{"id": 264, "content": "a"}, {"id": "133", "content": "b"}], {"264": "a", "133": "b"}),
    "single": ([{"id": "264", "content": "a"}], {"264": "a"}),
    "both": ([{"264": "a"}, {"id": "133", "content": "b"}], {"264": "a", "133": "b"}),
}


@pytest.mark.parametrize(("values", "expected"), ARTICLE_FILES.values(), ids=ARTICLE_FILES)
def test_articles(values, expected):
    assert articles_of(values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"264": 1}], "article 264 is a number, not text"),
        ([{"id": "264"}], r"articles\[0\].content is missing"),
        ([{"264": "a"}, {"264": "b"}], "article 264 is repeated with a different text"),
    ],
)
def test_bad_articles(values, message):
    with pytest.raises(RecordProblem, match=message):
        articles_of(values)
