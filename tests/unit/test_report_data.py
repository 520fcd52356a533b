"""The page of `tunesmith preview --html`."""

from html.parser import HTMLParser

import pytest

from tunesmith.report.data import left_out, render_data_report, users, users_bars

HOSTILE = "<script>alert(1)</script>\x00\u202e"


class Page(HTMLParser):
    """Text, tags and links of a page."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.ids, self.links = "", [], set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "a":
            self.links.add(given["href"].removeprefix("#"))

    def handle_data(self, data):
        self.words += data


def dataset(name="data", **changes):
    return {
        "name": name, "records": 10, "samples": 9, "tokens": 900, "label_tokens": 90, "share": 0.5,
        "seen_samples": 18, "seen_tokens": 1800, "validation_samples": 2, "bad": 1,
        "bad_records": ["x, line 3: no"],
        "cut": 0, "duplicates": 0, "users": 3, "unnamed_records": 0, "skipped": {"not drawn": 7},
        "samples_per_user": {1: 2, 7: 1}, "skipped_files": [],
    } | changes  # fmt: skip


def page(*datasets, samples=()):
    bins = [{"low": 1, "high": 16, "count": 4}]
    values = {"title": "t", "datasets": list(datasets), "lengths": bins, "label_lengths": bins}
    return render_data_report({**values, "samples": list(samples)})


def test_the_page_tells_what_matters():
    made = Page(
        page(dataset("one"), dataset("two", share=0.25, skipped={"not drawn": 1, "another speaker": 2}))
    )
    for text in (
        "one",
        "50.0%",
        "25.0%",
        "not drawn",
        "another speaker",
        "x, line 3: no",
        "3,600",
        "1 samples",
    ):
        assert text in made.words
    assert made.links <= made.ids


@pytest.mark.parametrize("where", ["name", "reason", "bad", "sample"])
def test_hostile_text_stays_text(where):
    changes = {
        "name": {"name": HOSTILE},
        "reason": {"skipped": {HOSTILE: 1}},
        "bad": {"bad_records": [HOSTILE]},
    }
    hostile = {"place": HOSTILE, "facts": HOSTILE, "spans": [[HOSTILE, True]]}
    samples = [{"title": HOSTILE, "samples": [hostile]}] if where == "sample" else []
    text = page(dataset(**changes.get(where, {})), samples=samples)
    assert "script" not in Page(text).tags
    assert "alert(1)" in Page(text).words
    assert not {"\x00", "\u202e"} & set(text)


def test_unread_fields_are_named():
    made = Page(page(dataset("one", unread={"source": 1000, "messages[].ts": 2}), dataset("two")))
    assert "one: source (1,000), messages[].ts (2)" in made.words
    assert "Fields that no reader reads" in made.words
    assert "Fields that no reader reads" not in Page(page(dataset("two"))).words


def test_reasons_of_all_datasets_are_added():
    rows = [dataset(skipped={"a": 1, "b": 2}), dataset(skipped={"a": 9})]
    assert left_out(rows) == [("a", 1.0, "10"), ("b", 0.2, "2")]


def test_users_of_all_datasets_are_added():
    rows = [dataset(samples_per_user={1: 2}), dataset(samples_per_user={"1": 2, "3": 1})]
    assert users(rows) == {1: 4, 3: 1}
    assert users_bars(rows) == [("1 samples", 1.0, "4 users"), ("3 samples", 0.25, "1 users")]


def test_many_numbers_of_samples_are_a_plot():
    assert "Users by number of samples" in page(dataset(samples_per_user=dict.fromkeys(range(40), 1)))
    assert "Users by number of samples" not in page(dataset(samples_per_user={}, users=0))
