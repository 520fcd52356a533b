import math
import re
from enum import StrEnum
from html.parser import HTMLParser

import pytest

from tunesmith.report.finetune import render_finetune_report, shown

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style></title>{{ 7*7 }}&amp;"


class Page(HTMLParser):
    """Tags with their attributes and the visible text; fails on a tag that is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)

    def with_class(self, name):
        return [tag for tag, attrs in self.tags if name in (attrs.get("class") or "").split()]


def metrics(count, loss=lambda step: 1 + 3 / step):
    return [
        {
            "step": step,
            "loss": loss(step),
            "learning_rate": 1e-3 / step,
            "grad_norm": 0.5,
            "tokens_per_second": 900.0,
            "epoch": step / count,
        }
        for step in range(1, count + 1)
    ]


def samples(spans, text="x"):
    return [{"title": text, "samples": [{"place": text, "facts": text, "spans": spans}]}]


def full(text="plain"):
    return {
        "title": text,
        "summary": [(text, text), ("Validation loss", "4.43 → 1.89"), ("Steps", 12345), ("Share", 0.12345)],
        "metrics": metrics(40),
        "evals": [{"step": 0, "eval_loss": 4.4}, {"step": 40, "eval_loss": 1.9}],
        "samples": samples([[text, False], [text, True]], text),
        "previews": [
            {"name": text, "messages": [{"role": text, "content": text}], "before": text, "after": "other"}
        ],
        "datasets": [
            {
                "name": text,
                "records": 10,
                "samples": 9,
                "tokens": 1234567,
                "label_tokens": 400,
                "share": 1.0,
                "seen_samples": 8,
                "validation_samples": 1,
                "bad": 0,
                "skipped": {text: 1},
                "unread": {text: 1},
                "duplicates": 3,
                "cut": 2,
            }
        ],
        "lengths": [{"low": 1, "high": 16, "count": 4}, {"low": 17, "high": 32, "count": 5}],
        "config": {text: [text, 1, None], "z": {"a": True}},
        "versions": {text: text},
        "notes": [text],
    }


CASES = [
    pytest.param({}, id="nothing"),
    pytest.param({key: type(value)() for key, value in full().items()}, id="all-empty"),
    pytest.param(full(), id="full"),
    pytest.param(full(HOSTILE), id="hostile"),
    pytest.param({"metrics": metrics(1)}, id="one-point"),
    pytest.param({"metrics": metrics(5, lambda _: math.nan)}, id="all-nan"),
    pytest.param({"metrics": [{"step": 1, "loss": None}]}, id="missing-values"),
    pytest.param({"lengths": [{"low": 7, "high": 7, "count": 3}]}, id="one-length"),
]


@pytest.mark.parametrize("data", CASES)
def test_page_is_well_formed_and_asks_for_nothing_from_outside(data):
    page = render_finetune_report(data)
    parsed = Page(page)
    assert not {"script", "img", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attrs in parsed.tags:
        assert not [name for name in attrs if name.startswith("on") or name in {"src", "style"}]
        assert (attrs.get("href") or "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|https?:|nan\"", page.replace(HOSTILE, ""))


def test_links_lead_to_sections_that_are_there():
    parsed = Page(render_finetune_report(full()))
    targets = {attrs["href"][1:] for tag, attrs in parsed.tags if tag == "a"}
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert targets == set(ids)
    assert len(ids) == len(set(ids)) == 6


def test_hostile_text_is_shown_as_text_everywhere():
    data = full(HOSTILE)
    parsed = Page(render_finetune_report(data))
    # title 2, summary 2, note 1, sample 3, preview 4, dataset 1, config 2, versions 2 (YAML quotes)
    assert parsed.text.count(HOSTILE.split("{{")[0]) >= 15


def test_characters_that_reorder_or_break_text_are_shown_by_code():
    spans = [["a\u202eb\x00c\ud800d\u2067", True], ["שלום\u200f", False]]
    page = render_finetune_report({"samples": samples(spans)})
    assert "a⟨U+202E⟩b⟨U+0000⟩c?d⟨U+2067⟩" in page
    assert "שלום\u200f" in page
    page.encode("utf-8")


def test_labels_are_marked_and_context_is_not():
    spans = [["question ", False], ["answer", True], ["\n", False]]
    page = render_finetune_report({"samples": samples(spans)})
    assert 'question <span class="label">answer</span>\n</div>' in page


def test_curves_show_raw_points_a_smooth_line_and_validation():
    parsed = Page(render_finetune_report({"metrics": metrics(40), "evals": full()["evals"]}))
    assert parsed.with_class("chart") == ["svg"] * 4
    assert parsed.with_class("dots").count("circle") == 3 * 40
    assert parsed.with_class("line").count("path") == 4
    assert parsed.with_class("marks").count("circle") == 2
    assert "step 40: validation loss 1.9" in parsed.text


def test_values_that_are_not_finite_are_counted_not_drawn():
    rows = metrics(20, lambda step: math.inf if step in {7, 9} else 1.0)
    text = Page(render_finetune_report({"metrics": rows})).text
    assert "Not finite, not plotted: 2 of 20 values, the first at step 7." in text


def test_a_long_run_stays_a_small_page():
    assert len(render_finetune_report({"metrics": metrics(100_000)})) < 300_000


def test_unchanged_preview_says_so():
    preview = {"name": "p", "messages": [], "before": "same", "after": "same"}
    assert "after training (unchanged)" in render_finetune_report({"previews": [preview]})


def test_config_is_yaml_in_the_given_order():
    class Colour(StrEnum):
        RED = "red"

    page = render_finetune_report({"config": {"kind": Colour.RED, "a": {"名": [1, 2]}}})
    assert "kind: red\na:\n  名:\n  - 1\n  - 2</pre>" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("", "–"),
        (0, "0"),
        (True, "True"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (14213.7, "14,214"),
        (math.nan, "nan"),
    ],
)
def test_values_are_readable(value, text):
    assert shown(value) == text
