"""Validation losses by record: exactly the reported mean, intervals, and paired differences."""

import json
import math
import random

import pytest
from tests.cases import each
from tests.unit.test_compare import trained
from tests.unit.test_report_finetune import Page

from tunesmith.local.compare_table import print_comparison
from tunesmith.local.console import Console
from tunesmith.report.comparison import ComparedOutput, compare_outputs
from tunesmith.report.comparison_page import render_comparison
from tunesmith.report.validation_losses import validation_values
from tunesmith.sampling.losses import loss_difference, mean_loss, student


def file(records, *, digest="d", merged=False):
    """A validation_losses.json of {key: (weight, weighted loss)}."""
    losses = [
        {"key": key, "samples": 1, "weight": weight, "weightedLoss": loss}
        for key, (weight, loss) in records.items()
    ]
    return {"step": 6, "loss": 1.0, "records": len(losses) + merged, "digest": digest, "losses": losses}


def with_losses(name, found):
    one = trained(name)
    return ComparedOutput(
        one.name, one.uri, one.kind, one.finished, one.fingerprint, one.result, one.rows, validation=found
    )


def test_a_mean_is_that_of_all_labels_and_its_interval_is_the_ratio_estimators():
    """By hand: residuals (loss - 2 weight) / 8 are 1/8, -1/8 and 0; t with 2 degrees of freedom is 4.303."""
    found = mean_loss({"a": (1, 3), "b": (3, 5), "c": (4, 8)})
    assert found["loss"] == 2.0
    half = student(2) * math.sqrt(3 / 2 * 2 / 64)
    assert found["loss_interval"] == pytest.approx([2 - half, 2 + half], abs=1e-6)


def test_a_difference_is_paired_so_that_what_records_share_cancels():
    first = {f"{n}": (2.0, 2.0 * (1 + n)) for n in range(20)}
    own = {key: (weight, loss - 0.2 - 0.02 * (int(key) % 2)) for key, (weight, loss) in first.items()}
    found = loss_difference(first, own)
    assert found["difference"] == pytest.approx(-0.105)
    low, high = found["difference_interval"]
    assert -0.12 < low < -0.105 < high < -0.09
    assert (found["records"], found["lower"], found["higher"]) == (20, 20, 0)
    wide_low, wide_high = mean_loss(first)["loss_interval"]
    assert wide_high - wide_low > 4


def test_only_records_that_both_have_are_compared():
    first, own = {"a": (1, 1), "b": (1, 2), "c": (1, 3)}, {"b": (1, 1), "c": (1, 1), "d": (1, 9)}
    found = loss_difference(first, own)
    assert (found["records"], found["difference"]) == (2, -1.5)
    assert loss_difference(first, {"z": (1, 1)}) is None


@each("records", [{"a": (1, 2)}, {"a": (1, 2), "b": (1, math.nan)}, {"a": (1, 2), "b": (1, math.inf)}])
def test_there_is_no_interval_where_none_is_known(records):
    found = mean_loss(records)
    assert found["loss_interval"] is None
    json.dumps(found, allow_nan=False)
    json.dumps(loss_difference(records, records), allow_nan=False)


@each("freedom, quantile", [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (30, 2.0423), (10**6, 1.96)])
def test_students_quantiles(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, rel=0.0015)


def test_95_of_100_intervals_have_the_true_difference():
    """Drawn with a fixed seed: records of unequal length, two models whose losses are alike."""
    draw, inside = random.Random(3), 0
    for _ in range(400):
        first, own = {}, {}
        for number in range(12):
            weight, hard = draw.randint(5, 50), draw.gauss(2, 0.6)
            first[str(number)] = weight, weight * (hard + draw.gauss(0, 0.2))
            own[str(number)] = weight, weight * (hard - 0.1 + draw.gauss(0, 0.2))
        low, high = loss_difference(first, own)["difference_interval"]
        inside += low <= -0.1 <= high
    assert 0.91 <= inside / 400 <= 0.98


SAME = {"a": (1.0, 1.0), "b": (1.0, 3.0)}


@each("theirs, mine, compared, said", [
    (file(SAME), file(SAME), 2, ""),
    (file(SAME), file({**SAME, "c": (1.0, 2.0)}, digest="e"), 2, "the difference is over the 2 that both"),
    (file(SAME), file({"z": (1.0, 2.0)}, digest="e"), None, "different records, so there is no difference"),
    (file(SAME), file({"a": (2.0, 1.0), "b": (1.0, 3.0)}), 2, "not of the same tokens"),
    (file(SAME), {}, None, "mine has no losses by record"),
    ({}, file(SAME), None, "theirs has no losses by record"),
    (file(SAME, merged=True), file(SAME, merged=True), 2, ""),
    (file(SAME, merged=True), file(SAME, merged=True, digest="e"), None, "so there is no difference"),
    (file(SAME, merged=True), file(SAME, digest="e"), None, "so there is no difference"),
], ids=[
    "same", "more", "others", "labels", "none", "none first", "merged", "merged others", "one merged",
])  # fmt: skip
def test_what_a_difference_does_not_cover_is_said(theirs, mine, compared, said):
    found = validation_values(["theirs", "mine"], [theirs, mine])
    difference = found["differences"][1]
    assert (difference and difference["records"]) == compared
    assert len(found["notes"]) == bool(said)
    assert said in "".join(found["notes"])


def test_the_page_the_table_and_the_json_show_the_same(capsys):
    first = {f"{n}": (2.0, 2.0 * (1 + n)) for n in range(4)}
    own = {key: (weight, loss - 0.2 - 0.02 * (int(key) % 2)) for key, (weight, loss) in first.items()}
    values = compare_outputs([with_losses("a", file(first)), with_losses("b", file(own))])
    text = Page(render_comparison(values)).text
    assert "Validation losses" in text
    assert "-0.1050" in text
    print_comparison(Console(width=200), values)
    said = capsys.readouterr().out
    assert "validation loss: b against a -0.1050 (95 % interval -0.1" in said
    json.dumps(values, allow_nan=False)


def test_outputs_without_losses_by_record_are_compared_as_before():
    values = compare_outputs([trained("a"), trained("b")])
    assert values["validation"] is None
    assert "Validation losses" not in Page(render_comparison(values)).text
