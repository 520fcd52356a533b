import io
import json
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.sampling_rows import Asked, row, rows

from tunesmith.api.datasets import DatasetSpec, PromptsSpec
from tunesmith.artifacts.store import Entry
from tunesmith.data.prompts.formats import prompt_fields as fields_of_prompt
from tunesmith.data.prompts.formats import prompts_from
from tunesmith.data.read import Reader
from tunesmith.data.record import BadRecord
from tunesmith.errors import TemporaryError
from tunesmith.sampling.outputs import OF_ACCEPTED, OF_REJECTED, record_fields, write_outputs
from tunesmith.sampling.rows import SampleRow
from tunesmith.tokens.conversation import Message

LEGAL = {
    "prison_time": 9,
    "label": "TU",
    "fact": "甲在家中。",
    "charge": "盗窃罪",
    "relevant_articles": ["1"],
}
ARTICLES = {"1": "盗窃公私财物的，处三年以下有期徒刑。"}
HOSTILE = "</script><script>alert(1)</script>\x00\x1b[31m\u202e\u2028\r\n\t\"'\\ 👩‍🚀"


def written(folder, prompts, letters, num_samples=None, **settings):
    """The outputs for prompts with the letters of their replies."""
    letters = [letters] * len(prompts) if isinstance(letters, str) else letters
    found = {p.id: rows(p.id, one) for p, one in zip(prompts, letters, strict=True)}
    count = num_samples or max(map(len, letters), default=1)
    return write_outputs(prompts, found.__getitem__, folder, num_samples=count, **settings)


def data_of(folder):
    return json.loads((folder / "sampled_data.json").read_text("utf-8"))


def lines_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


@dataclass(frozen=True)
class Memory:
    files: dict[str, bytes]

    def open(self, key):
        return io.BytesIO(self.files[key])


def learned(folder):
    """What FineTuneJob makes of sampled_data.json."""
    data = (folder / "sampled_data.json").read_bytes()
    dataset = DatasetSpec.model_validate({"uri": "file:///sampled_data.json", "sampled": {}})
    store, entry = Memory({"sampled_data.json": data}), Entry("sampled_data.json", len(data))
    return list(Reader(store, [entry], dataset).items())


def test_an_accepted_record_has_the_fields_of_the_specification_in_their_order(tmp_path):
    prompt = Asked("case-1", LEGAL, (Message("system", "S"), Message("user", "Q")), "TU")
    written(tmp_path, [prompt], "aw")
    (record,) = data_of(tmp_path)
    assert list(record) == [
        *("fact", "relevant_articles", "charge", "prison_time", "label"),
        *("response", "num_correct_for_this_sample", "id", "prompt", "sample_index", "finish_reason"),
    ]
    assert {name: record[name] for name in LEGAL} == LEGAL
    assert record["prompt"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert (record["response"], record["num_correct_for_this_sample"]) == ("right", 1)
    assert (record["id"], record["sample_index"], record["finish_reason"]) == ("case-1", 0, "stop")


def test_every_row_but_a_cancelled_one_is_in_one_of_the_two_files(tmp_path):
    prompts = [Asked("p"), Asked("q"), Asked("r"), Asked("s")]
    written(tmp_path, prompts, ["awta", "wwue", "a-w-", "nnnn"])
    accepted, rejected = data_of(tmp_path), lines_of(tmp_path, "rejected.jsonl")
    assert [(r["id"], r["sample_index"], r["num_correct_for_this_sample"]) for r in accepted] == [
        ("p", 0, 2),
        ("p", 3, 2),
        ("r", 0, 1),
    ]
    assert [(r["id"], r["sample_index"], r["reason"], r["finish_reason"]) for r in rejected] == [
        ("p", 1, "wrong_answer", "stop"),
        ("p", 2, "truncated", "length"),
        ("q", 0, "wrong_answer", "stop"),
        ("q", 1, "wrong_answer", "stop"),
        ("q", 2, "unparsable", "stop"),
        ("q", 3, "verifier_error", "stop"),
        ("r", 2, "wrong_answer", "stop"),
        *(("s", index, "prompt_too_long", "none") for index in range(4)),
    ]
    assert rejected[0]["details"] == {"answer": "x"}
    assert (rejected[0]["tokens"], rejected[0]["response"]) == (11, "wrong")


def test_preferences_are_unpaired_conversations_with_a_verdict(tmp_path):
    prompt = Asked("p", {}, (Message("system", "S"), Message("user", "Q")))
    written(tmp_path, [prompt, Asked("q")], ["awtue", "nn-"], num_samples=5)
    found = lines_of(tmp_path, "preference.jsonl")
    assert [(r["completion"][0]["content"], r["label"]) for r in found] == [
        ("right", True),
        ("wrong", False),
        ("?", False),
    ]
    assert found[0] == {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "completion": [{"role": "assistant", "content": "right"}],
        "label": True,
    }


def test_one_record_a_line(tmp_path):
    written(tmp_path, [Asked("p", {"名": "\u2028\x85"}), Asked("q")], ["aa", "w-"])
    lines = (tmp_path / "sampled_data.json").read_bytes().split(b"\n")
    assert lines[0] == b"["
    assert lines[3:] == [b"]", b""]
    assert lines[1].endswith(b"},")
    assert '"名"'.encode() in lines[1]
    assert (tmp_path / "rejected.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("letters", ["w", "n", "-"])
def test_nothing_accepted_is_an_empty_list(tmp_path, letters):
    written(tmp_path, [Asked("p")], letters)
    assert (tmp_path / "sampled_data.json").read_bytes() == b"[]\n"


def test_no_prompts(tmp_path):
    found = written(tmp_path, [], [], num_samples=8)
    assert data_of(tmp_path) == []
    assert found.statistics["total_prompts"] == 0


def test_a_users_field_with_a_name_of_ours_is_kept_under_another(tmp_path):
    record = {"id": 7, "response": "mine", "tokens": 3, "record_response": "too", "prompt": "text", "x": 1}
    written(tmp_path, [Asked("7", record)], "aw")
    (accepted,), (rejected,) = data_of(tmp_path), lines_of(tmp_path, "rejected.jsonl")
    assert accepted["response"] == "right"
    for found in (accepted, rejected):
        kept = {name: found[name] for name in found if name in ("x", "record_prompt", "record_response")}
        assert kept == {"x": 1, "record_prompt": "text", "record_response": "too"}
        assert found["record_record_response"] == "mine"
        assert "record_id" not in found
    assert accepted["tokens"] == 3
    assert (rejected["tokens"], rejected["record_tokens"]) == (11, 3)


def test_another_id_than_the_prompts_is_kept():
    assert record_fields(Asked("7.1", {"id": 7}), OF_ACCEPTED) == {"record_id": 7}


@given(st.dictionaries(st.sampled_from([*OF_REJECTED, "record_id", "record_reason", "x"]), st.integers()))
def test_no_field_is_lost(record):
    for ours in (OF_ACCEPTED, OF_REJECTED):
        kept = record_fields(Asked("p", record), ours)
        assert sorted(kept.values()) == sorted(record.values())
        assert not kept.keys() & set(ours)


ROUND_TRIPS = {
    "legal": (
        {"legalJudgement": {"articlesUri": "file:///a"}},
        [LEGAL, {**LEGAL, "fact": "乙。", "charge": ""}],
    ),
    "cail": (
        {"legalJudgement": {"articlesUri": "file:///a"}},
        [
            {
                "fact": "丙。",
                "meta": {
                    "relevant_articles": [1],
                    "accusation": ["[盗窃]"],
                    "term_of_imprisonment": {
                        "imprisonment": 0,
                        "death_penalty": False,
                        "life_imprisonment": True,
                    },
                },
            }
        ],
    ),
    "chat": (
        {"chat": {}},
        [
            {
                "id": "c",
                "messages": [
                    {"role": "system", "content": "S"},
                    {"role": "user", "content": HOSTILE},
                    {"role": "assistant", "content": "A"},
                    {"role": "user", "content": "B"},
                    {"role": "assistant", "content": "C"},
                ],
            }
        ],
    ),
    "instruction": (
        {"instruction": {}},
        [
            {"instruction": "I", "input": "x", "response": "R", "id": 3},
            {"instruction": "I", "output": "O", "history": [["q", "a"]]},
        ],
    ),
}


@pytest.mark.parametrize(("fmt", "records"), ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_fine_tune_job_reads_what_was_written(tmp_path, fmt, records):
    spec = PromptsSpec.model_validate({"uri": "file:///p.jsonl", **fmt})
    asked = [each for record in records for each in prompts_from(record, spec, ARTICLES)]
    prompts = [
        Asked(str(a.record.get("id", f"h{i}")), a.record, a.messages, a.label) for i, a in enumerate(asked)
    ]
    written(tmp_path, prompts, ["aawa", "waww"][: len(prompts)])
    items = learned(tmp_path)
    assert not [item for item in items if isinstance(item, BadRecord)]
    for item, prompt in zip(items, [prompts[0]] * 3 + prompts[1:], strict=True):
        *question, reply = item.content.messages
        assert [(m.role, m.content) for m in question] == [(m.role, m.content) for m in prompt.messages]
        assert not [m for m in question if m.role == "assistant" and m.weight]
        assert reply == Message("assistant", "right", 1 / 3 if prompt is prompts[0] else 1.0)
    for record in data_of(tmp_path):
        prompt = next(p for p in prompts if p.id == record["id"])
        assert fields_of_prompt(record) == {**prompt.record, "id": prompt.id}


def test_two_prompts_that_say_the_same_are_counted_apart(tmp_path):
    written(tmp_path, [Asked("p"), Asked("q")], ["aaa", "aww"])
    weights = [item.content.messages[-1].weight for item in learned(tmp_path)]
    assert weights == [1 / 3] * 3 + [1.0]


@pytest.mark.parametrize("text", [HOSTILE, "half \ud800 \udfff", "x" * 100_000, "NaN", "\ufeff"])
def test_any_reply_can_be_written_and_read(tmp_path, text):
    found = [row("p", response=text), row("p", 1, "w", response=text)]
    write_outputs([Asked("p")], lambda _: found, tmp_path, num_samples=2)
    seen = text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert data_of(tmp_path)[0]["response"] == seen
    rejected = (tmp_path / "rejected.jsonl").read_bytes().split(b"\n")
    assert json.loads(rejected[0])["response"] == seen
    assert rejected[1:] == [b""]
    (item,) = learned(tmp_path)
    assert item.content.messages[-1].content == seen


def test_the_same_rows_give_the_same_bytes(tmp_path):
    prompts = [Asked(f"p{i}", LEGAL, label="TU") for i in range(30)]
    letters = ["aawc", "tenc", "a---"] * 10
    one = written(tmp_path / "one", prompts, letters)
    two = written(tmp_path / "two", prompts, letters)
    assert one == two
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        *("preference.jsonl", "rejected.jsonl", "sampled_data.json", "sampling_stats.json")
    ]


def test_the_statistics_are_those_of_the_file(tmp_path):
    found = written(tmp_path, [Asked("p")], "aw")
    assert json.loads((tmp_path / "sampling_stats.json").read_text("utf-8")) == found.statistics
    assert found.statistics["accepted"] == 1


def test_an_error_leaves_no_file(tmp_path):
    def rows_of(prompt):
        if prompt == "q":
            raise TemporaryError("away")
        return rows(prompt, "aw")

    with pytest.raises(TemporaryError, match="away"):
        write_outputs([Asked("p"), Asked("q")], rows_of, tmp_path, num_samples=2)
    assert not list(tmp_path.iterdir())


def test_files_of_an_earlier_try_are_replaced(tmp_path):
    written(tmp_path, [Asked("p")], "aaaaaa")
    written(tmp_path, [Asked("p")], "w")
    assert data_of(tmp_path) == []


def test_examples_show_right_beside_wrong(tmp_path):
    prompts = [Asked(f"p{i}") for i in range(60)]
    found = written(tmp_path, prompts, ["twaa", "etwu", "aaaa", "w--a", "nnnn", "----"] * 10).examples
    assert {kind: len(group) for kind, group in found.items()} == {"mixed": 6, "none": 4, "all": 2}
    for example in found["mixed"]:
        assert [reply["accepted"] for reply in example["replies"]] == [True, False]
        assert example["replies"][1]["reason"] == "wrong_answer"
    for example in found["none"]:
        reasons = [reply["reason"] for reply in example["replies"]]
        assert reasons in (["wrong_answer", "unparsable"], ["prompt_too_long"])
        assert example["accepted"] == 0
    shown = [example["id"] for group in found.values() for example in group]
    assert shown != sorted(shown)  # not the first of the file


def test_examples_of_a_prompt_do_not_depend_on_the_others(tmp_path):
    few = [Asked(f"p{i}") for i in range(40)]
    found = written(tmp_path, few, "aw").examples["mixed"]
    assert written(tmp_path, few[::-1], "aw").examples["mixed"] == found
    ids = {example["id"] for example in found}
    kept = {e["id"] for e in written(tmp_path, [p for p in few if p.id in ids], "aw").examples["mixed"]}
    assert kept == ids


def test_long_texts_of_examples_lose_their_middle(tmp_path):
    long = "开始" + "x" * 100_000 + "盗窃罪 | 9"
    messages = [Message("user", long) for _ in range(40)]
    found = [row("p", response=long), row("p", 1, "w", response=long)]
    (example,) = write_outputs(
        [Asked("p", LEGAL, messages)], lambda _: found, tmp_path, num_samples=2
    ).examples["mixed"]
    part = example["replies"][0]["response"]
    assert part["begin"].startswith("开始")
    assert part["end"].endswith("盗窃罪 | 9")
    assert len(part["begin"]) + part["left_out"] + len(part["end"]) == len(long)
    assert example["earlier_messages"] == 34
    assert example["expected"] == "盗窃罪 | 9"
    assert len(json.dumps(example)) < 30_000


def test_memory_does_not_grow_with_the_prompts(tmp_path):
    def peak(count):
        tracemalloc.start()
        prompts = (Asked(f"p{i}", {"fact": f"f{i}"}, (Message("user", "Q" * 500),)) for i in range(count))
        write_outputs(prompts, lambda p: rows(p, "aawt"), tmp_path / str(count), num_samples=4)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    few, many = peak(100), peak(1500)
    assert many < few + 100_000


def test_rows_are_what_is_written_not_what_they_were_drawn_for(tmp_path):
    """A row holds a text that a verifier of the user's may have made: it goes out as it is."""
    odd = SampleRow("p", 0, "a\n", "stop", "wrong_answer", {"kéy": [1, None, {"x": "y"}]}, 1, 1)
    write_outputs([Asked("p")], lambda _: [odd], tmp_path, num_samples=1)
    assert lines_of(tmp_path, "rejected.jsonl")[0]["details"] == {"kéy": [1, None, {"x": "y"}]}
