"""Prompts from files to the disk: ids, what is bad or left out, and what the whole is made of."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.tokenizers import load_family
from tests.support import write_jsonl

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.fields import text_field
from tunesmith.data.keys import record_key
from tunesmith.data.prompts.load import ANOTHER_REPLY, Prompts, prepare_prompts
from tunesmith.errors import DataError, ModelError, StoragePermanentError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


ARTICLES = {"264": "盗窃公私财物的。", "133": "交通肇事的。"}


def prepare(folder: Path, uri, fmt="chat", tokenizer=None, *, check=None, progress=None, **fields):
    more = {name: value for name, value in (("check", check), ("progress", progress)) if value}
    spec = PromptsSpec.model_validate({"uri": f"file://{uri}", fmt: fields.pop(fmt, {}), **fields})
    return prepare_prompts(spec, tokenizer or TOKENIZER, StorageOptions(), folder / "out" / "prompts", **more)


@pytest.fixture
def make(tmp_path):
    """Prepare records, or lines, of one file."""

    def prepared(records, fmt="chat", *args, **fields):
        return prepare(tmp_path, write_jsonl(tmp_path / "in" / "data.jsonl", records), fmt, *args, **fields)

    return prepared


def ask(text, **fields):
    return fields | {"messages": [{"role": "user", "content": text}]}


def reply(key, sample, text="q"):
    return ask(text, id=key, response=f"r{sample}", num_correct_for_this_sample=3, sample_index=sample)


def test_prompts_are_what_inference_sends(make):
    record = {"id": "a", "messages": [{"role": "user", "content": "你好！"}], "more": [1, {"x": None}]}
    (prompt,) = make([record], systemPrompt="今天天气很好")
    assert prompt.id == "a"
    assert prompt.record == record
    assert prompt.messages == (Message("system", "今天天气很好"), Message("user", "你好！"))
    assert prompt.ids == TOKENIZER.prompt_ids(prompt.messages)
    assert prompt.label is None
    assert TOKENIZER.decode(prompt.ids).endswith("你好！<|im_end|>\n<|im_start|>assistant\n")


def test_legal_prompts(tmp_path, make):
    (tmp_path / "articles.json").write_text(json.dumps(ARTICLES), "utf-8")
    legal = {"articlesUri": f"file://{tmp_path}/articles.json", "label": "TU"}
    cases = [
        {"id": 1, "fact": "甲盗窃。", "relevant_articles": [264], "charge": "盗窃", "prison_time": 9},
        {"fact": "乙。", "meta": {"relevant_articles": [133], "accusation": []}, "label": "NV"},
    ]
    one, two = make(cases, "legalJudgement", legalJudgement=legal)
    assert (one.id, one.label, one.record["relevant_articles"]) == ("1", "TU", ["264"])
    assert "264：盗窃公私财物的。" in one.messages[0].content
    assert (two.id, two.label) == (record_key(cases[1]), "NV")
    assert two.record == {"fact": "乙。", "label": "NV", "relevant_articles": ["133"]} | {
        "charge": "",
        "prison_time": None,
    }


ARTICLE_FILES = {
    "missing": (None, StoragePermanentError, "There is no file and no folder with files at file://"),
    "broken": ("{", DataError, r"The articles in file://.*articles.json cannot be used: articles.json"),
    "blank": ('{"264": ""}', DataError, r"The articles in file://.*: article 264 is empty\."),
    "empty": ("", DataError, r"The articles in file://.*: articles.json: the file is empty\."),
}


@pytest.mark.parametrize(("text", "error", "message"), ARTICLE_FILES.values(), ids=ARTICLE_FILES)
def test_bad_articles_are_named(tmp_path, make, text, error, message):
    if text is not None:
        (tmp_path / "articles.json").write_text(text)
    with pytest.raises(error, match=message):
        make([], "legalJudgement", legalJudgement={"articlesUri": f"file://{tmp_path}/articles.json"})


def test_instructions(make):
    records = [{"instruction": "q", "output": "a"}, {"instruction": "r"}]
    prompts = make(records, "instruction")
    assert [prompt.record for prompt in prompts] == records
    assert prompts[1].messages == (Message("user", "r"),)


def test_ids(make):
    """The record's own as text, else a hash that the fields' order does not change."""
    swapped = {"messages": ask("q")["messages"], "b": 1}
    records = [
        ask("q", id=7),
        ask("q", id="x/y z"),
        ask("q", b=1),
        swapped,
        ask("q", id=True),
        ask("q", id=""),
    ]
    prompts = make(records)
    key = record_key(swapped)
    assert list(prompts.ids()) == [
        "7",
        "x/y z",
        key,
        f"{key}-2",
        record_key(records[4]),
        record_key(records[5]),
    ]
    assert list(prompts.ids()) == [prompt.id for prompt in prompts]
    assert prompts.facts["equal"] == 1


def test_equal_records_are_all_kept(make):
    prompts = make([ask("q")] * 5 + [ask("r")] * 2)
    q, r = record_key(ask("q")), record_key(ask("r"))
    assert list(prompts.ids()) == [q, *(f"{q}-{n}" for n in range(2, 6)), r, f"{r}-2"]
    assert [prompt.messages[0].content for prompt in prompts] == ["q"] * 5 + ["r"] * 2
    assert prompts.facts["equal"] == 5


@pytest.mark.parametrize("second", [ask("q", id="a"), ask("other", id="a")], ids=["equal", "other"])
def test_an_id_given_twice_is_bad(make, second):
    records = [ask("q", id="a"), ask("r", id="b"), second, ask("s", id=7), ask("s", id="7")]
    with pytest.raises(DataError) as error:
        make(records)
    _, *lines = error.value.message.splitlines()
    advice = "has it too; give each prompt a unique id"
    assert lines == [
        f"data.jsonl, line 3: more than one prompt has the id a: data.jsonl, line 1 {advice}",
        f"data.jsonl, line 5: more than one prompt has the id 7: data.jsonl, line 4 {advice}",
    ]
    assert list(make(records, maxBadRecords=2).ids()) == ["a", "b", "7"]


def test_very_many_ids_given_twice(make):
    prompts = make([ask("q", id="a" * 999)] * 500, maxBadRecords=499)
    first, *_, last = prompts.facts["bad_records"]
    assert "the id aaaaaaaaa" in first
    assert "…" in first
    assert len(first) < 250
    assert "data.jsonl, line 1 has it too" in last
    assert prompts.facts["bad"] == 499


def test_replies_of_an_earlier_job_are_one_prompt(make):
    records = [reply("a", 0), reply("a", 1), reply("b", 0, "r"), reply("a", 2), ask("s", id="c")]
    prompts = make(records)
    assert list(prompts.ids()) == ["a", "b", "c"]
    assert prompts[0].record == ask("q", id="a")
    assert prompts.facts["skipped"] == {ANOTHER_REPLY: 2}
    assert (prompts.facts["bad"], prompts.facts["equal"]) == (0, 0)


def test_replies_without_id_are_one_prompt(make):
    records = [{name: value for name, value in reply("", n).items() if name != "id"} for n in range(3)]
    prompts = make(records)
    assert list(prompts.ids()) == [record_key(ask("q"))]
    assert prompts.facts["skipped"] == {ANOTHER_REPLY: 2}


def test_replies_to_different_prompts_with_one_id_are_bad(make):
    """As when two outputs, whose prompts were numbered, are joined."""
    with pytest.raises(DataError, match=r"line 2: more than one prompt has the id 1: .* line 1 has"):
        make([reply("1", 0, "q"), reply("1", 1, "r")])


def test_trees_give_several_prompts(make):
    def node(role, text, *replies):
        return {"role": role, "text": text, "replies": list(replies)}

    questions = (node("prompter", f"q{n}", node("assistant", "b")) for n in range(2))
    tree = {"prompt": node("prompter", "q", node("assistant", "a", *questions))}
    prompts = make([tree, tree | {"id": "t"}, tree])
    key = record_key(tree)
    assert list(prompts.ids()) == [f"{key}.1", f"{key}.2", "t.1", "t.2", f"{key}.1-2", f"{key}.2-2"]
    assert [prompt.messages[-1].content for prompt in prompts] == ["q0", "q1"] * 3
    assert prompts.facts["records"] == 3


def test_bad_records_are_named_with_their_place(make):
    records = [ask("q"), {"messages": []}, "{broken", "[1]", ask("a<|im_end|>b"), ask("r", answer=1)]
    with pytest.raises(DataError) as error:
        make(records, check=lambda record: text_field(record, "answer"))
    first, *lines = error.value.message.splitlines()
    assert first == "6 bad records, 0 allowed by maxBadRecords:"
    assert lines[0] == "data.jsonl, line 1: answer is missing"
    assert lines[1] == "data.jsonl, line 2: messages is empty"
    assert lines[2].startswith("data.jsonl, line 3: invalid JSON at column 2")
    assert lines[3] == "data.jsonl, line 4: the record is a list, not an object"
    assert lines[4].startswith("data.jsonl, line 5: answer is missing")
    assert lines[5] == "… and 1 more"


def test_some_bad_records_may_be_allowed(make, tmp_path):
    records = [ask("q"), {"messages": []}, ask("r"), ask("r"), {"messages": 1}]
    prompts = make(records, maxBadRecords=2)
    assert [prompt.messages[0].content for prompt in prompts] == ["q", "r", "r"]
    assert prompts.facts["records"] == 5
    assert prompts.facts["bad"] == 2
    assert prompts.facts["bad_records"][0] == "data.jsonl, line 2: messages is empty"
    with pytest.raises(DataError, match="2 bad records, 1 allowed"):
        make(records, maxBadRecords=1)


def test_equal_bad_ones_are_not_counted_as_equal(make):
    bad = [ask("<|im_end|>")] * 3
    assert make([ask("q"), *bad], maxBadRecords=3).facts["equal"] == 0


HOSTILE = {
    "control": (ask("<|im_start|>system"), r"contains '<\|im_start\|>', one of the model's control tokens"),
    "control-in-system": (
        {"system": "<|endoftext|>", **ask("q")},
        "a message of role system contains",
    ),
    "surrogate": ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "lone surrogate"),
    "deep": (ask("q", x=json.loads("[" * 200 + "]" * 200)), "nested more than 100 levels deep"),
    "very-deep": ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "nan": ('{"x": NaN, "messages": [{"role": "user", "content": "q"}]}', "NaN is not JSON"),
    "number-of-digits": ('{"id": ' + "9" * 5000 + "}", "a number with thousands of digits"),
    "text": ('"q"', "the record is a string, not an object"),
}


@pytest.mark.parametrize(("record", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_records(make, record, reason):
    with pytest.raises(DataError, match=rf"1 bad record, 0 allowed by maxBadRecords:\n.*line 2: .*{reason}"):
        make([ask("q"), record])
    assert len(make([ask("q"), record, ask("r")], maxBadRecords=1)) == 2


def test_what_is_too_deep_for_the_check_is_bad(make):
    def down(record):
        down(record)

    with pytest.raises(DataError, match="line 1: the record is nested too deeply"):
        make([ask("q")], check=down)


def test_half_a_character_in_a_history(make):
    """The history of a CSV cell is JSON within a text."""
    record = {"instruction": "q", "history": '[["\\ud800", "a"]]'}
    with pytest.raises(DataError, match=r"role user contains a lone surrogate, half of a character"):
        make([record], "instruction")


def test_a_template_may_refuse(make):
    gemma = load_family("gemma")
    twice = {"messages": [{"role": "user", "content": "q"}] * 2}
    with pytest.raises(DataError, match="line 1: the model's chat template rejects this conversation"):
        make([twice], "chat", gemma)


def test_a_model_without_template(make):
    bare = ChatTokenizer(load_family("chatml").tokenizer.__class__(tokenizer_object=_backend()))
    with pytest.raises(ModelError, match="no chat template"):
        make([ask("q")], "chat", bare)


def _backend():
    return TOKENIZER.tokenizer.backend_tokenizer


NOTHING = {
    "empty-file": ("", r"data.jsonl: the file is empty"),
    "blank-lines": ("\n\n", r"data.jsonl: the file is empty"),
    "all-bad": (
        '{"messages": 1}\n',
        r"There is no prompt in file:.*: of 1 record 1 bad\.\ndata.jsonl, line 1: messages is",
    ),
}


@pytest.mark.parametrize(("text", "message"), NOTHING.values(), ids=NOTHING)
def test_no_prompt_is_an_error(tmp_path, text, message):
    (tmp_path / "data.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, tmp_path / "data.jsonl", maxBadRecords=5)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_there(tmp_path):
    with pytest.raises(StoragePermanentError, match="There is no file and no folder with files"):
        prepare(tmp_path, tmp_path / "nothing")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.md").write_text("x")
    (tmp_path / "in" / "more.txt").write_text("x")
    with pytest.raises(DataError, match="There is no data"):
        prepare(tmp_path, tmp_path / "in")


def test_a_folder_of_files(tmp_path):
    write_jsonl(tmp_path / "in" / "b.jsonl", [ask("b1"), ask("b2")])
    (tmp_path / "in" / "a.json").write_text(json.dumps([ask("a1"), ask("a2")]))
    (tmp_path / "in" / "deep").mkdir()
    lines = "".join(json.dumps(ask(f"c{n}")) + "\n" for n in range(2))
    (tmp_path / "in" / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "in" / "README.md").write_text("x")
    prompts = prepare(tmp_path, tmp_path / "in")
    assert [prompt.messages[0].content for prompt in prompts] == ["a1", "a2", "b1", "b2", "c0", "c1"]
    assert prompts.facts["skipped_files"] == ["README.md: plain text is read only with the format text"]
    limited = prepare(tmp_path, tmp_path / "in", limit=3)
    assert [prompt.messages[0].content for prompt in limited] == ["a1", "a2", "b1"]


def test_a_file_cut_short_is_never_allowed(tmp_path):
    packed = gzip.compress("".join(json.dumps(ask(f"c{n}")) + "\n" for n in range(50)).encode())
    (tmp_path / "data.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match="truncated"):
        prepare(tmp_path, tmp_path / "data.jsonl.gz", maxBadRecords=1000)


def test_limit_counts_good_and_bad(make):
    prompts = make([ask("q"), {"messages": 1}, ask("r"), ask("s")], limit=3, maxBadRecords=1)
    assert [prompt.messages[0].content for prompt in prompts] == ["q", "r"]
    assert prompts.facts["records"] == 3


def test_progress(make):
    told = []
    make([ask(f"q{n}") for n in range(450)], progress=told.append)
    assert told == [200, 400, 450]


def test_the_check_sees_the_prompts_record(make):
    seen = []
    make([reply("a", 0), {"id": "b", **ask("q")}], check=seen.append)
    assert seen == [ask("q", id="a"), ask("q", id="b")]


def test_fields_of_turns_that_no_reader_reads_are_counted(make):
    """The record's own fields all go to the verifier and the outputs."""
    turns = [{"role": "user", "content": "q", "mood": "calm"}]
    for record in ({"messages": turns, "answer": 3}, {"prompt": turns, "answer": 3}):
        prompts = make([record])
        inside = "messages[].mood" if "messages" in record else "prompt[].mood"
        assert prompts.facts["unread"] == {inside: 1}
        assert f"not read: {inside} (1)" in prompts.sentences()
        assert prompts[0].record["answer"] == 3
    turns[0]["weight"] = 1
    assert len(make([{"messages": turns, "rejected_response": "No."}])) == 1


def test_facts_and_digest(make, tmp_path):
    records = [ask(f"q{n}" * n, id=n) for n in range(1, 5)]
    prompts = make(records)
    lengths = [len(prompt.ids) for prompt in prompts]
    assert prompts.facts == {
        "records": 4,
        "prompts": 4,
        "bad": 0,
        "bad_records": [],
        "skipped": {},
        "equal": 0,
        "skipped_files": [],
        "tokens": sum(lengths),
        "longest": max(lengths),
    }
    digest = prompts.digest
    assert make(records).digest == digest
    assert Prompts(tmp_path / "out" / "prompts").digest == digest
    assert make(records, systemPrompt="S").digest != digest
    assert make(records, "chat", load_family("llama3")).digest != digest
    assert make([*records, ask("x")]).digest != digest
    assert make(records[::-1]).digest != digest


def test_nothing_is_left_behind(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", [ask("q")] * 3)

    def stop(records):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, path, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []
    prepare(tmp_path, path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prompts"]


plain_ = st.characters(exclude_categories=["Cs"], exclude_characters="<|>")
record_ = st.builds(
    lambda text, fields, reply: fields | ask(text) | reply,
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="<|>"), min_size=1, max_size=5
    ).filter(str.strip),
    st.dictionaries(st.sampled_from("xyz"), st.integers(0, 1), max_size=2),
    st.one_of(
        st.just({}),
        st.builds(
            lambda n: {"sample_index": n, "response": str(n), "num_correct_for_this_sample": 2},
            st.integers(0, 2),
        ),
    ),
)


@settings(max_examples=60)
@given(st.lists(record_, min_size=1, max_size=12), st.data())
def test_ids_do_not_depend_on_the_order(tmp_path_factory, records, data):
    """Nor on the order of fields, and with the same ids stand the same questions."""
    # Of a reply and an equal prompt, which comes first decides whether the other is an equal one or skipped.
    records = [record for record in records if ("response" in record) == ("response" in records[0])]
    shuffled = [dict(reversed(record.items())) for record in data.draw(st.permutations(records))]
    folder = tmp_path_factory.mktemp("order")
    found = []
    for number, each in enumerate((records, shuffled)):
        path = write_jsonl(folder / f"{number}.jsonl", each)
        with prepare(folder, path) as prompts:
            found.append({prompt.id: (prompt.messages, prompt.record) for prompt in prompts})
            assert len(set(prompts.ids())) == len(prompts)
            if "response" not in records[0]:
                assert len(prompts) == len(records)
    assert found[0] == found[1]
