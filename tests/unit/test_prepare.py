"""From datasets to tables: what is chosen, what is kept apart, what is named when it is wrong."""

import json
from collections import Counter

import pytest
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import write_jsonl

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.hash_split import rank
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError, LabelError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


def chat(number, replies=1):
    turns = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
    return {"id": f"k{number}", "messages": turns * replies}


@pytest.fixture
def make(tmp_path):
    """Prepare datasets given as (records, settings) or, first, as a validation set."""
    counter = iter(range(1000))

    def prepared(*datasets, validation=None, training=None, **options):
        specs = []
        for records, settings in datasets:
            path = write_jsonl(tmp_path / f"{next(counter)}" / "train.jsonl", records)
            fmt = (
                {} if {"text", "instruction", "sampled", "userSimulation"} & settings.keys() else {"chat": {}}
            )
            specs.append({"uri": f"file://{path}", **fmt, **settings})
        extra = {}
        if isinstance(validation, float):
            extra = {"validation": {"ratio": validation}}
        elif validation is not None:
            path = write_jsonl(tmp_path / f"{next(counter)}" / "val.jsonl", validation)
            extra = {"validation": {"uri": f"file://{path}", "chat": {}}}
        spec = small_spec(training or {}, datasets=specs, **extra)
        return prepare(spec, TOKENIZER, StorageOptions(), tmp_path / f"{next(counter)}-out", **options)

    return prepared


def texts(table):
    """Each sample with its copies, as text."""
    return {TOKENIZER.decode(table.ids(i).tolist()): int(table.copies[i]) for i in range(len(table))}


def numbers(table):
    return sorted(int(text.partition("<|im_start|>user\nq")[2].partition("<")[0]) for text in texts(table))


def test_everything_is_read(make):
    done = make(([chat(n) for n in range(5)], {}))
    assert numbers(done.train) == [0, 1, 2, 3, 4]
    assert done.validation is None
    report = done.report()[0]
    assert (report["records"], report["samples"], report["bad"]) == (5, 5, 0)
    assert report["tokens"] == done.train.lengths.sum()
    assert report["label_tokens"] == done.train.label_tokens
    assert [s.place for s in done.first] == [f"train.jsonl, line {n}" for n in (1, 2, 3)]
    assert sum(b["count"] for b in done.lengths()) == 5


def test_limit_then_subset_then_split_then_repeat(make):
    records = [chat(n) for n in range(60)]
    settings = {"limit": 40, "subset": {"ratio": 0.5}, "repeat": 1.5}
    done = make((records, settings), validation=0.2)
    train, held_out = numbers(done.train), numbers(done.validation)
    assert max(train + held_out) < 40  # limit counts records read
    assert len(train) + len(held_out) == 20  # subset of those
    assert len(held_out) == 4  # split of the subset
    assert sorted(done.train.copies) == [1] * 8 + [2] * 8  # repeat of what trains
    assert done.validation.copies.tolist() == [1] * 4
    assert not set(train) & set(held_out)


@pytest.mark.parametrize(
    ("repeat", "copies"), [(1, {1: 20}), (3, {3: 20}), (0.25, {0: 15, 1: 5}), (2.5, {2: 10, 3: 10})]
)
def test_repeat(make, repeat, copies):
    done = make(([chat(n) for n in range(20)], {"repeat": repeat}))
    made = done.train.copies.tolist()
    assert {c: made.count(c) for c in set(made)} == copies
    assert len(done.train.order()) == round(20 * repeat)


def test_choices_are_the_records_own(make):
    """Reordered, the same records train and validate; with more records few change sides."""
    records = [chat(n) for n in range(40)]
    settings = {"subset": {"ratio": 0.5}}
    one = make((records, settings), validation=0.25)
    two = make((records[::-1], settings), validation=0.25)
    assert texts(one.train) == texts(two.train)
    assert texts(one.validation) == texts(two.validation)
    more = make(([chat(99), *records], settings), validation=0.25)
    assert len({*texts(one.validation)} ^ {*texts(more.validation)}) <= 3


def test_a_tenth_is_a_tenth_where_ids_repeat(make):
    """A record is known by its id and what it holds: the ids of a few subjects name no parts of the data."""
    records = [{**chat(n), "id": ("math", "code", "chat", "law")[n % 4]} for n in range(400)]
    done = make((records, {"subset": {"ratio": 0.1}}))
    assert len(done.train) == 40
    assert {n % 4 for n in numbers(done.train)} == {0, 1, 2, 3}
    assert len(make((records, {"limit": 40})).train) == 40
    both = make((records, {"limit": 100, "subset": {"ratio": 0.1}}))
    assert (len(both.train), max(numbers(both.train)) < 100) == (10, True)
    held = make((records, {}), validation=0.1)
    assert (len(held.train), len(held.validation)) == (360, 40)


def test_a_subset_of_records_with_ids_of_their_own_stays_what_it_was(make):
    """Their contents are of no account; a job that an earlier version began finds the same data."""
    records = [chat(n) for n in range(40)]
    done = make((records, {"subset": {"ratio": 0.25, "seed": 7}}))
    expected = sorted(range(40), key=lambda n: rank(7, "subset", f"k{n}"))[:10]
    assert numbers(done.train) == sorted(expected)
    edited = [{**record, "note": "new"} for record in records]
    assert numbers(make((edited, {"subset": {"ratio": 0.25, "seed": 7}})).train) == sorted(expected)


def test_equal_records_are_chosen_together(make):
    records = [chat(n) for n in range(20) for _ in range(3)]
    done = make((records, {"subset": {"ratio": 0.5}}))
    assert (len(done.train), len(numbers(done.train))) == (30, 10)


def test_a_subset_of_sampled_data_is_of_whole_cases(make):
    records = [
        {
            "id": f"p{case}",
            "sample_index": reply,
            "prompt": [{"role": "user", "content": f"q{case}"}],
            "response": f"a{reply}",
            "num_correct_for_this_sample": 3,
        }
        for case in range(40)
        for reply in range(3)
    ]
    done = make((records, {"sampled": {}, "subset": {"ratio": 0.1}}))
    found = Counter(numbers(done.train))
    assert sorted(found.values()) == [3, 3, 3, 3]


def test_fields_that_no_reader_reads_are_in_the_report(make):
    records = [{**chat(n), "source": "web", "score": 0} for n in range(3)]
    records[0]["messages"][1]["ts"] = 5
    done = make((records, {}), ([{"text": "t", "url": "u"}], {"text": {}}), validation=[chat(9)])
    first, second, third = done.reports
    assert first.unread == {"id": 3, "messages[].ts": 1, "score": 3, "source": 3}
    assert "not read: id (3), score (3), source (3), messages[].ts (1)" in first.sentences()
    assert (second.unread, third.unread) == ({"url": 1}, {"id": 1})


def test_unread_fields_of_users_are_counted_once_whatever_is_read_twice(make):
    def item(n):
        return {"context": [{"source": "b", "content": f"x{n}", "at": 1}], "continuation": "y"}

    users = [
        {
            "user_hash": f"u{n}",
            "task": {"task_behavior_collections": [{"type": "chat", "data": [item(n)]}]},
            "note": n,
        }
        for n in range(1, 9)
    ]
    settings = {"userSimulation": {}, "repeat": 1.5, "subset": {"ratio": 0.5}}
    (report,) = make((users, settings), validation=0.25).reports
    inside = "task.task_behavior_collections[]"
    assert report.unread == {f"{inside}.data[].context[].at": 4, f"{inside}.type": 4, "note": 4}


def test_another_seed_chooses_others(make):
    records = [chat(n) for n in range(40)]
    subsets = [make((records, {"subset": {"ratio": 0.5, "seed": seed}})) for seed in (1, 2, 1)]
    assert texts(subsets[0].train) == texts(subsets[2].train)
    assert texts(subsets[0].train) != texts(subsets[1].train)


def tree(number, paths):
    """A message tree whose question has several replies of the same rank."""
    replies = [{"role": "assistant", "text": f"t{number} answer {n}", "replies": []} for n in range(paths)]
    root = {"role": "prompter", "text": f"t{number}", "replies": replies}
    return {"message_tree_id": f"{number}", "tree_state": "ready", "prompt": root}


def test_paths_of_a_tree_stay_on_one_side_and_in_one_group(make):
    done = make(([tree(n, 1 + n % 4) for n in range(24)], {}), validation=0.3)

    def trees(table):
        found = {}
        for index in range(len(table)):
            text = TOKENIZER.decode(table.ids(index).tolist())
            name = text.partition("user\nt")[2].partition("<")[0]
            found.setdefault(name, set()).add(int(table.groups[index]))
        return found

    train, held_out = trees(done.train), trees(done.validation)
    assert train
    assert held_out
    assert not train.keys() & held_out.keys()
    groups = [*train.values(), *held_out.values()]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == len(groups) == 24


def test_the_same_record_twice_is_on_one_side(make):
    records = [{"messages": chat(n)["messages"]} for n in range(20)] * 2
    done = make((records, {}), validation=0.3)
    assert not set(texts(done.train)) & set(texts(done.validation))


def test_a_validation_set_of_its_own(make):
    done = make(([chat(n) for n in range(3)], {}), validation=[chat(7), chat(8)])
    assert numbers(done.validation) == [7, 8]
    assert [r["name"].split()[0] for r in done.report()] == ["datasets[0]", "validation"]


def test_at_least_one_record_validates(make):
    assert len(make(([chat(n) for n in range(3)], {}), validation=0.01).validation) == 1


def test_datasets_are_mixed(make):
    done = make(
        ([chat(1), chat(2)], {"repeat": 2}),
        ([{"instruction": "q3", "input": "", "output": "a3"}], {"instruction": {}}),
        ([{"text": "plain words"}], {"text": {}, "repeat": 3}),
    )
    assert done.train.copies.tolist() == [2, 2, 1, 3]
    assert [r["samples"] for r in done.report()] == [2, 1, 1]
    assert sum("plain words" in text for text in texts(done.train)) == 1


def test_system_prompt_and_train_on(make):
    done = make(([chat(1, replies=2)], {"systemPrompt": "be kind", "chat": {"trainOn": "lastAssistant"}}))
    (text,) = texts(done.train)
    assert text.startswith("<|im_start|>system\nbe kind")
    labels = [i for i, w in zip(done.train.ids(0), done.train.weights(0), strict=True) if w > 0]
    assert TOKENIZER.decode(labels).count("a1") == 1


BAD = ['{"messages": 3}', "not json", json.dumps({"messages": [{"role": "user", "content": "only me"}]})]


def test_bad_records_are_all_named(make):
    with pytest.raises(DataError) as caught:
        make(([chat(1), BAD[0], chat(2), BAD[1], BAD[2]], {}))
    message = caught.value.message
    assert message.startswith("3 bad records, 0 allowed by maxBadRecords:")
    assert all(f"train.jsonl, line {line}: " in message for line in (2, 4, 5))


def test_bad_records_may_be_allowed(make):
    done = make(([chat(1), *BAD, chat(2)], {"maxBadRecords": 3}))
    assert numbers(done.train) == [1, 2]
    report = done.report()[0]
    assert report["bad"] == 3
    assert [text.split(":")[0] for text in report["bad_records"]] == [
        f"train.jsonl, line {n}" for n in (2, 3, 4)
    ]
    with pytest.raises(DataError, match="3 bad records, 2 allowed"):
        make(([chat(1), *BAD], {"maxBadRecords": 2}))


def test_a_reply_too_long_is_a_bad_record(make):
    long = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x y " * 200}]}
    with pytest.raises(DataError, match=r"train\.jsonl, line 2: the reply alone is too long"):
        make(([chat(1), long], {}), training={"maxLength": 64})
    done = make(([chat(1), long], {}), training={"maxLength": 64, "truncateReply": True})
    assert done.train.lengths.max() == 64


def test_an_id_outside_the_models_vocabulary_is_found(make):
    with pytest.raises(LabelError, match=r"train\.jsonl, line 1: .* outside the vocabulary of 40"):
        make(([chat(1)], {}), vocab_size=40)


def test_nothing_left_is_said(make):
    with pytest.raises(DataError, match="No sample is left"):
        make(([chat(1)], {"repeat": 0.1}))
    users = [{"user_hash": f"u{number}", "task": {"task_behavior_collections": []}} for number in range(3)]
    why = r"No sample is left to train on\. datasets\[0\] .*: 3 records, of them 3 left out \(the user has"
    with pytest.raises(DataError, match=why):
        make((users, {"userSimulation": {}}))


def test_progress_and_first(make):
    seen = []
    done = make(([chat(n) for n in range(450)], {}), progress=lambda name, n: seen.append(n), first=5)
    assert seen == [200, 400, 450]
    assert len(done.first) == 5
    assert done.first[0].messages[0].content == "q0"
