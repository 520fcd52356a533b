import math
import re
from pathlib import Path

import pytest

from tunesmith.report import svg


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        pytest.param(0, 10, 5, [0, 2, 4, 6, 8, 10], id="whole"),
        pytest.param(0.3, 0.52, 5, [0.3, 0.35, 0.4, 0.45, 0.5, 0.55], id="encloses-both-ends"),
        pytest.param(0, 2e-4, 4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4], id="small"),
        pytest.param(-3, 4, 4, [-4, -2, 0, 2, 4], id="across-zero"),
        pytest.param(1, 100000, 5, [0, 20000, 40000, 60000, 80000, 100000], id="large"),
    ],
)
def test_ticks_are_round_and_enclose_the_range(low, high, about, expected):
    assert svg.ticks(low, high, about) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0005, "0.0005"),
        (2e-5, "2e-5"),
        (12.5, "12.5"),
        (1500, "1,500"),
        (120000, "120k"),
        (3.5e6, "3.5M"),
        (4e12, "4e12"),
        (-0.25, "-0.25"),
        (math.nan, "nan"),
    ],
)
def test_numbers_are_short(value, text):
    assert svg.number(value) == text


def test_thinning_keeps_both_ends_and_the_spike():
    points = [(float(i), 0.0) for i in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    kept = svg.thin(points, 400)
    assert len(kept) <= 402
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert (54_321.0, 9.0) in kept
    assert kept == sorted(kept)


def test_smoothing_keeps_the_first_value_and_averages_the_last():
    points = [(float(i), value) for i, value in enumerate([8.0, 4.0, 2.0, 2.0, 8.0])]
    assert [y for _, y in svg.smoothed(points, 3)] == pytest.approx([8, 14 / 3, 8 / 3, 4, 5])


def test_chart_without_finite_points_is_empty():
    nothing = svg.Series("loss", "line", [(1, math.nan), (2, math.inf)])
    assert svg.line_chart([nothing], x_label="step", y_label="loss", title="t") == ""
    assert svg.bar_chart([], x_label="tokens", y_label="samples", title="t") == ""


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-12, 1e12])
def test_one_point_is_drawn_inside_the_frame(value):
    drawn = svg.line_chart([svg.Series("loss", "line", [(5, value)])], x_label="step", y_label="", title="t")
    assert 'cx="339" cy=' in drawn
    assert "nan" not in drawn
    assert '">4.5<' not in drawn  # steps are whole numbers


def test_points_are_placed_by_the_axes():
    frame = svg.Frame([0, 10], [0, 1], (0, 10), (0, 1), 640, 280)
    assert (frame.x(0), frame.x(10)) == (svg.MARGIN_LEFT, 640 - svg.MARGIN_RIGHT)
    assert (frame.y(1), frame.y(0)) == (svg.MARGIN_TOP, 280 - svg.MARGIN_BOTTOM)


def test_labels_and_tips_are_escaped():
    series = svg.Series("<b>&", "dots", [(1, 2.0), (2, 3.0)])
    drawn = svg.line_chart([series], x_label="<i>", y_label="'\"", title='"><script>')
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert "<script>" not in drawn
    assert "&lt;i&gt; 1: &lt;b&gt;&amp; 2" in drawn


def test_bars_of_many_bins_are_joined_and_lose_no_count():
    bars = [(i, i + 1, 2) for i in range(1000)]
    joined = svg.merged(bars, 400)
    assert len(joined) <= 400
    assert sum(count for _, _, count in joined) == 2000
    assert (joined[0][0], joined[-1][1]) == (0, 1000)


CSS = (Path(svg.__file__).parent / "style.css").read_text("utf-8")
REM = 16


def text_size(css_class, page):
    """Units of a chart's text on a page so many pixels wide, as the style sheet's rules follow each other."""
    size = 0
    narrow = re.findall(r"^@media \(max-width: (\d+)rem\) \{\n(.*?)^\}", CSS, re.MULTILINE | re.DOTALL)
    for limit, block in [("", CSS.partition("@media (max")[0]), *narrow]:
        found = re.findall(rf"^ *{re.escape(css_class)} text {{[^}}]*font-size: (\d+)px", block, re.MULTILINE)
        if found and (not limit or page <= int(limit) * REM):
            size = int(found[0])
    return size


def test_text_of_charts_can_be_read_on_narrow_and_wide_pages():
    """Pixels on the screen: units of the text times the width of the card by that of the view box."""
    sizes = {}
    for page in (360, 400, 480, 540, 600, 800, 1000, 1200):
        card = min(page, 62 * REM) - (50 if page <= 40 * REM else 72)
        columns = max(1, card // (16 * REM + 16))
        small = min((card + 32) / min(columns, 3) - 48, 24 * REM)
        sizes[page] = (
            text_size(".chart.wide", page) * card / 640,
            text_size(".chart", page) * small / 340,
        )
    assert all(10 <= size <= 18 for pair in sizes.values() for size in pair), sizes


def test_labels_in_the_largest_text_have_room():
    """Below the axis stand the labels of its ticks, 7 units down, and its name, 6 units above the end."""
    largest = text_size(".chart.wide", 400)
    assert 7 + 0.8 * largest < svg.MARGIN_BOTTOM - 6 - 0.75 * largest
