"""What people are shown before and after training: the first samples of each dataset and kind."""

import io

import pytest
from rich.console import Console
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import chat_records, write_jsonl

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import load_prepared
from tunesmith.local.preview.training import show
from tunesmith.report.samples import grouped, sample_values, samples_text, weight_of
from tunesmith.tokens.conversation import Sample


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global TOKENIZER
    TOKENIZER = load_family("chatml")


NAME = "Tamsin"
USER = {
    "user_hash": "u1",
    "task": {
        "task_behavior_collections": [
            {"data": [{"context": [{"source": "x", "content": "Tea?"}], "continuation": "Yes."}]}
        ]
    },
}


def line(**fields):
    return {"speaker": NAME, "text": "Well.", **fields}


SETTINGS = [line(input=f"Topic {n}") for n in range(9)] + [line(input="神之眼", text="Long ago.")]
SAMPLED = [
    {
        "id": f"p{n}", "sample_index": at, "prompt": [{"role": "user", "content": f"q{n}"}],
        "response": f"a{at}", "num_correct_for_this_sample": n,
    }
    for n in (3, 1) for at in range(n)
]  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def prepared(*datasets, first=3, **spec):
        parts = []
        for number, (records, settings) in enumerate(datasets):
            data = write_jsonl(tmp_path / f"{number}.jsonl", records)
            parts.append({"uri": f"file://{data}", **settings})
        return prepare(
            small_spec({}, datasets=parts, **spec),
            TOKENIZER,
            StorageOptions(),
            tmp_path / "made",
            first=first,
        )

    return prepared


@pytest.fixture
def whole(make):
    character = {"character": {"name": NAME}}
    return make(
        ([line(source_title="Dusk"), line(), line(speaker="Other")], character),
        (SETTINGS, {**character, "repeat": 5}),
        ([USER], {"userSimulation": {}}),
        (SAMPLED, {"sampled": {}}),
        (chat_records(8), {"chat": {}}),
        first=2,
    )


HEADINGS = [
    "0.jsonl, imitation: 1 sample",
    "0.jsonl, imitation without a scene: 1 sample",
    "1.jsonl, settings question: the first 2 of 9 samples, repeat 5",
    "1.jsonl, background: 1 sample, repeat 5",
    "2.jsonl, user simulation: 1 sample",
    "3.jsonl, sampled: the first 2 of 4 samples",
    "4.jsonl, chat: the first 2 of 8 samples",
]


def test_every_dataset_and_kind_is_shown_and_counted(whole):
    found = [(title.rpartition("/")[2], samples) for title, samples in grouped(whole)]
    assert [title for title, _ in found] == HEADINGS
    assert all(len(samples) <= 2 for _, samples in found)
    for report, kinds in zip(
        whole.report(), ({"imitation": 1}, {"settings": 9, "background": 1}), strict=False
    ):
        assert kinds.items() <= report["kinds"].items()


def test_text_page_and_terminal_show_weight_and_repeat(whole):
    console = Console(file=io.StringIO(), width=300, highlight=False)
    show(whole, TOKENIZER, console)
    terminal, text = console.file.getvalue(), samples_text(whole, TOKENIZER)
    page = "\n".join(
        f"{group['title']}\n" + "\n".join(each["facts"] for each in group["samples"])
        for group in sample_values(whole, TOKENIZER)
    )
    for shown in (terminal, text, page):
        for heading in HEADINGS:
            assert heading in shown
        assert shown.count("labels, weight 1/3, once per epoch") == 2
        assert shown.count("labels, weight 1, 5 times per epoch") == 3
    assert "sample 1: 1.jsonl, line 10, " in text
    assert "Sample 10: 4.jsonl, line 2, " in terminal
    assert "an epoch has 50 samples and" in terminal
    assert "tokens (repeat 5): " in terminal


def test_what_repeat_leaves_out_is_not_shown(make):
    made = make((chat_records(40), {"chat": {}, "repeat": 0.25}), first=4)
    assert [first.copies for first in made.first] == [1] * 4


def test_a_sample_that_also_validates_is_not_shown(make, tmp_path):
    records = chat_records(6)
    held_out = write_jsonl(tmp_path / "held-out.jsonl", records[:2])
    made = make((records, {"chat": {}}), validation={"uri": f"file://{held_out}", "chat": {}}, first=3)
    assert [first.place for first in made.first] == ["0.jsonl, line 3"]


def test_of_what_is_kept_only_what_is_asked_for_is_loaded(whole, tmp_path):
    fewer = load_prepared(tmp_path / "made", 1)
    assert [len(samples) for _, samples in grouped(fewer)] == [1] * len(HEADINGS)


def test_weights_in_words():
    found = {
        words: weight_of(Sample([0] * 6, weights))
        for words, weights in {
            "weight 1": [0, 1, 1, 1, 1, 1],
            "weight 1/7": [0, 0, 1 / 7, 1 / 7, 0, 0],
            "weight 1/1,000,000": [0, 0, 0, 0, 0, 1e-6],
            "weight 0.3": [0, 0.3, 0, 0, 0, 0],
            "weights 2, 1, 1/2, …": [0, 1, 2, 0.5, 0.1, 0],
        }.items()
    }
    assert list(found) == list(found.values())
