"""Outputs beside each other: what differs, by how much, and what is refused."""

import json

import pytest
from tests.cases import each
from tests.unit.test_report_finetune import HOSTILE, Page

from tunesmith.errors import UsageError
from tunesmith.local.compare import find_outputs, refuse_foreign, with_unique_names
from tunesmith.local.compare_table import print_comparison
from tunesmith.local.console import Console
from tunesmith.local.read_output import kind_of
from tunesmith.names import Kind
from tunesmith.report.comparison import ComparedOutput, compare_outputs, different_settings, flattened
from tunesmith.report.comparison_page import GENERATOR, render_comparison, short_fields


def trained(name="a", *, finished=True, spec=None, after=1.5, scores=None, text="x", rows=None):
    result = {
        "steps": 3, "validationLoss": {"before": 2.0, "after": after}, "seconds": 100,
        "world": {"processes": 2, "device": text},
        "previews": [
            {"name": text, "messages": [{"role": "user", "content": text}], "before": text, "after": name}
        ],
        "datasets": [{"samples": 4}],
    }  # fmt: skip
    curve = [{"step": n, "loss": 2.0 - n / 10, "tokens": 10, "memory_bytes": 5} for n in (1, 2, 3)]
    return ComparedOutput(
        name, f"s3://models/{name}", Kind.FINE_TUNE, finished,
        {"spec": spec or {}, "data": "d", "model": "m"},
        result if finished else {}, curve if rows is None else rows, {"validationLoss": 2.0},
        scores if scores is not None else {},
    )  # fmt: skip


def measure(values, name):
    return next(row["values"] for row in values["measures"] if row["name"] == name)


def test_only_settings_that_differ_are_shown_by_their_paths():
    specs = [{"a": {"b": [1, {"c": "x"}]}, "same": 1}, {"a": {"b": [1, {"c": "y"}]}, "same": 1, "new": {}}]
    assert different_settings(specs) == (
        [{"field": "a.b[1].c", "values": ["x", "y"]}, {"field": "new", "values": [None, {}]}], 2,
    )  # fmt: skip


def test_absent_and_none_are_the_same_setting():
    assert flattened({"a": None, "b": {"c": None}, "d": 0}) == {"d": 0}


def test_an_unfinished_output_is_compared_by_its_checkpoint():
    values = compare_outputs([trained("a"), trained("b", finished=False)])
    assert [each["state"] for each in values["outputs"]] == ["finished", "unfinished, step 3"]
    assert measure(values, "validation loss before") == [2.0, 2.0]
    assert measure(values, "validation loss after") == [1.5, None]
    assert measure(values, "time of all processes") == [200, None]
    assert [len(each["training"]) for each in values["curves"]] == [3, 3]


def test_one_that_has_just_begun_is_no_obstacle():
    values = compare_outputs([trained("a"), trained("b", finished=False, rows=[])])
    assert values["outputs"][1]["state"] == "unfinished"
    render_comparison(values)


def test_differences_of_evaluations_are_paired_over_prompts_that_both_answered():
    first = {"sums": {"p1": (0, 2), "p2": (1, 2), "p3": (2, 2), "only": (2, 2)}}
    second = {"sums": {"p1": (2, 2), "p2": (2, 2), "p3": (1, 2), "none": (0, 0)}}
    (found,) = compare_outputs([trained("a", scores=first), trained("b", scores=second)])["evaluations"]
    assert found["differences"][0] is None
    difference = found["differences"][1]
    assert (difference["prompts"], difference["gained"], difference["lost"]) == (3, 2, 1)
    assert difference["difference"] == pytest.approx((1 + 0.5 - 0.5) / 3, abs=1e-6)
    low, high = difference["difference_interval"]
    assert low < difference["difference"] < high
    assert [model["prompts"] for model in found["models"]] == [4, 3]


def test_one_without_the_evaluation_has_a_dash():
    values = compare_outputs([trained("a", scores={"sums": {"p": (1, 1)}}), trained("b")])
    assert values["evaluations"][0]["models"][1] is None
    assert "Not all answered the same prompts" in Page(render_comparison(values)).text


def test_that_the_samples_differ_is_seen_by_their_digest():
    one, two = trained("a"), trained("b")
    two.fingerprint["data"] = "other"
    assert compare_outputs([one, two])["data"][0]["values"] == ["A", "B"]
    assert compare_outputs([one, trained("b")])["data"] == []


def test_dialogues_are_compared_by_calls_and_cost():
    def talked(name, cost):
        stats = {"dialogues": {"planned": 5, "finished": 4}, "total": {"calls": 9, "cost_usd": cost}}
        return ComparedOutput(name, name, Kind.DIALOGUE_GEN, True, {"spec": {"rounds": cost}}, stats)

    values = compare_outputs([talked("a", 0.5), talked("b", 1.5)])
    assert measure(values, "cost") == [0.5, 1.5]
    assert "1.50 USD" in Page(render_comparison(values)).text


def test_hostile_text_is_shown_as_text_and_nothing_is_loaded():
    outputs = [
        trained(HOSTILE, spec={HOSTILE: n}, scores={HOSTILE: {"p": (n, 1)}}, text=HOSTILE) for n in (0, 1)
    ]
    parsed = Page(render_comparison(compare_outputs(outputs)))
    assert not {"script", "img", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    assert parsed.text.count(HOSTILE.split("{{")[0][:20]) >= 15


def test_more_outputs_than_colours_are_told_apart_by_dashes():
    page = render_comparison(compare_outputs([trained(f"o{n}") for n in range(10)]))
    assert page.count('class="line own m0"') == 1
    assert page.count('class="line own m0 dashed"') == 1


def test_the_lowest_validation_loss_is_marked():
    page = render_comparison(compare_outputs([trained("a", after=1.5), trained("b", after=1.25)]))
    assert '<td class=best dir="auto">1.2500 <span class="soft">(-0.2500)</span></td>' in page


def test_the_table_in_the_terminal_says_the_same(capsys):
    outputs = [
        trained("a", spec={"x": {"y": "\x1b[31m"}}),
        trained("b", spec={"x": {"y": 2}}, finished=False),
    ]
    print_comparison(Console(width=160), compare_outputs(outputs))
    said = capsys.readouterr().out
    assert "unfinished, step 3" in said
    assert "1.5000" in said
    assert "␛[31m" in said


@each("fields, short", [
    (["a.b.c"], ["c"]),
    (["x[0].uri", "y.uri"], ["x[0].uri", "y.uri"]),
    (["a", "b.a"], ["a", "b.a"]),
])  # fmt: skip
def test_fields_are_as_short_as_they_can_be(fields, short):
    assert short_fields(fields) == short


def test_equal_names_are_told_apart():
    outputs = [trained("a"), trained("a"), trained("b")]
    object.__setattr__(outputs[1], "uri", "file:///out/second")
    assert [each.name for each in with_unique_names(outputs)] == ["a", "a (second)", "b"]


@each("arguments, said", [
    (["s3://a/b"], "Only one was given: s3://a/b"),
    (["s3://a/b", "s3://a/b/"], "two different outputs"),
    (["nowhere"], "nowhere is neither a folder"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        find_outputs(arguments)


def test_a_file_of_another_origin_is_not_overwritten(tmp_path):
    page = tmp_path / "page.html"
    refuse_foreign(page)
    page.write_text("mine")
    with pytest.raises(UsageError, match="choose another with --html"):
        refuse_foreign(page)
    page.write_text(render_comparison(compare_outputs([trained("a"), trained("b")])))
    assert GENERATOR in page.read_text()
    refuse_foreign(page)


def test_kinds_are_told_by_their_settings():
    assert kind_of({"roles": {}, "endpoints": {}}) == Kind.DIALOGUE_GEN
    assert kind_of({"prompts": {}}) == Kind.REJECTION_SAMPLE
    assert kind_of({"training": {}}) == Kind.FINE_TUNE


def test_everything_is_plain_json():
    json.dumps(compare_outputs([trained("a"), trained("b")]), allow_nan=False)
