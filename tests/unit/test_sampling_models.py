"""Several models on the same prompts: totals, sets, labels and paired differences, on values."""

import pytest
from tests.fixtures.sampling_rows import Asked, row, rows

from tunesmith.sampling.metrics import wilson
from tunesmith.sampling.models import count_models

CASE = {"fact": "甲", "relevant_articles": ["1"], "charge": "盗窃罪", "prison_time": 6}
# One prompt a line: set, label, and the replies of three models (a: right, w: wrong, -: called off).
PROMPTS = [
    ("s1", None, "a", "w", "w"),
    ("s1", None, "a", "a", "w"),
    ("s2", None, "w", "a", "w"),
    ("s2", None, "aw", "ww", "aa"),
    ("s2", None, "a", "-", "w"),
]
NAMES = ("mine", "other", "third")


def counted(lines=PROMPTS, subject=0, **changes):
    asked = [Asked(f"p{at}", CASE, label=line[1], set=line[0]) for at, line in enumerate(lines)]
    sides = []
    for side, name in enumerate(NAMES):
        found = {p.id: rows(p.id, line[2 + side], **changes) for p, line in zip(asked, lines, strict=True)}
        sides.append((name, found.__getitem__))
    return count_models(asked, sides, subject)


def test_totals_are_over_all_sets_and_each_set_has_its_own():
    found = counted()
    shares = lambda group: [(m["accepted"], m["replies"], m["accuracy"]) for m in group["models"]]  # noqa: E731
    assert found["names"] == list(NAMES)
    assert found["total"]["prompts"] == 5
    assert shares(found["total"]) == [(4, 6, 0.666667), (2, 5, 0.4), (2, 6, 0.333333)]
    assert [(each["name"], each["label"], each["prompts"]) for each in found["sets"]] == [
        ("s1", "", 2), ("s2", "", 3),
    ]  # fmt: skip
    assert shares(found["sets"][0]) == [(2, 2, 1.0), (1, 2, 0.5), (0, 2, 0.0)]
    assert found["labels"] == []
    assert "direction_rate" not in found["total"]["models"][0]


def test_differences_are_of_the_same_prompts():
    """A prompt that one of two models did not answer does not count for these two."""
    found = counted()
    pairs = {(p["model"], p["against"]): p for p in found["pairs"]}
    assert list(pairs) == [("mine", "other"), ("mine", "third"), ("other", "third")]
    first = pairs["mine", "other"]
    assert (first["prompts"], first["gained"], first["lost"]) == (4, 2, 1)
    assert first["difference"] == pytest.approx((1 + 0 - 1 + 0.5) / 4)
    low, high = first["difference_interval"]
    assert low < first["difference"] < high
    assert found["total"]["differences"][0]["difference"] == first["difference"]
    assert found["sets"][0]["differences"][0]["difference"] == 0.5
    assert {change["id"] for change in first["changed"]} == {"p0", "p2", "p3"}
    assert pairs["other", "third"]["changed"] == []


def test_the_subject_is_held_against_all_others():
    found = counted(subject=1)
    assert found["subject"] == "other"
    assert [(p["model"], p["against"]) for p in found["pairs"]][:2] == [("other", "mine"), ("other", "third")]
    assert found["pairs"][0]["difference"] == -counted()["pairs"][0]["difference"]


def test_directions_by_label_by_set_and_in_total():
    """TU is right at 120 months or more; NV where no violation is found. Accuracy says nothing of either."""
    said = {"up": "盗窃罪 | 130", "down": "盗窃罪 | 6", "none": "不违规"}
    lines = [
        ("a", "TU", "up", "down"),
        ("a", "TU", "up", "up"),
        ("b", "NV", "none", "down"),
        ("b", None, "up", "up"),
    ]
    asked = [Asked(f"p{at}", CASE, label=label, set=name) for at, (name, label, *_) in enumerate(lines)]
    sides = []
    for side in (2, 3):
        found = {
            p.id: [row(p.id, letter="w", response=said[line[side]])]
            for p, line in zip(asked, lines, strict=True)
        }
        sides.append((NAMES[side - 2], found.__getitem__))
    found = count_models(asked, sides)
    rates = lambda group: [m["direction_rate"] for m in group["models"]]  # noqa: E731
    assert rates(found["total"]) == [1.0, 0.333333]
    assert [m["labelled"] for m in found["total"]["models"]] == [3, 3]
    assert found["total"]["models"][1]["direction_rate_interval"] == [
        round(end, 6) for end in wilson(1 / 3, 3)
    ]
    assert {each["label"]: rates(each) for each in found["labels"]} == {"NV": [1.0, 0.0], "TU": [1.0, 0.5]}
    assert [(each["name"], each["label"]) for each in found["sets"]] == [("a", "TU"), ("b", "")]
    (pair,) = found["pairs"]
    assert (pair["labelled"], pair["direction_difference"]) == (3, pytest.approx(2 / 3, abs=1e-6))
    assert pair["difference"] == 0
