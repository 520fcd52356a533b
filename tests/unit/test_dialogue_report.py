"""The report of a DialogueGenJob: what it shows, and that it shows any text as text."""

import re
from html.parser import HTMLParser

import pytest
from tests.unit.dialogue_world import plan, planned, seeds
from tests.unit.test_dialogue_outputs import FAILED, rows_of, said

from tunesmith.dialogue.outputs import write_outputs
from tunesmith.report.dialogue import REASONS, render_dialogue_report

HOSTILE = "</details></script><script>alert(1)</script>\x00\x1b[31m\u202e\"'& {{ 7 * 7 }} 你好"


def page(folder, script=lambda call: None, count=6, rounds=3, made=None, **data):
    made = made or seeds(count)
    found = write_outputs(plan(rounds), made, rows_of(script, rounds=rounds, made=made).get, folder)
    return render_dialogue_report({"statistics": found.statistics, "examples": found.examples, **data})


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.wrong = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_page_shows_numbers_dialogues_and_failures(tmp_path):
    html = page(tmp_path, lambda call: FAILED if (call.seed, call.round) == ("key 1", 3) else None)
    shown = text_of(html)
    for part in (
        "Lost in flight, at most 0.00 USD",
        "Dialogues 6", "Finished 5 (83.3 %)", "Failed 1", "Round 3 5 (83.3 %)",
        "blocked by a filter 1 (100.0 %)",
        "question 12 1 0 2", "Round 2, correction", "r1-000002 (blocked by a filter) Question 1?",
        "Round 3, question: no text The server blocked it.", "answer 2 of key 0.", "Better 0.",
    ):  # fmt: skip
        assert part in shown, part
    tags = Tags(html)
    assert (tags.open, tags.wrong) == ([], [])
    assert tags.seen.count("details") == 6
    assert "script" not in tags.seen
    assert "http" not in html.replace("http-equiv", "")


def test_hostile_texts_are_shown_as_texts(tmp_path):
    made = [planned("r1-000001", "key 0", HOSTILE, HOSTILE, HOSTILE)]
    html = page(
        tmp_path, lambda call: said(HOSTILE), made=made, title=HOSTILE, notes=[HOSTILE], config={"a": HOSTILE}
    )
    tags = Tags(html)
    assert (tags.open, tags.wrong) == ([], [])
    assert "script" not in tags.seen
    for character in "\x00\x1b\u202e":
        assert character not in html
    assert "{{ 7 * 7 }}" in html


@pytest.mark.parametrize(
    ("options", "expected", "absent"),
    [
        pytest.param({"rounds": 1}, "Calls 0", "by length", id="nothing-asked"),
        pytest.param({"script": lambda _: FAILED}, "Finished 0 (0.0 %)", "Finished dialogues", id="failed"),
        pytest.param({"script": lambda call: said("x", cost=0)}, "Cost 0.00 USD", "Cost by round", id="free"),
        pytest.param({}, "Tokens of replies 360", "cut at maxTokens", id="whole"),
        pytest.param(
            {"script": lambda call: said("x", truncated=True, estimated=True)},
            "marked so in the files: 36.", "nothing", id="cut",
        ),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_spoken_of(tmp_path, options, expected, absent):
    html = page(tmp_path, **options)
    assert expected in text_of(html)
    assert absent not in html
    tags = Tags(html)
    assert (tags.open, tags.wrong) == ([], [])


def test_every_reason_has_words():
    from tunesmith.dialogue.turns import REASONS as KNOWN

    assert REASONS.keys() == set(KNOWN)


def test_links_lead_to_sections(tmp_path):
    html = page(tmp_path, config={"rounds": 3}, versions={"tunesmith": "1"})
    links = re.findall(r'href="#([\w-]+)"', html)
    assert links == ["dialogues", "roles", "lengths", "cost", "examples", "configuration", "versions"]
    assert all(f'id="{name}"' in html for name in links)
