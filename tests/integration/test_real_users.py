"""User simulation on real dialogues, converted as a user would. They are not part of this repository."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.unit import naive_users as naive

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare

HOME = Path(__file__).resolve().parents[2]
DATA = HOME.parent / "shared" / "data" / "dialogue-realpersonachat"
SCRIPT = HOME / "examples" / "user-simulation" / "convert_realpersonachat.py"


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "users.jsonl"
    subprocess.run([sys.executable, SCRIPT, DATA, path], check=True)
    return path


@pytest.fixture
def make(converted, tmp_path):
    def prepared(fmt, name="out", **spec):
        datasets = [{"uri": f"file://{converted}", "userSimulation": fmt}]
        training = {"maxLength": 100_000}
        return prepare(
            small_spec(training, datasets=datasets, **spec), TOKENIZER, StorageOptions(), tmp_path / name
        )

    return prepared


@pytest.fixture(scope="module")
def users(converted):
    return naive.read(json.loads(line) for line in converted.read_text("utf-8").splitlines()).talks


@pytest.fixture(scope="module")
def raw():
    return [json.loads(file.read_text("utf-8")) for file in sorted((DATA / "dialogues").glob("*.json"))]


def test_every_person_of_every_dialogue_is_converted(users, raw):
    parts = Counter(person for dialogue in raw for person in dialogue["interlocutors"])
    assert {name: len(talks) for name, talks in users.items()} == {
        f"realpersonachat-{person}": number for person, number in parts.items()
    }


@pytest.mark.parametrize("expand", [False, True], ids=["plain", "expanded"])
@pytest.mark.parametrize("ablation", naive.ABLATIONS)
def test_every_ablation(make, users, raw, ablation, expand):
    fmt = {"ablationConfig": ablation, "expand": expand}
    done = make(fmt)
    assert len(done.train) == sum(naive.wanted(talks, fmt) for talks in users.values())
    assert Counter(s.target for s in naive.seen(done.train, TOKENIZER)) == Counter(answers(raw, expand))
    agree(done, users, fmt)


@pytest.mark.parametrize("style", ["detailed", "flat"])
def test_every_style(make, users, style):
    fmt = {"ablationConfig": "profile_and_history_and_context", "expand": True, "promptStyle": style}
    agree(make(fmt), users, fmt)


def answers(raw, expand):
    """Texts that answer the other one, straight from the files: all, or the last turn of each."""
    for dialogue in raw:
        said = dialogue["utterances"]
        for person in set(dialogue["interlocutors"]):
            mine = [at for at, each in enumerate(said) if each["interlocutor_id"] == person]
            for at in mine if expand else mine[-1:]:
                first = at == 0 and mine == [0]  # a continuation with nothing before it
                if first or (at and said[at - 1]["interlocutor_id"] != person):
                    yield said[at]["text"]


def agree(done, users, fmt):
    """Each user's samples against the naive ones; where no profile is shown, the target says whose it is."""
    owners = defaultdict(set)
    for name, talks in users.items():
        owners[f"name: {talks[0].profile['name']}"].add(name)
        for each in naive.candidates(talks, expand=True):
            owners[each.target].add(name)
    found = defaultdict(list)
    for sample in naive.seen(done.train, TOKENIZER):
        marks = [line for line in sample.section("Profile") if line in owners] or [sample.target]
        if len(owners[marks[0]]) == 1:
            found[min(owners[marks[0]])].append(sample)
    assert found.keys() == users.keys()
    for name, samples in found.items():
        naive.agrees(samples, users[name], fmt)


@pytest.mark.parametrize("draw", [{"maxSamplesPerUser": 2}, {"oneSamplePerUser": True}], ids=str)
@pytest.mark.parametrize("expand", [False, True], ids=["plain", "expanded"])
def test_draws(make, users, draw, expand):
    fmt = {"ablationConfig": "profile_and_history_and_context", "expand": expand, **draw}
    done = make(fmt)
    assert len(done.train) == sum(naive.wanted(talks, fmt) for talks in users.values())
    agree(done, users, fmt)


@pytest.mark.parametrize("by", ["user", "sample"])
def test_a_split_parts_nothing_that_belongs_together(make, users, by):
    fmt = {"ablationConfig": "history_and_context", "expand": True, "history": {"maxItems": 1000}}
    done = make(fmt, validation={"ratio": 0.3, "by": by})
    train, held_out = (naive.seen(table, TOKENIZER) for table in (done.train, done.validation))
    assert not {s.group for s in train} & {s.group for s in held_out}
    every = sum(naive.wanted(talks, fmt) for talks in users.values())
    left_out = done.report()[0]["skipped"].get("the same as a validation sample", 0)
    assert len(train) + len(held_out) + left_out == every
