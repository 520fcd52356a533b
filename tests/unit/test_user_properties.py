"""What must hold of user simulation whatever the data is."""

import random
import tempfile
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import BY_NAME, build_backend, load_family
from tests.support import write_jsonl
from tests.unit import naive_users as naive

from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.store import Entry, StorageOptions
from tunesmith.data import parallel_encoder, tokenizer_pool
from tunesmith.data.prepare import prepare
from tunesmith.data.read import Item, ReadCounts, Reader, RecordChoice
from tunesmith.errors import DataError
from tunesmith.tokens.chat import ChatTokenizer


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


ALL = "profile_and_history_and_context"
COLUMNS = ("ids", "weights", "groups", "copies", "offsets")
PLACE: list[Path] = []
few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory):
    """Where records are written: always the same place, for samples' groups carry its name."""
    PLACE.append(tmp_path_factory.mktemp("in") / "users.jsonl")
    yield
    PLACE.clear()


def make(records, fmt=None, *, training=None, validation=None, tokenizer=None, more=(), **dataset):
    """Prepare records in a folder of their own; the tables stay readable after it is gone."""
    workers = dataset.pop("workers", None)
    path = write_jsonl(PLACE[0], records)
    datasets = [{"uri": f"file://{path}", "userSimulation": fmt or {}, **dataset}, *more]
    extra = {"validation": validation} if validation else {}
    spec = small_spec({"maxLength": 4096, **(training or {})}, datasets=datasets, **extra)
    with tempfile.TemporaryDirectory() as temp:
        return prepare(spec, tokenizer or TOKENIZER, StorageOptions(), Path(temp) / "out", workers=workers)


def columns(done):
    """The bytes of all tables."""
    return [each.tobytes() for table in (done.train, done.validation) if table for each in table.columns()]


def seen(table, **options):
    return naive.seen(table, TOKENIZER, **options) if table else []


# Users of up to six talks; texts are few, so that they come again and again.

TEXTS = st.sampled_from(
    ["hi", "ok", "好的", "what?", "tell me more", "Film: ok", " ok ", "two\nlines", "", " "]
)
TURN = st.fixed_dictionaries(
    {"source": st.sampled_from(["user", "USER", "x", "Name0", "Name1"]), "content": TEXTS}
)
ITEM = st.fixed_dictionaries(
    {"context": st.lists(TURN, max_size=5), "continuation": TEXTS},
    optional={
        "continuation_prefix": st.sampled_from(["Film: ", "Book: ", ""]),
        "timestamp": st.sampled_from([1, 2, 3.5, "2", "2020-01-01"]),
    },
)


@st.composite
def users(draw, most=4):
    """Records of some users, one or more each, with a task that tells whose prompt it is."""
    records = []
    for number in range(draw(st.integers(1, most))):
        for part in range(draw(st.integers(1, 2))):
            items = draw(st.lists(ITEM, min_size=1, max_size=4))
            collections = [{"type": "t", "data": items}]
            records.append(
                {
                    "user_hash": f"secret{number}",
                    "user": {"profile": {"name": f"Name{number}", "age": part}},
                    "task": {"description": f"task {number}", "task_behavior_collections": collections},
                }
            )
    return draw(st.permutations(records))


FORMAT = st.fixed_dictionaries(
    {
        "ablationConfig": st.sampled_from(naive.ABLATIONS),
        "promptStyle": st.sampled_from(["simple", "detailed", "flat"]),
        "expand": st.booleans(),
        "history": st.fixed_dictionaries(
            {"maxItems": st.integers(0, 16), "maxCharacters": st.integers(1, 20)}
        ),
    },
    optional={
        "useHistory": st.booleans(),
        "sampleSeed": st.integers(0, 5),
    },
)
DRAW = st.sampled_from([{}, {"maxSamplesPerUser": 1}, {"maxSamplesPerUser": 2}, {"oneSamplePerUser": True}])
SPLIT = st.sampled_from(
    [None, {"ratio": 0.3}, {"ratio": 0.4, "by": "sample"}, {"ratio": 0.5, "by": "user", "seed": 1}]
)


def tried(*args, **options):
    """Prepared, or None where nothing is left to train or validate on."""
    try:
        return make(*args, **options)
    except DataError as error:
        if "No sample is left" in error.message or "validation set is empty" in error.message:
            return None
        raise


def task_of(sample):
    (task,) = sample.section("Task")
    return task


def of_users(samples):
    found = defaultdict(list)
    for sample in samples:
        found[task_of(sample)].append(sample)
    return found


@few
@given(users(), FORMAT, DRAW)
def test_as_many_samples_as_a_naive_count(records, fmt, draw):
    fmt = {**fmt, **draw}
    talks = naive.read(records).talks
    numbers = {mine[0].task: naive.wanted(mine, fmt) for mine in talks.values()}
    done = tried(records, fmt)
    found = {} if done is None else Counter(map(task_of, seen(done.train)))
    assert found == {task: number for task, number in numbers.items() if number}


@few
@given(users(), FORMAT, DRAW, SPLIT)
def test_what_is_learned_or_judged_is_in_no_history(records, fmt, draw, split):
    fmt = {**fmt, **draw, "history": {}}
    done = tried(records, fmt, validation=split)
    if done is None:
        return
    train, held_out = seen(done.train, all_copies=True), seen(done.validation)
    judged = {
        task: {naive.one_line(s.target) for s in of_user} for task, of_user in of_users(held_out).items()
    }
    own = defaultdict(set)
    for sample in (*train, *held_out):
        own[sample.group].add(naive.one_line(sample.target))
    for sample in (*train, *held_out):
        past = set(sample.section("History"))
        assert not past & own[sample.group]
        assert not past & judged.get(task_of(sample), set())


@few
@given(users(), FORMAT, DRAW, SPLIT, st.sampled_from([1, 2, 0.5, 1.5]))
def test_what_validates_is_not_trained(records, fmt, draw, split, repeat):
    done = tried(records, {**fmt, **draw}, validation=split or {"ratio": 0.3}, repeat=repeat)
    if done is None:
        return
    table, held_out = done.train, done.validation
    trained = {table.ids(at).tobytes() for at in range(len(table)) if table.copies[at]}
    assert not trained & {held_out.ids(at).tobytes() for at in range(len(held_out))}
    assert set(held_out.copies.tolist()) == {1}
    if split is None or split.get("by") != "sample":
        assert not of_users(seen(table, all_copies=True)).keys() & of_users(seen(held_out)).keys()
    assert not set(table.groups.tolist()) & set(held_out.groups.tolist())


@few
@given(users(), FORMAT, DRAW, SPLIT)
def test_no_prompt_holds_a_hash(records, fmt, draw, split):
    done = tried(records, {**fmt, **draw}, validation=split)
    for table in (done.train, done.validation) if done else ():
        for at in range(len(table or ())):
            assert "secret" not in TOKENIZER.decode(table.ids(at).tolist())


@few
@given(users(), FORMAT, DRAW, SPLIT)
def test_every_dialogue_is_a_sample_or_counted(records, fmt, draw, split):
    done = tried(records, {**fmt, **draw}, validation=split)
    if done is None:
        return
    everyone = [talk for talks in naive.read(records).talks.values() for talk in talks]
    (report,) = done.report()
    unused = sum(naive.skipped(everyone).values())
    possible = len(naive.candidates(everyone, expand=fmt["expand"]))
    also = report["skipped"].pop("the same as a validation sample", 0)
    assert report["samples"] + sum(report["skipped"].values()) == possible + unused
    assert report["samples"] - also == len(seen(done.train)) + len(seen(done.validation))
    assert (report["records"], report["bad"]) == (len(records), 0)


@few
@given(users(), FORMAT, DRAW, st.sampled_from([None, {"ratio": 0.4, "by": "user"}]))
def test_the_same_twice_is_the_same_to_the_byte(records, fmt, draw, split):
    one, two = (tried(records, {**fmt, **draw}, validation=split) for _ in range(2))
    assert (one and columns(one)) == (two and columns(two))


def tables_of(done):
    """What each sample is, whatever the order."""
    if done is None:
        return Counter()
    return Counter(
        (table is done.train, table.ids(at).tobytes(), table.weights(at).tobytes(), int(table.copies[at]))
        for table in (done.train, done.validation)
        if table
        for at in range(len(table))
    )


@few
@given(users(), FORMAT, DRAW, SPLIT, st.randoms(use_true_random=False))
def test_scattered_records_give_the_same(records, fmt, draw, split, chance):
    """Records of one user keep their order; where others stand between them does not matter."""
    queues = defaultdict(list)
    for record in records:
        queues[record["user_hash"]].append(record)
    adjacent = [record for queue in queues.values() for record in queue]
    order = [record["user_hash"] for record in records]
    chance.shuffle(order)
    left = {name: list(queue) for name, queue in queues.items()}
    scattered = [left[name].pop(0) for name in order]
    one, two = (tried(each, {**fmt, **draw}, validation=split) for each in (adjacent, scattered))
    assert tables_of(one) == tables_of(two)


@few
@given(users(most=2), users(most=2), FORMAT, DRAW)
def test_a_users_draw_is_its_own(records, others, fmt, draw):
    """Others added, taken away or in another order."""
    for record in others:
        record["user_hash"] = "other" + record["user_hash"]
        record["task"]["description"] = "other " + record["task"]["description"]
    alone, together = tried(records, {**fmt, **draw}), tried([*others, *records], {**fmt, **draw})
    mixed = tried([r for pair in zip(records, others, strict=False) for r in pair], {**fmt, **draw})
    one = (
        Counter(TOKENIZER.decode(alone.train.ids(at).tolist()) for at in range(len(alone.train)))
        if alone
        else Counter()
    )
    two = (
        [TOKENIZER.decode(together.train.ids(at).tolist()) for at in range(len(together.train))]
        if together
        else []
    )
    assert one == Counter(text for text in two if "other task" not in text)
    if mixed and len(records) <= len(others):
        three = (TOKENIZER.decode(mixed.train.ids(at).tolist()) for at in range(len(mixed.train)))
        assert one == Counter(text for text in three if "other task" not in text)


# Users of long, all different texts.


def talker(number, talks, *, turns=7, words=1, profile=None, chance=None):
    """A user whose texts are all different; every talk begins and ends with the other side."""
    chance = chance or random.Random(number)
    items = []
    for talk in range(talks):
        said = [
            {
                "source": ("x", "user")[at % 2],
                "content": " ".join(f"u{number}t{talk}n{at}w{w}" for w in range(words)),
            }
            for at in range(turns)
        ]
        items.append({"context": said, "continuation": f"u{number}t{talk} end"})
    task = {"description": f"task {number}", "task_behavior_collections": [{"type": "t", "data": items}]}
    return {"user_hash": f"h{number}", "user": {"profile": profile or {"name": f"N{number}"}}, "task": task}


def drawn(done):
    """The targets of each user."""
    return {task: sorted(s.target for s in mine) for task, mine in of_users(seen(done.train)).items()}


def test_draws_differ_between_users_and_seeds():
    records = [talker(number, 20) for number in range(30)]
    one, two = (drawn(make(records, {"maxSamplesPerUser": 2, "sampleSeed": seed})) for seed in (1, 2))
    assert all(len(targets) == 2 for targets in one.values())
    assert len({tuple(t.split("t")[1] for t in targets) for targets in one.values()}) > 20
    assert sum(one[task] != two[task] for task in one) > 20
    assert one == drawn(make(records, {"maxSamplesPerUser": 2, "sampleSeed": 1}))


def test_users_who_say_the_same_are_drawn_apart():
    records = [talker(0, 20) for _ in range(20)]
    for number, record in enumerate(records):
        record["user_hash"] = f"h{number}"
        record["task"]["description"] = f"task {number}"
    assert len({tuple(targets) for targets in drawn(make(records, {"maxSamplesPerUser": 2})).values()}) > 10


def test_every_dialogue_is_drawn_as_often_as_the_others():
    records = [talker(number, 6) for number in range(300)]
    found = drawn(make(records, {"maxSamplesPerUser": 2, "ablationConfig": "profile_only"}))
    talks = Counter(target.split("t")[1] for targets in found.values() for target in targets)
    assert sum(talks.values()) == 600
    assert all(65 <= number <= 135 for number in talks.values())  # 100 on average, 8 is one deviation


def test_a_draw_is_the_same_in_every_ablation_and_style():
    records = [talker(number, 8) for number in range(5)]
    found = [
        drawn(make(records, {"maxSamplesPerUser": 3, "ablationConfig": ablation, "promptStyle": style}))
        for ablation in naive.ABLATIONS
        for style in ("simple", "flat")
    ]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("by", ["user", "sample", None])
def test_the_split_is_made_before_the_draw(by):
    """Each side has its draw; with `by: user` all users but those held out keep their two samples."""
    records = [talker(number, 6) for number in range(20)]
    split = {"ratio": 0.25, **({"by": by} if by else {})}
    every, two = (make(records, fmt, validation=split) for fmt in ({}, {"maxSamplesPerUser": 2}))
    for name in ("train", "validation"):
        whole, part = (of_users(seen(getattr(each, name))) for each in (every, two))
        assert whole.keys() == part.keys()
        for task in whole:
            assert len(part[task]) == min(2, len(whole[task]))
            assert {s.target for s in part[task]} <= {s.target for s in whole[task]}
    users_held, samples_held = len(of_users(seen(every.validation))), len(every.validation)
    assert (samples_held == 30) if by == "sample" else (users_held == 5)


def test_a_talk_is_on_one_side_of_a_split_by_sample():
    """Its beginnings too."""
    records = []
    for number in range(6):
        record = talker(number, 5)
        data = record["task"]["task_behavior_collections"][0]["data"]
        data += [
            {"context": item["context"][:at], "continuation": item["context"][at]["content"]}
            for item in list(data)
            for at in (5, 3, 1)
        ]
        records.append(record)
    for expand in (False, True):
        done = make(records, {"expand": expand}, validation={"ratio": 0.4, "by": "sample"})
        talks = [
            {s.target.split("n")[0].split(" ")[0] for s in seen(t)} for t in (done.train, done.validation)
        ]
        assert talks[0]
        assert talks[1]
        assert not talks[0] & talks[1]


def test_no_history_shows_a_validation_target_of_another_talk():
    """By sample, a user's own talks stand on both sides."""
    records = [talker(number, 12) for number in range(6)]
    fmt = {"ablationConfig": "history_and_context", "history": {"maxItems": 1000}, "expand": True}
    done = make(records, fmt, validation={"ratio": 0.3, "by": "sample"})
    judged = {sample.target for sample in seen(done.validation)}
    shown = {
        line for table in (done.train, done.validation) for s in seen(table) for line in s.section("History")
    }
    assert judged
    assert shown
    assert not judged & shown


def test_a_validation_set_of_its_own_is_in_no_history(tmp_path):
    records = [talker(number, 4) for number in range(3)]
    held_out = [talker(number, 2) for number in range(3)]
    path = write_jsonl(tmp_path / "val.jsonl", held_out)
    fmt = {"ablationConfig": "history_and_context"}
    done = make(records, fmt, validation={"uri": f"file://{path}", "userSimulation": fmt})
    judged = {sample.target for sample in seen(done.validation)}
    assert len(judged) == 6
    for sample in seen(done.train):
        assert not judged & set(sample.section("History"))


def test_what_two_users_have_in_common_validates_only():
    records = [talker(number // 2, 3) for number in range(12)]
    for number, record in enumerate(records):
        record["user_hash"], record["task"]["description"] = f"h{number}", "task"
    done = make(records, {"ablationConfig": "context_only"}, validation={"ratio": 0.3})
    train, held_out = ({sample.target for sample in seen(table)} for table in (done.train, done.validation))
    assert len(train | held_out) == 18
    assert not train & held_out


def test_what_is_repeated_is_repeated_whole():
    done = make([talker(number, 3) for number in range(8)], {"expand": True}, repeat=2.25)
    copies = {
        (group, n) for group, n in zip(done.train.groups.tolist(), done.train.copies.tolist(), strict=True)
    }
    assert Counter(number for _, number in copies) == {2: 18, 3: 6}
    assert done.report()[0]["seen_samples"] == done.train.copies.sum() == 4 * (2 * 18 + 3 * 6)


def test_a_user_of_two_datasets_is_on_one_side(tmp_path):
    path = write_jsonl(tmp_path / "more.jsonl", [talker(number, 3, turns=3) for number in range(12)])
    more = [{"uri": f"file://{path}", "userSimulation": {"promptStyle": "flat"}}]
    done = make([talker(number, 3) for number in range(12)], more=more, validation={"ratio": 0.3})
    train, held_out = (of_users(seen(table)).keys() for table in (done.train, done.validation))
    assert len(held_out) == 4
    assert not train & held_out


# Expanded dialogues cost one pass.


def groups_of(table):
    found = defaultdict(list)
    for at in range(len(table)):
        found[int(table.groups[at])].append(table.ids(at).tolist())
    return found


@pytest.mark.parametrize("ablation", ["profile_and_context", ALL, "context_only"])
@pytest.mark.parametrize("most", [None, 5])
def test_expanded_samples_are_prefixes_of_each_other(ablation, most):
    records = [talker(number, 4, turns=9) for number in range(3)]
    done = make(records, {"expand": True, "ablationConfig": ablation, "maxSamplesPerUser": most})
    groups = groups_of(done.train)
    assert len(done.train) == (3 * 5 if most else 3 * 4 * 5)
    assert max(map(len, groups.values())) > 1
    for samples in groups.values():
        samples.sort(key=len)
        for short, long in pairwise(samples):
            assert long[: len(short)] == short


def common(samples):
    return next((at for at, ids in enumerate(zip(*samples, strict=False)) if len(set(ids)) > 1), None)


@pytest.mark.parametrize("ablation", ["profile_and_context", ALL])
def test_flat_samples_share_the_dialogue_so_far(ablation):
    done = make([talker(1, 3, turns=9)], {"expand": True, "ablationConfig": ablation, "promptStyle": "flat"})
    for samples in groups_of(done.train).values():
        samples.sort(key=len)
        for short, long in pairwise(samples):
            shared = TOKENIZER.decode(short[: common([short, long])])
            dialogue = TOKENIZER.decode(short).partition("<|im_end|>")[0]
            assert shared.startswith(dialogue.rstrip("\n"))


def test_history_of_a_dialogue_does_not_change_within_it():
    fmt = {"expand": True, "ablationConfig": "profile_and_history", "history": {"maxItems": 50}}
    done = make([talker(1, 4, turns=5)], fmt)
    pasts = defaultdict(set)
    for sample in seen(done.train):
        pasts[sample.group].add(tuple(sample.section("History")))
    assert all(len(each) == 1 for each in pasts.values())


# Too long.


@pytest.mark.parametrize("style", ["simple", "detailed", "flat"])
@pytest.mark.parametrize("expand", [False, True], ids=["plain", "expanded"])
def test_what_is_cut_is_the_oldest_of_the_dialogue_then_of_the_history(style, expand):
    profile = {"name": "Ann", "about": "keeps every word of this"}
    record = talker(1, 5, turns=9, words=2, profile=profile)
    fmt = {"ablationConfig": ALL, "promptStyle": style, "expand": expand}
    full = seen(make([record], fmt).train)
    longest = int(max(make([record], fmt).train.lengths))
    cuts = Counter()
    for length in range(longest, 200, -37):
        done = tried([record], fmt, training={"maxLength": length}, maxBadRecords=1000)
        if done is None:
            break
        assert done.train.lengths.max() <= length
        by_target = {sample.target: sample for sample in full}
        for sample in seen(done.train):
            whole = by_target[sample.target]
            for name in ("", "Profile", "Personality", "Task"):
                assert sample.section(name) == whole.section(name)
            past, said = sample.section("History"), [*sample.section("Dialogue"), *sample.turns]
            all_past, all_said = whole.section("History"), [*whole.section("Dialogue"), *whole.turns]
            assert past == all_past[len(all_past) - len(past) :]
            if past != all_past:
                cuts["history"] += 1
                assert len(said) <= 1  # the turn that is answered
            if len(said) > 1:
                assert said == all_said[len(all_said) - len(said) :]
            cuts["turns"] += len(said) < len(all_said)
        report = done.report()[0]
        assert report["cut"] == int(sum(lengths_differ(full, seen(done.train))))
    assert cuts["turns"]
    assert cuts["history"]


def lengths_differ(full, cut):
    by_target = {sample.target: sample for sample in full}
    return (
        (sample.turns, sample.sections) != (by_target[sample.target].turns, by_target[sample.target].sections)
        for sample in cut
    )


@pytest.mark.parametrize("ablation", naive.ABLATIONS)
def test_a_target_or_profile_too_long_is_a_bad_record(ablation):
    long_target = talker(1, 1)
    long_target["task"]["task_behavior_collections"][0]["data"][0]["continuation"] = "x y " * 300
    long_profile = talker(2, 1, profile={"name": "N", "about": "long " * 300})
    fmt = {"ablationConfig": ablation}
    done = make([talker(0, 1), long_target, long_profile], fmt, training={"maxLength": 256}, maxBadRecords=2)
    (report,) = done.report()
    profile = "profile" in ablation
    assert (report["bad"], report["samples"]) == ((2, 1) if profile else (1, 2))
    assert "too long" in report["bad_records"][0]


# The reader, as others ask it.


class Folder:
    def __init__(self, root):
        self.root = root

    def open(self, key):
        return (self.root / key).open("rb")


def test_the_reader_gives_items_of_users(tmp_path):
    path = write_jsonl(tmp_path / "users.jsonl", [talker(1, 3), talker(2, 2), talker(1, 1, turns=3)])
    entries = [Entry(path.name, path.stat().st_size)]
    dataset = DatasetSpec.model_validate(
        {"uri": f"file://{path}", "userSimulation": {"maxSamplesPerUser": 1}}
    )
    reader, tally = Reader(Folder(tmp_path), entries, dataset, scratch=tmp_path), ReadCounts()
    items = [item for item in reader.items(tally=tally) if isinstance(item, Item)]
    assert sorted(item.user for item in items) == ["h1", "h2"]
    assert (tally.records, tally.users, tally.unnamed) == (3, 2, 0)
    everything = [item for item in reader.items(RecordChoice(draw=False)) if isinstance(item, Item)]
    assert Counter(item.user for item in everything) == {"h1": 4, "h2": 2}
    assert len({item.split_key for item in everything}) == 2
    apart = [item for item in reader.items(RecordChoice(draw=False, by="sample")) if isinstance(item, Item)]
    assert len({item.split_key for item in apart}) == len({item.group for item in apart}) == 6
    assert len(list(reader.record_keys())) == 3


def test_many_users_scattered_leave_no_file_behind(tmp_path):
    records = [talker(number % 40, 1, turns=1 + 2 * (number // 40)) for number in range(120)]
    path = write_jsonl(tmp_path / "in" / "users.jsonl", records)
    dataset = DatasetSpec.model_validate({"uri": f"file://{path}", "userSimulation": {}})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reader = Reader(Folder(path.parent), [Entry(path.name, path.stat().st_size)], dataset, scratch=scratch)
    items = [item for item in reader.items() if isinstance(item, Item)]
    assert Counter(Counter(item.user for item in items).values()) == {3: 40}
    assert not list(scratch.iterdir())


# On several processors.


def test_two_workers_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    build_backend(BY_NAME["chatml"]).save_pretrained(tmp_path / "model")
    tokenizer = ChatTokenizer.load(tmp_path / "model")
    records = [talker(number, 6, turns=9, words=12) for number in range(60)]
    records.insert(7, "not json")
    fmt = {"ablationConfig": ALL, "expand": True, "maxSamplesPerUser": 9}
    options = {"validation": {"ratio": 0.2}, "maxBadRecords": 1, "tokenizer": tokenizer, "repeat": 1.5}
    one = make(records, fmt, workers=1, **options)
    monkeypatch.setattr(tokenizer_pool, "WORTH_HELP", 0)
    monkeypatch.setattr(parallel_encoder, "BATCH", 20_000)
    submitted, pool = [], tokenizer_pool.TokenizerPool
    submit = pool._submit
    monkeypatch.setattr(pool, "_helped", lambda self: self._starting.join() is None)
    monkeypatch.setattr(pool, "_submit", lambda self, *args: (submitted.append(1), submit(self, *args))[1])
    two = make(records, fmt, workers=2, **options)
    assert len(submitted) > 3
    assert columns(one) == columns(two)
    assert one.report() == two.report()
