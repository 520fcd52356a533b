"""User simulation against a naive implementation, on data of every shape that users bring."""

import csv
import json
import random
from collections import Counter

import pytest
from tests.cases import each
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import write_jsonl
from tests.unit import naive_users as naive

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


@pytest.fixture
def make(tmp_path):
    """Prepare records (or a folder) of user simulation."""
    counter = iter(range(1000))

    def prepared(records, settings=None, *, validation=None, training=None, dataset=None, **options):
        place = records
        if isinstance(records, list):
            place = write_jsonl(tmp_path / f"{next(counter)}" / "users.jsonl", records)
        datasets = [{"uri": f"file://{place}", "userSimulation": settings or {}, **(dataset or {})}]
        extra = {"validation": validation} if validation else {}
        spec = small_spec({"maxLength": 4096, **(training or {})}, datasets=datasets, **extra)
        out = tmp_path / f"{next(counter)}-out"
        return prepare(spec, options.pop("tokenizer", TOKENIZER), StorageOptions(), out, **options)

    return prepared


class Words:
    """Texts that are all different, but for a few that everybody says."""

    def __init__(self, seed, common=0.15):
        self.random, self.common, self.number = random.Random(seed), common, 0

    def own(self):
        self.number += 1
        return f"says {self.number}"

    def __call__(self):
        return (
            self.random.choice(["好的", "ok", "thanks"]) if self.random.random() < self.common else self.own()
        )


def user(name, task, items, words, profile=True, **extra):
    """A record in the nested shape, with its items in one or two collections."""
    person = {
        "profile": {"name": name, "age": 30, "likes": ["tea", "films"], "home": {"city": f"{name} town"}}
    }
    person["personality"] = {"structured": {"openness": 0.7}, "unstructured": f"{name} is calm"}
    cut = words.random.randint(0, len(items))
    collections = [{"type": "chat", "data": items[:cut]}, {"type": "more", "data": items[cut:]}]
    task = {"description": task, "task_behavior_collections": collections}
    return {"user": person if profile else {}, "task": task, **extra}


def dialogue(words, mine, others, most=6):
    """A dialogue of turns by anyone in any order, some of them blank."""
    turns = [{"source": words.random.choice([*mine, *others]), "content": words.own()}]
    for _ in range(words.random.randint(0, most)):
        text = words() if words.random.random() < 0.9 else words.random.choice(["", " \n"])
        turns.append({"source": words.random.choice([*mine, *others]), "content": text})
    return {"context": turns if words.random.random() < 0.9 else [], "continuation": words.own()}


def lovink(seed):
    """Nested users; several records of one user apart, some without a hash, some continuations blank."""
    words, records = Words(seed), []
    for number in range(7):
        name = f"Name{number % 5}"
        items = [
            dialogue(words, ["user", "USER", name], ["assistant", "Bob"])
            for _ in range(words.random.randint(1, 5))
        ]
        for item in items:
            if words.random.random() < 0.15:
                item["continuation"] = words.random.choice(["ok", " "])
        hashed = {} if number % 5 == 2 else {"user_hash": f"hash-{number % 5}"}
        records.append(user(name, f"task of {name}", items, words, **hashed))
    return records


def cut_off(seed):
    """Each talk several times, cut off later each time."""
    words, records = Words(seed), []
    for number in range(4):
        items = []
        for _ in range(3):
            whole = dialogue(words, ["user"], ["x"], most=9)
            items.append(whole)
            items += [
                {"context": whole["context"][:at], "continuation": turn["content"]}
                for at, turn in enumerate(whole["context"])
                if turn["source"] == "user" and turn["content"].strip() and words.random.random() < 0.5
            ]
        words.random.shuffle(items)
        records.append(user(f"N{number}", f"task {number}", items, words, user_hash=f"h{number}"))
    return records


def chameleons(seed):
    """Film dialogue between several people; the profile's name says whose turns are learned."""
    words = Words(seed, common=0.3)
    return [
        user(
            name,
            f"play {name}",
            [dialogue(words, [name], ["RICK", "ILSA", "SAM"], 10) for _ in range(4)],
            words,
        )
        for name in ("LOUIS", "UGARTE", "YVONNE")
    ]


def dmsc(seed):
    """Film reviews: no context, a prefix and a date."""
    words, records = Words(seed, common=0), []
    for number in range(5):
        items = [
            {
                "context": [],
                "continuation": words() if words.random.random() < 0.7 else "好看",
                "continuation_prefix": f"电影{words.own()}: ",
                "timestamp": f"2015-0{words.random.randint(1, 9)}-1{words.random.randint(0, 3)}",
            }
            for _ in range(words.random.randint(1, 22))
        ]
        records.append(user(f"观众{number}", f"影评{number}", items, words, user_hash=f"{number:08x}"))
    return records


def mixed(seed):
    """Dialogues with prefix and context, where only some have times."""
    words, records = Words(seed), []
    for number in range(5):
        items = []
        for _ in range(5):
            item = dialogue(words, ["user"], ["x"])
            if words.random.random() < 0.5:
                item["continuation_prefix"] = f"{words.own()}: "
            if words.random.random() < 0.3 * number:
                item["timestamp"] = words.random.choice([1, 2, 2.5, "3", "2001-01-01T10:00:00"])
            items.append(item)
        records.append(
            user(f"M{number}", f"mixed {number}", items, words, profile=number % 2, user_hash=f"m{number}")
        )
    return records


def persona_bench(seed):
    """Rich profiles, long dialogues that alternate."""
    words, records = Words(seed, common=0), []
    for number in range(4):
        items = []
        for _ in range(3):
            turns = [
                {"source": ("assistant", "user")[at % 2], "content": words()}
                for at in range(words.random.choice([1, 5, 9]))
            ]
            items.append({"context": turns, "continuation": words()})
        record = user(f"P{number}", f"persona {number}", items, words, user_hash=f"p{number}")
        record["user"]["profile"] |= {"family": [{"name": f"Eva{number}", "age": 3}], "empty": None}
        records.append(record)
    return records


def extracted(seed):
    """Samples that were cut out already, some with a history of their own."""
    words, records = Words(seed), []
    for number in range(20):
        roles = words.random.choices(["user", "assistant"], k=words.random.randint(0, 4))
        record = {
            "context": [{"role": role, "content": words.own()} for role in roles],
            "next_question": words(),
            "user_profile": {"name": f"E{number % 4}", "age": 20 + number % 4},
            "user_hash": f"e{number % 4}",
        }
        if number % 3 == 0:
            record["history"] = [words() for _ in range(words.random.randint(0, 18))]
        if not roles:
            record["next_question"] = words.own()
        records.append(record)
    return records


SHAPES = [lovink, cut_off, chameleons, dmsc, mixed, persona_bench, extracted]
EXPAND = each("expand", [False, True], ids=["plain", "expanded"])
SHAPE = each("shape", SHAPES, ids=lambda shape: shape.__name__)
ABLATION = each("ablation", naive.ABLATIONS)


def by_user(samples, talks):
    """The samples of each user, told apart by the task or the profile that the prompt shows.

    Where it shows neither, all users are one.
    """
    owners = {
        talk.task or f"name: {talk.profile['name']}": name for name, each in talks.items() for talk in each
    }
    found = {name: [] for name in talks}
    for sample in samples:
        marks = [*sample.section("Task"), *sample.section("Profile")]
        owner = next((owners[mark] for mark in marks if mark in owners), None)
        found.setdefault(owner, []).append(sample)
    return found


def assert_agrees(done, records, settings):
    """Prepared tables without a split against the naive implementation."""
    expected = naive.read(records)
    samples = naive.seen(done.train, TOKENIZER, all_copies=True)
    numbers = {name: naive.wanted(talks, settings) for name, talks in expected.talks.items()}
    assert len(samples) == sum(numbers.values())
    found = by_user(samples, expected.talks)
    if None in found:  # one user's talks would be taken for another's
        everyone = [talk for talks in expected.talks.values() for talk in talks]
        for each in found[None]:
            naive.agrees([each], everyone, settings, history=False)
    else:
        assert {name: len(each) for name, each in found.items()} == numbers
        for name, each in found.items():
            naive.agrees(each, expected.talks[name], settings)
    (report,) = done.report()
    assert report["records"] == len(records)
    assert report["bad"] == 0
    assert report["users"] == len(expected.talks)
    assert report["unnamed_records"] == expected.unnamed
    assert report["samples"] == len(samples)
    given = Counter(number for number in numbers.values() if number)
    assert {int(k): v for k, v in report["samples_per_user"].items() if int(k)} == given
    assert report["skipped"] == expected_skips(expected, settings, len(samples))


def expected_skips(expected, settings, drawn):
    everyone = [talk for talks in expected.talks.values() for talk in talks]
    all_of_them = len(naive.candidates(everyone, expand=bool(settings.get("expand"))))
    reason = "oneSamplePerUser" if settings.get("oneSamplePerUser") else "maxSamplesPerUser"
    left = "not the user's last" if settings.get("oneSamplePerUser") else "not chosen"
    unused = naive.skipped(everyone)
    skips = {
        "the continuation is blank": unused["blank"],
        "the turn before the continuation is the user's own": unused["own"],
        f"{left} ({reason})": all_of_them - drawn,
    }
    return {reason: number for reason, number in skips.items() if number}


@SHAPE
@ABLATION
@EXPAND
def test_every_ablation(make, shape, ablation, expand):
    records, settings = shape(1), {"ablationConfig": ablation, "expand": expand}
    assert_agrees(make(records, settings), records, settings)


@SHAPE
@each("style", ["detailed", "flat"])
@EXPAND
def test_every_style(make, shape, style, expand):
    for seed, ablation in enumerate(["profile_and_history_and_context", "context_only", "history_only"]):
        records = shape(seed)
        settings = {"ablationConfig": ablation, "expand": expand, "promptStyle": style}
        assert_agrees(make(records, settings), records, settings)


@SHAPE
@each("draw", [{"maxSamplesPerUser": 1}, {"maxSamplesPerUser": 3}, {"oneSamplePerUser": True}], ids=str)
@EXPAND
def test_every_draw(make, shape, draw, expand):
    for seed, ablation in enumerate(
        ["profile_and_history_and_context", "profile_and_history", "profile_only"]
    ):
        records = shape(seed)
        settings = {"ablationConfig": ablation, "expand": expand, **draw}
        assert_agrees(make(records, settings), records, settings)


@each("ablation", naive.ABLATIONS)
@each("use", [True, False])
def test_use_history_overrides_the_ablation(make, ablation, use):
    records, settings = lovink(5), {"ablationConfig": ablation, "useHistory": use}
    done = make(records, settings)
    assert_agrees(done, records, settings)
    assert any(each.section("History") for each in naive.seen(done.train, TOKENIZER)) is use


@pytest.mark.parametrize("history", [{"maxItems": 0}, {"maxItems": 2}, {"maxCharacters": 5}], ids=str)
def test_how_much_history(make, history):
    for shape in (lovink, dmsc, extracted):
        records, settings = shape(6), {"ablationConfig": "history_and_context", "history": history}
        assert_agrees(make(records, settings), records, settings)


def sampled_last(make, records, **settings):
    done = make(records, {"oneSamplePerUser": True, **settings})
    return sorted(each.target for each in naive.seen(done.train, TOKENIZER))


def test_the_last_by_time_or_as_the_file_has_them(make):
    for shape in SHAPES:
        records = shape(8)
        talks = naive.read(records).talks
        last = [each.target for mine in talks.values() for each in naive.last_one(mine)]
        assert sampled_last(make, records) == sorted(last)


# MovieLens as its authors ship it.


@pytest.fixture
def movielens(tmp_path):
    """The folder, and the same in the nested shape."""
    chance = random.Random(3)
    folder = tmp_path / "ml"
    folder.mkdir()
    titles = {str(number): f"Film {number}, The (19{number:02})" for number in range(1, 40)}
    genres = {number: ["(no genres listed)", "Drama", "Drama|War"][int(number) % 3] for number in titles}
    with (folder / "movies.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["movieId", "title", "genres"])
        rows.writerows([number, title, genres[number]] for number, title in titles.items())
    ratings = [
        {
            "userId": str(user),
            "movieId": film,
            "rating": chance.choice(["4.0", "3.5", "5.0"]),
            "timestamp": str(at),
        }
        for user in range(1, 6)
        for film, at in zip(chance.sample(sorted(titles), 9), chance.sample(range(900), 9), strict=True)
    ]
    with (folder / "ratings.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, ["userId", "movieId", "rating", "timestamp"])
        rows.writeheader()
        rows.writerows(ratings)
    named = {
        number: title + ("" if "no genres" in genres[number] else f" [{genres[number].replace('|', ', ')}]")
        for number, title in titles.items()
    }
    return folder, naive.movielens(ratings, named)


@ABLATION
@each("draw", [{}, {"maxSamplesPerUser": 2}, {"oneSamplePerUser": True}, {"expand": True}], ids=str)
def test_movielens_folder_is_the_nested_shape(make, movielens, ablation, draw):
    folder, nested = movielens
    settings = {"ablationConfig": ablation, **draw}
    done, same = make(folder, settings), make(nested, settings)
    samples = [naive.seen(each.train, TOKENIZER) for each in (done, same)]
    assert samples[0]
    assert [each.target for each in samples[0]] == [each.target for each in samples[1]]
    assert [each.sections for each in samples[0]] == [each.sections for each in samples[1]]
    assert [each.turns for each in samples[0]] == [each.turns for each in samples[1]]
    talks = naive.read(nested).talks
    assert len(samples[0]) == sum(naive.wanted(each, settings) for each in talks.values())
    assert done.report()[0]["users"] == len(talks)
    said = Counter((sample.turns, sample.target, tuple(sample.section("History"))) for sample in samples[0])
    may = Counter(
        (
            tuple(naive.turns_shown(each, settings)),
            each.target,
            tuple(naive.past_of(each.talk, mine, settings, [each])),
        )
        for mine in talks.values()
        for each in naive.candidates(mine, expand=False)
    )
    assert said <= may
    assert bool(draw.get("maxSamplesPerUser") or draw.get("oneSamplePerUser")) is (said < may)


def test_movielens_needs_both_tables(make, movielens):
    folder, _ = movielens
    (folder / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"ratings\.csv needs movies\.csv beside it"):
        make(folder)


# What every prompt keeps to itself, and what is wrong with a record.


@pytest.mark.parametrize("style", ["simple", "detailed", "flat"])
def test_the_users_hash_is_in_no_prompt(make, style):
    words = Words(2)
    record = user("Ann", "talk", [{"context": [], "continuation": "a"}], words, user_hash="c0ffee")
    profile = record["user"]["profile"]
    profile |= {
        "user_hash": "c0ffee",
        "id": "c0ffee",
        "ids": ["c0ffee"],
        "many": ["c0ffee", "x"],
        "in": {"h": "c0ffee"},
    }
    record["user"]["personality"]["structured"]["user_hash"] = "c0ffee"
    given = {"context": [], "next_question": "q", "user_hash": "c0ffee", "user_profile": profile}
    for records in ([record], [given]):
        settings = {"ablationConfig": "profile_and_history_and_context", "promptStyle": style}
        done = make(records, settings)
        text = TOKENIZER.decode(done.train.ids(0).tolist())
        assert "Ann" in text
        assert "c0ffee" not in text


def test_a_hash_in_the_profile_alone_is_in_no_prompt(make):
    done = make([nested(user={"profile": {"name": "Ann", "user_hash": "c0ffee"}})])
    assert naive.seen(done.train, TOKENIZER)[0].section("Profile") == ["name: Ann"]


def nested(item=None, **fields):
    item = {"context": [{"source": "x", "content": "q"}], "continuation": "a"} if item is None else item
    collections = [{"type": "t", "data": [item]}]
    return {
        "user_hash": "h",
        "user": {"profile": {"name": "A"}},
        "task": {"task_behavior_collections": collections},
    } | fields


def given(**fields):
    return {"context": [], "next_question": "q", "user_profile": {"name": "A"}, "user_hash": "h"} | fields


ITEM = "task.task_behavior_collections[0].data[0]"
BAD = {
    "no task": ({"user_hash": "h"}, "task"),
    "task is text": (nested(task="talk"), "task"),
    "description is a list": (
        nested(task={"description": [], "task_behavior_collections": []}),
        "task.description",
    ),
    "no collections": (nested(task={}), "task.task_behavior_collections"),
    "collections is an object": (
        nested(task={"task_behavior_collections": {}}),
        "task.task_behavior_collections",
    ),
    "a collection is text": (
        nested(task={"task_behavior_collections": ["x"]}),
        "task.task_behavior_collections[0]",
    ),
    "no data": (nested(task={"task_behavior_collections": [{}]}), "task.task_behavior_collections[0].data"),
    "data is text": (
        nested(task={"task_behavior_collections": [{"data": "x"}]}),
        "task.task_behavior_collections[0].data",
    ),
    "an item is text": (nested("x"), ITEM),
    "no continuation": (nested({"context": []}), f"{ITEM}.continuation"),
    "continuation is an object": (nested({"continuation": {}}), f"{ITEM}.continuation"),
    "continuation is true": (nested({"continuation": True}), f"{ITEM}.continuation"),
    "prefix is a list": (
        nested({"continuation": "a", "continuation_prefix": []}),
        f"{ITEM}.continuation_prefix",
    ),
    "context is text": (nested({"continuation": "a", "context": "x"}), f"{ITEM}.context"),
    "a turn is text": (nested({"continuation": "a", "context": ["x"]}), f"{ITEM}.context[0]"),
    "no source": (nested({"continuation": "a", "context": [{"content": "x"}]}), f"{ITEM}.context[0].source"),
    "source is a number": (
        nested({"continuation": "a", "context": [{"source": 1, "content": "x"}]}),
        f"{ITEM}.context[0].source",
    ),
    "no content": (nested({"continuation": "a", "context": [{"source": "x"}]}), f"{ITEM}.context[0].content"),
    "content is a list": (
        nested({"continuation": "a", "context": [{"source": "x", "content": []}]}),
        f"{ITEM}.context[0].content",
    ),
    "a time is no time": (nested({"continuation": "a", "timestamp": "soon"}), f"{ITEM}.timestamp"),
    "a time is a list": (nested({"continuation": "a", "timestamp": [1]}), f"{ITEM}.timestamp"),
    "user is text": (nested(user="A"), "user"),
    "user_hash is a list": (nested(user_hash=["h"]), "user_hash"),
    "next_question is null": (given(next_question=None), "next_question"),
    "next_question is an object": (given(next_question={}), "next_question"),
    "extracted context is text": (given(context="x"), "context"),
    "extracted turn without role": (given(context=[{"content": "x"}]), "context[0].role"),
    "extracted turn without content": (given(context=[{"role": "user"}]), "context[0].content"),
    "history is a number": (given(history=3), "history"),
    "history holds a number": (given(history=[3]), "history[0]"),
}


@each(("record", "field"), BAD.values(), ids=BAD)
def test_a_wrong_record_is_one_bad_record_that_names_the_field(make, record, field):
    done = make([nested(), record, given()], dataset={"maxBadRecords": 1})
    (report,) = done.report()
    assert (report["records"], report["bad"], report["samples"]) == (3, 1, 2)
    (reason,) = report["bad_records"]
    assert reason.startswith("users.jsonl, line 2: ")
    assert field in reason.replace(":", " ").split() or f"{field}:" in reason
    with pytest.raises(DataError, match=r"1 bad record, 0 allowed(.|\n)*line 2"):
        make([nested(), record, given()])


@pytest.mark.parametrize("text", ["[1]", '"x"', "null", "{"], ids=["list", "text", "null", "cut"])
def test_what_is_no_object_is_a_bad_record(make, text):
    done = make([nested(), text, given()], dataset={"maxBadRecords": 1})
    assert (done.report()[0]["bad"], done.report()[0]["samples"]) == (1, 2)


@pytest.mark.parametrize("time", ["1e999", "-1e999", '"nan"', "NaN", "9" * 400], ids=lambda time: time[:6])
def test_a_time_that_is_not_finite_is_bad(make, time):
    record = json.dumps(nested({"continuation": "a", "timestamp": "TIME"})).replace('"TIME"', time)
    assert make([nested(), record], dataset={"maxBadRecords": 1}).report()[0]["bad"] == 1


def test_a_record_without_dialogues_is_skipped(make):
    empty = nested(task={"task_behavior_collections": [{"type": "t", "data": []}]})
    done = make([empty, nested()])
    assert sum(done.report()[0]["skipped"].values()) == 1
    assert len(done.train) == 1


def test_a_turn_whose_source_is_blank_is_the_other_sides(make):
    record = nested({"context": [{"source": "", "content": "q"}], "continuation": "a"}, user={})
    done = make([record])
    assert naive.seen(done.train, TOKENIZER)[0].turns == (("user", "q"),)


def test_numbers_may_stand_for_texts(make):
    done = make([nested({"context": [], "continuation": 4.5, "continuation_prefix": "Film: "})])
    assert naive.seen(done.train, TOKENIZER)[0].target == "4.5"


def history_of(make, items, target):
    """The history above one target."""
    record = nested()
    record["task"]["task_behavior_collections"][0]["data"] = items
    done = make([record], {"ablationConfig": "history_and_context"})
    return next(s.section("History") for s in naive.seen(done.train, TOKENIZER) if s.target == target)


def test_a_target_is_in_no_history_however_it_is_written(make):
    items = [{"continuation": text} for text in ("say  it\nso", "say it so", "x" * 300, "x" * 200, "else")]
    assert history_of(make, items, "say it so") == ["x" * 200, "x" * 200, "else"]
    assert history_of(make, items, "x" * 200) == ["say it so", "say it so", "else"]


def test_a_talk_with_a_blank_continuation_is_the_beginning_of_a_longer_one(make):
    turns = [{"source": who, "content": text} for who, text in [("x", "hi"), ("user", "me"), ("x", "and")]]
    items = [{"context": turns, "continuation": " "}, {"context": turns, "continuation": "end"}]
    assert history_of(make, items, "end") == []


def test_json_is_read_as_lines_are(make, tmp_path):
    records = lovink(4)
    path = tmp_path / "users.json"
    path.write_text(json.dumps(records), "utf-8")
    one, two = make(path), make(records)
    assert TOKENIZER.decode(one.train.ids(0).tolist()) == TOKENIZER.decode(two.train.ids(0).tolist())
    assert one.train.lengths.tolist() == two.train.lengths.tolist()
