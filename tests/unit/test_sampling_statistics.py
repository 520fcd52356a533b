import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.sampling_rows import LETTERS, Asked, row, rows

from tunesmith.sampling.busy import Busy
from tunesmith.sampling.comparison import compare
from tunesmith.sampling.metrics import Difference, Directions, Share, wilson
from tunesmith.sampling.statistics import Lengths, SamplingStatistics, WrongCharges, together

CASE = {"fact": "甲。", "relevant_articles": ["1"], "charge": "盗窃罪", "prison_time": 12}


def statistics(letters, num_samples=None, **changes):
    found = SamplingStatistics(num_samples or max(map(len, letters), default=1))
    for one in letters:
        found.add(Asked("p", CASE), rows("p", one, **changes))
    return found.values()


def test_every_value_of_a_small_job():
    found = statistics(["aawt", "wwcu", "aaaa", "a---", "nnnn", "e-wa"], num_samples=4)
    assert found == {
        "total_prompts": 6,
        "num_samples": 4,
        "planned_generations": 24,
        "generations": 16,
        "cancelled": 4,
        "accepted": 8,
        "acceptance_rate": 0.5,
        "acceptance_rate_interval": found["acceptance_rate_interval"],
        "accuracy": 0.4,
        "accuracy_interval": found["accuracy_interval"],
        "prompts_not_sampled": 1,
        "prompts_with_none_correct": 2,
        "prompts_with_all_correct": 2,
        "mean_correct_per_prompt": 1.333333,
        "correct_per_prompt": [2, 2, 1, 0, 1],
        "reasons": {
            "wrong_charge": 1,
            "unparsable": 1,
            "wrong_answer": 4,
            "verifier_error": 1,
            "truncated": 1,
            "prompt_too_long": 4,
        },
        "truncated": 1,
        "prompt_too_long": 4,
        "without_verdict": 2,
        "tokens": {"prompt": 600, "drawn": 183, "accepted": 90},
        "lengths": [
            {"low": 10, "high": 10, "accepted": 3, "rejected": 2},
            {"low": 11, "high": 11, "accepted": 2, "rejected": 1},
            {"low": 12, "high": 12, "accepted": 1, "rejected": 3},
            {"low": 13, "high": 13, "accepted": 2, "rejected": 2},
        ],
        "seconds": 3,
        "tokens_per_second": 61.0,
        "directions": [],
        "wrong_charges": {
            "most_frequent": [{"expected": "盗窃", "said": "诈骗", "count": 1}],
            "other": 0,
        },
    }


def test_nothing_at_all():
    found = statistics([], num_samples=8)
    assert (found["acceptance_rate"], found["accuracy_interval"], found["tokens_per_second"]) == (None,) * 3
    assert found["correct_per_prompt"] == [0] * 9
    json.dumps(found, allow_nan=False)


def test_a_prompt_that_was_called_off_whole_is_not_all_right():
    found = statistics(["----", "a---"])
    assert (found["prompts_with_none_correct"], found["prompts_with_all_correct"]) == (1, 1)


def test_seconds_count_from_when_the_engine_was_first_asked_and_add_up_over_attempts():
    """A reply of 204 tokens in 68 seconds is 3 tokens/s, however many end at the same moment."""
    found = SamplingStatistics(2)
    found.add(Asked("p"), [row("p", at=1068.2, began=1000.2, tokens=100), row("p", 1, at=1068.1, tokens=104)])
    assert (found.values()["seconds"], found.values()["tokens_per_second"]) == (68.0, 3.0)
    # An attempt a day later, of an engine that was asked twice within it and waited in between.
    found.add(Asked("q"), [row("q", at=90_000, began=89_990), row("q", 1, at=90_030, began=90_020)])
    assert found.values()["seconds"] == 68 + 10 + 10
    found.add(Asked("r"), [row("r", at=90_021, began=89_999)])
    assert found.values()["seconds"] == 68 + 40


def test_without_any_time_there_is_no_speed():
    assert statistics(["a"])["tokens_per_second"] is None
    assert statistics(["a"], at=5.0, began=9.0)["seconds"] == 0  # a clock that was set back


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=60))
def test_busy_is_the_union_of_all_spans(spans):
    busy = Busy()
    for start, length in spans:
        busy.add(start * 2, (start + length) * 2)  # no gap is as short as one that still counts
    covered = {moment for start, length in spans for moment in range(start, start + length)}
    assert busy.seconds == 2 * len(covered)


@given(st.lists(st.text(st.sampled_from(sorted(LETTERS)), min_size=4, max_size=4), max_size=12), st.randoms())
def test_the_counts_add_up_in_any_order(letters, chance):
    found = statistics(letters, num_samples=4)
    assert found["planned_generations"] == 4 * len(letters)
    assert found["accepted"] + sum(found["reasons"].values()) + found["cancelled"] == 4 * len(letters)
    assert found["generations"] + found["prompt_too_long"] + found["cancelled"] == 4 * len(letters)
    assert sum(found["correct_per_prompt"]) == len(letters)
    assert sum(k * n for k, n in enumerate(found["correct_per_prompt"])) == found["accepted"]
    assert sum(b["accepted"] for b in found["lengths"]) == found["accepted"]
    assert sum(b["accepted"] + b["rejected"] for b in found["lengths"]) == found["generations"]
    chance.shuffle(letters)
    assert statistics(letters, num_samples=4) == found


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_one_reply_a_prompt_gives_wilsons_interval(hits, trials, low, high):
    share = Share()
    for index in range(trials):
        share.add(int(index < hits), 1)
    assert share.interval() == pytest.approx((low, high), abs=5e-5)
    assert share.interval() == pytest.approx(wilson(hits / trials, trials))


def test_replies_of_one_prompt_that_are_all_alike_count_once():
    alike, single, apart = Share(), Share(), Share()
    for index in range(100):
        alike.add(8 * (index < 30), 8)
        single.add(int(index < 30), 1)
        apart.add(2 + index % 2, 8)
    low, high = alike.interval()
    assert (low, high) == pytest.approx(single.interval(), abs=1e-3)
    assert apart.interval() == pytest.approx(wilson(0.3125, 800))
    assert high - low > 2.5 * (apart.interval()[1] - apart.interval()[0])


def test_the_design_effect_of_two_prompts_that_disagree():
    share = Share()
    share.add(2, 2)
    share.add(0, 2)
    # Over clusters Σ(h - t/2)² = 2, by 4², times 2/1; of four trials apart ¼ / 3: three times as much.
    assert share.interval() == pytest.approx(wilson(0.5, 4 / 3))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    chance, held = random.Random(3), 0
    for _ in range(400):
        share = Share()
        for _ in range(60):
            skill = chance.betavariate(0.5, 0.5)
            share.add(sum(chance.random() < skill for _ in range(8)), 8)
        low, high = share.interval()
        held += low <= 0.5 <= high
    assert 0.92 <= held / 400 <= 0.98


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda p: p[0] <= p[1]), max_size=30))
def test_an_interval_encloses_its_value(pairs):
    share = Share()
    for hits, trials in pairs:
        share.add(hits, trials)
    if share.value is None:
        assert share.interval() is None
        return
    low, high = share.interval()
    assert 0 <= low <= share.value <= high <= 1
    assert low < high


def test_all_right_is_no_certainty():
    few, many = Share(), Share()
    for _ in range(10):
        few.add(8, 8)
        many.add(1, 1)
    assert few.interval() == many.interval() == (pytest.approx(0.7225, abs=1e-4), 1.0)


@pytest.mark.parametrize("lengths", [[], [0], [63], [64], [1, 1, 5], [3, 70, 200], [1_048_576], [63, 10**9]])
def test_lengths_are_counted_in_at_most_64_bins(lengths):
    for order in (lengths, lengths[::-1]):
        found = Lengths()
        for length in order:
            found.add(length)
        assert sum(found.counts) == len(lengths)
        assert len(found.counts) <= 64
        for length in lengths:
            assert found.counts[length // found.width]
        assert max(lengths, default=0) < 64 * found.width


def test_both_kinds_share_their_bins():
    short, long = Lengths(), Lengths()
    for length in (0, 1, 2, 3, 5):
        short.add(length)
    long.add(130)
    bins = together(short, long)
    assert bins[0] == {"low": 0, "high": 3, "accepted": 4, "rejected": 0}
    assert bins[-1] == {"low": 128, "high": 131, "accepted": 0, "rejected": 1}
    assert [b["low"] for b in bins] == list(range(0, 132, 4))
    assert together(Lengths(), Lengths()) == []


def test_directions_stand_beside_accuracy():
    found = Directions()
    found.add("TU", ["盗窃罪 | 120", "盗窃罪 | 119", "盗窃罪 | XT", "?"], accepted=1, judged=5)
    found.add("TU", [], accepted=0, judged=3)
    found.add("NV", ["不违规", "盗窃罪 | 3"], accepted=1, judged=2)
    found.add("V", [], accepted=0, judged=0)
    nv, v, tu = found.values()
    assert [row["label"] for row in (nv, v, tu)] == ["NV", "V", "TU"]
    assert (tu["prompts"], tu["replies"], tu["in_direction"], tu["accepted"]) == (2, 8, 2, 1)
    assert (tu["direction_rate"], tu["accuracy"]) == (0.25, 0.125)
    assert nv["direction_rate"] == nv["accuracy"] == 0.5
    assert v["accuracy"] is v["direction_rate_interval"] is None


def test_a_cut_reply_goes_in_no_direction():
    prompt = Asked("p", CASE, label="TD")
    found = SamplingStatistics(3)
    cut = row("p", 1, "t", response="盗窃罪 | 3")
    found.add(prompt, [row("p", 0, "a", response="盗窃罪 | 12"), cut, row("p", 2, "-")])
    (row_of,) = found.values()["directions"]
    assert (row_of["in_direction"], row_of["replies"], row_of["accepted"]) == (1, 2, 1)


def test_wrong_charges_are_counted_by_what_was_said():
    found = WrongCharges()
    for reply in ("诈骗罪 | 1", "诈骗 | 2", "不违规", "诈骗、抢劫罪 | XT"):
        found.add(CASE, reply)
    found.add({**CASE, "charge": ""}, "盗窃罪 | 1")
    assert found.values() == {
        "most_frequent": [
            {"expected": "盗窃", "said": "诈骗", "count": 2},
            {"expected": "不违规", "said": "盗窃", "count": 1},
            {"expected": "盗窃", "said": "不违规", "count": 1},
            {"expected": "盗窃", "said": "抢劫、诈骗", "count": 1},
        ],
        "other": 0,
    }


def test_wrong_charges_take_little_room(monkeypatch):
    monkeypatch.setattr("tunesmith.sampling.statistics._MOST_PAIRS", 50)
    found = WrongCharges()
    for index in range(200):
        found.add(CASE, f"{'长' * 300}{index}罪 | 1" if index % 2 else f"第{index}罪 | 1")
    values = found.values()
    assert [row["count"] for row in values["most_frequent"]] == [100] + [1] * 19
    assert values["other"] == 200 - 119
    assert len(found._pairs) == 50
    assert len(values["most_frequent"][0]["said"]) == 80


def compared(before, after, prompts=None):
    asked = [Asked(f"p{i}", CASE) for i in range(len(before))]
    old = {p.id: rows(p.id, one) for p, one in zip(asked, before, strict=True)}
    new = {p.id: rows(p.id, one) for p, one in zip(asked, after, strict=True)}
    return compare(asked, old.__getitem__, new.__getitem__)


def test_a_comparison_counts_what_was_gained_and_lost():
    found = compared(["w", "w", "a", "a", "t", "-"], ["a", "w", "w", "a", "a", "a"])
    assert (found["prompts"], found["gained"], found["lost"], found["difference"]) == (5, 2, 1, 0.2)
    assert [(e["id"], e["gained"]) for e in found["changed"]][-1] == ("p2", False)
    for example in found["changed"]:
        assert example["after"]["accepted"] is example["gained"] is not example["before"]["accepted"]


def test_a_comparison_of_several_replies():
    found = compared(["aaww", "awww"], ["aaaw", "awww"])
    assert (found["gained"], found["lost"], found["difference"]) == (1, 0, 0.125)
    (example,) = found["changed"]
    assert (example["before"]["accepted"], example["after"]["accepted"]) == (False, True)
    assert example["expected"] == "盗窃罪 | 12"


def test_a_comparison_shows_few_examples():
    found = compared(["w", "a"] * 50, ["a", "w"] * 50)
    assert [e["gained"] for e in found["changed"]] == [True] * 4 + [False] * 4


def test_nothing_to_compare():
    found = compared([], [])
    assert (found["prompts"], found["difference"], found["difference_interval"]) == (0, None, None)


def test_the_interval_of_a_difference():
    found = Difference()
    for value, count in ((1.0, 20), (-1.0, 8), (0.0, 72)):
        for _ in range(count):
            found.add(value)
    # Half a pair more on both sides, and one that did not change.
    mean, squares = 12 / 102, (20.5 + 8.5) / 102
    half = 1.959964 * math.sqrt((squares - mean**2) / 102)
    assert found.as_dict("d")["d"] == 0.12
    assert found.as_dict("d")["d_interval"] == pytest.approx([mean - half, mean + half], abs=1e-6)


def test_no_change_is_no_certainty():
    found = Difference()
    for _ in range(10):
        found.add(0.0)
    low, high = found.as_dict("d")["d_interval"]
    assert low == -high < 0


def test_charges_are_named_in_the_language_of_the_facts():
    found = WrongCharges()
    record = {"fact": "Ann took a clock.", "relevant_articles": [], "charge": "theft"}
    found.add(record, "No violation.")
    found.add(record, "fraud, forgery | 3")
    assert [each["said"] for each in found.values()["most_frequent"]] == ["forgery, fraud", "no violation"]
