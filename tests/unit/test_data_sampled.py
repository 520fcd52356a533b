import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.data.formats.legal import Laws
from tunesmith.data.formats.sampled import (
    NO_ARTICLES,
    case_key,
    check_counts,
    conversation_from_sampled,
    count_case,
)
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Conversation, Message

PROMPT = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
LEGAL = {"fact": "甲在家中。", "relevant_articles": ["354-0-0"], "charge": "容留他人吸毒罪", "prison_time": 9}


def sampled(n=1, response="A", **fields):
    return {"response": response, "num_correct_for_this_sample": n, **fields}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 1_000_000, 4.0, "5"])
def test_a_reply_weighs_one_nth(n):
    found = conversation_from_sampled(sampled(n, prompt=PROMPT))
    assert found == Conversation(
        (Message("system", "S"), Message("user", "Q"), Message("assistant", "A", 1 / int(n)))
    )


def test_replies_inside_the_prompt_are_not_learnt():
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "tool", "user")]
    messages = conversation_from_sampled(sampled(2, prompt=turns)).messages
    assert [(m.role, m.weight) for m in messages if m.role == "assistant"] == [
        ("assistant", 0),
        ("assistant", 0.5),
    ]


def test_the_prompt_is_believed_before_the_legal_fields():
    messages = conversation_from_sampled(sampled(prompt=PROMPT, **LEGAL)).messages
    assert [message.content for message in messages] == ["S", "Q", "A"]


def test_a_legal_record_without_prompt():
    found = conversation_from_sampled(sampled(4, prompt=None, **LEGAL), laws=Laws({"354-0-0": "容留"}))
    question, reply = found.messages
    assert "甲在家中。" in question.content
    assert "354-0-0：容留" in question.content
    assert "容留他人吸毒罪" not in question.content
    assert reply == Message("assistant", "A", 0.25)


def test_the_system_prompt_is_for_prompts_without_one():
    assert conversation_from_sampled(sampled(prompt=PROMPT), system_prompt="T").messages[0].content == "S"
    legal = conversation_from_sampled(sampled(**LEGAL), laws=Laws({"354-0-0": "x"}), system_prompt="T")
    assert legal.messages[0].content == "T"


def bad(**changes):
    record = {**sampled(prompt=PROMPT), **changes}
    return {field: value for field, value in record.items() if value is not ...}


COUNT = "num_correct_for_this_sample"
BAD = {
    "no-response": (bad(response=...), "response is missing"),
    "empty-response": (bad(response="\n"), "response is empty"),
    "list-response": (bad(response=["A"]), "response is a list, not text"),
    "no-count": (bad(**{COUNT: ...}), f"{COUNT} is missing: the record has response, prompt"),
    "zero": (bad(**{COUNT: 0}), f"{COUNT} is 0; it must be between 1 and 1000000"),
    "huge": (bad(**{COUNT: 1_000_001}), f"{COUNT} is 1000001; it must be between 1 and 1000000"),
    "negative": (bad(**{COUNT: -1}), f"{COUNT} is -1, not a whole number of 0 or more"),
    "half": (bad(**{COUNT: 0.5}), f"{COUNT} is 0.5, not a whole number of 0 or more"),
    "true": (bad(**{COUNT: True}), f"{COUNT} is True, not a whole number of 0 or more"),
    "no-prompt": (
        bad(prompt=..., question="Q"),
        "prompt is missing, and there is no fact to make one from: "
        f"the record has response, {COUNT}, question",
    ),
    "text-prompt": (bad(prompt="Q"), "prompt is a string, not a list of messages"),
    "empty-prompt": (bad(prompt=[]), "prompt is empty"),
    "text-turn": (bad(prompt=["Q"]), "prompt[0] is a string, not an object"),
    "no-role": (bad(prompt=[*PROMPT, {"content": "Q"}]), "prompt[2].role is missing"),
    "role": (
        bad(prompt=[{"role": "me", "content": "Q"}]),
        'prompt[0].role is "me"; valid are system, user, assistant, tool',
    ),
    "no-content": (bad(prompt=[{"role": "user"}]), "prompt[0].content is missing"),
    "no-articles": (bad(prompt=..., **LEGAL), NO_ARTICLES),
}


@each(("record", "reason"), BAD.values(), ids=BAD)
def test_a_bad_record_names_the_field(record, reason):
    with pytest.raises(RecordProblem) as problem:
        conversation_from_sampled(record)
    assert problem.value.message == reason


SAME = {
    "id": (sampled(id="a", sample_index=0, prompt=PROMPT), sampled(3, "B", id="a", sample_index=5)),
    "id-number": (sampled(id=7, sample_index=0), sampled(id=7, sample_index=1)),
    "prompt": (sampled(prompt=PROMPT), sampled(2, "B", prompt=[dict(reversed(m.items())) for m in PROMPT])),
    "prompt-of-numbered-records": (sampled(id=1, prompt=PROMPT), sampled(id=2, prompt=PROMPT)),
    "legal": (sampled(**LEGAL), sampled(2, "B", **LEGAL)),
    "other-fields": (sampled(q="x", id="1"), sampled(2, "B", q="x", id="2", finish_reason="stop")),
}
DIFFERENT = {
    "id": (sampled(id="a", sample_index=0, prompt=PROMPT), sampled(id="b", sample_index=0, prompt=PROMPT)),
    "id-empty": (sampled(id="", sample_index=0, q=1), sampled(id="", sample_index=0, q=2)),
    "prompt": (sampled(prompt=PROMPT), sampled(prompt=PROMPT[1:])),
    "fact": (sampled(**LEGAL), sampled(**{**LEGAL, "fact": "乙"})),
    "articles": (sampled(**LEGAL), sampled(**{**LEGAL, "relevant_articles": ["1"]})),
    "other-fields": (sampled(q="x"), sampled(q="y")),
}


@pytest.mark.parametrize(("one", "two"), SAME.values(), ids=SAME)
def test_replies_of_one_case_share_a_key(one, two):
    assert case_key(one) == case_key(two)


@pytest.mark.parametrize(("one", "two"), DIFFERENT.values(), ids=DIFFERENT)
def test_replies_of_two_cases_do_not(one, two):
    assert case_key(one) != case_key(two)


def counted(*files):
    counts = {}
    for file, records in files:
        for record in records:
            count_case(counts, file, record)
    return counts


@given(st.lists(st.integers(1, 6), max_size=8))
def test_a_file_that_agrees_with_itself(sizes):
    records = [
        sampled(n, id=str(case), sample_index=index) for case, n in enumerate(sizes) for index in range(n)
    ]
    counts = counted(("a", records), ("b", records))
    assert sorted(counts.values()) == sorted(sizes * 2)
    for record in records:
        check_counts(counts, "a", record)


def test_a_record_that_disagrees_with_its_file():
    records = [sampled(2, prompt=PROMPT), sampled(3, prompt=PROMPT), sampled(1, prompt=PROMPT[1:])]
    counts = counted(("a", records), ("b", records[:1]), ("d", records[:1] * 3))
    check_counts(counts, "a", records[0])
    check_counts(counts, "a", records[2])
    for file, record, given_, found in [
        ("a", records[1], 3, 2),
        ("b", records[0], 2, 1),
        ("c", records[0], 2, 0),
        ("d", records[0], 2, 3),
    ]:
        with pytest.raises(RecordProblem) as problem:
            check_counts(counts, file, record)
        assert problem.value.message == f"{COUNT} is {given_}, but the file has {found} of this case"


def test_a_count_costs_eight_bytes_a_case():
    assert all(0 <= key < 2**64 for key in counted(("a", [sampled(q="x" * 9999)])))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("response", COUNT, "prompt", "fact", "relevant_articles", "id", "sample_index", "q")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_record_is_used_or_bad_and_always_counted(record):
    assert sum(counted(("a", [record, record])).values()) == 2
    assert case_key(record) == case_key(dict(reversed(record.items())))
    try:
        reply = conversation_from_sampled(record).messages[-1]
    except RecordProblem:
        return
    assert reply.role == "assistant"
    assert 0 < reply.weight <= 1
